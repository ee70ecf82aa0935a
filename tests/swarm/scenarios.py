"""How these tests run swarms: the real pipeline, a simulator on a socket, and tools made of real values.

A scenario is written so that the same request is always answered alike (``turns``, ``times: always``): a swarm that is
killed and resumed meets the same world.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Self

import anyio

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import read_settings
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.runs import Run, Runs
from kimi_mcp.runs.store.steps import Steps
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.simulator import ReceivedRequest, Simulator
from kimi_mcp.simulator.dialects import FACTS_DAY
from kimi_mcp.swarm import SwarmCall, run_swarm
from kimi_mcp.swarm.limits import SwarmConcurrency, SwarmLimits
from kimi_mcp.swarm.tools import CallResult, SwarmTools, ToolLimits
from kimi_mcp.swarm.tools.selection import OfferedTool
from kimi_mcp.swarm.tools.source import ListedTool, ToolSource
from tests.swarm.memory_steps import MemorySteps

MAIN_AGENT = "You lead a swarm"
"""How a main agent's system prompt begins."""

SYNTHESIS = "Several agents have worked"
"""How that of a synthesis begins."""


def tool(name: str, **properties: str) -> dict[str, Any]:
    """A tool's definition with texts for arguments, all of them required."""
    return {
        "name": name,
        "description": f"Does {name}.",
        "parameters": {
            "type": "object",
            "properties": {key: {"type": kind} for key, kind in properties.items()},
            "required": list(properties),
        },
    }


class Echo(ToolSource):
    """A source whose tools answer at once, and that counts."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        super().__init__("echo", ToolLimits(calls_at_once=1_000))
        self.ready.set()
        self.answers = answers
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.held: anyio.Event | None = None

    async def serve(self) -> None:
        self.ready.set()

    def stop(self) -> None:
        pass

    async def send(self, name: str, tool: ListedTool, arguments: Mapping[str, Any]) -> CallResult:
        self.calls.append((name, dict(arguments)))
        if self.held is not None:
            await self.held.wait()
        query = arguments.get("query", "")
        return CallResult(text=self.answers.get(query, f"found {query}"))


class Tools(SwarmTools):
    """The tools of a swarm, without servers."""

    def __init__(
        self,
        definitions: Sequence[Mapping[str, Any]] = (tool("search", query="string"),),
        warnings: Sequence[str] = (),
        answers: Mapping[str, str] | None = None,
    ) -> None:
        self.source = Echo(answers or {})
        super().__init__([self._offered(each) for each in definitions], [self.source], warnings=warnings)
        self.opened = self.closed = 0

    def _offered(self, definition: Mapping[str, Any]) -> OfferedTool:
        name = definition["name"]
        listed = ListedTool(name=name, description="", schema=definition["parameters"], read_only=True)
        return OfferedTool(name=name, source=self.source, tool=listed, definition=definition)

    @property
    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        """What was called, in order."""
        return self.source.calls

    def __call__(self) -> Self:
        return self

    async def __aenter__(self) -> SwarmTools:
        self.opened += 1
        return self

    async def __aexit__(self, *ended: object) -> None:
        self.closed += 1


@asynccontextmanager
async def pipeline_for(sim: Simulator, provider: str = "simulator", **variables: str) -> AsyncIterator[Pipeline]:
    """The pipeline in front of the simulator, on the day of its facts, with no pause between two attempts."""
    settings = {"KIMI_PROVIDER": provider, "KIMI_BASE_URL": sim.base_url, "KIMI_MAX_CONCURRENCY": "64"}
    pipeline = Pipeline(read_settings(settings | variables), day=lambda: FACTS_DAY, draw=lambda: 0.0)
    try:
        yield pipeline
    finally:
        await pipeline.aclose()


@asynccontextmanager
async def pipeline_and_runs(
    sim: Simulator, provider: str = "simulator", **variables: str
) -> AsyncIterator[tuple[Pipeline, Runs]]:
    """The pipeline, and the runs; those that are left end with it."""
    store = RunStore(None)
    try:
        async with pipeline_for(sim, provider, **variables) as pipeline, anyio.create_task_group() as tasks:
            yield pipeline, Runs(tasks, store)
            tasks.cancel_scope.cancel()
    finally:
        await store.aclose()


def no_tools() -> AbstractAsyncContextManager[SwarmTools]:
    """The tools of a swarm that has none."""
    return nullcontext(SwarmTools(warnings=["Sub-agents have no tools."]))


def quick(slots: int = 64, clock: Callable[[], float] = anyio.current_time) -> SwarmConcurrency:
    """A concurrency that launches everybody at once and never waits long."""
    return SwarmConcurrency(slots, SwarmLimits(launch_interval_s=0), sleep=_at_once, clock=clock)


async def _at_once(seconds: float) -> None:
    del seconds
    await anyio.lowlevel.checkpoint()


async def swarm(
    sim: Simulator,
    prompt: str = "Compare A and B.",
    *,
    steps: Steps | None = None,
    tools: Tools | None = None,
    concurrency: SwarmConcurrency | None = None,
    run: Run | None = None,
    limits: SwarmLimits | None = None,
    provider: str = "simulator",
    variables: Mapping[str, str] | None = None,
    **arguments: Any,
) -> Outcome:
    """A swarm's outcome."""
    call = SwarmCall(prompt=prompt, **arguments)
    run = run or Run(caller="a test", tool="kimi_swarm", prompt=prompt)
    async with pipeline_and_runs(sim, provider, **(variables or {})) as (pipeline, runs):
        runs.start(
            run,
            lambda run: run_swarm(
                call,
                run,
                pipeline,
                steps=steps,
                concurrency=concurrency or quick(),
                tools=tools or no_tools,
                limits=limits,
            ),
        )
        await run.done.wait()
    assert run.outcome is not None
    return run.outcome


