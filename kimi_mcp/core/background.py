"""What works beside the calls of a server: its failure is logged, and no caller's end stops it. No I/O of its own.

A task group cancels all of its tasks where one fails, and the server's holds every run: nothing is started in it that
may fail.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, ParamSpec, TypeVar

import anyio
from anyio.abc import TaskGroup

from kimi_mcp.core.errors import KimiError

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


def start_contained(
    tasks: TaskGroup, failure: str, work: Callable[P, Awaitable[object]], *args: P.args, **named: P.kwargs
) -> None:
    """Start work in a task group that it can't end; ``failure`` is what the log says where it fails."""
    tasks.start_soon(partial(contained, failure, partial(work, *args, **named)))


async def contained(failure: str, work: Callable[[], Awaitable[object]], *, again: bool = False) -> bool:
    """Do some work; whether it succeeded. A failure is logged, at debug level ``again``; a cancellation passes."""
    try:
        await work()
    except KimiError as fault:
        _log.log(logging.DEBUG if again else logging.WARNING, "%s: %s", failure, fault.message)
        return False
    except Exception as fault:  # noqa: BLE001 - whatever it is, the others go on
        _log.log(logging.DEBUG if again else logging.ERROR, "%s", failure, exc_info=fault)
        return False
    return True


class Coalesced:
    """A function that all who call it at the same time share: one call of it that begins after theirs serves them all.

    Where it fails, whoever made the call gets the fault, and the others call it anew.
    """

    def __init__(self, function: Callable[[], Awaitable[object]]) -> None:
        self._function = function
        self._begun = self._done = 0
        self._one_at_a_time = anyio.Lock()

    async def __call__(self) -> None:
        """Return once a call has ended that began from here on."""
        wanted = self._begun + 1
        async with self._one_at_a_time:
            if self._done < wanted:
                self._begun += 1
                await self._function()
                self._done = self._begun


async def carried_out(work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which goes on to its end where its caller is cancelled."""
    return await asyncio.shield(asyncio.ensure_future(work))
