"""A store full of varied runs, the same ones each time: each tool, status and caller, short texts and long ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from kimi_mcp.core.errors import RateLimited
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.types import Timing, Usage
from kimi_mcp.runs.store import changes
from kimi_mcp.runs.store.records import Phase, RunEnd, RunEntry
from kimi_mcp.runs.store.store import RunStore

PROMPTS = (
    "Which of these three designs for the session cache survives a restart of one replica, and why?",
    "Summarise {{item}} in three sentences",
    "What is in this picture?",
    "Review the migration in db/0042_split_accounts.sql: what locks does it take, and for how long?",
    "Compare the tax treatment of remote employees in Portugal, Spain and Italy. Name your sources.",
    "Prove that the greedy schedule is optimal when all jobs have unit length",
    "Translate the release notes to Japanese",
    "比较这三种缓存策略的优缺点,并给出建议",
    "Find every place where we build SQL by concatenation and say which of them an attacker can reach",
    "Write a haiku about garbage collection",
    "Read the 40 interview transcripts and list what the interviewees complain about, with quotes for each complaint",
    "ما هي عاصمة أستراليا؟",
    "Why does test_left_swarms fail one time in fifty?",
    "Which frames of the video show the dashboard lights?",
    "ok",
)
TOOLS = {"kimi_think": 40, "kimi_instant": 30, "kimi_swarm": 14, "kimi_vision": 12, "kimi_video": 4}
STATUSES = {"completed": 84, "failed": 6, "partial": 5, "cancelled": 5}
HOSTS = {"claude-code": 45, "cursor": 20, "codex": 15, "kimi-mcp ask": 12, None: 8}
CALLERS = {"local": 60, "ana@example.com": 20, "build-agent": 15, "Ω team with quite a long name of its own": 5}
MODELS = {"kimi-k2.5": 50, "kimi-k2.6": 35, "kimi-k2-thinking": 15}
DOING = ("thinking", "waiting for the provider", "4 agents work, 9 have ended", "answering")


async def fill(store: RunStore, number: int, *, running: int = 5, days: float = 30) -> list[str]:
    """Record so many runs, spread over the last days; returns their ids, the newest first, which are running."""
    owner, now = store.lock.id, store.now()

    def write(connection: sa.Connection) -> list[str]:
        ids: list[str] = []
        for entry, end in _runs(number, now, running, days * 86_400):
            changes.write(connection, entry, owner, 0.0, is_new=True)
            if end is not None:
                changes.end(connection, end, owner)
            ids.append(entry.id)
        return ids

    return await store.write(write)


def _runs(number: int, now: float, running: int, span: float) -> Iterator[tuple[RunEntry, RunEnd | None]]:
    chance = random.Random(17)

    def one_of(weights: dict[Any, int]) -> Any:
        return chance.choices(list(weights), list(weights.values()))[0]

    for index in range(number):
        tool, model, goes_on = one_of(TOOLS), one_of(MODELS), index < running
        agents = chance.randint(2, 60) if tool == "kimi_swarm" else 0
        took = chance.lognormvariate(3.5 if agents else 2, 1.1)
        tokens, prompt = int(chance.lognormvariate(11 if agents else 7.5, 1)), chance.choice(PROMPTS)
        status = "running" if goes_on else one_of(STATUSES)
        run_id = f"run_{number - index:024x}"
        outcome = Outcome(
            status=status,
            run_id=run_id,
            answer="" if goes_on else "The **answer**.",
            model_asked="auto",
            model_sent=model,
            model_answered=model,
            provider="moonshot",
            usage=None if goes_on else Usage(prompt_tokens=tokens // 3, total_tokens=tokens),
            cost_usd=None if goes_on or chance.random() < 0.02 else tokens * 1.4e-6,
            timing=Timing(total_s=took, attempts=1),
            error=RateLimited("The provider is busy.", fix="Wait.") if status == "failed" else None,
            swarm={"agents": [_agent(each) for each in range(agents)]} | _SUMS if agents else None,
        )
        entry = RunEntry(
            id=run_id,
            caller=one_of(CALLERS),
            host=one_of(HOSTS),
            tool=tool,
            prompt_head=prompt,
            started_at=now - (index * 7 + 1 if goes_on else took + 60 + span * (index / number) ** 1.3),
            conversation_id=None,
            follows=None,
            request={"task": {"prompt": prompt}},
            model_id=model,
            outcome=outcome,
            phase=Phase(doing=DOING[index % len(DOING)]) if goes_on else None,
        )
        end = RunEnd(run_id=run_id, outcome=outcome, ended_at=entry.started_at + took)
        yield entry, None if goes_on else end


_SUMS = {"steps": 3, "critical_steps": 7, "speedup": 4.2}


def _agent(number: int) -> dict[str, Any]:
    return {"id": f"agent-{number + 1}", "name": "reader", "status": "completed", "steps": 2, "tool_calls": 1}
