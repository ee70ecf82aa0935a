"""Who may call over HTTP, by the server's own tokens, and what their scopes allow."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from mcp.shared.exceptions import MCPError

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.server.callers import LOCAL
from kimi_mcp.server.http.auth.scopes import ADMIN, CALL, SWARM, USE, Scope
from kimi_mcp.server.http.auth.token_file import TokenFile, utc_now
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.http.serving import listen
from kimi_mcp.simulator import Simulator
from tests.server.http.served import (
    HELLO,
    OLDER,
    Served,
    Wire,
    bearer,
    error_of,
    message,
    newest,
    newest_headers,
    served,
)

NOBODYS = "kimi_4xQ7vLr2TzN9cWfB8mKpY1sHdG6jE3aUoRt5iXkVbQw"
"""Looks like a token, is none: a canary."""


class Tokens:
    """A file of tokens."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, TokenFile(path)

    def add(self, name: str, *scopes: Scope, days: int | None = None) -> str:
        """A new token."""
        return self.file.add(name, scopes or USE, now=utc_now(), days=days)[1]

    def served(self, sim: Simulator | None, **variables: Any) -> Any:
        """A server that asks for them."""
        return served(sim, KIMI_HTTP_TOKENS=str(self.path), **variables)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "tokens.json")


@pytest.fixture(scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Served, str]]:
    """A server for all tests that change nothing in it, and a token of it."""
    with pytest.MonkeyPatch.context() as process:
        process.setenv("KIMI_DATA_DIR", str(tmp_path_factory.mktemp("tokens")))
        tokens = Tokens(tmp_path_factory.mktemp("tokens") / "tokens.json")
        token = tokens.add("alice")
        async with tokens.served(None) as found:
            yield found, token


def challenge(response: httpx2.Response) -> dict[str, str]:
    """The parameters of a refusal's ``WWW-Authenticate``."""
    scheme, _, rest = response.headers["www-authenticate"].partition(" ")
    assert scheme == "Bearer"
    return dict(re.findall(r'(\w+)="([^"]*)"', rest))


WRONG = {
    "no token": {},
    "another scheme": {"Authorization": "Basic YWxpY2U6c2VjcmV0"},
    "an empty token": {"Authorization": "Bearer"},
    "a made-up token": bearer(NOBODYS),
    "a token of no kind": bearer("sk-somebody-elses"),
    "a token with spaces": bearer("kimi_a kimi_b"),
    "a token beyond ASCII": {"Authorization": "Bearer kimi_\xe9"},
    "a very long token": bearer("kimi_" + "a" * 40_000),
}


@pytest.mark.parametrize("case", WRONG)
async def test_without_a_valid_token_a_request_is_challenged(http: tuple[Served, str], case: str) -> None:
    asks = "no token" in case or "scheme" in case or "empty" in case
    for body, headers in (
        (message("initialize", HELLO), OLDER),
        (newest("tools/list"), newest_headers("tools/list")),
    ):
        content = json.dumps(body).encode()
        shown = {name: value.encode("latin-1") for name, value in WRONG[case].items()}
        refused = await http[0].raw.post("/mcp", content=content, headers={**headers, **shown})
        assert refused.status_code == 401
        reported = challenge(refused)
        assert reported["scope"] == CALL
        assert reported["resource_metadata"].endswith("/.well-known/oauth-protected-resource/mcp")
        assert reported.get("error") == (None if asks else "invalid_token")
        assert ("operator" if asks else "revoked") in error_of(refused)["message"]
        assert NOBODYS not in refused.text + str(refused.headers)


async def test_two_tokens_in_one_request_are_refused(http: tuple[Served, str]) -> None:
    both = [(name, value) for name, value in OLDER.items()] + [*bearer(http[1]).items(), *bearer(NOBODYS).items()]
    refused = await http[0].raw.post("/mcp", content=b"{}", headers=both)
    assert refused.status_code == 400
    assert "two `Authorization`" in error_of(refused)["message"]


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
async def test_every_method_needs_a_token(http: tuple[Served, str], method: str) -> None:
    assert (await http[0].raw.request(method, "/mcp", headers=OLDER)).status_code == 401


