"""What requests and swarms rely on in anyio's limiter: so many at once, whatever happens while some are taken."""

from __future__ import annotations

import anyio

from tests.loop_time import others_wait


class Crowd:
    """Tasks that want a place each, and give it back one by one."""

    def __init__(self, places: anyio.CapacityLimiter, tasks: anyio.abc.TaskGroup) -> None:
        self.inside: list[int] = []
        self._places, self._tasks = places, tasks
        self._leave: dict[int, anyio.CancelScope] = {}

    async def come(self, *numbers: int) -> None:
        for number in numbers:
            self._tasks.start_soon(self._one, number)
        await others_wait()

    async def go(self, *numbers: int) -> None:
        for number in numbers:
            self._leave[number].cancel()
        await others_wait()

    async def _one(self, number: int) -> None:
        with anyio.CancelScope() as self._leave[number]:
            async with self._places:
                self.inside.append(number)
                try:
                    await anyio.sleep_forever()
                finally:
                    self.inside.remove(number)


async def test_who_waits_is_served_in_order() -> None:
    async with anyio.create_task_group() as tasks:
        crowd = Crowd(anyio.CapacityLimiter(2), tasks)
        await crowd.come(1, 2, 3, 4, 5)
        assert crowd.inside == [1, 2]
        await crowd.go(2)
        assert crowd.inside == [1, 3]
        await crowd.go(1, 3)
        assert crowd.inside == [4, 5]
        tasks.cancel_scope.cancel()


async def test_places_that_are_taken_beyond_a_smaller_number_stay_taken_and_no_more_are_given() -> None:
    places = anyio.CapacityLimiter(4)
    async with anyio.create_task_group() as tasks:
        crowd = Crowd(places, tasks)
        await crowd.come(1, 2, 3, 4, 5, 6)
        places.total_tokens = 2
        assert crowd.inside == [1, 2, 3, 4]
        await crowd.go(1)
        places.total_tokens = 3  # as many as are taken: nobody may come in for that
        await others_wait()
        assert crowd.inside == [2, 3, 4]
        await crowd.go(2, 3)
        assert crowd.inside == [4, 5, 6]
        tasks.cancel_scope.cancel()


async def test_who_gives_up_waiting_takes_no_place_along() -> None:
    async with anyio.create_task_group() as tasks:
        crowd = Crowd(anyio.CapacityLimiter(1), tasks)
        await crowd.come(1, 2, 3, 4)
        await crowd.go(2)
        await crowd.go(1, 3)  # at the moment at which its turn has come
        assert crowd.inside == [4]
        await crowd.go(4)
        await crowd.come(5)
        assert crowd.inside == [5]
        tasks.cancel_scope.cancel()


async def test_who_comes_while_a_place_changes_hands_does_not_take_it_too() -> None:
    places = anyio.CapacityLimiter(1)
    seen: list[int] = []

    async def hold(number: int) -> None:
        async with places:
            seen.append(number)
            assert len(seen) == 1
            await anyio.lowlevel.checkpoint()
            seen.remove(number)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(hold, number)
            await anyio.lowlevel.checkpoint()
        for number in range(3, 6):
            tasks.start_soon(hold, number)
