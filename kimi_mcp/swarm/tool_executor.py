"""``ToolExecutor``: a sub-agent's use of its tools, each call a durable step. I/O through the tools and the record.

A call that never runs (no such tool, arguments that don't fit, a limit) gets a sentence as its result, and is recorded
like one that did.
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
from kimi_mcp.swarm.tools import CallResult, SwarmTools

MAX_MISFITS = 2
"""How often in a row a tool's arguments may not fit before it is closed to an agent: the first time is repaired."""


class ToolExecutor:
    """The tools of one sub-agent. It counts which of them the agent could not handle."""

    def __init__(self, tools: SwarmTools, runner: StepRunner) -> None:
        self._tools, self._runner = tools, runner
        self._names = [tool["name"] for tool in tools.definitions]
        self._misfits: dict[str, int] = {}

    @property
    def definitions(self) -> Sequence[Mapping[str, Any]]:
        """The tools as they stand under ``tools[].function`` on the wire."""
        return self._tools.definitions

    async def use(self, agent: Agent, key: str, calls: Sequence[ToolCall]) -> Sequence[str]:
        """The results of one turn's calls, in their order; they run at the same time."""
        records: dict[int, JSON] = {}

        async def run(number: int, call: ToolCall) -> None:
            about = {"kind": "tool", "agent": agent.id, "tool": call.name, "arguments": call.arguments}
            step = f"{key}/tool-{number}"
            records[number] = await self._runner.step(step, about, lambda: self._run(call), self._count_replayed)

        try:
            async with anyio.create_task_group() as tasks:
                for number, call in enumerate(calls, 1):
                    tasks.start_soon(run, number, call)
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None  # such as a record that takes no more: the agent's error names it
        self._runner.ledger.count(usd=agent.add_tool_calls(list(records.values())), tokens=0)
        return [self._text(call, records[number]) for number, call in enumerate(calls, 1)]

    async def _run(self, call: ToolCall) -> JSON:
        """Run a call, unless something speaks against it; the record of it."""
        began, result = time.monotonic(), self._refusal(call)
        if result is None:
            ledger = self._runner.ledger
            ledger.tool_calls += 1
            result = await self._tools.call(call.name, call.arguments)
            ledger.tool_calls -= not result.ran
        return {
            "text": result.text,
            "is_error": result.is_error,
            "misfit": result.repairable,
            "ran": result.ran,
            "cost_usd": result.cost_usd,
            "took_s": round(time.monotonic() - began, 4),
        }

    def _refusal(self, call: ToolCall) -> CallResult | None:
        """Why a call does not run; None: it does."""
        limits = self._runner.ledger.limits
        if call.name not in self._names:
            names = ", ".join(self._names)
            return CallResult.refused(prompts.render("notes.unknown_tool", name=call.name[:80], names=names))
        if self._misfits.get(call.name, 0) >= MAX_MISFITS:
            return CallResult.refused(prompts.render("notes.closed_tool", name=call.name))
        if self._runner.ledger.tool_calls >= limits.tool_calls:
            why = conclude_reason("tool_calls", limits)
            return CallResult.refused(prompts.render("notes.not_run", name=call.name, why=why))
        return None

    def _count_replayed(self, record: JSON) -> None:
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
        return text + prompts.render("notes.misfit_again" if again else "notes.misfit")
