"""How callers share slots: who holds least is next, and whoever leaves takes nothing along."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import anyio
import anyio.lowlevel
import pytest

from kimi_mcp.core import callers
from kimi_mcp.provider.decoding import StreamAccumulator
from kimi_mcp.provider.fair_slots import FairSlots
from kimi_mcp.simulator import Simulator
from tests.provider.requests import BODY, SHORT, Clock, ask, endpoint, upstream
from tests.server.clients import wait_until


async def settle() -> None:
    """Let everybody do what can be done now: there is no I/O, so a few turns of the event loop are enough."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


class Crowd:
    """Requests of callers who want slots, and hold each until they have to give it back."""

    def __init__(self, slots: FairSlots, tasks: anyio.abc.TaskGroup) -> None:
        self.slots, self._tasks = slots, tasks
        self.served: list[str] = []
        """The callers who got a slot, in order."""
        self.holding: list[tuple[str, anyio.Event]] = []
        """Those who hold one, the oldest first, and what they wait for."""
        self.wanted: list[anyio.CancelScope] = []
        """What cancels each who ever wanted one."""

    async def want(self, *who: str) -> None:
        """Let callers ask for a slot each, in this order."""
        for caller in who:
            self._tasks.start_soon(self._hold, caller)
            await settle()

    async def give_back(self, caller: str | None = None) -> None:
        """Let one end: the oldest, or the oldest of a caller."""
        next(over for holder, over in self.holding if caller in (None, holder)).set()
        await settle()

    async def _hold(self, caller: str) -> None:
        callers.CURRENT.set(caller)
        with anyio.CancelScope() as scope:
            self.wanted.append(scope)
            async with self.slots.hold():
                self.served.append(caller)
                over = anyio.Event()
                mine = caller, over
                self.holding.append(mine)
                try:
                    await over.wait()
                finally:
                    self.holding.remove(mine)


@asynccontextmanager
async def crowd(total: int) -> AsyncIterator[Crowd]:
    slots = FairSlots(total)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            yield Crowd(slots, tasks)
            tasks.cancel_scope.cancel()
    assert (slots.free, slots.waiting) == (slots.total, 0), "everything was given back"


async def test_a_caller_who_is_alone_gets_everything_in_order() -> None:
    async with crowd(3) as each:
        await each.want("a", "a", "a", "a")
        assert (each.served, each.slots.free, each.slots.waiting) == (["a"] * 3, 0, 1)
        await each.give_back()
        assert each.served == ["a"] * 4


async def test_callers_who_hold_as_many_are_served_in_turn() -> None:
    async with crowd(1) as each:
        await each.want("a", "a", "a", "a", "b", "b", "c")
        for _ in range(6):
            await each.give_back()
    assert each.served == ["a", "a", "b", "c", "a", "b", "a"]


async def test_who_holds_the_fewest_is_next_however_many_another_one_wants() -> None:
    async with crowd(4) as each:
        await each.want(*"aaaa", *"aaaa", *"bbb")
        for _ in range(2):
            await each.give_back("a")
        assert each.served == [*"aaaa", *"bb"]
        await each.give_back("b")
        assert each.served[-1] == "b", "b holds one, a two"
        await each.give_back("a")
        assert each.served[-1] == "a"


async def test_fewer_slots_are_given_back_before_anybody_gets_one_and_more_are_given_at_once() -> None:
    async with crowd(4) as each:
        await each.want(*"aaaa", *"bb")
        each.slots.total = 2
        for _ in range(2):
            await each.give_back("a")
        assert each.served == [*"aaaa"]
        await each.give_back("a")
        assert each.served == [*"aaaa", "b"]
        each.slots.total = 4
        await settle()
        assert each.served == [*"aaaa", *"bb"]


async def test_who_is_cancelled_while_it_waits_leaves_nothing_behind() -> None:
    async with crowd(1) as each:
        await each.want("a", "b", "c", "c")
        each.wanted[1].cancel()
        each.wanted[2].cancel()
        await settle()
        await each.give_back()
        assert each.served == ["a", "c"]


async def test_who_is_cancelled_as_its_turn_comes_passes_the_slot_on() -> None:
    async with crowd(1) as each:
        async with each.slots.hold():
            await each.want("b", "c")
            each.wanted[0].cancel()  # of which b hears when it runs next
        await settle()
        assert each.served == ["c"]


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 200), marks=pytest.mark.soak)], ids=str)
async def test_whatever_comes_no_slot_is_idle_while_somebody_waits_and_none_is_lost(seeds: range) -> None:
    for seed in seeds:
        draw = Random(seed)
        async with crowd(4) as each:
            for _ in range(200):
                match draw.choice(("want", "want", "give back", "cancel", "resize")):
                    case "want":
                        await each.want(draw.choice("aaaabbc"))
                    case "give back" if each.holding:
                        draw.choice(each.holding)[1].set()
                    case "cancel" if each.wanted:
                        draw.choice(each.wanted).cancel()
                    case "resize":
                        each.slots.total = draw.randint(1, 6)
                    case _:
                        pass
                if draw.random() < 0.7:  # else two things happen in one turn of the event loop
                    await settle()
                    assert each.slots.free == each.slots.total - len(each.holding)
                    assert each.slots.free <= 0 or not each.slots.waiting


@pytest.mark.parametrize("yields", [False, True])
async def test_a_caller_of_many_requests_and_others_are_served_in_turn(sim: Simulator, yields: bool) -> None:
    up = upstream(max_concurrency=1)
    sim.play({**SHORT, "gate": "open", "times": "always"})
    sent: list[str] = []

    async def one(caller: str) -> None:
        callers.CURRENT.set(caller)
        arrived = StreamAccumulator()
        await up.stream(endpoint(sim.base_url), BODY, arrived, on_attempt=lambda _: sent.append(caller), yields=yields)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as calls:
            for caller in (*"aaaaaa", *"bb", "c"):
                calls.start_soon(one, caller)
            slots = up._yielding if yields else up._slots
            await wait_until(lambda: slots.waiting == 8 and sim.waiting_at("open") == 1)
            sim.open_gate("open")
    assert sent == [*"aabcabaaa"]


async def test_an_account_s_minute_is_shared_in_turn(sim: Simulator) -> None:
    """Of an account that may send one request a minute."""
    clock = Clock()
    up = upstream(clock, max_concurrency=100)
    message = "request reached organization max RPM: 1, please try again after 1 seconds"
    sim.play(
        {"status": 429, "error_type": "rate_limit_reached_error", "error_message": message},
        {**SHORT, "times": "always"},
    )
    await ask(up, sim)
    sent: list[str] = []

    async def one(caller: str) -> None:
        callers.CURRENT.set(caller)
        arrived = StreamAccumulator()
        await up.stream(endpoint(sim.base_url), BODY, arrived, on_attempt=lambda _: sent.append(caller), yields=True)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as calls:
            for caller in (*"aaaa", *"bb", "c"):
                calls.start_soon(one, caller)
    assert sent == [*"aabcaba"]
