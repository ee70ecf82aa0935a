"""What the engine is given, and what it tells of its jobs. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass
from typing import Any, Protocol

_STATES = {"ENQUEUED": "queued", "PENDING": "running"}

Finished = Callable[[str], Awaitable[int]]
"""How many steps of a job are finished, by its id; more than when it was taken last: its replica did not die of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A job that has not ended."""

    id: str
    kind: str
    status: str
    """``queued`` or ``running``."""
    server: str | None
    """The server id of the replica that has it, or had it last; None: nobody has taken it yet."""
    attempts: int
    """How often it was taken."""
    age_s: float
    """Seconds since it was enqueued, by the database's clock."""

    @classmethod
    def of(cls, row: Any) -> JobState:
        """That of a row of ``statements.unfinished``."""
        return cls(
            id=row.workflow_uuid,
            kind=row.name,
            status=_STATES[row.status],
            server=row.executor_id,
            attempts=row.recovery_attempts or 0,
            age_s=float(row.age_s),
        )


class Lease(Protocol):
    """What the engine asks of a ``ServerLease``."""

    @property
    def id(self) -> str:
        """This server's; new with each start of a process."""
        ...

    @property
    def living(self) -> int:
        """How many replicas are alive."""
        ...

    @property
    def job_formats(self) -> Set[str]:
        """The versions of jobs that living replicas take, as far as they say so."""
        ...

    def is_alive(self, server: str) -> bool:
        """Whether a server is alive. Blocking."""
        ...
