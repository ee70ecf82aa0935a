"""A real server process on our transport: what it answers, what it lets through, what it keeps to itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp_types import TextContent

from tests.server.stdio.conftest import SERVER, Start
from tests.server.stdio.peer import INITIALIZE, Peer

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_both_eras_are_served(mode: Literal["auto", "legacy"]) -> None:
    with anyio.fail_after(60):
        async with Client(StdioServerParameters(command=sys.executable, args=[str(SERVER)]), mode=mode) as client:
            assert len((await client.list_tools()).tools) > 3
            text = "ünï\u2028code\n😀" * 20_000
            (content,) = (await client.call_tool("echo", {"text": text})).content
            assert isinstance(content, TextContent)
            assert content.text == text


async def test_every_malformed_message_gets_its_reply_and_the_next_request_works(peer: Peer) -> None:
    cases: list[tuple[bytes, int, object]] = [
        (b"not json", -32700, None),
        (b'{"jsonrpc":"2.0","id":1,"method"', -32700, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":Infinity}}', -32700, None),
        (b"[]", -32600, None),
        (b"[" + json.dumps(PING).encode() + b"]", -32600, None),
        (b'"text"', -32600, None),
        (b'{"id":1,"method":"ping"}', -32600, 1),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":2,"method":["ping"]}', -32600, 2),
        (b'{"jsonrpc":"2.0","id":3,"method":"ping","params":[]}', -32600, 3),
        (b'{"jsonrpc":"2.0","id":4,"method":"ping","params":' + b'{"a":' * 500 + b"1" + b"}" * 501, -32600, 4),
        (b"[" * 200_000, -32600, None),
        (b'{"jsonrpc":"2.0","id":5,"method":"ping","params":{"a":' + b"[" * 200_000, -32600, 5),
    ]
    with anyio.fail_after(60):
        await peer.send(b"", b"   ", b"\r")
        for line, code, request_id in cases:
            reply = await peer.request(line)
            assert (reply["error"]["code"], reply["id"]) == (code, request_id), line[:80]
            await peer.still_serves()


async def test_half_characters_pass_both_ways(peer: Peer) -> None:
    with anyio.fail_after(60):
        call = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"text":"%s"}}}'
        for half in (b"a\\ud83d", b"a\xff"):
            reply = await peer.request(call % half)
            assert reply["result"]["content"][0]["text"] == "a\ufffd"
        await peer.call("surrogate")
        assert (await peer.receive())["result"]["content"][0]["text"].startswith("half \ufffd and \u2028")


async def test_a_line_of_300_megabytes_is_refused_with_flat_memory(peer: Peer) -> None:
    async def kilobytes() -> int:
        await peer.call("memory")
        maximum = int((await peer.receive())["result"]["content"][0]["text"])
        return maximum // 1024 if sys.platform == "darwin" else maximum

    with anyio.fail_after(60):
        before = await kilobytes()
        await peer.send_raw(b'{"method":"tools/call","params":{"name":"')
        block = b"x" * (1 << 20)
        for _ in range(300):
            await peer.send_raw(block)
        reply = await peer.request(b'"},"jsonrpc":"2.0","id":9}')
        assert (reply["id"], reply["error"]["code"]) == (9, -32600)
        assert reply["error"]["message"] == f"message of more than {48 << 20} bytes refused"
        await peer.still_serves()
        assert await kilobytes() - before < 80_000


async def test_a_second_request_with_an_id_being_worked_on_is_refused(peer: Peer) -> None:
    with anyio.fail_after(60):
        await peer.call("wait", 7)
        for twin in (7, "7"):
            reply = await peer.request({**PING, "id": twin})
            assert (reply["id"], reply["error"]["code"]) == (twin, -32600)
        await peer.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}})
        await peer.still_serves()
        # Cancelled and answered requests give their ids back.
        for _ in range(3):
            assert (await peer.request({**PING, "id": 7}))["result"] == {}


async def test_nothing_but_messages_reaches_the_wire(start: Start) -> None:
    with anyio.fail_after(60):
        async with start() as peer:
            await peer.initialize()
            for tool in ("print", "spawn", "task"):
                await peer.call(tool)
                assert (await peer.receive())["result"]["content"][0]["text"] == "done"
            await peer.close_stdin()
            assert await peer.remaining() == []
            assert await peer.exit_status() == 0


async def test_what_is_printed_or_raised_is_logged_without_its_foreign_text(start: Start) -> None:
    with anyio.fail_after(60):
        async with start(stderr=subprocess.PIPE) as peer:
            await peer.initialize()
            await peer.call("task", 1)
            await peer.call("fail", 2)
            replies = [await peer.receive(), await peer.receive()]
            assert "own secret" not in str(replies)
            assert [reply["error"]["code"] for reply in replies if "error" in reply] == [-32603]
            await peer.send(b"{")
            await peer.close_stdin()
            events = await peer.log_lines()
            assert "own secret" not in str(events)
            assert [event["exception"]["type"] for event in events if "exception" in event] == ["RuntimeError"] * 2
            assert ["refused" in event["message"] for event in events].count(True) == 1
            assert await peer.exit_status() == 0


async def test_a_peer_that_stops_reading_is_still_heard(start: Start) -> None:
    with anyio.fail_after(60):
        async with start(stderr=subprocess.PIPE) as peer:
            await peer.initialize()
            size = 2_000_000  # far more than a pipe holds
            for number in range(5):
                await peer.call("big", number, size=size)
            await peer.call("print", 5)
            # The print happened, so the event loop runs, though nobody has read the answers.
            assert peer.process.stderr is not None
            heard = b""
            while b"a stray print" not in heard:
                heard += await peer.process.stderr.receive()
            replies = {reply["id"]: reply for reply in [await peer.receive() for _ in range(6)]}
            assert all(len(replies[number]["result"]["content"][0]["text"]) == size for number in range(5))
            await peer.still_serves()


async def test_many_requests_at_once_all_get_their_answers(peer: Peer) -> None:
    with anyio.fail_after(60):
        lines = [json.dumps({**PING, "id": number}).encode() for number in range(2000)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.send_raw, b"\n".join(lines) + b"\n")
            assert {(await peer.receive())["id"] for _ in lines} == set(range(2000))


@pytest.mark.parametrize(("kind", "newline"), [("pipe", ""), ("file", "\n")])
def test_a_one_shot_input_gets_its_answers_whatever_came_before(kind: str, newline: str, tmp_path: Path) -> None:
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    shot = "{\n" * 20 + "\n".join(json.dumps(message) for message in (INITIALIZE, listing)) + newline
    source, sink = tmp_path / "in", tmp_path / "out"
    source.write_text(shot)
    command = [sys.executable, str(SERVER)]
    if kind == "pipe":
        heard = subprocess.run(command, input=shot.encode(), capture_output=True, timeout=30, check=True).stdout
    else:
        with source.open("rb") as stdin, sink.open("wb") as stdout:
            subprocess.run(command, stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL, timeout=30, check=True)
        heard = sink.read_bytes()
    assert [json.loads(line)["id"] for line in heard.splitlines()] == [None] * 20 + ["hello", 2]
