"""Which servers on PostgreSQL are alive: each renews a row of its own, by the database's clock alone. I/O, in a thread.

The rules that keep a living server from looking dead, and a dead one from writing:

- A server is dead once its row was not renewed for ``StoreLimits.lease_s``, counted from PostgreSQL's own start at the
  earliest: while that is down nobody can renew anything. Who finds it dead deletes its row, and it stays dead.
- A server whose row is gone has lost its lease. It writes nothing more under that id: each of its transactions begins
  with a look at the row, and what belongs to a run is written on condition that the run is its own.
- It is renewed by a thread, so that a long computation does not kill it, as long as the event loop answers.
- A server of the version before has a lock file and no row. So a server here holds such a file, too, and takes one
  without a row for alive as long as its file is held, if both share a data folder.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import SQLAlchemyError

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.json_values import UNREADABLE
from kimi_mcp.core.version import __version__
from kimi_mcp.runs.store import engine, errors
from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.runs.store.locks import ServerLock
from kimi_mcp.runs.store.shared_tables import servers
from kimi_mcp.runs.store.tables import TableSchema, with_version

PREFIX = "srv_x"
"""How the id of a server with a lease begins; in that of any other one a hexadecimal digit follows ``srv_``."""

RELEASE_WITHIN_S = 1.0
"""Seconds that a server which leaves waits for its row to be deleted; then its lease runs out instead."""

SAME_TIME_S = 1.0
"""Seconds by which two clocks may differ that tell the same time."""

log = logging.getLogger(__name__)

_NOW = sa.func.clock_timestamp()
_ID: sa.BindParameter[str] = sa.bindparam("server")
_HEARD_OF = sa.func.greatest(servers.c.beat, sa.func.pg_postmaster_start_time())
_SECONDS = sa.extract("epoch", _NOW - _HEARD_OF)

_CLOCK = sa.extract("epoch", _NOW).label("clock")
_NEW = postgresql.insert(servers).values(beat=_NOW)
# Opening may be done again.
_ENTER = _NEW.on_conflict_do_update(index_elements=[servers.c.id], set_={"beat": _NOW}).returning(_CLOCK)
_RENEW = sa.update(servers).where(servers.c.id == _ID).values(beat=_NOW).returning(servers.c.drain, _CLOCK)
_IS_HELD = with_version(sa.select(servers.c.id).where(servers.c.id == _ID).exists())
_LEAVE = sa.delete(servers).where(servers.c.id == _ID)
_TAKE_DEAD = (
    sa.delete(servers)
    .where(servers.c.id != _ID, sa.bindparam("lease_s", type_=sa.Float) < _SECONDS)
    .returning(servers.c.id)
)
_ALL = sa.select(
    servers.c.id,
    servers.c.drain,
    servers.c.facts,
    _SECONDS.label("heard_of_s"),
    sa.extract("epoch", _NOW - servers.c.began_at).label("lived_s"),
).order_by(servers.c.began_at, servers.c.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRecord:
    """A server as its row has it."""

    id: str
    """Its id."""
    heard_of_s: float
    """Seconds since it was last heard of."""
    lived_s: float
    """Seconds since it began."""
    drain: bool
    """Whether a drain was requested."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What it says of itself: ``version``, ``host``, for a replica its ``role``, and more."""


def living_servers(connection: Connection) -> list[ServerRecord]:
    """Every server that was not found dead, the oldest first."""
    return [
        ServerRecord(
            id=row.id,
            heard_of_s=max(0.0, float(row.heard_of_s)),
            lived_s=max(0.0, float(row.lived_s)),
            drain=bool(row.drain),
            facts=_facts_of(row.facts),
        )
        for row in connection.execute(_ALL)
    ]


def _facts_of(text: str) -> Mapping[str, Any]:
    try:
        return dict(json.loads(text))
    except UNREADABLE:
        return {}


def request_drain(connection: Connection, server: str) -> bool:
    """Ask a server to leave, which it sees with its next beat; False where there is none of that id."""
    return bool(connection.execute(sa.update(servers).where(servers.c.id == server).values(drain=1)).rowcount)


