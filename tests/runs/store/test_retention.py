"""How long runs are kept: so many days, but for those that a kept conversation goes back to."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from kimi_mcp.core.errors import RunNotFound
from kimi_mcp.core.types import user
from kimi_mcp.runs.store.retention import DAY_S, SeenTime
from kimi_mcp.runs.store.store import RunStore
from tests.runs.store.stores import CALLER, begin, end, grow, latest, opened, run_store


class Clock:
    """The wall's time, as a test sets it."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


async def ids(kept: RunStore) -> set[str]:
    return {record.id for record in await latest(kept)}


async def call(kept: RunStore, clock: Clock, run_id: str) -> None:
    """A call, and what is removed behind it."""
    await begin(kept, run_id, started_at=clock.now)
    await end(kept, run_id)


async def turn(kept: RunStore, run_id: str, conversation_id: str, follows: str | None) -> None:
    """A completed turn of a conversation."""
    await begin(kept, run_id, conversation_id=conversation_id, follows=follows)
    await end(kept, run_id, turns=[user(run_id)], conversation_id=conversation_id)


async def test_runs_are_kept_for_so_many_days(tmp_path: Path) -> None:
    clock = Clock()
    async with run_store(tmp_path, killed=True, keep_days=3, wall=clock) as kept:
        await begin(kept, "run_1")
        await end(kept, "run_1")
        await begin(kept, "run_2")
        clock.now += 2.9 * DAY_S
        assert await kept.prune() == []
        clock.now += 0.2 * DAY_S
        await begin(kept, "run_3")
        await end(kept, "run_3", "failed")
        assert await kept.prune() == ["run_1"]
        assert await ids(kept) == {"run_2", "run_3"}, "what runs is not cleared away"
    for day in range(4):
        clock.now += DAY_S
        async with run_store(tmp_path, keep_days=3, wall=clock) as later:
            await call(later, clock, f"run_{day + 4}")
    async with run_store(tmp_path, keep_days=3, wall=clock) as later:
        found = await later.find("run_2", CALLER)
        assert await ids(later) == {"run_2", "run_4", "run_5", "run_6", "run_7"}, "a server's first call removes"
        assert found is not None
        assert found.outcome.status == "failed", "its server has gone"


async def test_a_server_that_runs_for_weeks_removes_old_runs_too(tmp_path: Path) -> None:
    clock = Clock()
    async with run_store(tmp_path, keep_days=3, wall=clock) as kept:
        for day in range(10):
            await call(kept, clock, f"run_{day}")
            clock.now += DAY_S
        assert await ids(kept) == {"run_6", "run_7", "run_8", "run_9"}


async def test_what_a_kept_conversation_goes_back_to_stays(tmp_path: Path) -> None:
    clock = Clock()
    async with run_store(tmp_path, keep_days=3, wall=clock) as kept:
        await turn(kept, "run_1", "conv_1", None)
        await turn(kept, "run_2", "conv_1", "run_1")
        await turn(kept, "run_x", "conv_x", None)
        clock.now += 2 * DAY_S
        await turn(kept, "run_3", "conv_1", "run_2")
        await turn(kept, "run_b", "conv_b", "run_x")
        clock.now += 2 * DAY_S
        assert await kept.prune() == []
        assert [each.text for each in await kept.history("run_3")] == ["run_1", "run_2", "run_3"]
        assert [each.text for each in await kept.history("run_b")] == ["run_x", "run_b"]
        clock.now += 2 * DAY_S
        assert await kept.prune(0) == ["run_1", "run_2", "run_3", "run_b", "run_x"]
        assert await kept.conversation("conv_1") is None