async def test_the_metadata_and_the_probes_need_none(http: tuple[Served, str]) -> None:
    raw = http[0].raw
    for path in ("/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"):
        found = await raw.get(path, headers={"Origin": "https://anywhere.example"})
        assert found.status_code == 200
        assert found.headers["access-control-allow-origin"] == "*"
        assert found.json() == {
            "resource": http[0].serving.url,
            "scopes_supported": [CALL, SWARM],
            "bearer_methods_supported": ["header"],
            "resource_name": "kimi-mcp",
        }
    for path in ("/healthz", "/readyz"):
        assert (await raw.get(path)).status_code == 200


async def test_a_page_may_ask_first_without_a_token_and_read_the_challenge(http: tuple[Served, str]) -> None:
    origin = {"Origin": "http://localhost:6274"}
    requested = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = await http[0].raw.options("/mcp", headers=origin | requested)
    assert preflight.status_code == 200
    refused = await http[0].post(message("initialize", HELLO), OLDER | origin)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == origin["Origin"]
    assert "WWW-Authenticate" in refused.headers["access-control-expose-headers"]


async def test_the_body_of_somebody_unknown_is_not_read(http: tuple[Served, str]) -> None:
    lines = [f"{name}: {value}" for name, value in {**OLDER, "Content-Length": "40000000"}.items()]
    async with Wire(http[0].port) as wire:
        await wire.send("\r\n".join(["POST /mcp HTTP/1.1", "Host: localhost", *lines, "", ""]).encode())
        with anyio.fail_after(60):
            assert (await wire.receive()).startswith(b"HTTP/1.1 401 ")


async def test_a_call_belongs_to_the_principal_of_its_token(sim: Simulator, tokens: Tokens, mode: str) -> None:
    alice, bob = tokens.add("alice"), tokens.add("bob")
    async with tokens.served(sim) as http:
        async with http.client(mode, token=alice) as kimi:
            ours = await kimi.think()
            assert (await kimi.run(ours.run_id)).answer == ours.answer
            record = await http.runs.store.find(ours.run_id, "kimi-mcp#alice")
            assert record is not None
            assert await http.runs.store.find(ours.run_id, LOCAL) is None
        async with http.client(mode, token=bob) as kimi:
            assert (await kimi.run(ours.run_id)).error["code"] == "run_not_found"
    assert not [each for each in sim.requests if alice in json.dumps(each.headers)], "no token goes upstream"


DENIED: dict[str, tuple[tuple[Scope, ...], str, dict[str, Any], str, str]] = {
    "a swarm": ((CALL,), "kimi_swarm", {"prompt": "x"}, SWARM, f"{CALL} {SWARM}"),
    "a call": ((SWARM,), "kimi_think", {"prompt": "x"}, CALL, f"{CALL} {SWARM}"),
    "an answer to continue": ((SWARM,), "kimi_run", {"run_id": "run_x", "action": "continue"}, CALL, f"{CALL} {SWARM}"),
}


@pytest.mark.parametrize("case", DENIED)
async def test_a_missing_scope_is_a_challenge_that_names_it(tokens: Tokens, case: str, mode: str) -> None:
    scopes, tool, arguments, missing, wanted = DENIED[case]
    token = tokens.add("alice", *scopes)
    call = {"name": tool, "arguments": arguments}
    async with tokens.served(None) as http:
        if mode == "legacy":
            refused = await http.post(message("tools/call", call, "mine"), await http.session(token))
        else:
            headers = newest_headers("tools/call", tool) | bearer(token)
            refused = await http.post(newest("tools/call", call, "mine"), headers)
        assert (refused.status_code, refused.json()["id"]) == (403, "mine")
        reported = challenge(refused)
        assert (reported["error"], reported["scope"]) == ("insufficient_scope", wanted)
        assert missing in reported["error_description"]
        assert missing in error_of(refused)["message"]
        async with http.client(mode, token=token) as kimi:
            assert (await kimi.client.list_tools()).tools
            assert (await kimi.run()).status == "completed", "one's own runs cost nothing"
            with pytest.raises(MCPError, match=missing):
                await kimi.client.call_tool(tool, arguments)


