"""What has changed in a store since it was last looked at: of one run, or of all. I/O: in the caller's transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from pydantic_core import from_json

from kimi_mcp.runs.store.listing import RunFilter
from kimi_mcp.runs.store.queries import IN_LIST
from kimi_mcp.runs.store.records import StepRecord
from kimi_mcp.runs.store.tables import pieces, runs, steps

OVERLAP_S = 10.0
"""Seconds for which what has ended is looked at again: it is recorded after its time, and clocks differ."""

AT_ONCE = 500
"""Rows that are read at once, where they have long texts; runs of a list that have changed, at most."""

_LONG = ("reasoning", "answer", "text")
"""Texts of steps that may be long."""

_RUN: sa.BindParameter[str] = sa.bindparam("run")
_OF_RUN = steps.c.run_id == _RUN
_ALL = sa.select(steps).where(_OF_RUN)  # sorted here: a database would move all the long texts for it
_RUNNING = sa.select(steps.c.key, steps.c.began_at).where(_OF_RUN, steps.c.ended_at.is_(None))
_ENDED = sa.select(steps.c.key).where(_OF_RUN, steps.c.ended_at >= sa.bindparam("since"))
_BY_KEYS = _ALL.where(steps.c.key.in_(sa.bindparam("keys", expanding=True)))
_ROW = sa.select(*IN_LIST).where(runs.c.id == _RUN)
_LATEST = sa.select(pieces.c.request).where(pieces.c.run_id == _RUN).order_by(pieces.c.request.desc()).limit(1)
_LATEST_ANSWER = _LATEST.where(pieces.c.of == "answer")
_PIECES = (
    sa.select(pieces.c.start, pieces.c.text)
    .where(pieces.c.run_id == _RUN, pieces.c.request == sa.bindparam("request"), pieces.c.of == sa.bindparam("of"))
    .where(pieces.c.start >= sa.bindparam("begin"))
    .order_by(pieces.c.start)
)
_OLDEST = sa.select(sa.func.min(runs.c.started_at))


def data_version(connection: sa.Connection) -> object:
    """What is another one once anything was committed, as long as the connection is the same; None: not known.

    Only SQLite has it, and costs nothing.
    """
    if connection.dialect.name != "sqlite":
        return None
    driver: Any = connection.connection.driver_connection
    return id(driver), connection.exec_driver_sql("PRAGMA data_version").scalar(), driver.total_changes


def run_row(connection: sa.Connection, run_id: str) -> sa.Row[Any] | None:
    """A run without its texts."""
    return connection.execute(_ROW, {"run": run_id}).first()


# ── its steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def all_steps(connection: sa.Connection, run_id: str) -> list[StepRecord]:
    """All steps of a run, without their long texts, in the order in which they began."""
    found = connection.execute(_ALL.execution_options(yield_per=AT_ONCE), {"run": run_id})
    return _sorted(map(_light, found))


def new_steps(
    connection: sa.Connection,
    run_id: str,
    since: float,
    is_known: Callable[[str], bool],
    is_finished: Callable[[str], bool],
) -> list[StepRecord]:
    """Steps that have begun, or have ended since then, and are not known so; without their long texts."""
    wanted = [key for key, _ in connection.execute(_RUNNING, {"run": run_id}) if not is_known(key)]
    ended = connection.execute(_ENDED, {"run": run_id, "since": since - OVERLAP_S}).scalars()
    wanted += [key for key in ended if not is_finished(key)]
    found: list[StepRecord] = []
    for at in range(0, len(wanted), AT_ONCE):
        found += map(_light, connection.execute(_BY_KEYS, {"run": run_id, "keys": wanted[at : at + AT_ONCE]}))
    return _sorted(found)


def _sorted(found: Iterable[StepRecord]) -> list[StepRecord]:
    return sorted(found, key=lambda step: (step.began_at, step.key))


def _light(row: sa.Row[Any]) -> StepRecord:
    result: dict[str, Any] | None = None
    if row.result is not None:
        result = {name: value for name, value in from_json(row.result).items() if name not in _LONG}
    description = from_json(row.description)
    return StepRecord(key=row.key, description=description, result=result, began_at=row.began_at, ended_at=row.ended_at)


# ── what has arrived of its texts ─────────────────────────────────────────────────────────────────────────────────────


class ArrivedTexts:
    """The texts of a running run, as far as they were read. Mutable."""

    def __init__(self) -> None:
        self.texts = {"answer": "", "reasoning": ""}
        """What has arrived so far."""
        self._request: int | None = None
        self._begins = dict.fromkeys(self.texts, 0)

    def read(self, connection: sa.Connection, run_id: str) -> None:
        """Read what has arrived since: of the latest request with an answer, else of the latest one."""
        request = connection.execute(_LATEST_ANSWER, {"run": run_id}).scalar()
        if request is None:
            request = connection.execute(_LATEST, {"run": run_id}).scalar()
        if request != self._request:
            self._request = request
            self.texts, self._begins = dict.fromkeys(self.texts, ""), dict.fromkeys(self.texts, 0)
        if request is None:
            return
        for of, text in self.texts.items():
            # From the last piece on, which counts once if it was written twice; behind a hole nothing counts.
            found = connection.execute(
                _PIECES, {"run": run_id, "request": request, "of": of, "begin": self._begins[of]}
            )
            parts, length = [text], len(text)
            for start, more in found:
                if start <= length < start + len(more):
                    parts.append(more[length - start :])
                    length, self._begins[of] = start + len(more), start
            self.texts[of] = "".join(parts)


# ── a list ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def changed_rows(connection: sa.Connection, wanted: RunFilter, since: float) -> Sequence[sa.Row[Any]]:
    """The runs of a list that run, and those that have ended since then; the newest, ``AT_ONCE`` of each at most."""
    conditions = wanted.conditions()
    running = sa.select(*IN_LIST).where(runs.c.status == "running", *conditions).limit(AT_ONCE)
    ended = sa.select(*IN_LIST).where(runs.c.ended_at >= since - OVERLAP_S, *conditions)
    newest = ended.order_by(runs.c.ended_at.desc()).limit(AT_ONCE)
    return [row for found in (running, newest) for row in connection.execute(found).all()]


def still_listed(connection: sa.Connection, wanted: RunFilter, ids: Collection[str]) -> set[str]:
    """Those of some runs that are there, and in the list."""
    found = sa.select(runs.c.id).where(runs.c.id.in_(ids), *wanted.conditions())
    return set(connection.execute(found).scalars())


def oldest(connection: sa.Connection, caller: str | None) -> float:
    """When the oldest run of a caller (None: of all) began; it grows where old ones are removed."""
    found = _OLDEST if caller is None else _OLDEST.where(runs.c.caller == caller)
    return connection.execute(found).scalar() or 0.0
