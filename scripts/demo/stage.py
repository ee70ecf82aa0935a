"""What a scene of the demo works with: the simulator, a host's client, the page. I/O: calls tools, starts a server."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
from anyio.streams.text import TextReceiveStream

from kimi_mcp.cli.console import Printer, change, shown
from kimi_mcp.core.version import __version__
from kimi_mcp.simulator import ReceivedRequest, Simulator
from kimi_mcp.simulator.faults import CHAT_PATH

if TYPE_CHECKING:
    from anyio.abc import Process
    from mcp import Client

SHOWN_LINES, SHOWN_CHARS = 2, 150
"""Lines of a text that are shown, and characters of each."""

POLL_S = 0.05

CLIENT = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "a host", "version": __version__},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReply:
    """What a tool call returned."""

    text: str
    """The text that a host shows."""
    result: Mapping[str, Any]
    is_error: bool

    @property
    def error(self) -> Mapping[str, Any]:
        """Its error; empty where there is none."""
        return self.result["error"] or {}

    @property
    def reasoning(self) -> Mapping[str, Any]:
        """Its reasoning; empty where there is none."""
        return self.result["reasoning"] or {}

    @property
    def rules(self) -> list[str]:
        """The rules that changed something or warned."""
        return [entry["rule"] for entry in self.result["policy"]]


@dataclass(slots=True, kw_only=True)
class Stage:
    """Where a scene plays."""

    sim: Simulator
    """The provider, which records what it received."""
    client: Client
    """The host's end of the server."""
    page: Printer
    folder: Path
    """A folder of the demo's own, in which scenes put files."""
    examples: Path
    environment: Mapping[str, str]
    """The environment of the server; another server with the same one belongs to the same host."""
    failed: list[str] = field(default_factory=list[str])
    """Every statement that was not true."""
    held: int = 0
    """How many were true."""

    @property
    def chats(self) -> list[ReceivedRequest]:
        """The requests for an answer that the simulator received in this scene."""
        return [request for request in self.sim.requests if request.path == CHAT_PATH]

    @property
    def body(self) -> Mapping[str, Any]:
        """The body of the last of them."""
        return (self.chats[-1].body if self.chats else None) or {}

    async def call(self, tool: str, **arguments: Any) -> ToolReply:
        """Call a tool as a host does, and show the call and its result."""
        self.show_call(tool, arguments)
        with self.page.waiting(f"{tool} …"):
            answer = await self.client.call_tool(tool, arguments)
        text = "".join(getattr(block, "text", "") for block in answer.content)
        reply = ToolReply(text=text, result=_result(answer), is_error=bool(answer.is_error))
        self._show(reply)
        return reply

    def show_call(self, tool: str, arguments: Mapping[str, Any]) -> None:
        """Show a call."""
        values = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
        self.page.row("asked", f"{tool}({', '.join(values)})", "name")

    def check(self, statement: str, truth: bool, instead: object = None) -> None:
        """Show and count a statement that must be true; where it is not, show ``instead``."""
        if truth:
            self.held += 1
            self.page.mark("ok", statement)
        else:
            self.failed.append(statement)
            self.page.mark("bad", f"{statement} Instead: {_short(shown(instead))}")

    async def shell(self, *command: str) -> Any:
        """What a command of ``kimi-mcp`` prints as JSON, with the server's environment; the command is shown."""
        self.page.row(
            "shell", f"kimi-mcp {' '.join(json.dumps(word) if ' ' in word else word for word in command)}", "name"
        )
        with self.page.waiting(f"{command[0]} …"):
            done = await anyio.run_process(
                [sys.executable, "-m", "kimi_mcp", *command, "--json"], env=dict(self.environment), check=False
            )
        return json.loads(done.stdout)

    async def run_id(self, prompt: str, ready: Callable[[Mapping[str, Any]], bool]) -> str:
        """The id of the latest run with that prompt, once its status is as expected."""
        while True:
            latest = _result(await self.client.call_tool("kimi_run", {}))["answer"]
            for run_id in (line.split()[0] for line in latest.splitlines() if line.endswith(prompt)):
                status = await self.client.call_tool("kimi_run", {"run_id": run_id, "action": "status"})
                if ready(_result(status)):
                    return run_id
            await anyio.sleep(POLL_S)

    @asynccontextmanager
    async def killed_server(self, tool: str, arguments: Mapping[str, Any], note: str) -> AsyncGenerator[None]:
        """Call a tool of a second server; when the block ends, that server is killed without any warning."""
        command = [sys.executable, "-m", "kimi_mcp"]
        async with await anyio.open_process(command, env=dict(self.environment), stderr=None) as process:
            try:
                await _send(process, id=1, method="initialize", params=CLIENT)
                assert process.stdout is not None
                await TextReceiveStream(process.stdout).receive()
                await _send(process, method="notifications/initialized")
                self.show_call(tool, arguments)
                await _send(process, id=2, method="tools/call", params={"name": tool, "arguments": arguments})
                yield
            finally:
                process.kill()
        self.page.row("server", f"killed: {note}")

    def _show(self, reply: ToolReply) -> None:
        result, error = reply.result, reply.error
        for entry in result["policy"]:
            line = f"{entry['rule']}: {change(entry['field'], entry['asked'], entry['sent'])}. {entry['why']}"
            self.page.row("policy", line, entry["action"])
        if reply.reasoning:
            self.page.row("reasoning", _short(reply.reasoning["text"]), "quiet")
        if result["answer"]:
            self.page.row("answer", _short(result["answer"]))
        if result["parsed"] is not None:
            self.page.row("parsed", json.dumps(result["parsed"], ensure_ascii=False))
        if error:
            self.page.row("error", f"{error['code']}: {error['message']}", "refuse" if reply.is_error else "warn")
            self.page.row("fix", error["fix"])


async def _send(process: Process, **message: Any) -> None:
    assert process.stdin is not None
    await process.stdin.send((json.dumps({"jsonrpc": "2.0", **message}) + "\n").encode())


def _result(answer: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", answer.structured_content)


def _short(text: str) -> str:
    lines = text.strip().splitlines()
    cut = [line if len(line) <= SHOWN_CHARS else line[: SHOWN_CHARS - 1] + "…" for line in lines[:SHOWN_LINES]]
    return "\n".join([*cut, "…"] if len(lines) > SHOWN_LINES else cut)