async def test_each_scope_opens_what_it_names(sim: Simulator, tokens: Tokens, mode: str) -> None:
    caller, swarm, admin = tokens.add("caller", CALL), tokens.add("swarm", SWARM), tokens.add("admin", ADMIN)
    async with tokens.served(sim) as http:
        async with http.client(mode, token=caller) as kimi:
            assert (await kimi.think()).status == "completed"
        async with http.client(mode, token=swarm) as kimi:
            assert (await kimi.call("kimi_swarm", {"prompt": "{{item}}", "items": ["a", "b"]})).run_id
        refused = await http.post(message("initialize", HELLO), OLDER | bearer(admin))
        assert refused.status_code == 403
        assert challenge(refused)["scope"] == f"{CALL} {ADMIN}"


async def test_tokens_are_added_and_revoked_while_the_server_runs(tokens: Tokens) -> None:
    alice = tokens.add("alice")
    async with tokens.served(None) as http:
        hello = message("initialize", HELLO)

        async def status(token: str) -> int:
            return (await http.post(hello, OLDER | bearer(token))).status_code

        session = await http.session(alice)
        bob = tokens.add("bob")
        assert (await status(alice), await status(bob)) == (200, 200)
        tokens.file.revoke("alice")
        assert (await status(alice), await status(bob)) == (401, 200)
        assert (await http.post(message("ping"), session)).status_code == 401, "nor in a session that is open"
        assert await status(tokens.add("alice")) == 200
        assert await status(alice) == 401


async def test_an_expired_token_is_refused(tokens: Tokens) -> None:
    token = tokens.add("alice", days=1)
    content = json.loads(tokens.path.read_text("utf-8"))
    content["tokens"][0]["expires"] = "2026-01-01T00:00:00Z"
    tokens.path.write_text(json.dumps(content), "utf-8")
    async with tokens.served(None) as http:
        assert (await http.post(message("initialize", HELLO), OLDER | bearer(token))).status_code == 401


@pytest.mark.parametrize("content", [None, "", "{", '{"tokens": {}}', '{"tokens": [{"name": "alice"}]}'])
async def test_while_the_file_is_damaged_nobodys_token_counts(
    tokens: Tokens, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    token = tokens.add("alice")
    before = tokens.path.read_bytes()
    async with tokens.served(None) as http:
        hello, headers = message("initialize", HELLO), OLDER | bearer(token)
        if content is None:
            tokens.path.unlink()
        else:
            tokens.path.write_text(content, "utf-8")
        with caplog.at_level(logging.ERROR):
            refused = [await http.post(hello, headers) for _ in range(2)]
        assert {each.status_code for each in refused} == {503 if content != "" else 401}, "an empty file has no tokens"
        assert len([each for each in caplog.records if "no token is accepted" in each.message]) == (content != "")
        tokens.path.write_bytes(before)
        assert (await http.post(hello, headers)).status_code == 200


@pytest.mark.parametrize("content", [None, "{", "[]", '{"tokens": [], "more": 1}', b"\xff"])
def test_a_server_does_not_start_with_a_file_that_is_missing_or_damaged(
    tokens: Tokens, content: str | bytes | None
) -> None:
    if content is not None:
        tokens.path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(NotConfigured, match="KIMI_HTTP_TOKENS") as found:
        tokens.file.read()
    assert str(tokens.path) not in found.value.message + found.value.fix


async def test_a_session_is_the_one_principals_who_opened_it(tokens: Tokens) -> None:
    alice, bob = tokens.add("alice"), tokens.add("bob")
    async with tokens.served(None) as http:
        session = await http.session(alice)
        unknown = session | bearer(bob) | {"Mcp-Session-Id": "0" * 32}
        for method in ("POST", "GET", "DELETE"):
            content = json.dumps(message("ping")).encode() if method == "POST" else None
            answers = [
                await http.raw.request(method, "/mcp", content=content, headers=headers)
                for headers in (session | bearer(bob), unknown)
            ]
            assert {each.status_code for each in answers} == {404}
            assert answers[0].text == answers[1].text
        assert (await http.post(message("ping"), session)).status_code == 200
        assert (await http.raw.delete("/mcp", headers=session)).status_code == 200


async def test_one_principal_can_not_have_all_sessions(tokens: Tokens) -> None:
    alice, bob = tokens.add("alice"), tokens.add("bob")
    async with tokens.served(None, limits=HttpLimits(max_principal_sessions=2)) as http:
        session, _ = await http.session(alice), await http.session(alice)
        refused = await http.post(message("initialize", HELLO, "mine"), OLDER | bearer(alice))
        assert (refused.status_code, refused.json()["id"]) == (429, "mine")
        assert "2 sessions" in error_of(refused)["message"]
        await http.session(bob)
        await http.raw.delete("/mcp", headers=session)
        await http.session(alice)


async def test_sessions_that_one_principal_opens_at_once_are_no_more_than_it_may_have(tokens: Tokens) -> None:
    alice = tokens.add("alice")
    body = json.dumps(message("initialize", HELLO)).encode()
    head = f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in (OLDER | bearer(alice)).items())
    async with tokens.served(None, limits=HttpLimits(max_principal_sessions=2)) as http:
        with ExitStack() as held:
            wires = [held.enter_context(socket.create_connection(("127.0.0.1", http.port))) for _ in range(20)]
            for each in wires:  # without giving the server a turn
                each.sendall(f"{head}\r\n".encode() + body)
            with anyio.fail_after(60):
                statuses = [int((await anyio.to_thread.run_sync(each.recv, 20)).split()[1]) for each in wires]
        assert sorted(statuses) == [200] * 2 + [429] * 18


