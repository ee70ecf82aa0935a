"""What the engine waits for and takes. Pure, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA = "kimi_engine"
"""The engine's own schema in the database of the store."""

JOB_FORMAT = "kimi-jobs-1"
"""The version of what jobs are enqueued with: a replica takes those of its own version alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """How often the engine looks, in seconds, and how many connections it has."""

    watch_s: float = 0.2
    """Between two looks at all jobs."""
    poll_s: float = 0.1
    """Between two looks of DBOS at a queue, where there is something to take."""
    result_poll_s: float = 0.25
    """Between two looks for results, while somebody waits for one."""
    cancel_poll_s: float = 10.0
    """Between two looks of DBOS for cancellations, while a job runs: the look at all jobs finds them before."""
    reap_s: float = 1.0
    """Between two looks for jobs of dead replicas."""
    forgotten_s: float = 10.0
    """For which a replica has more jobs by the table than it does, until they go back."""
    idle_s: float = 0.5
    """Between two looks of a thread of DBOS that has nothing to do; its end waits for it."""
    connections: int = 4
    """To the database, at most."""
    outage_s: float = 60.0
    """For which the database may be away while a job is enqueued or cancelled."""
    retry_s: float = 0.5
    """Between two attempts meanwhile."""
    leave_s: float = 3.0
    """For each part of a drain."""
    abandon_s: float = 0.5
    """For jobs to end once the lease is lost."""
    lately_s: float = 180.0
    """Within which deaths of other replicas speak for a job that was there."""
    keep_s: float = 300.0
    """For which the engine keeps what has ended, texts of agents among it; the store keeps the runs themselves."""
    clean_every_s: float = 60.0
    """Between two removals of what is older."""
