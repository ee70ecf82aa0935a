"""``RunningSteps``: the steps that this server makes, for whoever looks at one of their agents. I/O: the store's.

As long as nobody looks nothing is written. In PostgreSQL looks are heard, in SQLite they come with what other servers
request. While somebody looks, what has arrived of all steps that are looked at is written once a second at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from kimi_mcp.core import observing
from kimi_mcp.core.background import contained
from kimi_mcp.core.errors import KimiError
from kimi_mcp.runs.store.looks import AgentOfRun, StepTexts, TextEnd, lock_of, look_id, looked_at, write_texts

if TYPE_CHECKING:
    from kimi_mcp.runs.store.store import RunStore

WRITE_EVERY_S = 1.0
"""Seconds between two writes of what has arrived."""

TextsSoFar = Callable[[], tuple[str, str]]
"""Returns the reasoning and the answer of a step, as far as they have arrived."""


@dataclass(frozen=True, slots=True, eq=False)
class _RunningStep:
    key: str
    texts: TextsSoFar

    def arrived(self) -> StepTexts:
        """What is written of it."""
        reasoning, answer = map(TextEnd.of, self.texts())
        return StepTexts(step=self.key, reasoning=reasoning, answer=answer)


class RunningSteps:
    """The steps that one server makes just now."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._steps: dict[AgentOfRun, _RunningStep] = {}
        self._tasks: dict[str, asyncio.Task[bool]] = {}
        self._failed = set[str]()

    @contextmanager
    def running(self, run_id: str, key: str, texts: TextsSoFar) -> Generator[None]:
        """A step of a run runs here; its key begins with its agent."""
        agent, step = (run_id, key.partition("/")[0]), _RunningStep(key, texts)
        self._steps[agent] = step
        if self._store.notifications.can_be_heard:
            self._start("looks at agents are not heard", self._hear)
        try:
            yield
        finally:
            if self._steps.get(agent) is step:
                del self._steps[agent]

    def heard(self, agents: Iterable[AgentOfRun]) -> None:
        """These agents are looked at, wherever they run."""
        if not self._steps.keys().isdisjoint(agents):
            self._start("what arrives is not written for those who look", self._write)

    async def aclose(self) -> None:
        """Write no more."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def _start(self, failure: str, work: Callable[[], Awaitable[object]]) -> None:
        """Do some work in the background, unless it is being done; ``failure`` is what the log says, once."""
        if failure in self._tasks and not self._tasks[failure].done():
            return

        async def do() -> bool:
            if done := await contained(failure, work, again=failure in self._failed):
                self._failed.discard(failure)
            else:
                self._failed.add(failure)
            return done

        with observing.without_ids():
            self._tasks[failure] = asyncio.get_running_loop().create_task(do())

    async def _hear(self) -> None:
        heard, limits = self._store.notifications, self._store.limits
        async with heard.waiting("look") as waiter:
            while self._steps:
                ids = await waiter.next(limits.look_every_s, deaf_s=limits.write_every_s)
                if not ids.isdisjoint(map(look_id, self._steps)) or not heard.are_heard:
                    with suppress(KimiError):  # the database is away: looks are heard again once it is back
                        self.heard(await self._looked_at())

    async def _looked_at(self) -> Iterable[AgentOfRun]:
        return await self._store.read(looked_at, self._store.now())

    async def _write(self) -> None:
        """Write what arrives as long as somebody looks; at last, that nothing arrives any more."""
        written: dict[AgentOfRun, StepTexts | None] = {}
        while True:
            found: dict[AgentOfRun, StepTexts | None] = {}
            for agent in await self._looked_at():
                step = self._steps.get(agent)
                if step is not None or agent in written:
                    found[agent] = None if step is None else step.arrived()
            changed = {
                agent: texts for agent, texts in found.items() if agent not in written or written[agent] != texts
            }
            if changed:
                locks = {lock_of(run_id) for run_id, _ in changed}
                await self._store.write_locked(tuple(locks), write_texts, changed)
            written = found
            if not any(found.values()):
                return
            await anyio.sleep(WRITE_EVERY_S)
