"""Work in the background that fails: it is logged, and ends nobody else."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType

import anyio
import pytest

from kimi_mcp import runs
from kimi_mcp.core.background import Coalesced, contained, start_contained
from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.runs import store
from kimi_mcp.server import app, state
from tests.loop_time import others_wait


@pytest.mark.parametrize("fault", [NotConfigured("The store is locked.", fix="Wait."), OSError(5, "of the disk")])
async def test_what_fails_in_a_group_ends_none_of_the_others(
    caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    done: list[str] = []

    async def fail(word: str, *, other: str) -> None:
        done.append(word + other)
        raise fault

    async with anyio.create_task_group() as tasks:
        start_contained(tasks, "it could not be done", fail, "tried", other=" it")
        await others_wait()
        done.append("went on")
    assert done == ["tried it", "went on"]
    assert "it could not be done" in caplog.text
    assert ("The store is locked." in caplog.text) is isinstance(fault, NotConfigured)


async def test_a_failure_that_goes_on_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError

    assert not await contained("it fails", fail)
    assert not await contained("it fails", fail, again=True)
    assert len([record for record in caplog.records if record.levelno > logging.DEBUG]) == 1


async def test_a_cancellation_passes() -> None:
    ended: list[bool] = []
    async with anyio.create_task_group() as tasks:

        async def work() -> None:
            ended.append(await contained("never", anyio.sleep_forever))

        tasks.start_soon(work)
        await others_wait()
        tasks.cancel_scope.cancel()
    assert ended == []


def test_nothing_is_started_among_a_servers_runs_but_what_is_contained() -> None:
    sources = [
        Path(app.__file__),
        Path(state.__file__),
        *(file for package in (runs, store) for file in folder_of(package).glob("*.py")),
    ]
    assert len(sources) > 10
    assert [file.name for file in sources if ".start_soon(" in file.read_text(encoding="utf-8")] == []


def folder_of(package: ModuleType) -> Path:
    assert package.__file__ is not None
    return Path(package.__file__).parent


class Looks:
    """A function that is shared, each call of which ends when it is let."""

    def __init__(self) -> None:
        self.begun, self.failing = 0, set[int]()
        self.let: list[anyio.Event] = [anyio.Event() for _ in range(4)]

    async def __call__(self) -> None:
        number, self.begun = self.begun, self.begun + 1
        await self.let[number].wait()
        if number in self.failing:
            raise NotConfigured("The store is locked.", fix="Wait.")


async def test_calls_at_the_same_time_share_the_next_one_and_none_that_began_before() -> None:
    looks, done = Looks(), list[str]()
    shared = Coalesced(looks)

    async def call(name: str) -> None:
        await shared()
        done.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, "first")
        await others_wait()
        for name in ("second", "third", "fourth"):
            tasks.start_soon(call, name)
        await others_wait()
        assert looks.begun == 1
        looks.let[0].set()
        await others_wait()
        assert (done, looks.begun) == (["first"], 2)
        looks.let[1].set()
    assert sorted(done) == ["first", "fourth", "second", "third"]
    assert looks.begun == 2


async def test_a_shared_call_that_fails_or_is_cancelled_is_made_anew_for_the_others() -> None:
    looks = Looks()
    shared, scope = Coalesced(looks), anyio.CancelScope()
    looks.failing.add(0)

    async def fails() -> None:
        with pytest.raises(NotConfigured):
            await shared()

    async def is_cancelled() -> None:
        with scope:
            await shared()

    async with anyio.create_task_group() as tasks:
        for work in (fails, is_cancelled, shared, shared):
            tasks.start_soon(work)
            await others_wait()
        looks.let[0].set()
        await others_wait()
        assert looks.begun == 2
        scope.cancel()
        await others_wait()
        assert looks.begun == 3
        looks.let[2].set()
    assert looks.begun == 3
