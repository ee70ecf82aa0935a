"""How long runs are kept: so many days, but for those that a kept conversation goes back to."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from kimi_mcp.errors import RunNotFound
from kimi_mcp.journal.journal import DAY_S, Journal
from kimi_mcp.journal.records import Grown
from kimi_mcp.types import user
from tests.journal.keeping import CALLER, begin, end, ended, journal, opened


class Clock:
    """The wall's time, as a test sets it."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


async def ids(kept: Journal) -> set[str]:
    return {record.id for record in await kept.latest(CALLER)}


async def turn(kept: Journal, run_id: str, conversation_id: str, follows: str | None) -> None:
    """A completed turn of a conversation."""
    await begin(kept, run_id, conversation_id=conversation_id, follows=follows)
    await kept.end(run_id, ended(run_id, conversation_id=conversation_id), turns=[user(run_id)], counted_usd=0.0)


async def test_runs_are_kept_for_so_many_days(tmp_path: Path) -> None:
    clock = Clock()
    async with journal(tmp_path, keep_days=3, wall=clock) as kept:
        await begin(kept, "run_1")
        await end(kept, "run_1")
        await begin(kept, "run_2")
        clock.now += 2.9 * DAY_S
        await begin(kept, "run_3")
        await end(kept, "run_3", "failed")
        assert await kept.prune() == []
        clock.now += 0.2 * DAY_S
        assert await kept.prune() == ["run_1"]
        assert await ids(kept) == {"run_2", "run_3"}, "what runs is not cleared away"
    clock.now += 3 * DAY_S
    async with journal(tmp_path, keep_days=3, wall=clock) as later:
        assert await ids(later) == {"run_2"}, "the next server clears away as it opens the file"
        found = await later.find("run_2", CALLER)
        assert found is not None
        assert found.outcome.status == "failed", "its server has gone"


async def test_a_server_that_lives_for_weeks_clears_away_too(tmp_path: Path) -> None:
    clock = Clock()
    async with journal(tmp_path, keep_days=3, wall=clock) as kept:
        for day in range(10):
            await begin(kept, f"run_{day}")
            await end(kept, f"run_{day}")
            clock.now += DAY_S
        assert len(await ids(kept)) <= 5


async def test_what_a_kept_conversation_goes_back_to_stays(tmp_path: Path) -> None:
    clock = Clock()
    async with journal(tmp_path, keep_days=3, wall=clock) as kept:
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
        assert await kept.prune() == ["run_1", "run_2", "run_3", "run_b", "run_x"]
        assert await kept.conversation("conv_1") is None


async def test_what_is_cleared_away_leaves_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with journal(tmp_path, wall=clock) as kept:
        await begin(kept, "run_1", conversation_id="conv_1")
        await kept.begin_step("run_1", "a/1", {"a": 1})
        kept.grew([Grown(run_id="run_1", request=0, of="answer", start=0, text="x")], {}, {}, lambda fault: None)
        await end(kept, "run_1", "failed")
        clock.now += 31 * DAY_S
        assert await kept.prune() == ["run_1"]
    with opened(tmp_path) as file:
        for table in ("runs", "pieces", "steps", "conversations"):
            assert file.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


async def test_ten_thousand_runs_are_cleared_away_at_once(tmp_path: Path) -> None:
    clock = Clock()
    async with journal(tmp_path, wall=clock) as kept:
        await begin(kept, "run_0", conversation_id="conv_0")
        await end(kept, "run_0")
        with opened(tmp_path) as file:
            columns = [row[1] for row in file.execute("PRAGMA table_info(runs)")]
            new = {"id": "'run_' || n", "follows": "'run_' || (n - 1)"}
            copied = ", ".join(new.get(each) or each for each in columns)
            numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 10000)"
            file.execute(f"{numbers} INSERT INTO runs SELECT {copied} FROM runs, numbers WHERE id = 'run_0'")
        clock.now += 31 * DAY_S
        assert len(await kept.prune()) == 10_001


async def test_what_somebody_adds_to_just_now_is_not_cleared_away(tmp_path: Path) -> None:
    clock = Clock()
    async with journal(tmp_path, keep_days=3, wall=clock) as kept:
        await turn(kept, "run_1", "conv_1", None)
        await kept.take_turn("conv_1", "run_2", lambda run_id: True)
        clock.now += 4 * DAY_S
        assert await kept.prune() == [], "its turn has come, though it is not written down yet"
        await turn(kept, "run_2", "conv_1", "run_1")
        clock.now += 4 * DAY_S
        assert await kept.prune() == ["run_1", "run_2"]


async def test_a_server_that_died_in_its_turn_keeps_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with journal(tmp_path, keep_days=3, wall=clock) as dead:
        await turn(dead, "run_1", "conv_1", None)
        await dead.take_turn("conv_1", "run_2", lambda run_id: True)
    clock.now += 4 * DAY_S
    async with journal(tmp_path, keep_days=3, wall=clock) as later:
        assert await ids(later) == set()


async def test_whoever_waits_for_a_conversation_that_is_cleared_away_is_told(tmp_path: Path) -> None:
    async with journal(tmp_path) as kept:
        await turn(kept, "run_1", "conv_1", None)
        with opened(tmp_path) as file:
            file.execute("DELETE FROM conversations")
        with anyio.fail_after(5), pytest.raises(RunNotFound):
            await kept.take_turn("conv_1", "run_2", lambda run_id: True)
