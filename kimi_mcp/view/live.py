"""``LiveRun``: one run as it goes on, read from the store once for all who look at it here. I/O: the store's.

Each look has a number, and everything that changed with it keeps that: whoever knows how far it has seen gets the rest.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any

import anyio
import sqlalchemy as sa

from kimi_mcp.core.errors import KimiError, RunNotFound
from kimi_mcp.core.redaction import clean
from kimi_mcp.runs.store import listing, looks, queries, watching
from kimi_mcp.runs.store.looks import StepTexts
from kimi_mcp.runs.store.records import RunRecord, StepRecord
from kimi_mcp.view import model
from kimi_mcp.view.lanes import Bar, Lane, Lanes

if TYPE_CHECKING:
    from kimi_mcp.runs.store.store import RunStore

LOOK_EVERY_S = 0.2
"""Seconds between two looks at a run at least, however many look at it."""

ALIVE_EVERY_S = 2.0
"""Seconds between two looks at whether its server is alive, where nothing changes."""

RENEW_EVERY_S = 2.0
"""Seconds between two renewals of a look at an agent."""

MOST_KEPT = 8
"""Runs that are kept in memory after the last look at them: a swarm of 10,000 steps takes 10 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunUpdate:
    """What one look at the store brings."""

    version: object
    row: sa.Row[Any] | None
    record: RunRecord | None = None
    """The row's, without its texts; None: it is the same as before."""
    steps: Sequence[StepRecord] = ()
    is_alive: bool = True
    arrived: Mapping[str, StepTexts] = field(default_factory=dict[str, StepTexts])
    """Of the agents that are looked at."""


