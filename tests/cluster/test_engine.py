"""The engine on a real PostgreSQL, with one worker in this process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from kimi_mcp.cluster.engine import Engine
from kimi_mcp.cluster.limits import EngineLimits
from kimi_mcp.cluster.local_jobs import is_given_up
from kimi_mcp.cluster.statements import jobs
from kimi_mcp.cluster.watch import Seen
from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.runs.jobs import MOST_ATTEMPTS, Job, JobCancelled, JobHandler, JobKind, JobLost
from kimi_mcp.server.swarm_jobs import EngineQueue
from tests.loop_time import others_wait

WITHIN_S = 30.0
QUICK = EngineLimits(
    watch_s=0.02, poll_s=0.02, result_poll_s=0.02, cancel_poll_s=0.05, reap_s=0.02, idle_s=0.02, retry_s=0.02
)


class Lease:
    """A lease among others, of which the test says who is alive."""

    living = 1

    def __init__(self, server_id: str) -> None:
        self.id = server_id
        self.dead: set[str] = set()
        self.job_formats: set[str] = set()

    def is_alive(self, server: str) -> bool:
        return server not in self.dead


@asynccontextmanager
async def engine(
    url: str, handler: JobHandler | None = None, *, lease: Lease | None = None, **options: Any
) -> AsyncGenerator[Engine]:
    """An engine; with a handler it works."""
    handlers: Mapping[JobKind, JobHandler] = {"swarm": handler, "agent": handler} if handler else {}
    given: dict[str, Any] = {"concurrency": {"swarm": 10, "agent": 10}, "limits": QUICK, **options}
    made = Engine(url, lease=lease or Lease("srv_one"), handlers=handlers, **given)
    with anyio.fail_after(WITHIN_S):
        await made.start(worker=handler is not None)
        try:
            yield made
        finally:
            await made.aclose()


class Gate:
    """A handler that waits at a gate, and what came of it."""

    def __init__(self) -> None:
        self.began: list[Job] = []
        self.entered, self.open = anyio.Event(), anyio.Event()
        self.interrupted: list[str | None] = []

    async def __call__(self, job: Job) -> Mapping[str, Any]:
        self.began.append(job)
        self.entered.set()
        try:
            await self.open.wait()
        except BaseException:
            self.interrupted.append(job.interruption)
            raise
        return {"echo": dict(job.payload), "attempt": job.attempt}


async def test_a_job_is_done_once_and_its_result_reaches_whoever_waits_in_another_replica(database_url: str) -> None:
    gate = Gate()
    async with engine(database_url, gate), engine(database_url, lease=Lease("srv_two")) as caller:
        await caller.enqueue("agent", "run_1/agent-1", {"prompt": "a \0 and a \ud800"})
        await caller.enqueue("agent", "run_1/agent-1", {"prompt": "another"})
        await gate.entered.wait()
        assert [(job.id, job.server, job.status) for job in await caller.jobs()] == [
            ("run_1/agent-1", "srv_one", "running")
        ]
        gate.open.set()
        expected = {"echo": {"prompt": "a \0 and a \ud800"}, "attempt": 1}
        assert await caller.result("run_1/agent-1") == expected
        assert await caller.result("run_1/agent-1") == expected
        assert len(gate.began) == 1
        assert await caller.jobs() == []


@pytest.mark.soak
async def test_cancelling_a_swarm_in_another_replica_ends_its_agents_too(database_url: str) -> None:
    gate = Gate()
    async with engine(database_url, gate), engine(database_url, lease=Lease("srv_two")) as caller:
        await caller.enqueue("agent", "run_1/agent-1", {})
        await caller.enqueue("agent", "run_10/agent-1", {})
        while len(gate.began) < 2:
            await anyio.sleep(0.01)
        await caller.enqueue("swarm", "run_1", {})
        await caller.cancel("run_1")
        for job_id in ("run_1", "run_1/agent-1"):
            with pytest.raises(JobCancelled):
                await caller.result(job_id)
        while not gate.interrupted:
            await anyio.sleep(0.01)
        gate.open.set()
        assert gate.interrupted == ["cancelled"]
        assert (await caller.result("run_10/agent-1"))["attempt"] == 1


async def test_a_store_that_is_away_is_no_fault_of_a_job(database_url: str) -> None:
    away, tries = NotConfigured("The store is away.", fix="Start it."), Counter[str]()

    async def work(job: Job) -> Mapping[str, Any]:
        tries["work"] += 1
        if tries["work"] <= 2 * MOST_ATTEMPTS:
            raise away
        if job.id == "run_1":
            return {"done": True}
        raise ZeroDivisionError

    async def end(job: Job) -> Mapping[str, Any]:
        tries["end"] += 1
        if tries["end"] <= 2 * MOST_ATTEMPTS:
            raise away
        return {}

    async with engine(database_url, work, given_up=end) as caller:
        await caller.enqueue("swarm", "run_1", {})
        assert await caller.result("run_1") == {"done": True}
        await caller.enqueue("swarm", "run_2", {})
        with pytest.raises(JobLost):
            await caller.result("run_2")
    assert tries["end"] == 2 * MOST_ATTEMPTS + 1, "the record of the job has its end"


async def test_a_job_that_keeps_failing_is_given_up_and_one_that_is_not_known_is_lost(database_url: str) -> None:
    calls, given_up = list[Job](), list[Job]()

    async def fail(job: Job) -> Mapping[str, Any]:
        calls.append(job)
        raise RuntimeError("a secret")

    async def end(job: Job) -> Mapping[str, Any]:
        given_up.append(job)
        return {}

    async with engine(database_url, fail, given_up=end) as caller:
        await caller.enqueue("swarm", "run_1", {})
        for job_id, words in (("run_1", "made a mistake"), ("run_2", "not known")):
            with pytest.raises(JobLost, match=words) as raised:
                await caller.result(job_id)
            assert "secret" not in str(raised.value.error.as_json())
    assert len(calls) == MOST_ATTEMPTS
    assert [job.id for job in given_up] == ["run_1"]


async def test_a_job_that_has_ended_is_done_anew_once_it_is_renewed_and_one_that_goes_on_is_not(
    database_url: str,
) -> None:
    gate = Gate()
    async with engine(database_url, gate) as worker:
        await worker.enqueue("swarm", "run_1", {"number": 1})
        await gate.entered.wait()
        await worker.renew("run_1")
        gate.open.set()
        for number, expected in ((1, 1), (2, 1), (3, 3), (4, 4)):
            if number == 3:
                await worker.renew("run_1")
            if number == 4:
                await worker.cancel("run_1")
                await worker.renew("run_1")
            await worker.enqueue("swarm", "run_1", {"number": number})
            assert (await worker.result("run_1"))["echo"] == {"number": expected}
    assert len(gate.began) == 3


async def test_jobs_of_a_version_that_no_living_replica_takes_are_done_anew_once_they_are_renewed(
    database_url: str,
) -> None:
    gate, lease = Gate(), Lease("srv_one")
    gate.open.set()
    lease.job_formats = {"another"}
    async with (
        engine(database_url, lease=Lease("srv_old"), version="another") as old,
        engine(database_url, gate, lease=lease) as worker,
    ):
        for job_id in ("run_1", "run_1/agent-1", "run_10/agent-1"):
            await old.enqueue("swarm", job_id, {"of": "another"})
        await worker.renew("run_1")
        assert len(await worker.jobs()) == 3, "another one may take them"
        lease.job_formats = set()
        await worker.renew("run_1")
        for job_id in ("run_1", "run_1/agent-1"):
            await worker.enqueue("swarm", job_id, {})
            assert (await worker.result(job_id))["echo"] == {}
        assert [job.id for job in await worker.jobs()] == ["run_10/agent-1"]


async def test_what_has_ended_is_removed_after_a_while(database_url: str) -> None:
    gate = Gate()
    gate.open.set()
    async with engine(database_url, gate, limits=replace(QUICK, keep_s=0.0, clean_every_s=0.0)) as worker:
        await worker.enqueue("agent", "run_1/agent-1", {})
        await gate.entered.wait()
        while True:  # it may be removed before its result is seen
            try:
                await worker.result("run_1/agent-1")
            except JobLost:
                break


async def test_a_drained_replica_hands_its_jobs_over_and_has_them_no_more(database_url: str) -> None:
    gate, database = Gate(), sa.create_engine(database_url, poolclass=sa.NullPool)
    async with engine(database_url, gate) as leaving:
        await leaving.enqueue("swarm", "run_1", {})
        await gate.entered.wait()
        with database.connect() as connection:
            assert connection.execute(sa.select(gate.began[0].fence)).scalar() is True
        await leaving.drain()
        assert gate.interrupted == ["drained"]
        assert await asyncio.to_thread(int, "1") == 1  # the loop has an executor of its own again
        with database.connect() as connection:
            assert connection.execute(sa.select(gate.began[0].fence)).scalar() is False
        assert [(job.status, job.attempts) for job in await leaving.jobs()] == [("queued", 0)]
    gate.open.set()
    async with engine(database_url, gate, lease=Lease("srv_two")) as other:
        assert await other.result("run_1") == {"echo": {}, "attempt": 1}
    database.dispose()


async def test_what_a_replica_left_is_gone_on_with_before_anything_that_waits(database_url: str) -> None:
    taken: list[str] = []
    has_second = anyio.Event()

    async def handle(job: Job) -> Mapping[str, Any]:
        taken.append(job.id)
        if job.id == "run_1/agent-2" and not has_second.is_set():
            has_second.set()
            await anyio.sleep_forever()
        return {}

    one_at_once = {"swarm": 1, "agent": 1}
    async with engine(database_url, lease=Lease("srv_caller")) as caller:
        await caller.enqueue("agent", "run_1/agent-1", {})
        await caller.enqueue("agent", "run_1/agent-2", {})
        async with engine(database_url, handle, concurrency=one_at_once) as leaving:
            await has_second.wait()
            await caller.enqueue("agent", "run_2/agent-1", {})
            await leaving.drain()
        taken.clear()
        async with engine(database_url, handle, lease=Lease("srv_two"), concurrency=one_at_once):
            for job_id in ("run_1/agent-2", "run_2/agent-1"):
                await caller.result(job_id)
    assert taken == ["run_1/agent-2", "run_2/agent-1"]


async def test_a_swarm_that_a_replica_finds_before_it_has_joined_is_enqueued_once_it_has(database_url: str) -> None:
    made = Engine(database_url, lease=Lease("srv_one"), handlers={}, concurrency={}, limits=QUICK)
    with anyio.fail_after(WITHIN_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(EngineQueue(made).enqueue, "run_1")
            await others_wait()
            await made.start(worker=False)
        assert [(job.id, job.status) for job in await made.jobs()] == [("run_1", "queued")]
        await made.aclose()


async def test_a_replica_that_can_not_join_says_so_to_who_wants_a_swarm(database_url: str) -> None:
    made = Engine(
        database_url, lease=Lease("srv_one"), handlers={}, concurrency={}, limits=replace(QUICK, outage_s=0.01)
    )
    with pytest.raises(NotConfigured, match="has not joined"):
        await EngineQueue(made).cancel("run_1")
    await made.aclose()


async def test_who_waits_for_an_engine_that_is_given_up_waits_no_longer(database_url: str) -> None:
    made = Engine(database_url, lease=Lease("srv_one"), handlers={}, concurrency={}, limits=QUICK)
    refused: list[NotConfigured] = []

    async def enqueue() -> None:
        try:
            await EngineQueue(made).enqueue("run_1")
        except NotConfigured as error:
            refused.append(error)

    with anyio.fail_after(WITHIN_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(enqueue)
            await others_wait()
            await made.aclose()
    assert "has not joined" in refused[0].message


async def die_of(database_url: str, gate: Gate, lease: Lease, **options: Any) -> None:
    """Take the job that waits, and leave as one who died of it."""
    gate.entered = anyio.Event()
    async with engine(database_url, gate, lease=lease, **options) as dying:
        await gate.entered.wait()
        await dying.abandon()


@pytest.mark.soak
async def test_a_job_at_which_three_replicas_died_is_given_up_with_its_record(database_url: str) -> None:
    gate, given_up = Gate(), list[Job]()

    async def end(job: Job) -> Mapping[str, Any]:
        given_up.append(job)
        return {}

    finished, alone = 0, replace(QUICK, lately_s=0.0)  # no other replica dies

    async def count(job_id: str) -> int:
        assert job_id == "run_1"
        return finished

    async with engine(database_url, lease=Lease("srv_caller")) as caller:
        await caller.enqueue("swarm", "run_1", {"keep": "this"})
        dead = set[str]()
        for number in range(4):
            finished = 7 if number >= 2 else 0  # at the second it got on
            lease = Lease(f"srv_{number}")
            lease.dead = dead
            await die_of(database_url, gate, lease, finished=count, given_up=end, limits=alone)
            dead.add(lease.id)
        assert [job.attempt for job in gate.began] == [1, 2, 2, 3]
        lease = Lease("srv_last")
        lease.dead = dead
        async with engine(database_url, gate, lease=lease, finished=count, given_up=end, limits=alone):
            with pytest.raises(JobLost, match="so it was given up"):
                await caller.result("run_1")
        assert [(job.id, job.payload) for job in given_up] == [("run_1", {"keep": "this"})]


async def test_a_database_that_is_no_postgresql_is_refused(tmp_path: Any) -> None:
    with pytest.raises(NotConfigured, match="KIMI_CLUSTER"):
        Engine(f"sqlite:///{tmp_path}/x", lease=Lease("srv_one"), handlers={}, concurrency={})


@pytest.mark.parametrize(
    ("queued", "own", "others", "looks", "part"),
    [
        (60, 0, 0, 1, 20),
        (60, 20, 0, 1, 27),
        (20, 20, 20, 1, 20),
        (10, 20, 0, 2, 10),
        (1, 0, 0, 1, 1),
        (10, 20, 0, 4, 24),  # the others take none
    ],
)
def test_a_replica_has_its_part_of_all_jobs_and_more_once_others_leave_some(
    queued: int, own: int, others: int, looks: int, part: int
) -> None:
    running = Counter({("srv_one", "agent"): own, ("srv_two", "agent"): others, ("srv_one", "swarm"): 50})
    seen = Seen(queued=Counter(agent=queued), looks=Counter(agent=looks), running=running)
    assert seen.part("agent", "srv_one", 3) == part


@pytest.mark.parametrize(
    ("attempt", "deaths", "given_up"), [(3, 2, False), (4, 3, True), (4, 4, False), (10, 30, False), (11, 30, True)]
)
def test_a_job_is_not_given_up_where_replicas_die_that_did_not_have_it(
    attempt: int, deaths: int, given_up: bool
) -> None:
    assert is_given_up(attempt, deaths) is given_up


@pytest.mark.parametrize(("of_agent", "is_given_up"), [(MOST_ATTEMPTS, False), (1, True)])
async def test_a_swarm_is_not_given_up_for_an_agent_that_kills_whoever_takes_it(
    database_url: str, of_agent: int, *, is_given_up: bool
) -> None:
    gate = Gate()
    gate.open.set()
    async with engine(database_url, lease=Lease("srv_two")) as caller:
        for job_id, taken in (("run_1", MOST_ATTEMPTS), ("run_1/agent-1", of_agent), ("run_10/agent-1", MOST_ATTEMPTS)):
            await caller.enqueue("agent" if "/" in job_id else "swarm", job_id, {})
            _set_taken(database_url, job_id, taken)
        async with engine(database_url, gate):
            with pytest.raises(JobLost, match="given up"):
                await caller.result("run_1" if is_given_up else "run_1/agent-1")
            if not is_given_up:
                assert (await caller.result("run_1"))["attempt"] == MOST_ATTEMPTS + 1


def _set_taken(url: str, job_id: str, times: int) -> None:
    """Have a job taken so often, by replicas that died of it."""
    database = sa.create_engine(url, poolclass=sa.NullPool)
    with database.begin() as connection:
        taken = sa.update(jobs).where(jobs.c.workflow_uuid == job_id).values(recovery_attempts=times)
        assert connection.execute(taken).rowcount == 1
    database.dispose()
