"""A server as a host starts it: a process on stdio, in both eras, and its end."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from kimi_mcp.simulator import Simulator
from tests.server.media import hanging_resolver
from tests.server.processes import raw_server_process, server_process
from tests.server.requests import body_of, chats
from tests.server.results import checked

HELD = {"gate": "end", "gate_at": "finish", "reasoning": "Hm.", "content": "It is 391.", "times": "always"}


async def test_a_process_answers_in_both_modes(sim: Simulator, mode: str, tmp_path: Path) -> None:
    prompt = "What is 17 * 23? 你好 🌍 \u2028 <b>&amp;</b>"
    async with server_process(sim, mode, stderr=tmp_path / "stderr") as client:
        assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
        thought = checked(await client.call_tool("kimi_think", {"prompt": prompt}))
        instant = checked(await client.call_tool("kimi_instant", {"prompt": prompt}))
        adjusted = checked(await client.call_tool("kimi_think", {"prompt": prompt, "temperature": 0.3}))
        refused = checked(await client.call_tool("kimi_think", {"promt": prompt}))
        fetched = checked(await client.call_tool("kimi_run", {"run_id": thought.run_id}))
    one, two, three = map(body_of, chats(sim))
    assert one["messages"] == two["messages"] == [{"role": "user", "content": prompt}]
    assert [each["model"] for each in (one, two)] == ["kimi-k2.5"] * 2
    assert [each["thinking"]["type"] for each in (one, two, three)] == ["enabled", "disabled", "enabled"]
    assert not any({"temperature", "top_p"} & set(each) for each in (one, two, three))
    assert thought.status == instant.status == adjusted.status == "completed"
    assert thought.structured["policy"] == instant.structured["policy"] == []
    assert thought.text == thought.answer
    assert "thinking mode" in thought.reasoning
    assert instant.structured["reasoning"] is None
    assert adjusted.rules == ["temperature-fixed"]
    assert refused.code == "invalid_arguments"
    assert fetched.structured == thought.structured
    assert (tmp_path / "stderr").read_text() == "", "nothing to report, nothing written"


async def test_every_line_of_the_log_is_one_json_object_whatever_the_level(sim: Simulator, tmp_path: Path) -> None:
    sim.play({"status": 500, "error_message": "two\nlines \x1b[31m\u2028and more"}, {"no_finish": True})
    log = tmp_path / "stderr"
    async with server_process(sim, stderr=log, KIMI_LOG_LEVEL="DEBUG") as client:
        for arguments in ({"prompt": "hi"}, {"prompt": "hi"}, {"promt": "hi"}):
            await client.call_tool("kimi_think", arguments)
    lines = log.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert lines
    for one in lines:
        assert isinstance(json.loads(one), dict)
        assert b"\x1b" not in one


@pytest.mark.soak
@pytest.mark.parametrize("way", ["EOF", "SIGTERM", "SIGINT"])
async def test_the_end_of_the_process_closes_the_upstream_request(sim: Simulator, way: str) -> None:
    sim.play(HELD)
    async with raw_server_process(sim, stderr=subprocess.PIPE) as peer:
        await peer.initialize()
        for number in range(5):
            await peer.call("kimi_think", number, prompt="hi")
        await sim.until(lambda: sim.waiting_at("end") == 5)
        if way == "EOF":
            await peer.close_stdin()
        else:
            peer.signal(getattr(signal, way))
        assert await peer.exit_status() == 0
        await sim.client_gone(5)
        assert await peer.log_lines() == [], "an end is nothing to complain of"


@pytest.mark.soak
async def test_a_resolver_that_hangs_does_not_keep_the_process(sim: Simulator, tmp_path: Path) -> None:
    requested = hanging_resolver(tmp_path)
    async with raw_server_process(sim, stderr=subprocess.PIPE, PYTHONPATH=str(tmp_path)) as peer:
        await peer.initialize()
        await peer.call("kimi_vision", 1, prompt="What is it?", images=["https://slow.example.com/shot.png"])
        with anyio.fail_after(60):
            while not requested.exists():
                await anyio.lowlevel.checkpoint()
        await peer.close_stdin()
        assert await peer.exit_status() == 0
        assert await peer.log_lines() == []


async def test_a_one_shot_pipe_gets_its_answer(sim: Simulator) -> None:
    async with raw_server_process(sim) as peer:
        await peer.initialize()
        await peer.call("kimi_run", 0)
        await peer.receive()  # the first call imports what answers it, which takes a while on a busy machine
        await peer.call("kimi_run", 1)
        await peer.close_stdin()
        (reply,) = await peer.remaining()
        assert reply["result"]["structuredContent"]["status"] == "completed"
        assert await peer.exit_status() == 0


@pytest.mark.soak
async def test_a_process_survives_nonsense_and_still_answers(sim: Simulator) -> None:
    async with raw_server_process(sim) as peer:
        await peer.initialize()
        await peer.send(b"{", b"[]", b"[" * 100_000, b"\xff\xfe", b'"text"', b"null")
        await peer.send(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"kimi_think","arguments":7}}')
        await peer.send(b'{"jsonrpc":"2.0","id":2,"method":"tools/call"}')
        await peer.send(
            b'{"jsonrpc":"2.0","id":3,"method":"tools/call","params":'
            b'{"name":"kimi_instant","arguments":{"prompt":"cut \\ud83d here"}}}'
        )
        replies = {}
        with anyio.fail_after(60):
            while 3 not in replies:
                reply = await peer.receive()
                replies[reply["id"]] = reply
    assert replies[1]["result"]["isError"]
    assert "prompt" in replies[1]["result"]["structuredContent"]["error"]["fix"], "the arguments there are"
    assert replies[2]["error"]["code"] == -32602
    assert replies[3]["result"]["structuredContent"]["status"] == "completed"
    assert body_of(chats(sim)[0])["messages"][0]["content"] == "cut \ufffd here", "half an emoji costs no call"


async def test_a_user_who_cancels_by_notification_stops_the_request(sim: Simulator) -> None:
    sim.play(HELD)
    async with raw_server_process(sim) as peer:
        await peer.initialize()
        await peer.call("kimi_think", 1, prompt="hi")
        await sim.until(lambda: sim.waiting_at("end") == 1)
        cancel = {"requestId": 1, "reason": "the user pressed escape"}
        await peer.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancel})
        await sim.client_gone()
        await peer.call("kimi_run", 2)
        with anyio.fail_after(60):
            listed = await peer.receive()
        assert listed["id"] == 2, "the cancelled request is never answered"
        run_id = listed["result"]["structuredContent"]["answer"].split()[0]
        await peer.call("kimi_run", 3, run_id=run_id)
        with anyio.fail_after(60):
            kept = (await peer.receive())["result"]["structuredContent"]
    assert kept["status"] == "cancelled"
    assert kept["answer"] == "It is 391."
    assert kept["reasoning"]["text"] == "Hm."
