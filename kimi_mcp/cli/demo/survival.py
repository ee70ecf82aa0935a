"""Scenes on what outlives a call: conversations, and what had arrived when a server was killed. I/O: the stage's.

The server that is killed is one of its own, started by a host that has nothing but a pipe: killed means killed, no
signal that it could hear.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from kimi_mcp.cli.demo.stage import Stage
from kimi_mcp.core.version import __version__
from kimi_mcp.simulator import Step

WRITTEN_WITHIN_S = 1.0
"""Seconds within which what arrives is written down."""

TALE = "Tell me the tale of the lighthouse, slowly."
BEGINNING = "There was a lighthouse whose keeper counted ships."
HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "a host", "version": __version__},
}


async def continued(stage: Stage) -> None:
    """A question, and one that follows on it."""
    first = await stage.call("kimi_think", prompt="Name a prime between 20 and 30.")
    whole = await stage.call("kimi_run", run_id=first.result["run_id"], action="reasoning")
    reply = await stage.call("kimi_think", prompt="And the next one?", conversation_id=first.result["conversation_id"])
    roles = [message["role"] for message in stage.body["messages"]]
    stage.holds("The first turn went along.", roles == ["user", "assistant", "user"], roles)
    replayed = stage.body["messages"][1].get("reasoning_content")
    exact = replayed == whole.result["page"]["text"]
    stage.holds("It went with its exact reasoning, byte for byte.", exact, replayed)
    same = reply.result["conversation_id"] == first.result["conversation_id"]
    stage.holds("Both are turns of one conversation.", same, reply.result["conversation_id"])


async def survives(stage: Stage) -> None:
    """A server that is killed in the middle of an answer."""
    stage.sim.play(Step(reasoning="Where to begin …", content=BEGINNING, gate="the rest", gate_at="finish"))
    async with pipe(stage) as (process, send):
        stage.show_call("kimi_think", {"prompt": TALE})
        await send({"id": 2, "method": "tools/call", "params": {"name": "kimi_think", "arguments": {"prompt": TALE}}})
        run_id = await _written_down(stage)
        process.kill()
        await process.wait()
        stage.page.row("server", "killed: it could not say good-bye")
    reply = await stage.call("kimi_run", run_id=run_id)
    error = reply.error
    stage.holds("The next server knows that it was stopped.", error.get("code") == "answer_cut_off", error)
    kept = reply.result["answer"] == BEGINNING and bool(reply.reasoning)
    stage.holds("What had arrived of answer and reasoning is kept.", kept, reply.result["answer"])
    stage.holds("It was asked for, and paid for, once.", len(stage.chats) == 1, len(stage.chats))


async def _written_down(stage: Stage) -> str:
    """The id of the tale's run, once another server can read its whole text."""
    while True:
        latest = await stage.client.call_tool("kimi_run", {})
        lines = [line for line in _answer(latest).splitlines() if line.endswith(TALE)]
        if lines:
            run_id = lines[0].split()[0]
            status = await stage.client.call_tool("kimi_run", {"run_id": run_id, "action": "status"})
            if _answer(status):
                return run_id
        await anyio.sleep(WRITTEN_WITHIN_S / 10)


def _answer(result: Any) -> str:
    return str(result.structured_content["answer"])


@asynccontextmanager
async def pipe(stage: Stage) -> AsyncGenerator[tuple[Process, Any]]:
    """A server process of its own, and how to write to it; it is killed when the block ends."""
    command = [sys.executable, "-m", "kimi_mcp"]
    async with await anyio.open_process(command, env=dict(stage.environment), stderr=None) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, lines = process.stdin, TextReceiveStream(process.stdout)

        async def send(message: Mapping[str, Any]) -> None:
            await stdin.send((json.dumps({"jsonrpc": "2.0", **message}) + "\n").encode())

        try:
            await send({"id": 1, "method": "initialize", "params": HELLO})
            await lines.receive()
            await send({"method": "notifications/initialized"})
            yield process, send
        finally:
            if process.returncode is None:
                process.kill()
