"""Jobs: work that whichever replica is free does, and what is handed to it. Pure, no I/O.

``kimi_mcp.cluster`` has the engine that distributes them; who enqueues or does them knows no more than this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from kimi_mcp.core.errors import Internal

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

Role = Literal["all", "http", "worker"]
"""What a replica does: answers clients (http), takes jobs (worker), or both."""

JobKind = Literal["swarm", "agent"]
"""A whole swarm, or one of its sub-agents."""

JOB_KINDS: tuple[JobKind, ...] = ("swarm", "agent")
"""All of them."""

MOST_ATTEMPTS = 3
"""After how many deaths of replicas that had a job it is given up, where none of its steps finished meanwhile."""

Interruption = Literal["cancelled", "drained", "lost"]
"""Why a job's task is cancelled: somebody cancelled the job; its replica leaves, and another one goes on with it; its
replica ends otherwise, or is taken for dead, and another one goes on with it once its lease is over."""


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """A job that this replica does."""

    id: str
    """A swarm's: that of its run. A sub-agent's: ``RUN/AGENT``."""
    kind: JobKind
    payload: Mapping[str, Any]
    """JSON: what it was enqueued with."""
    attempt: int
    """1, and one more for each replica that died at it before a further step was finished."""
    fence: ColumnElement[bool] = field(repr=False)
    """A condition for a statement: true as long as this replica has the job, and holding it until the commit."""
    interruption: Interruption | None = None
    """Why its task is cancelled, once it is. Only for ``cancelled`` its end is to be recorded."""


JobHandler = Callable[[Job], Awaitable[Mapping[str, Any]]]
"""Does a job; its result is JSON. Cancelled where the job is interrupted."""


class Fenced(Exception):
    """Raised where a job is another replica's by now: what this one still makes of it counts nowhere."""


class JobCancelled(Exception):
    """Raised to whoever waits for the result of a job that was cancelled."""


class JobLost(Exception):
    """Raised to whoever waits for the result of a job that has none: it failed, was given up, or is not known."""

    def __init__(self, error: Internal) -> None:
        super().__init__(error.message)
        self.error = error
        """The error for a caller."""


class Jobs(Protocol):
    """Work for whichever replica is free."""

    async def enqueue(self, kind: JobKind, job_id: str, payload: Mapping[str, Any]) -> None:
        """Let some replica do a job; one of that id that is there already goes on. ``payload`` is JSON."""
        ...

    async def result(self, job_id: str) -> Mapping[str, Any]:
        """Wait for the result of a job. Raises ``JobCancelled`` and ``JobLost``."""
        ...

    async def cancel(self, job_id: str) -> None:
        """Cancel a job, and those whose ids begin with its own and a slash; with ``RUN/`` those alone.

        One that has ended stays as it is.
        """
        ...
