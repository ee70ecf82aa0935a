"""The swarm of the pictures: nineteen agents that read terms of hosting providers, and one that adds them up. Pure."""

from __future__ import annotations

import random

from kimi_mcp.core.types import Source, Status
from kimi_mcp.runs.store.records import Phase
from kimi_mcp.runs.store.store import RunStore
from scripts.view.recording import Clock, RecordedRun, usage

PROMPT = (
    "Compare how twenty hosting providers let a customer leave: notice, refunds, export of data, and what it costs. "
    "Quote the clause that says so."
)
NAMES = [
    "Alder Cloud",
    "Birch Hosting",
    "Cedar Compute",
    "Dogwood",
    "Elder Systems",
    "Fir & Sons",
    "Ginkgo Labs",
    "Hazel Networks",
    "Ivy Metal",
    "Juniper Fields",
    "Katsura",
    "Larch",
    "Maple Base",
    "Nutmeg",
    "Oak & Stone",
    "Poplar",
    "Quince",
    "Rowan Servers",
    "Sorrel",
    "Tamarack",
]

ANSWER = """## Leaving takes between one day and three months

Fourteen of the twenty let a customer go **within 30 days**; four want three months; two say nothing about it.

| provider | notice | refund | export of data |
|---|---:|---|---|
| Alder Cloud | 1 day | by the hour | API, 30 days |
| Cedar Compute | 30 days | none | on request |
| Juniper Fields | 90 days | by the month | *not mentioned* |
| Oak & Stone | 30 days | by the day | API, 14 days |

> “The Customer may terminate at any time. Prepaid fees are returned for each full day that remains.”
> — Oak & Stone, terms of 2026, § 11.2

1. Only **Alder Cloud** and **Tamarack** keep an export open after the end of the contract.
2. `egress` is free of charge at six of them when somebody leaves.
"""
REASONING = """The agents agree on what notice means, except for Juniper Fields, where two clauses contradict each \
other: § 4 says 30 days, § 19 says 90. The later clause is about annual plans, so 90 is the safe reading.

Two providers publish no terms at all: they stay in the table as unknown rather than as none."""
TASK = (
    "Read the terms of {} and report: how long the notice is, whether prepaid fees are returned, how data is exported, "
    "and what all of it costs. Quote each clause."
)
FINDING = """**{}** lets its customers go with *30 days'* notice (§ 9.1).

- Prepaid fees: returned by the day, without interest.
- Export: through the API, for 14 days after the end.
"""
SYSTEM = "You read contracts. You quote exactly, and say where a contract is silent."
SECONDS = 96.0


async def record_swarm(store: RunStore, clock: Clock, run_id: str, *, running: bool, began: float) -> None:
    """Record the swarm, finished or at its 96th second; ``began``: when, in seconds since 1970."""
    chance = random.Random(11)
    run = RecordedRun(
        store=store, clock=clock, id=run_id, tool="kimi_swarm", prompt=PROMPT, started_at=began, model="kimi-k2.6"
    )
    await run.begin()
    calls = [{"name": "create_subagent"}, *({"name": "assign_task"} for _ in NAMES)]
    await run.request("main", 0.2, 9.6, tool_calls=calls, system="You lead a swarm.", task=PROMPT, **_used(chance))
    statuses: list[Status] = []
    for number, name in enumerate(NAMES, 1):
        agent = f"agent-{number}"
        run.add_agents({agent: name})
        statuses.append(await _work(run, agent, name, chance, running=running))
        run.agents[agent]["status"] = statuses[-1]
    if running:
        doing = f"{statuses.count('running')} agents work, {len(NAMES) - statuses.count('running')} have ended"
        lines = ("agent-12 (Larch): the page did not answer, tried again",)
        await run.change(phase=Phase(doing=doing, lines=lines, reported=1), usage=usage(412_300), cost_usd=0.61)
        return
    await run.request("main", SECONDS, SECONDS + 21, answer=ANSWER, reasoning=REASONING, **_used(chance))
    await run.end(
        "completed",
        SECONDS + 21.4,
        answer=ANSWER,
        reasoning=REASONING,
        usage=usage(618_211),
        cost_usd=0.9347,
        finish_reason="stop",
        sources=(
            Source(title="Alder Cloud: terms of service", url="https://alder.example/terms"),
            Source(title="Oak & Stone: terms of 2026", url="https://oak-and-stone.example/legal/terms-2026"),
        ),
    )


def _used(chance: random.Random) -> dict[str, object]:
    tokens = chance.randint(4_000, 19_000)
    return {"usage": {"total_tokens": tokens}, "cost_usd": round(tokens * 1.5e-6, 4)}


async def _work(run: RecordedRun, agent: str, name: str, chance: random.Random, *, running: bool) -> Status:
    """The steps of one agent; its status."""
    at, first = 10.0 + chance.random(), {"name": name, "system": SYSTEM, "task": TASK.format(name)}
    steps = chance.randint(2, 4)
    for step in range(steps):
        end = at + chance.uniform(5, 15)
        if running and end > SECONDS - 3:
            await run.request(agent, at, None, **first)
            return "running"
        is_last = step == steps - 1
        texts = {"answer": FINDING.format(name)} if is_last else {"tool_calls": [{"name": "web_search"}]}
        await run.request(
            agent, at, end, reasoning=f"What does {name} say of notice?", **texts, **first, **_used(chance)
        )
        first, at = {"name": name}, end
        if is_last:
            break
        for tool in ("web_search", "fetch")[: chance.randint(1, 2)]:
            end = at + chance.uniform(2, 11)
            text = f"{name}: terms of service, § 9 Termination …"
            await run.tool_call(agent, tool, f'{{"query": "{name} terms"}}', at, end, text=text)
            at = end
    if agent == "agent-12":
        why = {"code": "upstream_timeout", "message": "The provider fell silent.", "fix": "Call again."}
        await run.request(agent, at, at + 6, name=name, error=why)
        return "failed"
    if running and chance.random() < 0.45:
        await run.request(agent, at, name=name)
        return "running"
    return "completed"
