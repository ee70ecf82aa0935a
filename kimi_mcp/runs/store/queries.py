"""What is asked of the journal's tables, each in somebody's transaction; a run's own life is in ``lives``. Does I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import takewhile
from typing import Any, cast

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Float,
    Row,
    RowMapping,
    Select,
    Text,
    bindparam,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)

from kimi_mcp.core.errors import BudgetExceeded, Internal
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.pricing import dollars
from kimi_mcp.core.types import Turn
from kimi_mcp.runs.store import errors
from kimi_mcp.runs.store.records import RunRecord, as_text, outcome_from_json, turns_from_json
from kimi_mcp.runs.store.tables import conversations, pieces, runs, steps

Found = Row[Any]

_HOST: BindParameter[str | None] = bindparam("host")
_SAME_CALL = (  # asked with every call: built once
    select(runs)
    .where(runs.c.call_key == bindparam("key"), runs.c.abandoned == 1, runs.c.caller == bindparam("caller"))
    .where(runs.c.host.is_not_distinct_from(_HOST))
    .where(or_(runs.c.status == "running", (runs.c.status == "completed") & (runs.c.ended_at >= bindparam("since"))))
    .order_by(runs.c.started_at.desc(), runs.c.id)
    .limit(1)
)

_TEXTS = ("turns", "answer", "reasoning")


def within_budget(connection: Connection, run_id: str, counted_usd: float, most_usd: float, since: float) -> None:
    """Raise ``BudgetExceeded`` where what was spent since then and what a run now asks for are more than the limit.

    ``counted_usd``: what the run counts with its next request; what it counted before is spent already.
    """
    spent, before = spent_since(connection, since), select(runs.c.counted_usd).where(runs.c.id == run_id)
    following = counted_usd - (connection.execute(before).scalar() or 0.0)
    if spent + following > most_usd:
        raise BudgetExceeded(
            f"Today's spending limit is reached: {dollars(spent)} of {dollars(most_usd)} are spent, and the next "
            f"request would start at about {dollars(following)}.",
            fix="Raise KIMI_BUDGET_USD_PER_DAY, or call again tomorrow (UTC).",
        )


def spent_since(connection: Connection, since: float, run_id: str | None = None, counted_usd: float = 0.0) -> float:
    """US dollars that limits count for all runs since then, those under way included.

    The run ``run_id``, if it is one of them, is taken to count ``counted_usd``.
    """
    total = select(func.coalesce(func.sum(runs.c.counted_usd), 0.0)).where(runs.c.started_at >= since)
    spent = float(connection.execute(total).scalar_one())
    own = select(runs.c.counted_usd).where(runs.c.id == run_id, runs.c.started_at >= since)
    before = None if run_id is None else connection.execute(own).scalar_one_or_none()
    return spent if before is None else spent - before + counted_usd


def find(connection: Connection, run_id: str) -> Found | None:
    """A run by its id."""
    return connection.execute(select(runs).where(runs.c.id == run_id)).first()


def latest(connection: Connection, caller: str | None, most: int | None) -> list[Found]:
    """The newest runs, of one caller or of all."""
    return list(connection.execute(_newest(caller).limit(most)))


def overview(
    connection: Connection,
    caller: str | None,
    *,
    status: str | None = None,
    since: float | None = None,
    ended_before: float | None = None,
    most: int | None = None,
) -> list[Found]:
    """The newest runs as ``latest`` has them, but without their texts: those may be long, and runs many."""
    texts: dict[str, ColumnElement[Any]] = {"request": literal("{}"), **dict.fromkeys(_TEXTS, null())}
    columns = [texts[each.name].label(each.name) if each.name in texts else each for each in runs.c]
    newest: Select[Any] = select(*columns).order_by(runs.c.started_at.desc(), runs.c.id)
    if caller is not None:
        newest = newest.where(runs.c.caller == caller)
    if status is not None:
        newest = newest.where(runs.c.status + "" == status)  # an expression: the index on it would have them all sorted
    if since is not None:
        newest = newest.where(runs.c.started_at >= since)
    if ended_before is not None:
        newest = newest.where(runs.c.ended_at < ended_before).order_by(None).order_by(runs.c.ended_at.desc())
    return list(connection.execute(newest.limit(most)))


def ids(connection: Connection, caller: str | None, most: int) -> list[str]:
    """The ids of the newest runs, of one caller or of all."""
    newest = select(runs.c.id).order_by(runs.c.started_at.desc(), runs.c.id).limit(most)
    return list(connection.execute(newest if caller is None else newest.where(runs.c.caller == caller)).scalars())


def ids_with_prefix(connection: Connection, beginning: str, most: int) -> list[str]:
    """The ids that begin so, at most so many."""
    fitting = select(runs.c.id).where(runs.c.id >= beginning, runs.c.id <= f"{beginning}zzzz").order_by(runs.c.id)
    return list(connection.execute(fitting.limit(most)).scalars())


def unique_prefix_length(connection: Connection, ids: Iterable[str]) -> int:
    """How many characters of any of these ids tell it apart from those of all runs."""
    most = 0
    for run_id in ids:
        earlier = select(func.max(runs.c.id)).where(runs.c.id < run_id)
        later = select(func.min(runs.c.id)).where(runs.c.id > run_id)
        for query in (earlier, later):
            neighbour = connection.execute(query).scalar() or ""
            alike = takewhile(lambda pair: pair[0] == pair[1], zip(run_id, neighbour, strict=False))
            most = max(most, sum(1 for _ in alike) + 1)
    return most


def before(connection: Connection, run_id: str) -> list[str]:
    """The runs whose turns come before a run's own, the oldest first."""
    found: list[str] = []
    while (run_id := connection.execute(select(runs.c.follows).where(runs.c.id == run_id)).scalar() or "") != "":
        found.append(run_id)
    return found[::-1]


