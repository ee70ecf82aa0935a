"""``Watch``: one look at all jobs that have not ended, again and again. I/O: a connection and a thread of its own.

DBOS looks at each queue by itself, in a transaction of four statements; with this it does so only where there is
something to take.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from kimi_mcp.cluster import statements
from kimi_mcp.cluster.limits import EngineLimits

log = logging.getLogger(__name__)

WAITED_LOOKS = 3
"""Looks at which jobs wait before they are taken by replicas that have their part already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a look saw; nothing, where the database is away."""

    queued: Counter[str] = field(default_factory=Counter[str])
    """How many jobs of a kind wait for a replica."""
    looks: Counter[str] = field(default_factory=Counter[str])
    """For how many looks in a row some of a kind have waited."""
    running: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """How many jobs a replica has, by its server id and their kind; dead or alive."""
    is_there: bool = False
    """Whether the database answered."""

    @property
    def servers(self) -> set[str]:
        """The server ids of all replicas that have jobs."""
        return {server for server, _ in self.running}

    def part(self, kind: str, server: str, replicas: int) -> int:
        """How many jobs of a kind a replica may have, for all to have the same; more, where the others take none."""
        having = self.running[server, kind]
        total = self.queued[kind] + sum(jobs for (_, each), jobs in self.running.items() if each == kind)
        part = ceil(total / replicas)
        return part if self.looks[kind] <= WAITED_LOOKS else max(part, having + ceil(self.queued[kind] / replicas))


class Watch:
    """Looks every ``EngineLimits.watch_s``, for jobs of a version, and for cancellations of what this replica does.

    ``running``: the ids of that; ``cancelled`` is called with those that are. Both in the watch's thread.
    """

    def __init__(
        self,
        database: sa.Engine,
        version: str,
        limits: EngineLimits,
        *,
        running: Callable[[], list[str]] = list,
        cancelled: Callable[[set[str]], None] = lambda _: None,
    ) -> None:
        self.seen = Seen()
        """What was seen last."""
        self._database, self._limits = database, limits
        self._statement = statements.in_flight(version)
        self._jobs_here, self._cancelled = running, cancelled
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="engine-watch", daemon=True)

    def start(self) -> None:
        """Look from here on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Blocking, but not for long."""
        self._over.set()
        self._thread.join(timeout=self._limits.leave_s)

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                with self._database.connect() as connection:
                    self._look(connection.execution_options(isolation_level="AUTOCOMMIT"))
            except Exception as fault:  # noqa: BLE001 - mostly the database is away; whatever it is, it looks again
                log.debug("jobs can't be looked at: %s", type(fault).__name__)
                self.seen = Seen()
                self._over.wait(self._limits.retry_s)

    def _look(self, connection: sa.Connection) -> None:
        try:
            while not self._over.is_set():
                rows = connection.execute(self._statement, {"ids": self._jobs_here()}).all()
                if cancelled := {row.name for row in rows if row.status == "CANCELLED"}:
                    self._cancelled(cancelled)
                queued, running = Counter[str](), Counter[tuple[str, str]]()
                for row in rows:
                    if row.status == "ENQUEUED":
                        queued[row.name] += row.jobs
                    elif row.status == "PENDING":
                        running[row.executor_id, row.name] += row.jobs
                looks = Counter[str]({kind: self.seen.looks[kind] + 1 for kind in queued})
                self.seen = Seen(queued=queued, looks=looks, running=running, is_there=True)
                self._over.wait(self._limits.watch_s)
        except SQLAlchemyError:
            with suppress(SQLAlchemyError):
                connection.invalidate()
            raise
