"""Runs that nobody made, recorded as a server records its own, at times of one's choice. I/O: a store.

For what needs a run in exactly one state: pictures, figures, and texts that no provider sends.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.types import Status, Timing, Usage
from kimi_mcp.runs.store.records import Phase, RunEnd, RunEntry, TextDelta
from kimi_mcp.runs.store.store import RunStore

KEEP_DAYS = 10_000
"""Days that a run of such a store is kept: none goes before somebody has looked at it."""


class Clock:
    """Seconds since 1970, as one sets them."""

    def __init__(self) -> None:
        self.at = time.time()
        """What it shows."""

    def __call__(self) -> float:
        """Look at it."""
        return self.at


def open_recording(folder: Path, clock: Clock) -> RunStore:
    """The store of a folder, to which it is always as late as the clock says."""
    return RunStore(folder, keep_days=KEEP_DAYS, wall=clock)


@dataclass(slots=True, kw_only=True)
class RecordedRun:
    """One run of such a store. Times are seconds since it began."""

    store: RunStore
    clock: Clock
    id: str
    tool: str = "kimi_think"
    prompt: str
    host: str | None = "claude-code"
    caller: str = "local"
    started_at: float
    """Seconds since 1970."""
    model: str = "kimi-k2.6"
    provider: str = "moonshot"
    conversation_id: str | None = None
    follows: str | None = None
    agents: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Its sub-agents, as the result lists them; their statuses are changed here."""
    _lengths: dict[str, int] = field(default_factory=dict[str, int])

    async def begin(self, **fields: Any) -> None:
        """Record that it runs; ``fields`` are those of an outcome, or ``phase``."""
        phase: Phase | None = fields.pop("phase", Phase(doing="waiting for the first token"))
        self.clock.at = self.started_at
        task = {"prompt": self.prompt}
        is_swarm = self.tool == "kimi_swarm"
        turn = {"role": "user", "parts": [{"text": self.prompt}]}
        entry = RunEntry(
            id=self.id,
            caller=self.caller,
            host=self.host,
            tool=self.tool,
            prompt_head=" ".join(self.prompt.split())[:200],
            started_at=self.started_at,
            conversation_id=self.conversation_id,
            follows=self.follows,
            request={"task": task} if is_swarm else {"turns": [turn]},
            model_id=self.model,
            outcome=self._outcome("running", **fields),
            resumable=is_swarm,
            phase=phase,
        )
        await self.store.record(entry, counted_usd=0.0)

    async def request(self, agent: str, start: float, end: float | None = None, **result: Any) -> None:
        """Record a request of an agent; without an end it goes on.

        ``result`` are the fields of its result, or of its description: ``name``, ``system``, ``task``.
        """
        key = f"{agent}/step-{self._next(agent)}"
        described = {name: result.pop(name) for name in ("name", "system", "task") if name in result}
        about = {"kind": "request", "agent": agent, "name": agent, "step": self._lengths[agent], **described}
        await self._step(key, about, start, end, {"answer": "", "took_s": (end or start) - start, **result})

    async def tool_call(
        self, agent: str, tool: str, arguments: str, start: float, end: float | None = None, **result: Any
    ) -> None:
        """Record a tool call of an agent's last request."""
        parent = f"{agent}/step-{self._lengths.get(agent, 1)}"
        key = f"{parent}/tool-{self._next(parent)}"
        about = {"kind": "tool", "agent": agent, "tool": tool, "arguments": arguments}
        took = (end or start) - start
        result = {"text": "", "is_error": False, "ran": True, "cost_usd": 0.0, "took_s": took, **result}
        await self._step(key, about, start, end, result)

    async def write(self, of: str, text: str, **fields: Any) -> None:
        """Record that more of its answer or reasoning has arrived; the rest as in ``begin``."""
        start = self._lengths.get(of, 0)
        self._lengths[of] = start + len(text)
        await self.change(TextDelta(run_id=self.id, request=0, of=of, start=start, text=text), **fields)

    async def change(self, *pieces: TextDelta, **fields: Any) -> None:
        """Record how it is by now; the rest as in ``begin``."""
        phase: Phase | None = fields.pop("phase", Phase(doing="waiting for the next token"))
        known = {"counted_usd": 0.0, "lived_s": 0.0, "outcome": self._outcome("running", **fields), "phase": phase}
        await self.store.append([*pieces], {self.id: known}, {})

    async def end(self, status: Status = "completed", seconds: float = 1.0, **fields: Any) -> None:
        """Record how it ended, after so many seconds."""
        self.clock.at = self.started_at + seconds
        outcome = self._outcome(status, **{"timing": Timing(total_s=seconds, first_token_s=0.4, attempts=1), **fields})
        end = RunEnd(run_id=self.id, outcome=outcome, ended_at=self.clock.at, conversation_id=self.conversation_id)
        await self.store.end(end)

    def add_agents(self, names: Mapping[str, str], status: Status = "running") -> None:
        """Add sub-agents, by their ids."""
        usage = {"total_tokens": 12_000, "cost_usd": 0.01}
        for agent, name in names.items():
            known = {"steps": 3, "tool_calls": 2, "usage": usage}
            self.agents[agent] = {"id": agent, "name": name, "status": status, **known}

    def _next(self, name: str) -> int:
        self._lengths[name] = self._lengths.get(name, 0) + 1
        return self._lengths[name]

    async def _step(
        self, key: str, about: Mapping[str, Any], start: float, end: float | None, result: Mapping[str, Any]
    ) -> None:
        steps = self.store.steps(self.id)
        self.clock.at = self.started_at + start
        await steps.begin(key, about)
        if end is not None:
            self.clock.at = self.started_at + end
            await steps.finish(key, result)

    def _outcome(self, status: Status, **fields: Any) -> Outcome:
        known: dict[str, Any] = {
            "run_id": self.id,
            "conversation_id": self.conversation_id,
            "model_asked": "auto",
            "model_sent": self.model,
            "model_answered": None if status == "running" else self.model,
            "provider": self.provider,
            "mode": "instant" if self.tool == "kimi_instant" else "thinking",
        }
        if self.agents:
            known["swarm"] = swarm_block([*self.agents.values()])
        return Outcome(status=status, **{**known, **fields})


def swarm_block(agents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a result says of a swarm."""
    return {"agents": [dict(each) for each in agents], "steps": 4, "critical_steps": 9, "speedup": 6.2}


def usage(tokens: int) -> Usage:
    """So many tokens, a fifth of them the answer."""
    answer = tokens // 5
    return Usage(
        prompt_tokens=tokens - answer, completion_tokens=answer, reasoning_tokens=answer // 2, total_tokens=tokens
    )
