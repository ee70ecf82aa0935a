"""``DatabaseThread``: the thread of a connection, where all that waits shares a transaction. I/O: its operations'."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
from sqlalchemy import Connection, Engine

from kimi_mcp.runs.store import errors

MOST_AT_ONCE = 256
"""Operations that share a transaction at most."""

BUSY_S = 0.05
"""Seconds after a transaction within which the next operation counts as one of many."""

_log = logging.getLogger(__name__)

T = TypeVar("T")
Operation = Callable[[Connection], T]
"""What is done with a connection, inside a transaction; may be repeated where the transaction failed."""


@dataclass(slots=True, kw_only=True, eq=False)
class PendingOperation:
    """An operation, and who waits for it."""

    operation: Operation[Any]
    """What to do."""
    queued_at: float
    """By the monotonic clock."""
    future: asyncio.Future[Any]
    """Its result, or its fault; for the event loop alone."""
    locks: tuple[str, ...] = ()
    """What its transaction holds, by names that are the same in every server."""
    is_given_up: bool = False
    """Whether its caller was refused for the time that it takes: unless it is begun, it is not done."""

    def settle(self, result: Any = None, fault: BaseException | None = None) -> None:
        """Give its caller the result or the fault, from another thread; the first of several counts."""
        settle_all([self], [result], fault)


def settle_all(pending: Sequence[PendingOperation], results: Iterable[Any], fault: BaseException | None = None) -> None:
    """Give callers their results, or all of them the fault, from another thread: each event loop is woken once."""
    of_loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for one, result in zip(pending, results, strict=True):
        of_loops.setdefault(one.future.get_loop(), []).append((one.future, result))
    for loop, settled in of_loops.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_settle, settled, fault)


def _settle(settled: Sequence[tuple[asyncio.Future[Any], Any]], fault: BaseException | None) -> None:
    for future, result in settled:
        if future.done():
            continue  # its caller was cancelled
        if fault is None:
            future.set_result(result)
        else:
            future.set_exception(fault)


class DatabaseThread:
    """Does operations in order on a connection of its own, all that wait in one transaction; started by the first.

    ``gather_s``: seconds that the first of a transaction waits for others to share it, where there are many.
    """

    def __init__(
        self, name: str, execute: Callable[[DatabaseThread, list[PendingOperation]], None], gather_s: float = 0.0
    ) -> None:
        self.connection: Connection | None = None
        """Its own, once it is open."""
        self.engine: Engine | None = None
        """Where that came from."""
        self._name, self._execute, self._gather_s = name, execute, gather_s
        self._queue: queue.SimpleQueue[PendingOperation | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, operation: Operation[T], locks: tuple[str, ...] = (), within_s: float | None = None) -> T:
        """The result of an operation, once it is done. A caller that is cancelled meanwhile stops nothing.

        Raises ``TimeoutError`` after so many seconds.
        """
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                raise errors.without_thread() from None
            self._thread = thread
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        pending = PendingOperation(operation=operation, queued_at=time.monotonic(), future=future, locks=locks)
        self._queue.put(pending)
        if within_s is None:
            return await future
        try:
            with anyio.fail_after(within_s):
                return await future
        except TimeoutError:
            pending.is_given_up = True
            raise

    def disconnect(self) -> None:
        """Close the connection: the next operation opens a new one."""
        connection, self.connection = self.connection, None
        if connection is not None:
            try:
                connection.invalidate()
                connection.close()
            except Exception:  # noqa: BLE001 - it is broken already
                _log.debug("a broken connection could not be closed")

    def end(self, until: float) -> None:
        """End it after what waits is done; waits for that until then, by the monotonic clock. Blocking."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(timeout=max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        is_last, busy_until = False, 0.0
        while not is_last and (first := self._queue.get()) is not None:
            if self._gather_s and time.monotonic() < busy_until:
                time.sleep(self._gather_s)
            together: list[PendingOperation | None] = [first]
            while len(together) < MOST_AT_ONCE and not self._queue.empty():
                together.append(self._queue.get())
            is_last = together[-1] is None
            pending = [each for each in together if each is not None and not each.is_given_up]
            try:
                if pending:
                    self._execute(self, pending)
            except BaseException as fault:  # noqa: BLE001 - whoever waits gets it, and the thread goes on
                _log.warning("%s failed: %s", self._name, type(fault).__name__)
                for each in pending:
                    each.settle(fault=errors.from_fault(fault))
            busy_until = time.monotonic() + BUSY_S
        self.disconnect()
