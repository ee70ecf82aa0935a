"""``run_events`` and ``list_events``: what changes of a run, or of a list, as it changes. I/O: the store's.

In PostgreSQL servers notify each other, and here one looks now and then besides. In SQLite one looks several times a
second, which costs next to nothing while nothing is committed.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio
import sqlalchemy as sa

from kimi_mcp.runs.store import costs, queries, watching
from kimi_mcp.runs.store.day_limits import midnight
from kimi_mcp.runs.store.listing import RunFilter
from kimi_mcp.runs.store.looks import StepTexts
from kimi_mcp.runs.store.notifications import Waiter
from kimi_mcp.runs.store.records import RunRecord
from kimi_mcp.view import model
from kimi_mcp.view.live import LOOK_EVERY_S, LiveRun

if TYPE_CHECKING:
    from kimi_mcp.runs.store.store import RunStore

MOST_EACH_S = 3.0
"""Events of one stream a second at most."""

LIST_EVERY_S = 0.5
"""Seconds between two events of a list at least."""

COSTS_EVERY_S = 5.0
"""Seconds between two looks at what today has cost at least."""

SHARE = 50.0
"""A look is followed by a pause of so many times the CPU it took: a stream takes a fiftieth of a core at most."""

LONGEST_PAUSE_S = 3.0
"""Seconds of such a pause at most."""

RECENT_S = 20.0
"""As a list begins, what has ended within so many seconds counts as changed: it was loaded just before."""


@dataclass(frozen=True, slots=True)
class ViewEvent:
    """One event of a stream."""

    name: str
    data: Mapping[str, Any]
    cursor: str | None = None
    """The position of this event in the stream, from which a client resumes."""


class _Interval:
    """How long a stream waits between two looks."""

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._began = 0.0

    def begin(self) -> None:
        """A look begins."""
        self._began = time.process_time()

    async def wait(self, events: int, waiter: Waiter | None, look_every_s: float) -> None:
        """Wait for the next one, after so many events."""
        took_s = time.process_time() - self._began
        await anyio.sleep(max(self._least_s, events / MOST_EACH_S, min(LONGEST_PAUSE_S, SHARE * took_s)))
        if waiter is not None:
            await waiter.next(look_every_s)


async def _waiter(stack: AsyncExitStack, store: RunStore, run_id: str | None) -> Waiter | None:
    """Who hears that a run (None: any) has changed; None where nobody can."""
    if not store.notifications.can_be_heard:
        return None
    return await stack.enter_async_context(store.notifications.waiting("run", run_id))


# ── a run ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def run_events(
    store: RunStore, live: LiveRun, *, cursor: str = "", may_cancel: bool = False, agent: str = ""
) -> AsyncGenerator[list[ViewEvent]]:
    """What changes of a run from a cursor on, several events at once, until it has ended.

    ``agent``: the one that is shown, of whose running step the texts come as they arrive; empty: none is.
    """
    seen, interval = _RunChanges(live, cursor, may_cancel=may_cancel, agent=agent), _Interval(LOOK_EVERY_S)
    async with AsyncExitStack() as stack:
        waiter = await _waiter(stack, store, live.record.id)
        while True:
            interval.begin()
            await live.look()
            events = seen.events()
            if not live.is_running:
                yield [*events, ViewEvent("reset" if live.is_gone else "end", {}, live.cursor)]
                return
            if events:
                yield events
            await live.look_at(agent)  # at last: a store that takes nothing just now can still be read
            await interval.wait(len(events), waiter, store.limits.look_every_s)


class _RunChanges:
    """How much of a run a stream has sent."""

    def __init__(self, live: LiveRun, cursor: str, *, may_cancel: bool, agent: str) -> None:
        self._live, self._may_cancel, self._agent = live, may_cancel, agent
        self._number = live.number_of(cursor)
        self._texts: dict[str, str] = {}
        self._cancellable: bool | None = None
        self._arrived = StepTexts(step="")

    def events(self) -> list[ViewEvent]:
        """What has changed since the last time. The last one has the cursor: who has that has all of them."""
        live, since = self._live, self._number
        self._number = live.number
        parts = [self._run(since), *map(self._text, ("reasoning", "answer")), self._lanes(since), self._step()]
        found = [ViewEvent(name, data) for name, data in filter(None, parts)]
        return [*found[:-1], *(replace(last, cursor=live.cursor) for last in found[-1:])]

    def _run(self, since: int) -> tuple[str, dict[str, Any]] | None:
        live = self._live
        changed = {name: value for name, (number, value) in live.parts.items() if number > since}
        cancellable = self._may_cancel and live.is_running
        if cancellable != self._cancellable:
            self._cancellable = changed["cancellable"] = cancellable
        return ("run", changed | {"seconds": round(live.seconds, 3)}) if changed else None

    def _text(self, of: str) -> tuple[str, dict[str, Any]] | None:
        text, before = self._live.texts[of], self._texts.get(of)
        if text == before:
            return None
        self._texts[of] = text
        if before is None:
            return "text", {"of": of, "start": 0, "text": text}
        start = len(before) if text.startswith(before) else _common(before, text)
        return "text", {"of": of, "start": start, "text": text[start:]}

    def _lanes(self, since: int) -> tuple[str, dict[str, Any]] | None:
        live = self._live
        bars = live.bars_since(since)
        lanes: list[dict[str, Any]] = []
        for name, (number, head) in live.heads.items():
            if number > since or name in bars:
                is_new = live.began_at[name] > since
                lanes.append(
                    model.lane_view(replace(head, bars=head.bars or tuple(bars.get(name, ()))), brief=not is_new)
                )
        return ("lanes", {"lanes": lanes, "seconds": round(live.seconds, 3)}) if lanes else None

    def _step(self) -> tuple[str, dict[str, Any]] | None:
        now, before = self._live.arrived.get(self._agent), self._arrived
        if now is None or now == before:
            return None
        self._arrived = now
        if now.step != before.step:
            before = StepTexts(step=now.step)
        changed: dict[str, Any] = {"key": now.step}
        for of in ("reasoning", "answer"):
            text, known = getattr(now, of), getattr(before, of)
            if text != known:
                changed[of] = text.since(known)._asdict()
        return "step", changed


def _common(before: str, after: str) -> int:
    """How many characters two texts have in common at their beginning."""
    low, high = 0, min(len(before), len(after))
    while low < high:
        middle = (low + high + 1) // 2
        if before[:middle] == after[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


# ── a list ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def list_events(store: RunStore, wanted: RunFilter) -> AsyncGenerator[list[ViewEvent]]:
    """What changes of a list, several events at once, without an end."""
    changes, interval = _ListChanges(store, wanted), _Interval(LIST_EVERY_S)
    async with AsyncExitStack() as stack:
        waiter = await _waiter(stack, store, None)
        while True:
            interval.begin()
            events = await changes.look()
            if events:
                yield events
            await interval.wait(len(events), waiter, store.limits.look_every_s)


class _ListChanges:
    """How much of a list a stream has sent."""

    def __init__(self, store: RunStore, wanted: RunFilter) -> None:
        self._store, self._wanted = store, wanted
        self._version: object = None
        self._since = store.now() - RECENT_S
        self._known: dict[str, object] = {}
        self._running: set[str] = set()
        self._oldest: float | None = None
        self._today: dict[str, Any] | None = None
        self._summed_at = 0.0

    async def look(self) -> list[ViewEvent]:
        """What has changed since the last time."""
        now = self._store.now()
        found = await self._store.read(self._read, now)
        if found is None:
            return []
        changed: list[dict[str, Any]] = []
        for record in found.records:
            if record.orphaned:
                record = await self._store.find(record.id, None) or record
            if record.running and not record.orphaned:
                total_s = max(0.0, now - record.started_at)
                timing = replace(record.outcome.timing, total_s=total_s)
                record = replace(record, outcome=replace(record.outcome, timing=timing))
            changed.append(model.summary(record))
        events: list[ViewEvent] = []
        if found.is_pruned:
            events.append(ViewEvent("reset", {}))
        if changed or found.gone:
            events.append(ViewEvent("runs", {"changed": changed, "gone": sorted(found.gone)}))
        if found.today is not None:
            events.append(ViewEvent("costs", {"today": found.today}))
        return events

    def _read(self, connection: sa.Connection, now: float) -> _FoundChanges | None:
        current = watching.data_version(connection)
        is_due = now - self._summed_at >= COSTS_EVERY_S
        if current is not None and current == self._version and not is_due:
            return None
        self._version = current
        rows = watching.changed_rows(connection, self._wanted, self._since)
        records, running, latest = list[RunRecord](), set[str](), self._since
        alive = {row.owner: self._store.lock.is_alive(row.owner) for row in rows if row.status == "running"}
        for row in rows:
            is_running = row.status == "running"
            state = (
                (row.status, row.outcome, row.cancel_requested, alive.get(row.owner)) if is_running else row.ended_at
            )
            latest = max(latest, row.ended_at or 0.0)
            if is_running:
                running.add(row.id)
            if self._known.get(row.id) != state:
                self._known[row.id] = state
                orphaned = is_running and not alive[row.owner]
                records.append(replace(queries.record(connection, row, texts=False), orphaned=orphaned))
        left = self._running - running - {record.id for record in records}
        gone = left - watching.still_listed(connection, self._wanted, left) if left else set[str]()
        self._running, self._since = running, min(latest, now)
        self._known = {run_id: state for run_id, state in self._known.items() if run_id in {row.id for row in rows}}
        oldest, before = watching.oldest(connection, self._wanted.caller), self._oldest
        self._oldest = oldest
        today = self._costs(connection, now) if is_due else None
        is_pruned = before is not None and oldest > before
        return _FoundChanges(records=records, gone=gone, is_pruned=is_pruned, today=today)

    def _costs(self, connection: sa.Connection, now: float) -> dict[str, Any] | None:
        """What today has cost, where that is another sum than before."""
        found = costs.costs_by_day(connection, midnight(now), now, self._wanted.caller)
        today, before = model.costs_view(found, 1, now)[0], self._today
        self._summed_at, self._today = now, today
        return today if before is not None and today != before else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _FoundChanges:
    """What one look at a list brings."""

    records: list[RunRecord]
    gone: set[str]
    is_pruned: bool
    today: dict[str, Any] | None