class LiveRun:
    """One run, up to date as of the last look. Mutable.

    ``lanes``: of its steps so far; ``conversation``: the runs before and behind it.
    """

    def __init__(self, store: RunStore, record: RunRecord, lanes: Lanes, conversation: Any, version: object) -> None:
        self.token = secrets.token_hex(4)
        """Distinguishes this one from any other that looks at the same run."""
        self.number = 0
        """Of the last look that brought something."""
        self.is_gone = False
        """Whether the store has it no longer."""
        self.texts: dict[str, str] = {}
        """Its prompt, answer and reasoning as they are shown; cut where they are long."""
        self.cut: dict[str, int] = {}
        """How long those are that were cut."""
        self.parts: dict[str, tuple[int, Any]] = {}
        """What is known beside texts and lanes, each with the number of the look that changed it."""
        self.heads: dict[str, tuple[int, Lane]] = {}
        """Each lane without its bars, with the same number."""
        self.began_at: dict[str, int] = {}
        """Of each lane the number of the look that found it."""
        self.seconds = 0.0
        """How long the run takes, or took."""
        self.arrived: dict[str, StepTexts] = {}
        """Of each agent that is looked at here what has arrived of its running step, as it is shown."""
        self._store, self._lanes, self._version = store, lanes, version
        self._prompt, self._conversation = model.prompt_of(record), conversation
        self._arrived = watching.ArrivedTexts()
        self._raw: dict[str, str] = {}
        self._raw_arrived: Mapping[str, StepTexts] = {}
        self._renewed_at: dict[str, float] = {}
        self._looking = anyio.Lock()
        self._looked_at = self._alive_at = anyio.current_time()
        self._bars_at: list[int] = []
        self._state: object = None
        self._set(record, orphaned=record.orphaned)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.record.running and not self.is_gone

    def is_of(self, store: RunStore) -> bool:
        """Whether it is read from that store."""
        return self._store is store

    async def look(self, *, at_once: bool = False) -> None:
        """Bring it up to date, unless that was done just now and it does not matter: ``at_once``."""
        async with self._looking:
            now = anyio.current_time()
            if not self.is_gone and (at_once or now - self._looked_at >= LOOK_EVERY_S):
                self._looked_at = now
                await self._look()

    async def look_at(self, agent: str) -> None:
        """Let what arrives of an agent's running request be written; to be called again and again."""
        now, before = anyio.current_time(), self._renewed_at.get(agent, -inf)
        if self.is_running and self._lanes.is_requesting(agent) and now - before >= RENEW_EVERY_S:
            self._renewed_at[agent] = now
            with suppress(KimiError):  # what the store does not take is written again soon
                await self._store.look_at(self.record.id, agent)

    async def _look(self) -> None:
        checks = not self.is_running or anyio.current_time() - self._alive_at >= ALIVE_EVERY_S
        agents = [agent for agent, at in self._renewed_at.items() if anyio.current_time() - at < looks.LOOK_S]
        found = await self._store.read(self._read, None if checks else self._version, agents)
        if found is None:
            return
        self._version, row = found.version, found.row
        if checks:
            self._alive_at = anyio.current_time()
        if row is None:
            self.is_gone = True
            return
        self._lanes.add(found.steps)
        if found.arrived != self._raw_arrived:
            self._raw_arrived = found.arrived
            self.arrived = {agent: _cleaned(texts) for agent, texts in found.arrived.items()}
        known = self.record
        if row.status == "running" and found.is_alive:
            self._set(found.record or known, orphaned=False)
        elif row.status == "running" or known.running or row.ended_at != known.ended_at:
            whole = await self._store.find(known.id, None)  # which ends what a dead server left, where nobody goes on
            if whole is None:
                self.is_gone = True
                return
            steps, self._conversation = await self._store.read(self._read_end)
            self._lanes.add(steps)
            self._set(whole, orphaned=whole.orphaned)

    def _read(self, connection: sa.Connection, version: object, agents: Collection[str]) -> _RunUpdate | None:
        """What is new; None: nothing was committed since that version."""
        current = watching.data_version(connection)
        if current is not None and current == version:
            return None
        row = watching.run_row(connection, self.record.id)
        if row is None:
            return _RunUpdate(version=current, row=None)
        is_alive, record = True, None
        if row.status == "running":
            self._arrived.read(connection, row.id)
            is_alive, state = self._store.lock.is_alive(row.owner), (row.outcome, row.owner)
            if state != self._state:
                record, self._state = queries.record(connection, row, texts=False), state
        return _RunUpdate(
            version=current,
            row=row,
            record=record,
            steps=self._new_steps(connection),
            is_alive=is_alive,
            arrived=looks.texts_of(connection, row.id, agents),
        )

    def _read_end(self, connection: sa.Connection) -> tuple[list[StepRecord], Any]:
        return self._new_steps(connection), neighbours(connection, self.record.id, self.record.caller)

    def _new_steps(self, connection: sa.Connection) -> list[StepRecord]:
        lanes = self._lanes
        return watching.new_steps(connection, self.record.id, lanes.latest_at, lanes.has, lanes.is_finished)

    # ── what has changed ──────────────────────────────────────────────────────────────────────────────────────────

    def _set(self, record: RunRecord, *, orphaned: bool) -> None:
        """Take what was found, and number what is another than before."""
        number = self.number + 1
        self.record = replace(record, orphaned=orphaned, request={})
        has_changed = self._set_texts(record)
        laid = self._lanes.laid(self.record, bars=False)
        self.seconds = laid.seconds
        if record.running and not orphaned:
            self.seconds = max(self.seconds, self._store.now() - record.started_at)
        for lane in laid.lanes:
            if lane.id not in self.heads or self.heads[lane.id][1] != lane:
                self.heads[lane.id], has_changed = (number, lane), True
                self.began_at.setdefault(lane.id, number)
        found = model.parts(self.record, laid)
        found["timing"]["total_s"] = found["run"]["seconds"] = round(self.seconds, 3)
        found |= {"conversation": self._conversation, "cut": self.cut}
        for name, value in found.items():
            if name not in self.parts or not _is_same(name, self.parts[name][1], value):
                self.parts[name], has_changed = (number, value), True
        bars = len(self._lanes.changes)
        if has_changed or not self._bars_at or self._bars_at[-1] != bars:
            self.number = number
            self._bars_at.append(bars)

    def _set_texts(self, record: RunRecord) -> bool:
        """Take the texts; whether one of them is another than before."""
        raw = {"prompt": self._prompt, "answer": record.outcome.answer, "reasoning": record.outcome.reasoning or ""}
        if record.running:
            raw |= self._arrived.texts
        if raw == self._raw:
            return False
        cut: dict[str, int] = {}
        for name, text in raw.items():
            before, shown = self._raw.get(name, ""), self.texts.get(name, "")
            if not text.startswith(before):
                before = shown = ""
            if len(shown) < model.CUT_CHARS:
                shown = (shown + clean(text[len(before) :], "host"))[: model.CUT_CHARS]
            self.texts[name] = shown
            if len(text) > model.CUT_CHARS:
                cut[name] = len(text)
        self._raw, self.cut = raw, cut
        return True

    def bars_since(self, number: int) -> dict[str, list[Bar]]:
        """The bars that have changed since the look of that number, by the id of their lane."""
        return self._lanes.changed_since(self._bars_at[number - 1] if number else 0)

    def view(self, *, may_cancel: bool) -> dict[str, Any]:
        """All of it, as ``model.run_view`` has it, and the cursor from which on its changes can be followed."""
        found = {name: value for name, (_, value) in self.parts.items()}
        laid = self._lanes.laid(self.record)
        return {
            "version": model.VERSION,
            **self.texts,
            "reasoning": self.texts["reasoning"] or None,
            **found,
            "seconds": round(self.seconds, 3),
            "lanes": [model.lane_view(lane) for lane in laid.lanes],
            "cancellable": may_cancel and self.is_running,
            "cursor": self.cursor,
        }

    @property
    def cursor(self) -> str:
        """How far it has come, for whoever follows its changes from here on."""
        return f"{self.token}-{self.number}"

    def number_of(self, cursor: str) -> int:
        """The number of the look that a cursor means; 0, from which on all is new, for one of another place."""
        token, _, number = cursor.partition("-")
        if token != self.token or not number.isdecimal() or len(number) > 9:
            return 0
        return min(int(number), self.number)


