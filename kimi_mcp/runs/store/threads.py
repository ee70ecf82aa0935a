"""``DatabaseThread``: a thread of the journal's, with a connection of its own, and what is asked of it.

I/O: what it is asked.

What waits when it begins is done together: a hundred runs that grow cost one commit. Whoever asks waits in the loop,
or is called there.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from kimi_mcp.runs.store import errors

MOST_AT_ONCE = 256
"""Operations that share a transaction at most."""

_log = logging.getLogger(__name__)

T = TypeVar("T")
Operation = Callable[[Connection], T]
"""What is done with a connection, inside a transaction; may be done anew where the transaction failed."""


class PendingOperation:
    """One operation, and who waits for it: a coroutine, or somebody who is called."""

    __slots__ = ("_future", "_loop", "_on_done", "operation")

    def __init__(
        self,
        operation: Operation[Any],
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any] | None,
        on_done: Callable[[BaseException | None], None] | None,
    ) -> None:
        self.operation = operation
        """What is to be done."""
        self._loop, self._future, self._on_done = loop, future, on_done

    def done(self, result: Any) -> None:
        """It is done: its result is told."""
        if self._future is not None:
            self._tell(_settle, self._future, result, None)
        elif self._on_done is not None:
            self._tell(self._on_done, None)

    def failed(self, fault: BaseException) -> None:
        """It can't be done: its fault is told."""
        if self._future is not None:
            self._tell(_settle, self._future, None, fault)
        elif self._on_done is not None:
            self._tell(self._on_done, fault)

    def _tell(self, callback: Callable[..., object], *told: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *told)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass


def _settle(future: asyncio.Future[Any], result: Any, fault: BaseException | None) -> None:
    if future.done():
        return  # who waited was cancelled
    if fault is None:
        future.set_result(result)
    else:
        future.set_exception(fault)


class DatabaseThread:
    """A thread that does what is asked of it, in order, together where several things wait."""

    def __init__(self, name: str, work: Callable[[DatabaseThread, list[PendingOperation]], None]) -> None:
        self.connection: Connection | None = None
        """Its own, as long as it works with one."""
        self.engine: Engine | None = None
        """Where that came from."""
        self._name, self._work = name, work
        self._asked: queue.SimpleQueue[PendingOperation | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def ask(self, operation: Operation[T]) -> T:
        """What an operation brings, once it is done."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(PendingOperation(operation, loop, future, None))
        return await future

    def post(self, operation: Operation[Any], done: Callable[[BaseException | None], None]) -> None:
        """Have it done some time soon; ``done`` hears, in the loop, that it is, or why it can't be."""
        self._put(PendingOperation(operation, asyncio.get_running_loop(), None, done))

    def let_go(self) -> None:
        """Give up the connection: the next operation makes a new one."""
        connection, self.connection = self.connection, None
        if connection is not None:
            try:
                connection.invalidate()
                connection.close()
            except Exception:  # noqa: BLE001 - it is broken already
                _log.debug("a broken connection could not be closed")

    def end(self, until: float) -> None:
        """End it once it has done what was asked of it; waits for that until then, by the monotonic clock. Blocking."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._asked.put(None)
            thread.join(timeout=max(0.0, until - time.monotonic()))

    def _put(self, asked: PendingOperation) -> None:
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                asked.failed(errors.without_thread())
                return
            self._thread = thread
        self._asked.put(asked)

    def _run(self) -> None:
        while (first := self._asked.get()) is not None:
            together, last = [first], False
            while len(together) < MOST_AT_ONCE and not self._asked.empty():
                following = self._asked.get()
                if following is None:
                    last = True
                    break
                together.append(following)
            try:
                self._work(self, together)
            except BaseException as fault:  # noqa: BLE001 - whoever waits hears of it, and the thread lives on
                _log.warning("%s failed: %s", self._name, type(fault).__name__)
                for asked in together:
                    asked.failed(errors.told(fault))
            if last:
                break
        self.let_go()
