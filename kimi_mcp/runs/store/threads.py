"""``DatabaseThread``: a thread with a database connection of its own, and the operations that wait for it. I/O: theirs.

What waits when the thread is free is done in one transaction: a hundred runs that grow cost one commit.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from kimi_mcp.runs.store import errors

MOST_AT_ONCE = 256
"""Operations that share a transaction at most."""

_log = logging.getLogger(__name__)

T = TypeVar("T")
Operation = Callable[[Connection], T]
"""What is done with a connection, inside a transaction; may be repeated where the transaction failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingOperation:
    """An operation, and who is called once it is done."""

    operation: Operation[Any]
    """What to do."""
    asked_at: float
    """By the monotonic clock."""
    loop: asyncio.AbstractEventLoop
    """Where to call."""
    on_done: Callable[[Any, BaseException | None], None]
    """Called with the result, or with the fault."""

    def finish(self, result: Any = None, fault: BaseException | None = None) -> None:
        """Report the result or the fault, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self.on_done, result, fault)


class DatabaseThread:
    """A thread that does operations in order, together where several wait; started by the first one."""

    def __init__(self, name: str, execute: Callable[[DatabaseThread, list[PendingOperation]], None]) -> None:
        self.connection: Connection | None = None
        """Its own, once it is open."""
        self.engine: Engine | None = None
        """Where that came from."""
        self._name, self._execute = name, execute
        self._queue: queue.SimpleQueue[PendingOperation | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, operation: Operation[T]) -> T:
        """The result of an operation, once it is done."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def settle(result: Any, fault: BaseException | None) -> None:
            if future.done():
                return  # who waited was cancelled
            if fault is None:
                future.set_result(result)
            else:
                future.set_exception(fault)

        self._put(operation, settle)
        return await future

    def post(self, operation: Operation[Any], done: Callable[[BaseException | None], None]) -> None:
        """Do it some time soon; ``done`` is then called in the loop, with the fault if there was one."""
        self._put(operation, lambda _, fault: done(fault))

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

    def _put(self, operation: Operation[Any], on_done: Callable[[Any, BaseException | None], None]) -> None:
        pending = PendingOperation(
            operation=operation, asked_at=time.monotonic(), loop=asyncio.get_running_loop(), on_done=on_done
        )
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                pending.finish(fault=errors.without_thread())
                return
            self._thread = thread
        self._queue.put(pending)

    def _work(self) -> None:
        is_last = False
        while not is_last and (first := self._queue.get()) is not None:
            together = [first]
            while len(together) < MOST_AT_ONCE and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    is_last = True
                    break
                together.append(following)
            try:
                self._execute(self, together)
            except BaseException as fault:  # noqa: BLE001 - whoever waits gets it, and the thread goes on
                _log.warning("%s failed: %s", self._name, type(fault).__name__)
                for pending in together:
                    pending.finish(fault=errors.from_fault(fault))
        self.disconnect()
