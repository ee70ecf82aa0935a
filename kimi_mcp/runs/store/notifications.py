"""``Notifications``: what the servers of one PostgreSQL tell each other at once. I/O, in a thread of its own.

A notification is a kind and an id, and nothing else: whoever hears it reads the rest from the store. It may be lost
where a connection breaks, so whoever waits looks now and then all the same. SQLite has none: there one looks only.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import socket
import threading
from collections.abc import AsyncGenerator, Iterable
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, Literal

import anyio
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from kimi_mcp.core.errors import KimiError
from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.runs.store.engine import engine_of

CHANNEL = "kimi"
"""The one channel of a database, by PostgreSQL's word."""

DEAF_S = 0.25
"""Seconds between two looks where nothing is heard."""

CONNECT_EVERY_S = 0.5
"""Seconds until a broken connection is made again."""

CLOSE_WITHIN_S = 0.25
"""Seconds that the connection gets to close."""

Kind = Literal["run", "cancel", "turn", "steps", "limited", "call", "look"]
"""Of a run: it changed, its cancellation was requested; of a conversation: its turn is free; of a run's steps; of an
account: its provider slows it down; of a call: its client cancelled it; of an agent of a run: somebody looks at it."""

_UNSENT = "kimi_mcp.notifications"

_SEND = text("SELECT pg_notify(:channel, payload) FROM unnest(CAST(:payloads AS text[])) AS payload")

_log = logging.getLogger(__name__)


def notify(connection: Connection, kind: Kind, id: str) -> None:
    """Notify every server once the transaction is committed; each once, however often it is requested in it."""
    if connection.dialect.name == "postgresql":
        connection.info.setdefault(_UNSENT, {})[f"{kind}:{id}"] = None


def discard(connection: Connection) -> None:
    """Forget what a transaction requested that was not committed."""
    connection.info.pop(_UNSENT, None)


def send(connection: Connection) -> None:
    """Send what a committed transaction requested; outside any transaction.

    A commit that notifies holds a lock which all others of the kind wait for: this one writes nothing, so it waits for
    no disk. What can't be sent is seen at the next look.
    """
    payloads = connection.info.pop(_UNSENT, None)
    if payloads:
        try:
            connection.execute(_SEND, {"channel": CHANNEL, "payloads": list(payloads)})
        except SQLAlchemyError as fault:
            _log.debug("servers could not be notified: %s", type(fault).__name__)
            with suppress(SQLAlchemyError):
                connection.rollback()


class Waiter:
    """Who waits for notifications of one kind; for the event loop that made it."""

    def __init__(self, notifications: Notifications) -> None:
        self._notifications = notifications
        self._loop = asyncio.get_running_loop()
        self._came = anyio.Event()
        self._ids: set[str] = set()

    async def next(self, timeout_s: float, *, deaf_s: float = DEAF_S) -> set[str]:
        """The ids of what came since the last time; empty: look for yourself.

        That is so once ``timeout_s`` are over, where the connection has changed, and where nothing can be heard, after
        ``deaf_s``.
        """
        with anyio.move_on_after(timeout_s if self._notifications.are_heard else min(timeout_s, deaf_s)):
            await self._came.wait()
        ids, self._ids, self._came = self._ids, set(), anyio.Event()
        return ids

    def wake(self, ids: Iterable[str]) -> None:
        """Something came; from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._add, ids)

    def _add(self, ids: Iterable[str]) -> None:
        self._ids |= set(ids)
        self._came.set()


class Notifications:
    """What a server hears from the others; the first who waits opens its one connection.

    ``url``: of the database; one that is not PostgreSQL's, by psycopg, is never heard.
    """

    def __init__(self, url: str | None, limits: StoreLimits) -> None:
        self.are_heard = False
        """Whether its connection is open."""
        self._url = url if url is not None and _can_be_heard(url) else None
        self._limits = limits
        self._waiters: dict[tuple[str, str | None], set[Waiter]] = {}
        self._changing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._bell: socket.socket | None = None
        self._is_closing = False

    @property
    def can_be_heard(self) -> bool:
        """Whether the database has notifications."""
        return self._url is not None

    @asynccontextmanager
    async def waiting(self, kind: Kind, id: str | None = None) -> AsyncGenerator[Waiter]:
        """Wait for notifications of an id (None: of every one) from here on."""
        waiter = Waiter(self)
        with self._changing:
            self._waiters.setdefault((kind, id), set()).add(waiter)
        self._start()
        try:
            yield waiter
        finally:
            with self._changing:
                waiters = self._waiters[kind, id]
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[kind, id]

    def close(self) -> None:
        """Close the connection. Blocking, but never for long."""
        self._is_closing = True
        if self._bell is not None and self._thread is not None:
            self._bell.close()
            self._thread.join(timeout=CLOSE_WITHIN_S)

    def _start(self) -> None:
        if self._url is None or self._thread is not None or self._is_closing:
            return
        with ExitStack() as opened:
            try:
                bell, rung = map(opened.enter_context, socket.socketpair())
                thread = threading.Thread(target=self._work, args=(self._url, rung), name="store-listener", daemon=True)
                thread.start()
            except (OSError, RuntimeError):  # the system gives no more of them: nothing is heard, until one waits again
                return
            opened.pop_all()
            self._bell, self._thread = bell, thread

    def _work(self, url: str, rung: socket.socket) -> None:
        with rung, selectors.DefaultSelector() as selector:
            selector.register(rung, selectors.EVENT_READ)
            while not self._is_closing:
                try:
                    self._listen(url, selector)
                except Exception as fault:  # noqa: BLE001 - whatever it is, others are heard again as soon as it is over
                    _log.debug("the connection that hears other servers broke: %s", type(fault).__name__)
                self._changed(are_heard=False)
                selector.select(CONNECT_EVERY_S)

    def _listen(self, url: str, selector: selectors.BaseSelector) -> None:
        opened, descriptor = engine_of(url, self._limits).raw_connection(), None
        try:
            connection: Any = opened.driver_connection
            connection.execute(f"LISTEN {CHANNEL}")
            descriptor = connection.fileno()
            selector.register(descriptor, selectors.EVENT_READ)
            self._changed(are_heard=True)
            while not self._is_closing:
                self._deliver(notification.payload for notification in connection.notifies(timeout=0))
                selector.select()
        finally:
            if descriptor is not None:
                selector.unregister(descriptor)
            opened.invalidate()  # closed as it is: a broken one can't be brought into order before

    def _changed(self, *, are_heard: bool) -> None:
        """Everybody looks: something may have been missed, or is heard no longer."""
        if self.are_heard != are_heard:
            self.are_heard = are_heard
            with self._changing:
                for waiter in {each for waiters in self._waiters.values() for each in waiters}:
                    waiter.wake(())

    def _deliver(self, payloads: Iterable[str]) -> None:
        ids: dict[Waiter, set[str]] = {}
        with self._changing:
            for kind, _, id in (payload.partition(":") for payload in payloads):
                for waiter in (*self._waiters.get((kind, id), ()), *self._waiters.get((kind, None), ())):
                    ids.setdefault(waiter, set()).add(id)
        for waiter, came in ids.items():
            waiter.wake(came)


def _can_be_heard(url: str) -> bool:
    try:
        parsed = make_url(url)
        return parsed.get_backend_name() == "postgresql" and parsed.get_driver_name() == "psycopg"
    except (ArgumentError, ValueError, TypeError, KimiError):
        return False
