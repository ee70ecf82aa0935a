"""Who gets to see the page of `kimi-mcp ui`: the browser that opened the link, and nobody else on any path."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2
import pytest

from kimi_mcp.simulator import Simulator
from kimi_mcp.view.web import access, one_time_link
from tests.server.clients import connect
from tests.view.visiting import (
    CROSS_SITE,
    FRAMED,
    FROM_A_LINK,
    Local,
    Request,
    answer,
    checked,
    data_of,
    error_code,
    every_request,
    local,
)


@pytest.fixture
async def fresh() -> AsyncIterator[Local]:
    """One whose link was not used."""
    async with local() as found:
        yield found


@pytest.fixture(scope="module")
async def ui(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Local]:
    """One for all tests that change nothing in it."""
    with pytest.MonkeyPatch.context() as process:
        process.setenv("KIMI_DATA_DIR", str(tmp_path_factory.mktemp("local")))
        async with local() as found:
            yield found


@pytest.fixture(scope="module")
async def cookie(ui: Local) -> dict[str, str]:
    """That of the browser which has opened its link."""
    return await ui.open_link()


def requests(ui: Local, run_id: str = "run_0") -> list[Request]:
    found = every_request(ui.access.routes, run_id)
    assert len(found) >= 9
    return found


async def test_without_the_cookie_nothing_is_shown_on_any_path(ui: Local) -> None:
    for request in data_of(requests(ui)):
        refused = checked(await answer(ui.http, request, {}))
        assert (refused.status_code, error_code(refused)) == (401, "signed_out"), request
    page = checked(await ui.http.get("/ui"))
    assert page.status_code == 401
    assert "kimi-mcp ui" in page.text


@pytest.mark.parametrize("value", ["", "wrong", "x" * 32, "wrong; kimi-ui-1=wrong", "\u00ff"])
async def test_another_cookie_opens_nothing(ui: Local, value: str) -> None:
    for request in data_of(requests(ui)):
        refused = await answer(ui.http, request, {"Cookie": f"kimi-ui-{ui.port}={value}".encode("latin-1")})
        assert refused.status_code == 401, request


async def test_the_link_opens_everything_for_the_browser_that_has_opened_it(sim: Simulator, fresh: Local) -> None:
    async with connect(sim) as kimi:
        run_id = (await kimi.think("What is 17 * 23?")).run_id
    cookie = await fresh.open_link()
    for request in requests(fresh, run_id or ""):
        shown = checked(await answer(fresh.http, request, cookie))
        assert shown.status_code == 200, (request, shown.text)
    assert run_id in (await fresh.http.get("/ui/api/runs", headers=cookie)).text
    session = (await fresh.http.get("/ui/api/session", headers=cookie)).json()
    assert session == {"name": None, "sees_all": True}


async def test_the_link_works_once(fresh: Local) -> None:
    url = fresh.link
    cookie = await fresh.open_link()
    again = checked(await fresh.http.get(url))
    assert again.status_code == 401
    assert "used already" in again.text
    assert "set-cookie" not in again.headers
    known = await fresh.http.get(url, headers=cookie)
    assert known.status_code == 303, "that browser may have it in its history"


async def test_another_link_opens_the_page_in_another_browser_and_ends_the_one_before_it(fresh: Local) -> None:
    another = fresh.access.new_link()
    assert (await fresh.http.get(fresh.link)).status_code == 401
    first, second = await fresh.http.get(another), await fresh.http.get(fresh.access.new_link())
    assert [first.status_code, second.status_code] == [303, 303]


async def test_of_many_who_open_the_link_at_once_one_gets_in(fresh: Local) -> None:
    statuses: list[int] = []

    async def open_it() -> None:
        async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
            statuses.append((await http.get(fresh.link)).status_code)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(open_it)
    assert sorted(statuses) == [303, *[401] * 19]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?once=",
        "?once=x",
        "?once={half}",
        "?token={link}",
        "?once={link}&once={link}",
        "#once={link}",
        "?ONCE={link}",
    ],
)
async def test_what_is_not_the_link_opens_nothing_and_does_not_use_it_up(fresh: Local, query: str) -> None:
    token = fresh.link.partition("once=")[2]
    wrong = await fresh.http.get("/ui/start" + query.format(link=token, half=token[:16]))
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    await fresh.open_link()


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "OPTIONS"])
async def test_only_opening_the_link_uses_it_up(fresh: Local, method: str) -> None:
    refused = await fresh.http.request(method, fresh.link)
    assert (refused.status_code >= 400, "set-cookie" in refused.headers) == (True, False)
    await fresh.open_link()


@pytest.mark.parametrize("header", ["Sec-Purpose", "Purpose"])
async def test_a_browser_that_looks_ahead_does_not_use_the_link_up(fresh: Local, header: str) -> None:
    refused = await fresh.http.get(fresh.link, headers={header: "prefetch"})
    assert (refused.status_code, "set-cookie" in refused.headers) == (403, False)
    await fresh.open_link()


async def test_a_link_that_another_user_of_the_machine_opens_is_refused_and_not_used_up(
    fresh: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = f"{fresh.port:04X}", 4321
    tables: dict[str, list[list[str]]] = {}

    def table(rows: list[tuple[str, str, str, int]]) -> list[list[str]]:
        return [["0:", mine, other, state, "q", "t", "r", str(user)] for mine, other, state, user in rows]

    async def opened_by(state: str, *users: int) -> int:
        transport = httpx2.AsyncHTTPTransport(local_address="127.0.0.1")
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{fresh.port}", transport=transport) as http:
            port = (await http.get("/ui/start")).extensions["network_stream"].get_extra_info("client_addr")[1]
            each = [(f"0100007F:{port:04X}", "0100007F:" + ours, state, user) for user in users]
            tables["/proc/net/tcp"] = table(each)
            return (await http.get(fresh.link)).status_code

    monkeypatch.setattr(one_time_link, "_rows", lambda name: iter(tables.get(name, [])))
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert await opened_by("01", theirs) == 403
    assert await opened_by("01", 1000, theirs) == 403, "one of the two is not ours"
    assert await opened_by("05", 0) == 403, "of a connection that was closed on one side nobody knows whose it was"
    assert await opened_by("01", 1000) == 303


NAMES: dict[str, tuple[dict[str, str], int, str]] = {
    "a foreign host": ({"Host": "evil.example"}, 421, "wrong_host"),
    "a host that is made to lead here": ({"Host": "127.0.0.1.nip.io:{port}"}, 421, "wrong_host"),
    "a host that only begins like ours": ({"Host": "localhost.evil.example"}, 421, "wrong_host"),
    "a host with a user": ({"Host": "127.0.0.1@evil.example"}, 421, "wrong_host"),
    "another address": ({"Host": "0.0.0.0:{port}"}, 421, "wrong_host"),
    "a foreign origin": ({"Origin": "https://evil.example"}, 403, "other_site"),
    "an opaque origin": ({"Origin": "null"}, 403, "other_site"),
    "another port of this machine": ({"Origin": "http://127.0.0.1:1"}, 403, "other_site"),
    "another name of this machine": ({"Origin": "http://localhost:{port}"}, 403, "other_site"),
    "a script of another site": (CROSS_SITE, 403, "other_site"),
    "a script of another port": ({**CROSS_SITE, "Sec-Fetch-Site": "same-site"}, 403, "other_site"),
    "a picture on another site": (
        {**CROSS_SITE, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        403,
        "other_site",
    ),
    "a link on another site": (FROM_A_LINK, 403, "other_site"),
    "a frame on another site": (FRAMED, 403, "framed"),
    "a frame of our own": ({**FRAMED, "Sec-Fetch-Site": "same-origin"}, 403, "framed"),
}


@pytest.mark.parametrize("case", NAMES)
async def test_a_request_by_another_name_or_site_is_refused_with_the_cookie_too(
    ui: Local, cookie: dict[str, str], case: str
) -> None:
    headers, status, code = NAMES[case]
    named = {name: value.format(port=ui.port) for name, value in headers.items()}
    for request in requests(ui):
        if request[1] == "/ui" and named == FROM_A_LINK:
            continue  # it has no data
        refused = checked(await answer(ui.http, request, {**cookie, **named}))
        assert refused.status_code == status, request
        if request[1].startswith("/ui/api"):
            assert error_code(refused) == code, request
        else:
            assert "<script" not in refused.text


async def test_a_link_on_another_site_gets_the_document_which_holds_no_data(sim: Simulator, fresh: Local) -> None:
    async with connect(sim) as kimi:
        run_id = (await kimi.think("What is 17 * 23?")).run_id
    shown = checked(await fresh.http.get("/ui", headers=FROM_A_LINK))
    assert shown.status_code == 200
    assert "<script" in shown.text
    assert (run_id or "") not in shown.text


async def test_nothing_is_cancelled_without_the_pages_own_header(ui: Local, cookie: dict[str, str]) -> None:
    wrong: list[dict[str, Any]] = [
        {},
        {"X-Kimi-View": "0"},
        {"X-Kimi-View": "1", "Content-Type": "text/plain"},
        {"X-Kimi-View": "1", "Content-Type": "application/x-www-form-urlencoded"},
    ]
    for headers in wrong:
        refused = await ui.http.post("/ui/api/runs/run_0/cancel", headers={**cookie, **headers})
        assert refused.status_code in (403, 415), headers
    assert (await answer(ui.http, ("POST", "/ui/api/runs/run_0/cancel"), cookie)).status_code == 404


PATHS = (
    *("/", "/mcp", "/start", "/uiapi/runs", "/UI/api/runs", "//ui/api/runs", "/ui//api/runs", "/ui/./api/runs"),
    *("/ui/../ui/api/runs", "/ui/%2e%2e/mcp", "/ui/..%2fmcp", "/ui/api/../api/runs", "/ui/api/runs/", "/ui\\api\\runs"),
    *(
        "/ui/assets/../api/runs",
        "/ui/assets/%2e%2e/api/runs",
        "/ui/assets/..%2fapi%2fruns",
        "/ui/assets/%2e%2e%2fdocuments.py",
    ),
    *(
        "/ui/api/runs%00",
        "/ui/api/runs;x",
        "/ui/assets/view.css/../../api/runs",
        "/ui/assets//etc/passwd",
        "/ui/assets/index.html",
    ),
)


@pytest.mark.parametrize("path", PATHS)
async def test_a_path_that_is_none_of_ours_shows_nothing(ui: Local, cookie: dict[str, str], path: str) -> None:
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{ui.port}", f"Cookie: {cookie['Cookie']}", "Connection: close"]
    refused = await ui.raw("\r\n".join([*lines, "", ""]).encode())
    assert refused.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")), refused
    assert b'"runs"' not in refused


@pytest.mark.parametrize(
    "path", ["/ui/api/runs%2f..%2fruns", "/ui/assets/..%2fapi%2fruns", "/ui/assets/%2e%2e/api/runs"]
)
async def test_without_the_cookie_no_spelling_of_a_path_reaches_data(ui: Local, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{ui.port}\r\nConnection: close\r\n\r\n"
    assert (await ui.raw(head.encode())).startswith(b"HTTP/1.1 404 ")


async def test_two_hosts_in_a_request_are_refused(ui: Local) -> None:
    head = f"GET /ui/api/runs HTTP/1.1\r\nHost: 127.0.0.1:{ui.port}\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert (await ui.raw(head.encode())).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 421 "))


async def test_a_cookie_that_somebody_else_set_is_never_taken_for_the_session(fresh: Local) -> None:
    chosen = {"Cookie": f"kimi-ui-{fresh.port}=chosen-by-another-port"}
    opened = await fresh.http.get(fresh.link, headers=chosen)
    assert opened.status_code == 303
    assert "chosen" not in opened.headers["set-cookie"]
    assert (await fresh.http.get("/ui/api/runs", headers=chosen)).status_code == 401
    ours = opened.headers["set-cookie"].partition(";")[0]
    both = {"Cookie": f"{chosen['Cookie']}; {ours}"}
    assert (await fresh.http.get("/ui/api/runs", headers=both)).status_code == 200


async def test_the_cookie_is_for_no_script_and_no_other_site_and_ends_with_the_browser(fresh: Local) -> None:
    opened = await fresh.http.get(fresh.link)
    name, *attributes = opened.headers["set-cookie"].split("; ")
    assert name.startswith(f"kimi-ui-{fresh.port}=")
    assert sorted(attributes) == ["HttpOnly", "Path=/ui", "SameSite=Strict"]
    assert opened.headers["location"] == "/ui"
    assert opened.headers["referrer-policy"] == "no-referrer"


async def test_a_body_that_is_too_large_is_refused(ui: Local, cookie: dict[str, str]) -> None:
    headers = {**cookie, "X-Kimi-View": "1", "Content-Type": "application/json"}
    refused = await ui.http.post("/ui/api/runs/run_0/cancel", content=b" " * 40_000, headers=headers)
    assert refused.status_code == 413


async def test_a_body_that_comes_too_slowly_is_refused(
    ui: Local, cookie: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "BODY_WITHIN_S", 0.01)
    lines = ["POST /ui/api/runs/run_0/cancel HTTP/1.1", f"Host: 127.0.0.1:{ui.port}", f"Cookie: {cookie['Cookie']}"]
    lines += ["X-Kimi-View: 1", "Content-Type: application/json", "Content-Length: 100", "", "{"]
    with anyio.fail_after(60):
        assert (await ui.raw("\r\n".join(lines).encode())).startswith(b"HTTP/1.1 413 ")
