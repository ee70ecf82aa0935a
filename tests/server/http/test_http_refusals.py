"""What a client over HTTP may not send: each gets a status and a sentence, and never reaches a tool."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2
import pytest

from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.stdio.framing import TransportLimits
from tests.loop_time import LoopTime, fail_after_real, others_wait
from tests.server.http.served import (
    ACCEPTED,
    HELLO,
    OLDER,
    Served,
    Wire,
    error_of,
    message,
    newest,
    newest_headers,
    served,
)

SMALL = HttpLimits(
    message=TransportLimits(max_message_bytes=100_000),
    max_bodies_bytes=150_000,
    uncounted_bytes=0,
    idle_s=20,
    unread_s=0.2,
)
"""Limits that a test reaches: those of time by the clock of its event loop."""

HELLO_BODY = json.dumps(message("initialize", HELLO)).encode()


@pytest.fixture(scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """One for all tests that change nothing in it."""
    with pytest.MonkeyPatch.context() as process:
        process.setenv("KIMI_DATA_DIR", str(tmp_path_factory.mktemp("refusals")))
        async with served(None) as found:
            yield found


@pytest.fixture
async def small() -> AsyncIterator[Served]:
    with fail_after_real(120):
        async with served(None, limits=SMALL) as found:
            yield found


HEADERS: dict[str, tuple[dict[str, str], int, str]] = {
    "a foreign origin": ({"Origin": "https://evil.example"}, 403, "KIMI_HTTP_ORIGINS"),
    "an opaque origin": ({"Origin": "null"}, 403, "KIMI_HTTP_ORIGINS"),
    "an origin that only begins like ours": ({"Origin": "http://localhost.evil.example"}, 403, "KIMI_HTTP_ORIGINS"),
    "a foreign host": ({"Host": "evil.example"}, 421, "KIMI_HTTP_URL"),
    "a host that only begins like ours": ({"Host": "localhost.evil.example:8000"}, 421, "KIMI_HTTP_URL"),
    "a form": ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "application/json"),
    "plain text": ({"Content-Type": "text/plain"}, 415, "application/json"),
    "a type that only begins like JSON": ({"Content-Type": "application/jsonp"}, 415, "application/json"),
    "a compressed body": ({"Content-Encoding": "gzip"}, 415, "Content-Encoding"),
    "no stream accepted": ({"Accept": "application/json"}, 406, "text/event-stream"),
    "no JSON accepted": ({"Accept": "text/event-stream"}, 406, "application/json"),
    "an unknown session": ({"Mcp-Session-Id": "made-up"}, 404, "Session not found"),
}


@pytest.mark.parametrize("case", HEADERS)
@pytest.mark.parametrize("era", ["older", "newest"])
async def test_a_wrong_header_is_refused_with_a_sentence(http: Served, case: str, era: str) -> None:
    headers, status, word = HEADERS[case]
    if era == "older":
        refused = await http.post(HELLO_BODY, {**OLDER, **headers})
    else:
        refused = await http.post(newest("tools/list"), {**newest_headers("tools/list"), **headers})
        if "Mcp-Session-Id" in headers:
            assert refused.status_code == 200, "the newest era has no sessions"
            return
    assert refused.status_code == status
    assert word in error_of(refused)["message"]


@pytest.mark.parametrize("origin", ["http://localhost:6274", "http://127.0.0.1", "https://[::1]:8443"])
async def test_pages_of_this_machine_may_call_and_read_the_answer(http: Served, origin: str) -> None:
    requested = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "mcp-method",
    }
    preflight = await http.raw.options("/mcp", headers=requested)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    answer = await http.post(HELLO_BODY, {**OLDER, "Origin": origin})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert "Mcp-Session-Id" in answer.headers["access-control-expose-headers"]


async def test_settings_name_other_origins_and_the_host_of_a_proxy() -> None:
    origins = "https://app.example, https://b.example:8"
    async with served(None, KIMI_HTTP_ORIGINS=origins, KIMI_HTTP_URL="https://kimi.example") as http:
        for origin in ("https://app.example", "https://b.example:8", "https://kimi.example"):
            answer = await http.post(HELLO_BODY, {**OLDER, "Origin": origin, "Host": "kimi.example"})
            assert answer.status_code == 200, origin
        for origin in ("https://b.example", "http://app.example", "https://app.example.evil"):
            assert (await http.post(HELLO_BODY, {**OLDER, "Origin": origin})).status_code == 403, origin


async def test_a_version_that_nobody_knows_is_refused_with_those_that_are(http: Served) -> None:
    body = newest("tools/list")
    body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2031-01-01"
    refused = await http.post(body, {**newest_headers("tools/list"), "MCP-Protocol-Version": "2031-01-01"})
    assert refused.status_code == 400
    assert error_of(refused)["data"]["supported"] == ["2026-07-28"]


async def test_a_request_of_the_handshake_era_needs_a_session(http: Served) -> None:
    refused = await http.post(message("tools/list"))
    assert refused.status_code == 400
    assert "session" in error_of(refused)["message"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "TRACE"])
async def test_another_method_is_refused(http: Served, method: str) -> None:
    refused = await http.raw.request(method, "/mcp", headers=ACCEPTED)
    assert refused.status_code == 405
    assert "POST" in refused.headers["allow"]


async def test_the_newest_era_takes_posts_alone(http: Served) -> None:
    refused = await http.raw.get("/mcp", headers=newest_headers("tools/list"))
    assert refused.status_code == 405
    assert "POST" in error_of(refused)["message"]


async def test_another_path_is_answered_with_the_endpoints(http: Served) -> None:
    refused = await http.post(HELLO_BODY, path="/sse")
    assert refused.status_code == 404
    assert "/mcp" in error_of(refused)["message"]
    assert (await http.post(HELLO_BODY, path="/mcp/")).status_code == 200


BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", -32700),
    "no JSON": (b"hello", -32700),
    "cut JSON": (HELLO_BODY[:-1], -32700),
    "two messages": (HELLO_BODY + HELLO_BODY, -32700),
    "not a number": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}', -32700),
    "a batch": (b"[" + HELLO_BODY + b"]", -32600),
    "a string": (b'"ping"', -32600),
    "no version": (b'{"id":1,"method":"ping"}', -32600),
    "an id that is an object": (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600),
    "parameters that are a list": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32600),
    "deep nesting": (b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b'{"a":' * 200_000, -32600),
    "a million values": (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":[' + b"0," * 1_000_000, -32600),
    "sixty thousand values": (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":[' + b"0," * 60_000, -32600),
    "an integer of many digits": (b'{"jsonrpc":"2.0","id":' + b"9" * 10_000 + b',"method":"ping"}', -32700),
}


@pytest.mark.parametrize("case", BODIES)
async def test_a_malformed_message_is_refused_with_a_sentence(http: Served, case: str) -> None:
    body, code = BODIES[case]
    for headers in (OLDER, newest_headers("ping")):
        refused = await http.post(body, headers)
        assert refused.status_code == 400
        error = error_of(refused)
        assert error["code"] == code, error
        assert len(error["message"]) > 20


async def test_broken_text_is_replaced_as_over_stdio(http: Served) -> None:
    name = json.dumps(message("initialize", HELLO)).replace("a host", "cut \\ud83d").encode()
    assert (await http.post(name)).status_code == 200
    assert (await http.post(HELLO_BODY.replace(b"a host", b"\xff"))).status_code == 200


async def test_a_larger_body_is_refused_by_its_announced_length_before_it_is_sent(small: Served) -> None:
    async with Wire(small.port) as wire:
        lines = [f"{name}: {value}" for name, value in {**OLDER, "Content-Length": str(10**9)}.items()]
        await wire.send("\r\n".join(["POST /mcp HTTP/1.1", "Host: localhost", *lines, "", ""]).encode())
        answer = await wire.receive()
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_larger_body_is_refused_while_it_streams(small: Served) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 10_000
            yield b" " * 10_000

    try:
        refused = await small.raw.post("/mcp", content=endless(), headers=OLDER)
        assert refused.status_code == 413
        assert "https URL" in error_of(refused)["message"]
    except httpx2.NetworkError:
        pass  # the connection was closed while the client still sent
    assert sent > 100_000


async def test_bodies_that_are_too_much_together_are_refused_for_now(small: Served) -> None:
    async with Wire(small.port) as first:
        lines = [f"{name}: {value}" for name, value in {**OLDER, "Content-Length": "90001"}.items()]
        head = "\r\n".join(["POST /mcp HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()
        await first.send(head + b" " * 90_000)
        while (refused := await small.post(b" " * 90_000)).status_code != 503:
            assert refused.status_code == 400
        assert int(refused.headers["retry-after"]) > 0


async def test_large_bodies_leave_memory_for_small_ones() -> None:
    limits = HttpLimits(max_bodies_bytes=10_000, uncounted_bytes=2_000)
    async with served(None, limits=limits) as http, Wire(http.port) as first:
        lines = [f"{name}: {value}" for name, value in {**OLDER, "Content-Length": "12001"}.items()]
        await first.send("\r\n".join(["POST /mcp HTTP/1.1", "Host: localhost", *lines, "", " " * 12_000]).encode())
        while (refused := await http.post(b" " * 9_000)).status_code != 503:
            assert refused.status_code == 400
        assert (await http.post(b" " * 2_000)).status_code == 400


async def what_comes(wire: anyio.abc.SocketStream, loop_time: LoopTime) -> bytes | None:
    """The first bytes that time brings; None: the end of the connection."""
    came: list[bytes | None] = []

    async def wait() -> None:
        try:
            came.append(await wire.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            came.append(None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await others_wait()
        await loop_time.until(lambda: came)
    return came[0]


async def test_a_body_that_comes_too_slowly_is_refused(small: Served, loop_time: LoopTime) -> None:
    async with Wire(small.port) as wire:
        lines = [f"{name}: {value}" for name, value in {**OLDER, "Content-Length": "1000"}.items()]
        await wire.send("\r\n".join(["POST /mcp HTTP/1.1", "Host: localhost", *lines, "", "{"]).encode())
        assert (await what_comes(wire, loop_time) or b"").startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("beginning", [b"", b"POST /mcp HTTP/1.1\r\nHost: local"])
async def test_a_connection_without_a_request_is_closed(small: Served, loop_time: LoopTime, beginning: bytes) -> None:
    async with Wire(small.port) as wire:
        if beginning:
            await wire.send(beginning)
        assert await what_comes(wire, loop_time) is None


async def test_a_kept_connection_without_another_request_is_closed(small: Served, loop_time: LoopTime) -> None:
    async with Wire(small.port) as wire:
        await wire.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await wire.receive()).startswith(b"HTTP/1.1 200 ")
        assert await what_comes(wire, loop_time) is None


async def test_headers_without_end_are_refused(http: Served) -> None:
    async with Wire(http.port) as wire:
        await wire.send(b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1_000_000)
        assert (await wire.receive()).startswith(b"HTTP/1.1 431 ")


async def test_more_sessions_than_there_may_be_are_refused() -> None:
    async with served(None, limits=HttpLimits(max_sessions=2)) as http:
        statuses = [(await http.post(HELLO_BODY)).status_code for _ in range(3)]
    assert statuses == [200, 200, 503]


async def test_what_the_server_answers_names_nothing_of_what_it_runs_on(http: Served) -> None:
    answers: list[Any] = [await http.post(HELLO_BODY), await http.raw.get("/healthz"), await http.post(b"x")]
    for answer in answers:
        assert "server" not in answer.headers