def after(connection: Connection, run_id: str) -> list[str]:
    """The runs that follow a run at once, the oldest first."""
    found = select(runs.c.id).where(runs.c.follows == run_id).order_by(runs.c.started_at)
    return list(connection.execute(found).scalars())


def unfinished(connection: Connection) -> list[Found]:
    """Every run that is said to be under way."""
    return list(connection.execute(select(runs).where(runs.c.status == "running")))


def find_abandoned(connection: Connection, caller: str, host: str | None, key: str, since: float) -> Found | None:
    """The newest run of the very same call whose host gave up on it and that is running or was completed since then."""
    asked = {"caller": caller, "host": host, "key": key, "since": since}
    return connection.execute(_SAME_CALL, asked).first()


def cancel_requests(connection: Connection, owner: str) -> list[str]:
    """Which of a server's runs another one was told to cancel."""
    wanted = select(runs.c.id).where(runs.c.status == "running", runs.c.owner == owner, runs.c.cancel_asked == 1)
    return list(connection.execute(wanted).scalars())


def adopt(connection: Connection, run_id: str, dead: str, owner: str) -> bool:
    """Take over a dead server's run; False where somebody else was faster."""
    taken = update(runs).where(runs.c.id == run_id, runs.c.owner == dead, runs.c.status == "running")
    return bool(connection.execute(taken.values(owner=owner)).rowcount)


def record(connection: Connection, row: Found, *, texts: bool = True) -> RunRecord:
    """A run with all that has arrived of it; without ``texts``, of a row of ``overview``."""
    told = row._mapping  # pyright: ignore[reportPrivateUsage]  # SQLAlchemy's public name for it
    answer, reasoning = told["answer"], told["reasoning"]
    if texts and told["status"] == "running":
        answer, reasoning = _arrived(connection, told["id"])
    return RunRecord(
        id=told["id"],
        caller=told["caller"],
        host=told["host"],
        owner=told["owner"],
        tool=told["tool"],
        prompt_head=told["prompt_head"],
        started_at=told["started_at"],
        ended_at=told["ended_at"],
        conversation_id=told["conversation_id"],
        follows=told["follows"],
        request=_request(told["request"]),
        model_id=told["model_id"],
        resumable=bool(told["resumable"]),
        lived_s=told["lived_s"],
        cancel_asked=bool(told["cancel_asked"]),
        outcome=_outcome(told, answer or "", reasoning),
    )


def _request(written: str) -> dict[str, Any]:
    """What was sent; nothing where that can't be read any more."""
    try:
        return cast(dict[str, Any], json.loads(written))
    except ValueError:
        return {}


def _outcome(row: RowMapping, answer: str, reasoning: str | None) -> Outcome:
    """How a run stands; where a damaged disk changed what was written of that, what else is known of it."""
    known: dict[str, Any] = {
        "run_id": row["id"],
        "conversation_id": row["conversation_id"],
        "status": row["status"],
        "answer": answer,
        "reasoning": reasoning,
    }
    try:
        return outcome_from_json(row["outcome"], **known)
    except (ValueError, KeyError, TypeError, AttributeError):
        damaged = Internal("A part of what was written down of this run is damaged.", fix="Look at the disk.")
        return Outcome(**known, model_asked=row["model_asked"], provider=row["provider"], error=damaged)


