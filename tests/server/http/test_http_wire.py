"""HTTP as bytes: requests that two readers would understand differently, slow readers, every kind of wrong request."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator

import anyio
import pytest

from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.simulator import Simulator
from tests.loop_time import LoopTime, fail_after_real, others_wait
from tests.server.clients import wait_until
from tests.server.http.malformed import Request, check, malformed
from tests.server.http.served import OLDER, Connection, Served, connection, encoded, newest, newest_headers, served
from tests.server.requests import HELD_STEP

CHUNKED = (b"Transfer-Encoding", b"chunked")
HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""What an attacker would have answered as a request of its own."""

LIST = json.dumps(newest("tools/list")).encode()

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'


@pytest.fixture(scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """One for all tests that change nothing in it."""
    with pytest.MonkeyPatch.context() as process:
        process.setenv("KIMI_DATA_DIR", str(tmp_path_factory.mktemp("wire")))
        async with served(None) as found:
            yield found


@pytest.fixture
async def wire(http: Served) -> AsyncIterator[Connection]:
    with fail_after_real(60):
        async with connection(http.port) as found:
            yield found


def post(*more: tuple[bytes, bytes], body: bytes = b"", length: bool = False, version: bytes = b"1.1") -> bytes:
    """A POST to the endpoint with more headers."""
    headers = [(b"Host", b"localhost"), *((name.encode(), value.encode()) for name, value in OLDER.items()), *more]
    return Request(b"POST /mcp HTTP/" + version, headers, body, length).encoded()


UNCLEAR: dict[str, tuple[bytes, int]] = {
    "both lengths": (post((b"Content-Length", b"5"), CHUNKED, body=b"0\r\n\r\n" + HIDDEN), 400),
    "both lengths, the other way": (post(CHUNKED, (b"Content-Length", b"99"), body=b"0\r\n\r\n" + HIDDEN), 400),
    "two lengths": (post((b"Content-Length", b"5"), (b"Content-Length", b"99"), body=HIDDEN), 400),
    "a list of lengths": (post((b"Content-Length", b"5, 99"), body=HIDDEN), 400),
    "a length that is none": (post((b"Content-Length", b"+5"), body=HIDDEN), 400),
    "chunks in HTTP/1.0": (post(CHUNKED, body=b"0\r\n\r\n" + HIDDEN, version=b"1.0"), 400),
    "another coding": (post((b"Transfer-Encoding", b"gzip, chunked"), body=b"0\r\n\r\n" + HIDDEN), 501),
    "a coding that looks like chunks": (post((b"Transfer-Encoding", b"xchunked"), body=HIDDEN), 501),
    "a space before the colon": (post((b"Transfer-Encoding ", b"chunked"), body=HIDDEN), 400),
    "a chunk that ends elsewhere": (post(CHUNKED, body=b"5\r\nabcdefgh\r\n0\r\n\r\n" + HIDDEN), 400),
    "a chunk's line with a bare line feed": (post(CHUNKED, body=b"5\nabcde\r\n0\r\n\r\n" + HIDDEN), 400),
    "a chunk of negative size": (post(CHUNKED, body=b"-1\r\n" + HIDDEN), 400),
    "a zero byte in a header": (post((b"X", b"a\0b"), body=HIDDEN), 400),
    "two hosts": (post((b"Host", b"evil.example"), body=HIDDEN), 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01" + HIDDEN, 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN, 505),
    "headers without end": (post((b"X", b"x" * 300_000)), 431),
    "hundreds of headers": (post(*((b"X-%d" % number, b"y") for number in range(300))), 431),
    "a megabyte of headers": (post(*((b"X-%d" % number, b"y") for number in range(90_000))), 431),
}


@pytest.mark.parametrize("case", UNCLEAR)
async def test_a_request_that_can_be_understood_in_two_ways_is_refused_and_ends_the_connection(
    wire: Connection, case: str
) -> None:
    request, status = UNCLEAR[case]
    refused = await wire.ask(request)
    assert refused is not None
    assert refused.status == status, refused
    assert len(refused.content) > 60, refused
    assert await wire.ended(), "what came after it is not answered"


async def test_the_end_of_headers_is_no_length_of_a_body(wire: Connection) -> None:
    folded = await wire.ask(post((b"X", b"a\r\n folded"), body=PING, length=True))
    assert folded is not None
    assert b"session" in folded.content, "a folded header is one header"


async def test_pipelined_requests_are_answered_in_order(wire: Connection) -> None:
    first = await wire.ask(HIDDEN + post(body=PING, length=True) + HIDDEN)
    second, third = await wire.answer(), await wire.answer()
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.status, second.status, third.status) == (200, 400, 200)


async def test_a_body_is_asked_for_once_its_headers_are_in_order(http: Served) -> None:
    headers = {**newest_headers("tools/list"), "Expect": "100-continue"}
    for length, status in ((len(LIST), b"100"), (10**9, b"413")):
        async with connection(http.port) as wire:
            await wire.stream.send(encoded("POST /mcp HTTP/1.1", headers, length=length))
            assert (await wire.stream.receive()).startswith(b"HTTP/1.1 " + status)
            if status == b"100":
                answer = await wire.ask(LIST)
                assert answer is not None
                assert answer.status == 200


async def test_http_1_0_and_an_upgrade_to_http_2_are_answered_as_they_can_be(wire: Connection) -> None:
    upgrade = (b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"AAMAAABk")
    for request in (post(*upgrade, body=PING, length=True), post(body=PING, length=True, version=b"1.0") + b"\r\n"):
        answer = await wire.ask(request)
        assert answer is not None
        assert answer.status == 400
        assert b"session" in answer.content
    assert await wire.ended()


async def test_what_follows_the_last_request_of_a_connection_does_not_spoil_its_answer(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    call = json.dumps(newest("tools/call", {"name": "kimi_think", "arguments": {"prompt": "x"}})).encode()
    headers = {**newest_headers("tools/call", "kimi_think"), "Connection": "close"}
    async with served(sim) as http, connection(http.port) as wire:
        await wire.stream.send(encoded("POST /mcp HTTP/1.1", headers, call))
        await sim.until(lambda: sim.waiting_at("end") == 1)
        await wire.stream.send(b"\r\n")
        sim.open_gate("end")
        answer = await wire.answer()
        assert answer is not None
        assert json.loads(answer.content)["result"]["structuredContent"]["status"] == "completed"


async def reads_nothing(http: Served, number: int) -> Connection:
    """A client that has sent so many requests at once and has read nothing, whom the server waits for."""
    stream = await anyio.connect_tcp("127.0.0.1", http.port)
    await stream.send(encoded("POST /mcp HTTP/1.1", newest_headers("tools/list"), LIST) * number)
    await wait_until(lambda: http.serving.app.gate.answering)
    await others_wait()
    assert http.serving.app.gate.answering, "it waits for its reader"
    return Connection(stream)


async def test_a_client_that_reads_nothing_is_left_after_a_while_and_holds_up_nobody(loop_time: LoopTime) -> None:
    async with served(None, system_buffer=16_384) as http:
        client = await reads_nothing(http, 60)
        assert (await http.post(LIST, newest_headers("tools/list"))).status_code == 200
        assert http.serving.app.gate.answering
        await loop_time.until(lambda: not http.serving.app.gate.answering)
        await client.stream.aclose()


async def test_a_client_that_reads_slowly_gets_all_of_its_answers(loop_time: LoopTime) -> None:
    async with served(None, system_buffer=16_384) as http:
        client, received = await reads_nothing(http, 60), b""
        while received.count(b"HTTP/1.1 200") < 60 or not received.endswith(b"}"):
            received += await client.stream.receive(16_384)
            await loop_time.forward(3)
        assert loop_time.passed > HttpLimits().idle_s
        await client.stream.aclose()


async def test_no_more_connections_are_open_than_there_may_be() -> None:
    unfinished = post((b"Content-Length", b"9"), (b"Expect", b"100-continue"))
    async with served(None, limits=HttpLimits(max_connections=2)) as http, connection(http.port) as first:
        await first.stream.send(unfinished)
        assert (await first.stream.receive()).startswith(b"HTTP/1.1 100 ")
        async with connection(http.port) as second:
            await second.stream.send(unfinished)
            assert (await second.stream.receive()).startswith(b"HTTP/1.1 100 ")
            async with connection(http.port) as third:
                assert await third.ask(HIDDEN) is None
        while True:  # until the server has heard that the second has gone
            async with connection(http.port) as another:
                if await another.ask(HIDDEN):
                    break


async def test_a_silent_connection_makes_way_for_a_new_one_where_there_may_be_no_more() -> None:
    async with served(None, limits=HttpLimits(max_connections=2)) as http, connection(http.port) as first:
        assert await first.ask(HIDDEN)
        async with connection(http.port) as second, connection(http.port) as third, connection(http.port) as fourth:
            assert await fourth.ask(HIDDEN)
            answers = [await each.ask(HIDDEN) for each in (first, second, third)]
    assert answers.count(None) == 2


@pytest.mark.parametrize("seed", range(4))
async def test_malformed_requests_are_refused_with_a_sentence_each(
    http: Served, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance, statuses = random.Random(seed), set[int]()
    for _ in range(100):
        request = malformed(chance)
        async with connection(http.port) as wire:
            with anyio.fail_after(60):
                answer = await wire.ask(request)
        check(request, answer)
        statuses.add(answer.status if answer else 0)
    assert len(statuses) > 4, statuses
    assert [each.message for each in caplog.records if each.name.startswith("uvicorn")] == [], "nobody fills the log"
    assert (await http.post(LIST, newest_headers("tools/list"))).status_code == 200
