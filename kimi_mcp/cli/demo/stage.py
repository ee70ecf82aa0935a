"""Where a scene of the demo plays: the upstream, the host's end of the server, the page. I/O: calls tools, prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kimi_mcp.cli.console import Printer, shown
from kimi_mcp.simulator import ReceivedRequest, Simulator
from kimi_mcp.simulator.faults import CHAT_PATH

if TYPE_CHECKING:
    from mcp import Client

SHOWN_LINES, SHOWN_CHARS = 2, 150
"""Lines of a text that are shown, and characters of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReply:
    """What a call came back with."""

    text: str
    """The text that a host shows."""
    result: Mapping[str, Any]
    """The structured result."""
    is_error: bool
    """Whether it is marked as failed."""

    @property
    def error(self) -> Mapping[str, Any]:
        """Its error; empty where there is none."""
        return cast("Mapping[str, Any]", self.result["error"] or {})

    @property
    def reasoning(self) -> Mapping[str, Any]:
        """Its reasoning; empty where there is none."""
        return cast("Mapping[str, Any]", self.result["reasoning"] or {})

    @property
    def rules(self) -> list[str]:
        """The rules that changed something or warned."""
        return [entry["rule"] for entry in self.result["policy"]]


@dataclass(slots=True, kw_only=True)
class Stage:
    """Where a scene plays: the upstream, the host's end of the server, and the page it is shown on."""

    sim: Simulator
    """The upstream, which tells what it received."""
    client: Client
    """The host's end."""
    page: Printer
    """Where people look."""
    folder: Path
    """A folder of the demo's own, in which scenes put files."""
    environment: Mapping[str, str]
    """The variables of its server: another one with the same is one more server of the same host."""
    failed: list[str] = field(default_factory=list[str])
    """Every sentence that did not hold."""
    held: int = 0
    """How many did."""

    @property
    def chats(self) -> list[ReceivedRequest]:
        """The requests for an answer that the simulator received in this scene."""
        return [request for request in self.sim.requests if request.path == CHAT_PATH]

    @property
    def body(self) -> Mapping[str, Any]:
        """The body of the last of them."""
        return (self.chats[-1].body if self.chats else None) or {}

    async def call(self, tool: str, **arguments: Any) -> ToolReply:
        """Call a tool as a host does, and show what was asked and what came back."""
        self.show_call(tool, arguments)
        with self.page.waiting(f"{tool} …"):
            answer = await self.client.call_tool(tool, arguments)
        text = "".join(getattr(block, "text", "") for block in answer.content)
        reply = ToolReply(
            text=text, result=cast("Mapping[str, Any]", answer.structured_content), is_error=bool(answer.is_error)
        )
        self._show(reply)
        return reply

    def show_call(self, tool: str, arguments: Mapping[str, Any]) -> None:
        """Show a call."""
        shown_arguments = ", ".join(
            f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items()
        )
        self.page.row("asked", f"{tool}({shown_arguments})", "name")

    def holds(self, what: str, truth: bool, instead: object = None) -> None:
        """Show and count a sentence that must be true; where it is not, what is so instead."""
        self.page.mark("ok" if truth else "bad", what if truth else f"{what} Instead: {_short(shown(instead))}")
        if truth:
            self.held += 1
        else:
            self.failed.append(what)

    def _show(self, reply: ToolReply) -> None:
        result, error = reply.result, reply.error
        for entry in result["policy"]:
            change = f"{entry['field']} {shown(entry['asked'])} → {shown(entry['sent'])}"
            self.page.row("policy", f"{entry['rule']}: {change}. {entry['why']}", entry["action"])
        if reply.reasoning:
            self.page.row("reasoning", _short(reply.reasoning["text"]), "quiet")
        if result["answer"]:
            self.page.row("answer", _short(result["answer"]))
        if result["parsed"] is not None:
            self.page.row("parsed", json.dumps(result["parsed"], ensure_ascii=False))
        if error:
            self.page.row("error", f"{error['code']}: {error['message']}", "refuse" if reply.is_error else "warn")
            self.page.row("fix", error["fix"])


def _short(text: str) -> str:
    lines = text.strip().splitlines()
    cut = [line if len(line) <= SHOWN_CHARS else line[: SHOWN_CHARS - 1] + "…" for line in lines[:SHOWN_LINES]]
    return "\n".join([*cut, "…"] if len(lines) > SHOWN_LINES else cut)