async def test_one_principal_can_not_have_every_request(tokens: Tokens) -> None:
    alice, bob = tokens.add("alice"), tokens.add("bob")
    head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in (OLDER | bearer(alice)).items())
    async with tokens.served(None, limits=HttpLimits(max_principal_requests=2)) as http, AsyncExitStack() as wires:
        for _ in range(2):
            await (await wires.enter_async_context(Wire(http.port))).send(f"{head}\r\n ".encode())
        while (refused := await http.post(b" ", OLDER | bearer(alice))).status_code != 429:
            assert refused.status_code == 400
        assert int(refused.headers["retry-after"]) > 0
        assert "2 requests" in error_of(refused)["message"]
        assert (await http.post(b" ", OLDER | bearer(bob))).status_code == 400
        await wires.aclose()
        while (await http.post(b" ", OLDER | bearer(alice))).status_code != 400:
            pass


async def test_no_token_is_written_down_or_repeated(
    sim: Simulator, tokens: Tokens, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = tokens.add("alice", CALL)
    text: list[str] = []
    async with tokens.served(sim, KIMI_LOG_LEVEL="DEBUG") as http:
        session = await http.session(token)
        bodies: list[Any] = [b"", b"{", message("tools/list"), message("no/such"), message("ping", request_id=None)]
        bodies += [message("tools/call", {"name": name, "arguments": {"prompt": "x"}}) for name in ("x", "kimi_swarm")]
        bodies += [message("tools/call", {"name": "kimi_think", "arguments": {"prompt": "x"}})]
        changes = [
            {},
            {"Accept": "*/*"},
            {"Content-Type": "text/plain"},
            {"Mcp-Session-Id": "made-up"},
            bearer(NOBODYS),
        ]
        for body in bodies:
            for change in changes:
                answer = await http.post(body, session | change)
                text += [answer.text, str(answer.headers)]
        for method in ("PUT", "DELETE"):
            answer = await http.raw.request(method, "/mcp", headers=session)
            text += [answer.text, str(answer.headers)]
    text += [record.getMessage() + str(record.exc_text) for record in caplog.records]
    text += [str(request.headers) + str(request.content) for request in sim.requests]
    kept = b"".join(path.read_bytes() for path in Path(os.environ["KIMI_DATA_DIR"]).rglob("*") if path.is_file())
    for secret in (token, NOBODYS):
        assert secret not in "".join(text)
        assert secret.encode() not in kept + tokens.path.read_bytes()
    assert len(text) > 80


def test_with_authentication_it_listens_on_any_address() -> None:
    with listen("0.0.0.0", 0, authenticated=True) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


async def test_without_authentication_a_token_is_not_looked_at_and_all_is_local(sim: Simulator, mode: str) -> None:
    async with served(sim) as http, http.client(mode, token=NOBODYS) as kimi:
        result = await kimi.think()
        assert await http.runs.store.find(result.run_id, LOCAL) is not None
        assert (await http.raw.get("/.well-known/oauth-protected-resource")).status_code == 404