def _arrived(connection: Connection, run_id: str) -> tuple[str, str | None]:
    """Answer and reasoning of the latest request that brought an answer, else of the latest one."""
    found = connection.execute(
        select(pieces).where(pieces.c.run_id == run_id).order_by(pieces.c.request, pieces.c.of, pieces.c.start)
    )
    texts: dict[tuple[int, str], _StoredText] = {}
    for piece in found:
        texts.setdefault((piece.request, piece.of), _StoredText()).add(piece.start, piece.text)
    if not texts:
        return "", None
    numbers = sorted({number for number, _ in texts})
    number = next((one for one in reversed(numbers) if (one, "answer") in texts), numbers[-1])
    reasoning = texts.get((number, "reasoning"))
    answer = texts.get((number, "answer"))
    return "" if answer is None else answer.whole(), None if reasoning is None else reasoning.whole()


class _StoredText:
    """A text from its pieces, in order: what was written twice counts once, and behind a hole nothing counts."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0

    def add(self, start: int, text: str) -> None:
        if start <= self._length < start + len(text):
            self._pieces.append(text[self._length - start :])
            self._length = start + len(text)

    def whole(self) -> str:
        return "".join(self._pieces)


# ── conversations ─────────────────────────────────────────────────────────────────────────────────────────────────


def conversation(connection: Connection, conversation_id: str) -> Found | None:
    """A conversation by its id."""
    return connection.execute(select(conversations).where(conversations.c.id == conversation_id)).first()


def take_turn(
    connection: Connection, conversation_id: str, run_id: str, owner: str, alive: Callable[[str, str], bool]
) -> bool:
    """Become the one who adds to a conversation; False as long as somebody else is, whose run ``alive`` knows.

    Raises ``RunNotFound`` where it is kept no longer.
    """
    found = conversation(connection, conversation_id)
    if found is None:
        raise errors.gone()
    writer: str | None = found.writer
    others = writer is not None and writer != run_id and not _has_ended(connection, writer)
    if others and alive(writer or "", found.writer_owner):
        return False
    still = conversations.c.writer.is_not_distinct_from(writer)  # where transactions may overlap, the first one has it
    taken = update(conversations).where(conversations.c.id == conversation_id, still)
    return bool(connection.execute(taken.values(writer=run_id, writer_owner=owner)).rowcount)


def _has_ended(connection: Connection, run_id: str) -> bool:
    """Whether that is written down, and with it what the run added."""
    status = connection.execute(select(runs.c.status).where(runs.c.id == run_id)).scalar()
    return status not in (None, "running")


def history(connection: Connection, run_id: str | None) -> tuple[Turn, ...]:
    """The turns of a run and of all that it follows, the oldest first; raises ``RunNotFound`` where one is gone."""
    turns: list[tuple[Turn, ...]] = []
    while run_id is not None:
        row = connection.execute(select(runs.c.turns, runs.c.follows).where(runs.c.id == run_id)).first()
        if row is None:
            raise errors.gone()
        try:
            turns.append(turns_from_json(row.turns) if row.turns else ())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise errors.gone() from None  # damaged: a conversation never goes on with less
        run_id = row.follows
    return tuple(turn for exchange in reversed(turns) for turn in exchange)


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────


# Asked hundreds of times a swarm: built once, which takes longer than to do what they say.
_THE_STEP = (steps.c.run_id == bindparam("run"), steps.c.key == bindparam("step"))
_TOLD = select(
    bindparam("run", type_=Text),
    bindparam("step", type_=Text),
    bindparam("told", type_=Text),
    bindparam("now", type_=Float),
)
_BEGIN = (
    insert(steps)
    .from_select(["run_id", "key", "told", "began_at"], _TOLD.where(~select(steps.c.key).where(*_THE_STEP).exists()))
    .execution_options(preserve_rowcount=True)
)
_BROUGHT = select(steps.c.result).where(*_THE_STEP)
_FINISH = update(steps).where(*_THE_STEP).values(result=bindparam("brought"), ended_at=bindparam("now"))


def begin_step(connection: Connection, run_id: str, key: str, told: Mapping[str, Any], now: float) -> str | None:
    """Begin a step of a run; the JSON of what it brought where it was finished before."""
    step = {"run": run_id, "step": key}
    if connection.execute(_BEGIN, {**step, "told": as_text(told), "now": now}).rowcount == 1:
        return None
    return connection.execute(_BROUGHT, step).scalar()


def finish_step(connection: Connection, run_id: str, key: str, result: Mapping[str, Any], now: float) -> None:
    """Write down what a step brought."""
    connection.execute(_FINISH, {"run": run_id, "step": key, "brought": as_text(result), "now": now})


def steps_of(connection: Connection, run_id: str) -> list[Found]:
    """A run's steps, in the order in which they were begun."""
    return list(
        connection.execute(select(steps).where(steps.c.run_id == run_id).order_by(steps.c.began_at, steps.c.key))
    )


def _newest(caller: str | None) -> Select[Any]:
    newest = select(runs).order_by(runs.c.started_at.desc(), runs.c.id)
    return newest if caller is None else newest.where(runs.c.caller == caller)