# ── scenarios ─────────────────────────────────────────────────────────────────────────────────────────────────────


def calling(name: str, arguments: Any, number: int = 0, turn: int = 0) -> dict[str, Any]:
    """A tool call of a reply model, with an id as Kimi gives them."""
    return {"name": name, "arguments": arguments, "id": f"functions.{name}:{turn * 100 + number}"}


def leading(*tasks: tuple[str, str], turn: int = 0) -> dict[str, Any]:
    """A turn of the main agent: sub-agents by name, each with its task."""
    names = dict.fromkeys(name for name, _ in tasks)
    calls = [calling("create_subagent", {"name": name, "system_prompt": f"You are {name}."}, number, turn)
             for number, name in enumerate(names) if turn == 0]  # fmt: skip
    calls += [
        calling("assign_task", {"agent": name, "prompt": task}, 50 + number, turn)
        for number, (name, task) in enumerate(tasks)
    ]
    return reply({"system": MAIN_AGENT, "turns": turn}, tool_calls=calls)


def reply(match: Mapping[str, Any], **what: Any) -> dict[str, Any]:
    """A step that is played whenever it fits."""
    return {"match": dict(match), "times": "always", **what}


def searching(task: str, *queries: str) -> list[dict[str, Any]]:
    """A sub-agent that searches once a turn, then answers."""
    turns = [
        reply({"text": task, "turns": turn}, tool_calls=[calling("search", {"query": query}, turn=turn)])
        for turn, query in enumerate(queries)
    ]
    return [*turns, reply({"text": task, "turns": len(queries)}, content=f"I know of {task}.")]


# ── what was received ───────────────────────────────────────────────────────────────────────────────────────────────


def chats(sim: Simulator, part: str = "") -> list[ReceivedRequest]:
    """The chat requests, or those whose last user message or system prompt holds that part."""
    found = [request for request in sim.requests if request.path.endswith("/chat/completions")]
    if not part:
        return found
    return [request for request in found if part in task_of(request) or part in messages(request)[0]["content"]]


def messages(request: ReceivedRequest) -> list[dict[str, Any]]:
    assert request.body is not None
    found: Any = request.body["messages"]
    return found


def task_of(request: ReceivedRequest) -> str:
    """The last user message."""
    return next(message["content"] for message in reversed(messages(request)) if message["role"] == "user")


def agents(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.swarm is not None
    return list(outcome.swarm["agents"])


def statuses(outcome: Outcome) -> list[str]:
    return [agent["status"] for agent in agents(outcome)]


class Killed(Exception):
    """The process was killed."""


class Dying(MemorySteps):
    """A record whose process is killed at the n-th event: each begin and each finish is two (before and after)."""

    def __init__(self, results: Mapping[str, Any], at: int, kill: Any) -> None:
        super().__init__()
        self.results = dict(results)
        self._left = at
        self._kill = kill
        self.events = 0

    async def _event(self) -> None:
        self.events += 1
        if self.events == self._left:
            self._kill()
            await anyio.sleep_forever()

    async def begin(self, key: str, description: Any) -> Any:
        await self._event()
        found = await super().begin(key, description)
        await self._event()
        return found

    async def finish(self, key: str, result: Any) -> None:
        await self._event()
        await super().finish(key, json.loads(json.dumps(result)))
        await self._event()