class LiveRuns:
    """The runs that are looked at here, and those that were just now."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, LiveRun] = OrderedDict()

    async def open(self, store: RunStore, run_id: str, caller: str | None) -> LiveRun:
        """A run of a caller (None: of anybody), up to date; raises ``RunNotFound``."""
        live = self._kept.get(run_id)
        if live is not None and live.is_of(store):
            if caller is None or live.record.caller == caller:
                await live.look(at_once=True)
                if not live.is_gone:
                    self._kept[run_id] = live
                    self._kept.move_to_end(run_id)
                    return live
                self._kept.pop(run_id, None)
            raise not_found(store)
        live = self._kept[run_id] = await opened(store, run_id, caller)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return live


def not_found(store: RunStore) -> RunNotFound:
    """The error where there is no such run."""
    return RunNotFound("There is no such run.", fix=f"Look at the list of runs. {store.retention_note}")


async def opened(store: RunStore, run_id: str, caller: str | None) -> LiveRun:
    """The same for one look. Raises ``RunNotFound``."""
    record = await store.find(run_id, caller)
    if record is None:
        raise not_found(store)
    lanes = Lanes(record.started_at)

    def read(connection: sa.Connection) -> tuple[object, Any]:
        version = watching.data_version(connection)
        lanes.add(watching.all_steps(connection, run_id))
        return version, neighbours(connection, run_id, record.caller)

    version, conversation = await store.read(read)
    live = LiveRun(store, record, lanes, conversation, None if record.running else version)
    if record.running:
        await live.look(at_once=True)
    return live


def _cleaned(texts: StepTexts) -> StepTexts:
    reasoning, answer = (each._replace(text=clean(each.text, "host")) for each in (texts.reasoning, texts.answer))
    return StepTexts(step=texts.step, reasoning=reasoning, answer=answer)


def _is_same(name: str, before: Any, after: Any) -> bool:
    """Whether a part is the same but for the time that goes by while the run runs."""
    if name == "run" and after["status"] == "running":
        return before | {"seconds": 0} == after | {"seconds": 0}
    if name == "timing":
        return {**before, "total_s": 0} == {**after, "total_s": 0}
    return before == after


def neighbours(connection: sa.Connection, run_id: str, caller: str | None) -> dict[str, Any]:
    """The runs of a conversation before a run, and those that follow it directly."""
    before, after = listing.neighbours(connection, run_id)
    found = [queries.record(connection, row, texts=False) for row in listing.by_ids(connection, before + after, caller)]
    by_id = {record.id: record for record in found}
    return model.neighbours(*([by_id[each] for each in ids if each in by_id] for ids in (before, after)))