async def test_what_is_cleared_away_leaves_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with run_store(tmp_path, wall=clock) as kept:
        await begin(kept, "run_1", conversation_id="conv_1")
        await kept.steps("run_1").begin("a/1", {"a": 1})
        await grow(kept, "run_1", ("answer", 0, "x"))
        await end(kept, "run_1", "failed")
        clock.now += 31 * DAY_S
        assert await kept.prune() == [], "it may be the clock that is wrong"
        assert await kept.prune(0) == ["run_1"]
    with opened(tmp_path) as file:
        for table in ("runs", "pieces", "steps", "conversations"):
            assert file.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


async def test_a_run_of_hundreds_of_steps_goes_too(tmp_path: Path) -> None:
    clock = Clock()
    async with run_store(tmp_path, wall=clock) as kept:
        for run_id in ("run_1", "run_2", "run_3"):
            await begin(kept, run_id)
            for step in range(300 if run_id == "run_2" else 0):
                await kept.steps(run_id).begin(f"a/{step}", {})
            await end(kept, run_id)
        clock.now += 31 * DAY_S
        assert await kept.prune(0) == ["run_1", "run_2", "run_3"]
    with opened(tmp_path) as file:
        assert file.execute("SELECT count(*) FROM steps").fetchone() == (0,)


@pytest.mark.soak
async def test_a_conversation_of_two_thousand_turns_is_cleared_away_at_once(tmp_path: Path) -> None:
    clock = Clock()
    async with run_store(tmp_path, wall=clock) as kept:
        await begin(kept, "run_0", conversation_id="conv_0")
        await end(kept, "run_0")
        with opened(tmp_path) as file:
            columns = [row[1] for row in file.execute("PRAGMA table_info(runs)")]
            new = {"id": "'run_' || n", "follows": "'run_' || (n - 1)"}
            copied = ", ".join(new.get(each) or each for each in columns)
            numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 2000)"
            file.execute(f"{numbers} INSERT INTO runs SELECT {copied} FROM runs, numbers WHERE id = 'run_0'")
        clock.now += 31 * DAY_S
        assert len(await kept.prune(0)) == 2_001


async def test_what_somebody_adds_to_just_now_is_not_cleared_away(tmp_path: Path) -> None:
    clock = Clock()
    async with run_store(tmp_path, keep_days=3, wall=clock) as kept:
        await turn(kept, "run_1", "conv_1", None)
        await kept.take_turn("conv_1", "run_2", lambda run_id: True)
        clock.now += 4 * DAY_S
        assert await kept.prune(0) == [], "its turn has come, though it is not written down yet"
        await turn(kept, "run_2", "conv_1", "run_1")
        clock.now += 4 * DAY_S
        assert await kept.prune(0) == ["run_1", "run_2"]


async def test_a_server_that_died_in_its_turn_keeps_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with run_store(tmp_path, killed=True, keep_days=3, wall=clock) as dead:
        await turn(dead, "run_1", "conv_1", None)
        await dead.take_turn("conv_1", "run_2", lambda run_id: True)
    for day in range(5):
        clock.now += DAY_S
        async with run_store(tmp_path, keep_days=3, wall=clock) as later:
            await call(later, clock, f"run_{day + 3}")
    async with run_store(tmp_path, keep_days=3, wall=clock) as later:
        assert "run_1" not in await ids(later)
        assert await later.conversation("conv_1") is None


async def test_waiting_for_a_conversation_that_is_removed_ends_with_an_error(tmp_path: Path) -> None:
    async with run_store(tmp_path) as kept:
        await turn(kept, "run_1", "conv_1", None)
        with opened(tmp_path) as file:
            file.execute("DELETE FROM conversations")
        with anyio.fail_after(60), pytest.raises(RunNotFound):
            await kept.take_turn("conv_1", "run_2", lambda run_id: True)


async def test_to_open_the_file_removes_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with run_store(tmp_path, keep_days=3, wall=clock) as kept:
        for day in range(4):
            await call(kept, clock, f"run_{day}")
            clock.now += 0.9 * DAY_S
    async with run_store(tmp_path, keep_days=3, wall=clock) as later:
        await later.retention.settled()
        assert await ids(later) == {"run_0", "run_1", "run_2", "run_3"}
        await call(later, clock, "run_4")
        assert await ids(later) == {"run_1", "run_2", "run_3", "run_4"}


