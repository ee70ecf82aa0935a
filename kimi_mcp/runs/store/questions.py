"""``BudgetQuestions``: what a running swarm asks the user of its host, and what that answers. I/O: the store's.

They lie in the store, so that a server that resumes the swarm, and each of several replicas, knows them: a fact of the
database for each swarm that has asked, which goes when the swarm is removed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from kimi_mcp.core.json_values import UNREADABLE, from_json, to_json
from kimi_mcp.runs.store.notifications import notify
from kimi_mcp.runs.store.records import as_text
from kimi_mcp.runs.store.tables import about, read_fact, write_fact

if TYPE_CHECKING:
    from kimi_mcp.runs.store.store import RunStore

UserAction = Literal["accept", "decline", "cancel", "unanswered"]
"""What a user did; ``unanswered``: nothing in time, or the host could not ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetQuestion:
    """A swarm's question for a larger budget."""

    number: int
    """From 1; a swarm has one open question at most, its last."""
    until: float
    """When it counts as unanswered, in seconds since 1970 by the store's clock."""
    message: str
    """In words, for people."""
    suggested_usd: float
    """How much more is suggested, in US dollars."""
    most_usd: float | None
    """How much more may be given; None: any amount."""
    action: UserAction | None = None
    """What the user did; None: it is open."""
    given_usd: float = 0.0
    """How much more there is by the answer."""


class BudgetQuestions:
    """The questions of one swarm."""

    def __init__(self, store: RunStore, run_id: str) -> None:
        self._store, self._run_id = store, run_id

    async def all(self) -> tuple[BudgetQuestion, ...]:
        """All of them, in order."""
        return await self._store.read(_questions, self._run_id)

    async def open(self) -> BudgetQuestion | None:
        """The one that waits for an answer; None: there is none, or its time is over."""
        last = (await self.all())[-1:]
        return next((each for each in last if each.action is None and self._store.now() < each.until), None)

    async def ask(self, question: BudgetQuestion) -> None:
        """Ask; nothing changes where another server has asked the question of that number."""
        await self._store.write_locked((self._lock,), _ask, self._run_id, question)

    async def answer(self, number: int, action: UserAction, given_usd: float = 0.0) -> None:
        """Answer a question, where nobody has done so. More than may be given is not given."""
        await self._store.write_locked((self._lock,), _answer, self._run_id, number, action, given_usd)

    @property
    def _lock(self) -> str:
        return _fact(self._run_id)


def forget_questions(connection: sa.Connection, run_ids: Iterable[str]) -> None:
    """Remove what swarms have asked: they are removed too."""
    connection.execute(sa.delete(about).where(about.c.name.in_(list(map(_fact, run_ids)))))


def _fact(run_id: str) -> str:
    return f"questions {run_id}"


def _questions(connection: sa.Connection, run_id: str) -> tuple[BudgetQuestion, ...]:
    try:
        found: Any = json.loads(read_fact(connection, _fact(run_id)) or "[]")
        return tuple(from_json(BudgetQuestion, each) for each in found)
    except UNREADABLE:  # of another version
        return ()


def _write(connection: sa.Connection, run_id: str, questions: Iterable[BudgetQuestion]) -> None:
    write_fact(connection, _fact(run_id), as_text([to_json(each) for each in questions]))
    notify(connection, "steps", run_id)


def _ask(connection: sa.Connection, run_id: str, question: BudgetQuestion) -> None:
    known = _questions(connection, run_id)
    if len(known) == question.number - 1:
        _write(connection, run_id, (*known, question))


def _answer(connection: sa.Connection, run_id: str, number: int, action: UserAction, given_usd: float) -> None:
    known = list(_questions(connection, run_id))
    if not 0 < number <= len(known) or (question := known[number - 1]).action is not None:
        return
    given = given_usd if question.most_usd is None else min(given_usd, question.most_usd)
    known[number - 1] = replace(question, action=action, given_usd=given if action == "accept" else 0.0)
    _write(connection, run_id, known)
