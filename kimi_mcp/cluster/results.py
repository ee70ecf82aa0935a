"""``Results``: who waits for which job, and one look for all of them. I/O: what it is given to look with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from kimi_mcp.cluster.limits import EngineLimits
from kimi_mcp.core.errors import Internal
from kimi_mcp.runs.jobs import JobCancelled, JobLost

Find = Callable[[Sequence[str]], Awaitable[Mapping[str, Any]]]
"""Of these jobs those that have ended, with their rows; None: it is not known. Raises ``SQLAlchemyError``."""

log = logging.getLogger(__name__)

_UNFINISHED = ("ENQUEUED", "DELAYED", "PENDING")

_LOST = {
    "given up": "One server after another died at a part of this work, so it was given up.",
    "failed": "A server made a mistake at a part of this work.",
    "unknown": "A part of this work is not known any more.",
}


class Results:
    """The results that are waited for; looks only while there are some."""

    def __init__(self, find: Find, limits: EngineLimits) -> None:
        self._find, self._limits = find, limits
        self._waiting: dict[str, list[asyncio.Future[Mapping[str, Any]]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def wait(self, job_id: str) -> Mapping[str, Any]:
        """The result of a job. Raises ``JobCancelled`` and ``JobLost``."""
        future: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, []).append(future)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            return await future
        finally:
            futures = self._waiting.get(job_id, [])
            if future in futures:
                futures.remove(future)
            if not futures:
                self._waiting.pop(job_id, None)

    def close(self) -> None:
        """Look no more; whoever still waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
        for futures in self._waiting.values():
            for future in futures:
                future.cancel()

    async def _look(self) -> None:
        while self._waiting:
            ids = list(self._waiting)
            try:
                ended = await self._find(ids)
            except SQLAlchemyError as fault:  # it is away: whoever waits does so
                log.debug("results can't be read just now: %s", type(fault).__name__)
            except Exception:
                log.exception("results can't be read")
            else:
                for job_id, row in ended.items():
                    self._settle(job_id, row)
            await asyncio.sleep(self._limits.result_poll_s)

    def _settle(self, job_id: str, row: Any) -> None:
        if row is not None and row.status in _UNFINISHED:
            return
        found = _outcome(row)
        for future in self._waiting.pop(job_id, []):
            if future.done():
                continue
            if isinstance(found, Exception):
                future.set_exception(found)
            else:
                future.set_result(found)


def _outcome(row: Any) -> Mapping[str, Any] | Exception:
    """The result of a job that has ended, or what is raised instead."""
    if row is not None and row.status == "CANCELLED":
        return JobCancelled()
    output: dict[str, Any] = {"lost": "unknown"} if row is None else {"lost": "failed"}
    if row is not None and row.status == "SUCCESS":  # the only other end is an exception of DBOS
        output = row.output
    if (lost := output.get("lost")) is not None:
        return JobLost(Internal(_LOST[lost], fix="Call again; the log of the server says more."))
    return output["result"]