async def test_one_jump_of_the_clock_removes_no_more_than_a_days_runs(tmp_path: Path) -> None:
    clock = Clock()
    async with run_store(tmp_path, wall=clock) as kept:
        for day in range(30):
            await call(kept, clock, f"run_{day:02}")
            clock.now += DAY_S
    right = clock.now
    clock.now += 40 * DAY_S
    async with run_store(tmp_path, wall=clock) as kept:
        await call(kept, clock, "run_jumped")
        assert await ids(kept) >= {f"run_{day:02}" for day in range(2, 30)}
    clock.now = right
    async with run_store(tmp_path, wall=clock) as kept:
        await call(kept, clock, "run_right")
        assert await ids(kept) >= {f"run_{day:02}" for day in range(2, 30)}
        for day in range(5):
            clock.now += DAY_S
            await call(kept, clock, f"run_later_{day}")
        assert {f"run_{day:02}" for day in range(30)} & await ids(kept) == {f"run_{day:02}" for day in range(5, 30)}


async def test_what_ended_before_a_long_pause_is_removed_after_as_many_days_of_use(tmp_path: Path) -> None:
    clock = Clock()
    left: list[set[str]] = []
    async with run_store(tmp_path, keep_days=3, wall=clock) as kept:
        await call(kept, clock, "run_before")
        clock.now += 300 * DAY_S
        for day in range(5):
            await call(kept, clock, f"run_{day}")
            left.append({"run_before"} & await ids(kept))
            clock.now += DAY_S + 1
    assert left == [{"run_before"}, {"run_before"}, {"run_before"}, set(), set()]


def test_of_a_stretch_in_which_nobody_looked_one_day_counts() -> None:
    days = SeenTime(seen=0.0)
    for day in (0.5, 1, 11, 12, 22):
        days = days.at(day * DAY_S)
    assert days.gaps == ((DAY_S, 11 * DAY_S), (12 * DAY_S, 22 * DAY_S))
    assert days.before(DAY_S / 2) == 12.5 * DAY_S, "anywhere in the gap: nothing ended in it"
    assert days.before(1.5 * DAY_S) == 11.5 * DAY_S
    assert days.before(3.5 * DAY_S) == 0.5 * DAY_S
    assert days.at(5 * DAY_S).gaps == ((DAY_S, 5 * DAY_S),), "the clock was put back"
    assert days.at(0.5 * DAY_S).gaps == ()


@pytest.mark.parametrize("killed", [True, False])
async def test_one_server_removes_at_a_time_and_another_goes_on_where_it_ended(tmp_path: Path, killed: bool) -> None:
    clock = Clock()
    async with run_store(tmp_path, killed=killed, keep_days=3, wall=clock) as one:
        await call(one, clock, "run_0")
        for _ in range(4):
            clock.now += DAY_S
            await end(one, "run_0")
            await one.retention.look(clock.now)
        async with run_store(tmp_path, keep_days=3, wall=clock) as other:
            await call(other, clock, "run_1")
            assert await ids(other) == {"run_0", "run_1"}, "the first one does it"
    async with run_store(tmp_path, keep_days=3, wall=clock) as third:
        await call(third, clock, "run_2")
        assert await ids(third) == {"run_1", "run_2"}


async def test_what_the_store_remembers_of_the_clock_may_be_anything(tmp_path: Path) -> None:
    clock = Clock()
    async with run_store(tmp_path, wall=clock) as kept:
        await call(kept, clock, "run_1")
    with opened(tmp_path) as file:
        file.execute("UPDATE about SET value = '[]' WHERE name = 'retention'")
    clock.now += 40 * DAY_S
    async with run_store(tmp_path, wall=clock) as kept:
        await call(kept, clock, "run_2")
        assert await ids(kept) == {"run_1", "run_2"}
