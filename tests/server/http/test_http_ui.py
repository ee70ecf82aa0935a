"""The live page of the HTTP server: who signs in sees their own runs, on every path, and nobody else's."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx2
import pytest

from kimi_mcp.core import json_logs
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.simulator import Simulator
from tests.server.http.served import HELLO, OLDER, Served, bearer, connection, encoded, message, served
from tests.server.http.ui_team import NOBODYS, Team, requests_of, team
from tests.server.requests import HELD_STEP
from tests.server.results import Result
from tests.view.visiting import (
    CROSS_SITE,
    FRAMED,
    FROM_A_LINK,
    OWN,
    answer,
    checked,
    data_of,
    error_code,
)

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PUBLIC = "https://kimi.example.org/mcp"


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Team]:
    """One for all tests that change nothing in it."""
    with pytest.MonkeyPatch.context() as process:
        process.setenv("KIMI_DATA_DIR", str(tmp_path_factory.mktemp("team")))
        async with team(None, tmp_path_factory.mktemp("tokens"), KIMI_HTTP_ORIGINS="https://app.example") as them:
            yield them


@pytest.fixture(scope="module")
async def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """One without authentication, likewise."""
    with pytest.MonkeyPatch.context() as process:
        process.setenv("KIMI_DATA_DIR", str(tmp_path_factory.mktemp("open")))
        async with served(None, KIMI_HTTP_ORIGINS="https://app.example") as http:
            yield http


async def sign_in(http: httpx2.AsyncClient, token: str, **headers: str) -> httpx2.Response:
    return checked(await http.post("/ui", data={"token": token}, headers=headers))


async def test_who_has_not_signed_in_sees_the_form_and_no_data_on_any_path(shared: Team) -> None:
    for request in data_of(await shared.requests()):
        refused = checked(await answer(shared.http.raw, request, {}))
        assert (refused.status_code, error_code(refused)) == (401, "signed_out"), request
    page = checked(await shared.http.raw.get("/ui"))
    assert page.status_code == 401
    assert 'type="password"' in page.text
    assert "<script" not in page.text


WRONG = {
    "a wrong token": lambda token: {"Cookie": "kimi-ui=kimi_wrong"},
    "half a token": lambda token: {"Cookie": f"kimi-ui={token[:20]}"},
    "an empty cookie": lambda token: {"Cookie": "kimi-ui="},
    "a cookie of another name": lambda token: {"Cookie": f"session={token}"},
    "the cookie of https": lambda token: {"Cookie": f"__Secure-kimi-ui={token}"},
    "a wrong header beside the cookie": lambda token: {"Cookie": f"kimi-ui={token}", "Authorization": "Bearer x"},
    "a password": lambda token: {"Authorization": f"Basic {token}"},
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_no_valid_token_opens_nothing(shared: Team, case: str) -> None:
    for request in data_of(await shared.requests()):
        refused = checked(await answer(shared.http.raw, request, WRONG[case](shared.tokens["alice"])))
        assert refused.status_code == 401, request


async def test_a_token_in_a_query_or_a_body_opens_nothing(shared: Team) -> None:
    token = shared.tokens["alice"]
    for method, path in await shared.requests():
        if "/assets/" in path:
            continue
        for name in ("token", "access_token", "once", "kimi-ui"):
            refused = await answer(shared.http.raw, (method, f"{path}?{name}={token}"), {})
            assert refused.status_code == 401, path
            assert token not in refused.text


async def test_a_token_that_is_revoked_opens_nothing_from_then_on(tmp_path: Path) -> None:
    async with team(None, tmp_path) as them:
        assert (await them.http.raw.get("/ui", headers=them.cookie("alice"))).status_code == 200
        them.file.revoke("alice")
        for request in data_of(await them.requests()):
            refused = await answer(them.http.raw, request, them.cookie("alice"))
            assert (refused.status_code, error_code(refused)) == (401, "token_refused"), request
        assert (await them.http.raw.get("/ui", headers=them.cookie("alice"))).status_code == 401


async def test_no_path_tells_a_principal_whether_another_one_has_anything(sim: Simulator, tmp_path: Path) -> None:
    async with team(sim, tmp_path) as them:
        of_bob = await them.run("bob", "What is the capital of Peru?")
        before = {}
        for request in await them.requests(NOBODYS):
            before[request] = await answer(them.http.raw, request, them.cookie("bob"))
        of_alice = await them.run("alice", "A question of hers.")
        for request, unknown in before.items():
            method, path = request
            named = (method, path.replace(NOBODYS, of_alice))
            seen = checked(await answer(them.http.raw, named, them.cookie("bob")))
            assert (seen.status_code, seen.text) == (unknown.status_code, unknown.text), named
            assert of_alice not in seen.text
            assert "hers" not in seen.text
        listed = await them.http.raw.get("/ui/api/runs", headers=them.cookie("bob"))
        assert [run["run_id"] for run in listed.json()["runs"]] == [of_bob]
        everybodys = {"caller": "kimi-mcp#alice"}
        assert (await them.http.raw.get("/ui/api/runs", params=everybodys, headers=them.cookie("bob"))).json()[
            "runs"
        ] == []


async def test_a_principal_sees_and_finds_their_own_runs_on_every_path(sim: Simulator, tmp_path: Path) -> None:
    async with team(sim, tmp_path) as them:
        run_id = await them.run("alice", "A question of hers.")
        for request in await them.requests(run_id):
            shown = checked(await answer(them.http.raw, request, them.cookie("alice")))
            assert shown.status_code == 200, (request, shown.text)
        session = await them.http.raw.get("/ui/api/session", headers=them.cookie("alice"))
        assert session.json() == {"name": "alice", "sees_all": False}
        by_header = await them.http.raw.get("/ui/api/runs", headers=bearer(them.tokens["alice"]))
        assert run_id in by_header.text


async def test_with_the_scope_of_operators_a_caller_sees_everybodys_runs(sim: Simulator, tmp_path: Path) -> None:
    async with team(sim, tmp_path) as them:
        runs = [await them.run("alice", "One."), await them.run("bob", "Two.")]
        for run_id in runs:
            for request in await them.requests(run_id):
                shown = await answer(them.http.raw, request, them.cookie("operator"))
                assert shown.status_code == 200, (request, shown.text)
        listed = (await them.http.raw.get("/ui/api/runs", headers=them.cookie("operator"))).json()
        assert [run["run_id"] for run in listed["runs"]] == runs[::-1]
        session = (await them.http.raw.get("/ui/api/session", headers=them.cookie("operator"))).json()
        assert session == {"name": "operator", "sees_all": True}


async def test_a_token_that_only_watches_opens_no_run(shared: Team) -> None:
    for request in data_of(await shared.requests()):
        refused = await answer(shared.http.raw, request, shared.cookie("prometheus"))
        assert (refused.status_code, error_code(refused)) == (403, "refused"), request
    assert (await sign_in(shared.http.raw, shared.tokens["prometheus"])).status_code == 403


@pytest.mark.parametrize(("who", "status"), [("bob", 404), ("alice", 200), ("operator", 200)])
async def test_a_run_is_cancelled_by_its_principal_or_an_operator_alone(
    sim: Simulator, tmp_path: Path, who: str, status: int
) -> None:
    sim.play(HELD_STEP)
    results: list[Result] = []
    async with team(sim, tmp_path) as them, them.http.client(token=them.tokens["alice"]) as kimi:

        async def call() -> None:
            results.append(await kimi.instant("held"))

        async with anyio.create_task_group() as calls:
            calls.start_soon(call)
            await sim.until(lambda: sim.waiting_at("end") == 1)
            (run,) = them.http.runs.live.values()
            cancelled = await answer(them.http.raw, ("POST", f"/ui/api/runs/{run.id}/cancel"), them.cookie(who))
            assert cancelled.status_code == status
            assert (run.outcome is None) == (status == 404)
            sim.open_gate("end")
    assert [each.status for each in results] == ["completed" if status == 404 else "cancelled"]


async def test_signing_in_keeps_the_token_in_a_cookie_alone_and_signing_out_ends_that(shared: Team) -> None:
    token = shared.tokens["alice"]
    for spelled in (token, f"  {token}\n", f"Bearer {token}", f'"{token}"'):
        opened = await sign_in(shared.http.raw, spelled)
        assert (opened.status_code, opened.headers["location"]) == (303, "/ui")
        value, *attributes = opened.headers["set-cookie"].split("; ")
        assert value == f"kimi-ui={token}"
        assert sorted(attributes) == ["HttpOnly", "Path=/ui", "SameSite=Strict"]
    assert token not in str([each for each in opened.headers.multi_items() if each[0] != "set-cookie"])
    refused = await shared.http.raw.post("/ui/sign-out")
    assert refused.status_code == 403
    left = await shared.http.raw.post("/ui/sign-out", headers=OWN)
    assert left.headers["set-cookie"].startswith("kimi-ui=; Path=/ui;")
    assert "Max-Age=0" in left.headers["set-cookie"]


async def test_over_https_the_cookie_is_for_https_alone(tmp_path: Path) -> None:
    async with team(None, tmp_path, KIMI_HTTP_URL=PUBLIC) as them:
        public = {"Host": "kimi.example.org", "Origin": "https://kimi.example.org"}
        opened = await sign_in(them.http.raw, them.tokens["alice"], **public)
        value, *attributes = opened.headers["set-cookie"].split("; ")
        assert value == f"__Secure-kimi-ui={them.tokens['alice']}"
        assert "Secure" in attributes
        assert (await them.http.raw.get("/ui/api/runs", headers={**public, "Cookie": value})).status_code == 200
        plain = {**public, "Cookie": value.removeprefix("__Secure-")}
        assert (await them.http.raw.get("/ui/api/runs", headers=plain)).status_code == 401
        for origin in ("http://kimi.example.org", "https://kimi.example.org:8443", "https://a.kimi.example.org"):
            refused = await them.http.raw.get("/ui/api/runs", headers={**public, "Cookie": value, "Origin": origin})
            assert refused.status_code == 403, origin


async def test_behind_a_path_of_a_proxy_the_page_and_its_cookie_have_that_path(tmp_path: Path) -> None:
    async with team(None, tmp_path, KIMI_HTTP_URL="https://example.org/kimi/mcp") as them:
        public = {"Host": "example.org", "Origin": "https://example.org"}
        opened = await sign_in(them.http.raw, them.tokens["alice"], **public)
        assert opened.headers["location"] == "/kimi/ui"
        assert "Path=/kimi/ui" in opened.headers["set-cookie"].split("; ")
        cookie = {"Cookie": opened.headers["set-cookie"].partition(";")[0]}
        assert "/kimi/ui/assets/" in (await them.http.raw.get("/ui", headers={**public, **cookie})).text


@pytest.mark.parametrize(
    ("token", "status"),
    [("", 400), ("kimi_wrong", 401), ("two words", 400), ("a\r\nSet-Cookie: x=1", 400), ("ü", 400), ("x" * 4000, 400)],
)
async def test_a_token_that_is_not_taken_is_answered_with_the_form_and_no_cookie(
    shared: Team, token: str, status: int
) -> None:
    refused = await sign_in(shared.http.raw, token)
    assert refused.status_code == status
    assert 'role="alert"' in refused.text
    assert "set-cookie" not in refused.headers
    assert "kimi_wrong" not in refused.text


async def test_another_site_can_sign_nobody_in_and_nobody_out(shared: Team) -> None:
    body = f"token={shared.tokens['bob']}"
    elsewhere = ({"Origin": "https://evil.example"}, {"Origin": "null"}, CROSS_SITE, FRAMED, FROM_A_LINK)
    for headers in elsewhere:
        for path in ("/ui", "/ui/sign-in", "/ui/sign-out"):
            refused = await shared.http.raw.post(path, content=body, headers={**FORM, **OWN, **headers})
            assert (refused.status_code, "set-cookie" in refused.headers) == (403, False), (path, headers)
    no_form = await shared.http.raw.post("/ui", content=body, headers={"Content-Type": "text/plain"})
    assert (no_form.status_code, "set-cookie" in no_form.headers) == (415, False)


NAMES: dict[str, tuple[dict[str, str], int]] = {
    "a foreign host": ({"Host": "evil.example"}, 421),
    "a foreign origin": ({"Origin": "https://evil.example"}, 403),
    "an origin that may call /mcp": ({"Origin": "https://app.example"}, 403),
    "another port of this machine": ({"Origin": "http://localhost:6274"}, 403),
    "a script of another site": (CROSS_SITE, 403),
    "a script of another port": ({**CROSS_SITE, "Sec-Fetch-Site": "same-site"}, 403),
    "a frame": (FRAMED, 403),
}


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.parametrize("tokens", [True, False])
async def test_a_request_by_another_name_or_site_is_refused_on_every_path(
    shared: Team, open_to_all: Served, case: str, tokens: bool
) -> None:
    headers, status = NAMES[case]
    http = shared.http if tokens else open_to_all
    for request in await requests_of(http):
        refused = checked(await answer(http.raw, request, {**headers, **(shared.cookie("alice") if tokens else {})}))
        assert refused.status_code == status, request
        assert "<script" not in refused.text


async def test_without_authentication_the_page_shows_the_runs_of_this_machine(sim: Simulator) -> None:
    async with served(sim) as http:
        async with http.client() as kimi:
            run_id = (await kimi.instant("Say hello.")).run_id or ""
        for request in await requests_of(http, run_id):
            shown = checked(await answer(http.raw, request, {}))
            assert shown.status_code == 200, (request, shown.text)
        assert run_id in (await http.raw.get("/ui/api/runs")).text
        assert (await http.raw.get("/ui/api/session")).json() == {"name": None, "sees_all": False}
        assert (await http.raw.post("/ui", data={"token": "x"})).status_code == 403


async def test_the_cookie_is_no_token_for_mcp(shared: Team) -> None:
    body = json.dumps(message("initialize", HELLO)).encode()
    refused = await shared.http.post(body, {**OLDER, **shared.cookie("alice")})
    assert refused.status_code == 401


async def test_the_page_can_be_turned_off() -> None:
    async with served(None, KIMI_HTTP_UI="off") as http:
        for path in ("/ui", "/ui/api/runs", "/ui/assets/view.css"):
            assert (await http.raw.get(path)).status_code == 404
        assert http.serving.app.ui is None


@pytest.mark.parametrize(
    "path", ["/ui/../mcp", "/ui/%2e%2e/mcp", "//ui", "/mcp/../ui", "/mcp/%2e%2e/ui/api/runs", "/uix"]
)
async def test_no_spelling_of_a_path_leads_from_one_part_to_another(open_to_all: Served, path: str) -> None:
    async with connection(open_to_all.port) as wire:
        refused = await wire.ask(encoded(f"GET {path} HTTP/1.1", {}))
    assert refused is not None
    assert refused.status == 404
    assert b"<script" not in refused.content
    assert b'"runs"' not in refused.content


async def test_open_requests_of_the_page_count_among_those_of_their_principal(tmp_path: Path) -> None:
    async with team(None, tmp_path, limits=HttpLimits(max_principal_requests=0)) as them:
        for request in data_of(await them.requests()):
            refused = checked(await answer(them.http.raw, request, them.cookie("alice")))
            assert (refused.status_code, error_code(refused)) == (429, "busy"), request


async def test_no_log_line_has_a_token_a_query_or_what_a_path_names(tmp_path: Path) -> None:
    lines = io.StringIO()
    json_logs.configure("DEBUG", stream=lines)
    async with team(None, tmp_path) as them:
        token, raw = them.tokens["alice"], them.http.raw
        await sign_in(raw, token)
        await sign_in(raw, token + "x")
        for path in (
            "/ui",
            f"/ui/api/runs?q={token}",
            "/ui/api/runs/run_1/steps/secret",
            f"/ui/{token}",
            "/ui/assets/secret",
        ):
            await raw.get(path, headers=them.cookie("alice"))
        await raw.get("/ui/api/runs", headers={"Referer": f"http://x/{token}", "Cookie": f"a={token}"})
    written = lines.getvalue()
    assert token not in written
    assert "secret" not in written
    logged = [each for each in map(json.loads, written.splitlines()) if each["logger"].endswith("access_log")]
    paths = [(each["path"], each["principal"]) for each in logged]
    assert ("/ui/api/runs/ID/steps", "kimi-mcp#alice") in paths
    assert ("(another)", "kimi-mcp#alice") in paths


async def test_a_worker_of_a_cluster_has_no_page() -> None:
    async with served(None, role="worker") as http:
        for path in ("/ui", "/ui/api/runs", "/ui/assets/view.css"):
            assert (await http.raw.get(path)).status_code == 404
        assert http.serving.app.ui is None
