"""Looks at agents: as long as somebody looks, what arrives of a step is written. I/O: in the caller's transaction.

A look is a row that whoever looks renews, and that is over by itself a few seconds later. What has arrived is part of
it: nothing is written of an agent that nobody looks at, and what was written goes with the look.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from kimi_mcp.core.redaction import scrub_growing
from kimi_mcp.runs.store.notifications import notify
from kimi_mcp.runs.store.tables import looks, runs

LOOK_S = 8.0
"""Seconds until a look is over that is not renewed."""

KEPT_S = 60.0
"""Seconds after its end until a look is removed by whoever looks next."""

MOST_CHARS = 20_000
"""Characters of each text that are written: the last ones."""

AgentOfRun = tuple[str, str]
"""A run and an agent of it."""


class TextEnd(NamedTuple):
    """The end of a text that grows."""

    start: int = 0
    """Where it begins in the whole text, in code points."""
    text: str = ""
    """It."""

    @classmethod
    def of(cls, whole: str) -> TextEnd:
        """What is written of a text: no key, and nothing that may be half of one."""
        clean = scrub_growing(whole)
        start = max(0, len(clean) - MOST_CHARS)
        return cls(start, clean[start:])

    def since(self, before: TextEnd) -> TextEnd:
        """What is new of it for whoever knows it as it was before: what came behind that, or all of it."""
        gone = self.start - before.start
        if 0 <= gone <= len(before.text) and self.text.startswith(known := before.text[gone:]):
            return TextEnd(self.start + len(known), self.text[len(known) :])
        return self


_NOTHING = TextEnd()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTexts:
    """What has arrived of an agent's running step."""

    step: str
    """The step's key."""
    reasoning: TextEnd = _NOTHING
    """The end of its reasoning."""
    answer: TextEnd = _NOTHING
    """The end of its answer."""


_RUN: sa.BindParameter[str] = sa.bindparam("run")
_NOW: sa.BindParameter[float] = sa.bindparam("now")
_HERE = (looks.c.run_id == _RUN, looks.c.agent == sa.bindparam("of_agent"))
_UNTIL = sa.bindparam("new_until", type_=sa.Float)
_RENEW = sa.update(looks).where(*_HERE).values(until=_UNTIL)
_BEGIN = sa.insert(looks).from_select(
    ["run_id", "agent", "until"],
    sa.select(runs.c.id, sa.bindparam("of_agent", type_=sa.Text), _UNTIL).where(
        runs.c.id == _RUN, runs.c.status == "running"
    ),
)
_REMOVE_OLD = sa.delete(looks).where(looks.c.until < _NOW)
_LOOKED_AT = sa.select(looks.c.run_id, looks.c.agent).where(looks.c.until > _NOW)
_REQUESTED = sa.union_all(
    sa.select(runs.c.id.label("run_id"), sa.null().label("agent")).where(
        runs.c.status == "running", runs.c.owner == sa.bindparam("by"), runs.c.cancel_requested == 1
    ),
    _LOOKED_AT,
)
_TEXTS = ("step", "reasoning", "reasoning_start", "answer", "answer_start")
_WRITE = (
    sa.update(looks)
    .where(*_HERE)
    .values({name: sa.bindparam(f"new_{name}", type_=looks.c[name].type) for name in _TEXTS})
)
_READ = sa.select(looks).where(
    looks.c.run_id == _RUN, looks.c.agent.in_(sa.bindparam("agents", expanding=True)), looks.c.step.is_not(None)
)


def look(connection: sa.Connection, run_id: str, agent: str, now: float) -> None:
    """Look at an agent of a running run, or go on looking."""
    here = {"run": run_id, "of_agent": agent, "new_until": now + LOOK_S}
    if not connection.execute(_RENEW, here).rowcount:
        connection.execute(_REMOVE_OLD, {"now": now - KEPT_S})
        connection.execute(_BEGIN, here)
    notify(connection, "look", look_id((run_id, agent)))


def lock_of(run_id: str) -> str:
    """The lock that a transaction needs which writes looks at a run: two may begin the same look at once."""
    return f"looks {run_id}"


def look_id(agent: AgentOfRun) -> str:
    """The id that a look's notification has."""
    return "/".join(agent)


def looked_at(connection: sa.Connection, now: float) -> set[AgentOfRun]:
    """The agents of all runs that are looked at."""
    return {(row.run_id, row.agent) for row in connection.execute(_LOOKED_AT, {"now": now})}


def requests(connection: sa.Connection, owner: str, now: float) -> tuple[list[str], set[AgentOfRun]]:
    """What others request: the runs of a server that are to be cancelled, and the agents of all that are looked at."""
    rows = connection.execute(_REQUESTED, {"by": owner, "now": now}).all()
    cancelled = [row.run_id for row in rows if row.agent is None]
    return cancelled, {(row.run_id, row.agent) for row in rows if row.agent is not None}


def write_texts(connection: sa.Connection, texts: Mapping[AgentOfRun, StepTexts | None]) -> None:
    """Write what has arrived of agents' running steps (None: none runs), where their looks are still there."""
    rows: list[dict[str, Any]] = []
    for run_id, agent in sorted(texts):
        found = texts[run_id, agent]
        row = dict.fromkeys(_TEXTS) if found is None else _as_row(found)
        rows.append({"run": run_id, "of_agent": agent} | {f"new_{name}": value for name, value in row.items()})
        notify(connection, "run", run_id)
    if rows:
        connection.execute(_WRITE, rows)


def _as_row(texts: StepTexts) -> dict[str, Any]:
    row: dict[str, Any] = {"step": texts.step}
    for name in ("reasoning", "answer"):
        row[f"{name}_start"], row[name] = getattr(texts, name)
    return row


def texts_of(connection: sa.Connection, run_id: str, agents: Collection[str]) -> dict[str, StepTexts]:
    """What is written of agents of a run, by the agent."""
    found: dict[str, StepTexts] = {}
    for row in connection.execute(_READ, {"run": run_id, "agents": list(agents)}) if agents else ():
        reasoning, answer = TextEnd(row.reasoning_start, row.reasoning), TextEnd(row.answer_start, row.answer)
        found[row.agent] = StepTexts(step=row.step, reasoning=reasoning, answer=answer)
    return found


def forget_looks(connection: sa.Connection, run_ids: Iterable[str]) -> None:
    """Remove the looks at runs: they have ended."""
    connection.execute(sa.delete(looks).where(looks.c.run_id.in_(list(run_ids))))