class ServerLease:
    """This server among those on one PostgreSQL; it has what a ``ServerLock`` has.

    ``loop``: the event loop that must answer for the lease to be renewed; None: none is known yet.
    """

    def __init__(
        self,
        url: str,
        folder: Path | None,
        *,
        limits: StoreLimits,
        loop: Callable[[], asyncio.AbstractEventLoop | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.describe: Callable[[], Mapping[str, Any]] = dict
        """What it says of itself beside version and host; called with every beat, in the lease's thread."""
        self.on_lost: Callable[[], None] | None = None
        """Called once the lease is lost, in another thread than the event loop's; None: it goes on under a new id."""
        self.on_drain: Callable[[], None] | None = None
        """Called in the lease's thread once a drain of this server was requested."""
        self.ahead_s = 0.0
        """Seconds by which the database's clock is ahead of this machine's, where that is more than ``SAME_TIME_S``."""
        self.is_lost = False
        """Whether the lease is lost, and this server is to leave."""
        self._folder, self._limits, self._loop = folder, limits, loop
        self._clock, self._wall = clock, wall
        self._url = url
        self._engine: sa.Engine | None = None
        self._watchdog = engine.ConnectionWatchdog()
        self._connection: Connection | None = None
        self._using, self._changing = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._known: dict[str, ServerRecord] = {}
        self._dead = set[str]()
        self._renewed: str | None = None
        self._unseen = 0
        self._called_at: float | None = None
        self._drains = False
        self._take_id()

    def _take_id(self) -> None:
        self._lock = ServerLock(self._folder, missing_s=4 * self._limits.write_every_s)
        self._lock.id = f"{PREFIX}{secrets.token_hex(8)}"

    # ── as a ``ServerLock`` has it ────────────────────────────────────────────────────────────────────────────────

    @property
    def id(self) -> str:
        """This server's name, new with each start, and after a lease was lost."""
        return self._lock.id

    @property
    def missing_s(self) -> float:
        """Seconds for which a lock file of the version before is missing until its server counts as dead."""
        return self._lock.missing_s

    @property
    def doubts(self) -> int:
        """How often a server of the version before passed for a living one though its file was missing."""
        return self._lock.doubts

    def acquire(self) -> None:
        """Hold the lock file that servers of the version before look at. Blocking. ``OSError``: it can't be written."""
        self._lock.acquire()

    def release(self, *, unfinished: bool = False) -> None:
        """Let go of it: from here on this server counts as dead. Blocking."""
        self._over.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(RELEASE_WITHIN_S)
        else:
            self._disconnect()
        self._lock.release(unfinished=unfinished)

    def is_alive(self, server: str) -> bool:
        """Whether that server still runs. Blocking, but never for long; one that can't be looked for may be alive."""
        if server == self.id:
            return True
        if not server.startswith(PREFIX):
            return self._lock.is_alive(server)
        if server in self._known:
            return True
        if server not in self._dead:
            try:
                self._look()
            except (SQLAlchemyError, KimiError, OSError):
                return True
            if server in self._known:
                return True
            self._dead.add(server)  # whose row was missing once never has one again
        return False

    def holds_lock(self, server: str) -> bool:
        """The same."""
        return self.is_alive(server)

    def dead_servers(self) -> set[str]:
        """Every server that ended and left its file in this folder."""
        return {server for server in self._lock.dead_servers() if not self.is_alive(server)}

    def remove_files(self, servers: Iterable[str]) -> None:
        """Remove those files."""
        self._lock.remove_files(servers)

    # ── among replicas ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def living(self) -> int:
        """How many replicas were alive at the last beat and not drained, this one counted."""
        others = (record for server, record in self._known.items() if server != self.id)
        return 1 + sum("role" in record.facts and not record.drain for record in others)

    @property
    def job_formats(self) -> set[str]:
        """The versions of jobs that replicas take which were alive at the last beat, this one counted."""
        formats = (record.facts.get("job_format") for record in self._known.values())
        return {each for each in formats if isinstance(each, str)}

    def register(self, connection: Connection) -> None:
        """Become one of the servers, in the transaction that opens the store; renewed from here on."""
        self.acquire()
        self._enter(connection)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="store-lease", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                self._thread = None
                raise errors.without_thread() from None

    def check(self, connection: Connection, schema: TableSchema) -> None:
        """Begin a transaction that writes: raises ``NotConfigured`` where the lease is lost, and this server leaves."""
        server = self.id
        is_held = schema.holds(connection, _IS_HELD, server=server)
        if self.is_lost or not is_held:
            self._lose(connection, server)
            if self.is_lost:
                raise errors.lost()

    # ── the thread ────────────────────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        failed = False
        while not self._over.wait(self._limits.beat_s):
            try:
                self._beat()
                failed = False
            except Exception as fault:  # noqa: BLE001 - whatever it is, the next beat tries again
                if not failed:
                    log.warning("the lease of this server could not be renewed: %s", type(fault).__name__)
                failed = True
        try:
            with self._connected() as connection:
                connection.execute(_LEAVE, {"server": self.id})
        except (SQLAlchemyError, KimiError, OSError):
            log.debug("the lease could not be given up: it runs out")
        finally:
            self._disconnect()

    def _beat(self) -> None:
        if self.is_lost or not self._loop_answers():
            return
        server = self.id
        with self._connected() as connection:
            facts, before = self._facts(), self._wall()
            row = connection.execute(_RENEW, {"server": server, "facts": facts}).first()
            if row is not None:
                self._renewed = server
                self._unseen = 0
                self._set_clock(row.clock, before)
            elif self._renewed == server or self._unseen * self._limits.beat_s > self._limits.lease_s:
                self._lose(connection, server)
            else:  # the transaction that opens the store may not have ended yet
                self._unseen += 1
        self._look()
        if row is not None and row.drain and not self._drains:
            self._drains = True
            if self.on_drain is not None:
                self.on_drain()

    @contextmanager
    def _connected(self) -> Generator[Connection]:
        """The lease's connection, for this thread alone; a broken one is closed."""
        with self._using, self._watchdog.limit(self._limits.answers_within_s):
            try:
                if self._engine is None:
                    self._engine = engine.engine_of(self._url, self._limits)
                    self._watchdog.watch(self._engine)
                if self._connection is None:
                    self._connection = self._engine.connect()
                yield self._connection
            except BaseException:
                self._disconnect()
                raise

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError, OSError):
                connection.invalidate()
                connection.close()

    def _loop_answers(self) -> bool:
        """Whether the event loop has answered, or was called a short while ago."""
        loop, now = self._loop(), self._clock()
        if loop is None:
            return True
        if (called_at := self._called_at) is None:
            self._called_at = called_at = now  # first: the answer may come at once
            try:
                loop.call_soon_threadsafe(self._answered)
            except RuntimeError:  # it is closed
                return False
        return now - called_at <= self._limits.lease_s

    def _answered(self) -> None:
        self._called_at = None

    def _facts(self) -> str:
        return json.dumps({"version": __version__, "host": socket.gethostname(), **self.describe()})

    def _look(self) -> None:
        """Learn who is alive, and delete who is not: of several servers one finds it dead."""
        with self._connected() as connection:
            lease = {"server": self.id, "lease_s": self._limits.lease_s}
            self._dead.update(connection.execute(_TAKE_DEAD, lease).scalars())
            self._known = {record.id: record for record in living_servers(connection)}

    def _enter(self, connection: Connection) -> None:
        facts, before = self._facts(), self._wall()
        self._set_clock(connection.execute(_ENTER, {"id": self.id, "facts": facts}).scalar_one(), before)

    def _set_clock(self, seconds: Any, before: float) -> None:
        """Compare clocks, by what the other showed between ``before`` and now: a busy machine may wait for long."""
        ahead_s = max(0.0, float(seconds) - self._wall()) or min(0.0, float(seconds) - before)
        self.ahead_s = ahead_s if abs(ahead_s) > SAME_TIME_S else 0.0

    def _lose(self, connection: Connection, server: str) -> None:
        """The row of this server is gone: it leaves, or goes on as a new one, whose runs those before are not."""
        with self._changing:
            if self.id != server or self.is_lost:
                return
            log.warning("this server was not heard of for too long: others may have taken over its runs")
            if self.on_lost is not None:
                self.is_lost = True
            else:
                self._lock.release()
                self._take_id()
                self.acquire()
                self._enter(connection)
        if self.on_lost is not None:
            self.on_lost()
