"""``ToolExecutor``: a sub-agent's use of its tools, each call a durable step. I/O through the toolbox and the record.

Only what the toolbox lists is ever called. A call that never runs (no such tool, arguments that don't fit, a limit) is
answered in words and recorded like one that did.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import anyio

from kimi_mcp.core.types import ToolCall
from kimi_mcp.runs.steps import JSON
from kimi_mcp.swarm import prompts
from kimi_mcp.swarm.limits import conclude_reason
from kimi_mcp.swarm.stats import Agent
from kimi_mcp.swarm.step_runner import StepRunner
from kimi_mcp.swarm.tools import SwarmTools

MAX_MISFITS = 2
"""How often in a row a tool's arguments may not fit before it is closed to an agent: the first time is repaired."""


class ToolExecutor:
    """One sub-agent's hands. Mutable: they remember which tools it could not handle."""

    def __init__(self, toolbox: SwarmTools, runner: StepRunner) -> None:
        self._toolbox, self._runner = toolbox, runner
        self._names = [tool["name"] for tool in toolbox.definitions]
        self._misfits: dict[str, int] = {}

    @property
    def definitions(self) -> Sequence[Mapping[str, Any]]:
        """The toolbox's tools."""
        return self._toolbox.definitions

    async def use(self, agent: Agent, key: str, calls: Sequence[ToolCall]) -> Sequence[str]:
        """What the calls of one turn bring, in their order; they run side by side."""
        records: dict[int, JSON] = {}

        async def one(number: int, call: ToolCall) -> None:
            told = {"kind": "tool", "agent": agent.id, "tool": call.name, "arguments": call.arguments}
            asked = f"{key}/tool-{number}"
            records[number] = await self._runner.step(asked, told, lambda: self._made(call), self._replayed)

        first, *others = calls
        try:
            async with anyio.create_task_group() as tasks:
                for number, call in enumerate(others, 2):
                    tasks.start_soon(one, number, call)
                await one(1, first)  # itself: a task takes a turn of the event loop to begin and another to end
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None  # such as a record that takes no more: the agent's error names it
        self._runner.ledger.count(usd=agent.use(list(records.values())), tokens=0)
        return [self._text(call, records[number]) for number, call in enumerate(calls, 1)]

    async def _made(self, call: ToolCall) -> Mapping[str, Any]:
        """A call, made; or why it is not."""
        if call.name not in self._names:
            return _not_made(prompts.render("notes.unknown_tool", name=call.name[:80], names=", ".join(self._names)))
        if self._misfits.get(call.name, 0) >= MAX_MISFITS:
            return _not_made(prompts.render("notes.closed_tool", name=call.name))
        ledger = self._runner.ledger
        if ledger.tool_calls >= ledger.limits.tool_calls:
            return _not_made(
                prompts.render("notes.not_run", name=call.name, why=conclude_reason("tool_calls", ledger.limits))
            )
        ledger.tool_calls += 1
        began = time.monotonic()
        result = await self._toolbox.call(call.name, call.arguments)
        if not result.ran:
            ledger.tool_calls -= 1
        return {
            "text": result.text,
            "is_error": result.is_error,
            "misfit": result.repairable,
            "ran": result.ran,
            "cost_usd": result.cost_usd,
            "took_s": round(time.monotonic() - began, 4),
        }

    def _replayed(self, record: JSON) -> None:
        self._runner.ledger.tool_calls += bool(record["ran"])

    def _text(self, call: ToolCall, record: JSON) -> str:
        """What the model reads; the misfits of a turn are counted in the order of its calls."""
        text = str(record["text"])
        if not record["misfit"]:
            if record["ran"]:
                self._misfits.pop(call.name, None)
            return text
        self._misfits[call.name] = self._misfits.get(call.name, 0) + 1
        again = self._misfits[call.name] >= MAX_MISFITS
        return text + prompts.render_suffix("notes.misfit_again" if again else "notes.misfit")


def _not_made(text: str) -> Mapping[str, Any]:
    return {"text": text, "is_error": True, "misfit": False, "ran": False, "cost_usd": 0.0, "took_s": 0.0}
