"""``Coordinator``: the main agent's two tools, which make sub-agents and give out tasks.

No I/O of its own: agents work.

The tools are the paper's (arXiv 2602.02276, appendix): ``create_subagent(name, system_prompt)`` and
``assign_task(agent, prompt)``. All tasks of a turn run at the same time, and each brings back one message.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, cast

import anyio

from kimi_mcp.core.types import ToolCall
from kimi_mcp.swarm import prompts
from kimi_mcp.swarm.stats import Agent, agent_report
from kimi_mcp.swarm.step_runner import StepRunner

MAX_NAME_CHARS = 64
"""Characters of a sub-agent's name."""

StartAgent = Callable[[Agent, str, str], Coroutine[Any, Any, None]]
"""Lets an agent work on a task: its line, its own system prompt, the task."""


class Coordinator:
    """The main agent's hands. Mutable: they know the sub-agents that were made."""

    definitions: Sequence[Mapping[str, Any]]
    """The two tools."""

    def __init__(self, runner: StepRunner, start: StartAgent) -> None:
        self.definitions = prompts.coordinator_tools()
        self._runner, self._start = runner, start
        self._made: dict[str, str] = {}

    async def use(self, agent: Agent, key: str, calls: Sequence[ToolCall]) -> Sequence[str]:
        """What the calls of a turn bring: sub-agents are made first, then all tasks run at the same time."""
        del agent, key  # a sub-agent's steps have keys of their own, and what they bring follows from those alone
        answers: dict[int, str] = {}
        given: dict[int, Agent] = {}
        read = {place: _arguments(call) for place, call in enumerate(calls)}
        for place, call in enumerate(calls):
            if isinstance(said := read[place], str):
                answers[place] = said
            elif call.name == "create_subagent":
                answers[place] = self._create(said["name"].strip(), said["system_prompt"])
        async with anyio.create_task_group() as tasks:
            for place, said in read.items():
                if place in answers or isinstance(said, str):
                    continue
                name = said["agent"].strip()
                if (why_not := self._why_not(name)) is not None:
                    answers[place] = why_not
                    continue
                given[place] = self._runner.stats.add_agent(name)
                tasks.start_soon(self._start, given[place], self._made[name], said["prompt"])
        share = self._runner.share(len(given))
        answers |= {place: agent_report(worker, share) for place, worker in given.items()}
        return [answers[place] for place in range(len(calls))]

    def _create(self, name: str, system_prompt: str) -> str:
        if len(name) > MAX_NAME_CHARS or not name.isprintable():
            return f"Not made: a name is one line of at most {MAX_NAME_CHARS} characters."
        if name in self._made:
            return f"Not made: there is a sub-agent {name} already. Give it tasks, or choose another name."
        self._made[name] = system_prompt
        return f"{name} is there. Give it a task with assign_task."

    def _why_not(self, name: str) -> str | None:
        limits = self._runner.ledger.limits
        if name not in self._made:
            made = ", ".join(self._made) or "none so far"
            return f"Not given out: there is no sub-agent of that name. You have made: {made}."
        if len(self._runner.stats.agents) >= limits.agents:
            return f"Not given out: the swarm has given out all of its {limits.agents} tasks."
        return None


def _arguments(call: ToolCall) -> dict[str, str] | str:
    """A call's arguments; or what is wrong with them, for the model to put right."""
    fields = prompts.COORDINATOR_ARGUMENTS.get(call.name)
    if fields is None:
        return prompts.render("notes.unknown_tool", name=call.name[:80], names=", ".join(prompts.COORDINATOR_ARGUMENTS))
    said = cast(dict[str, Any], json.loads(call.arguments))
    if said.keys() == set(fields) and all(isinstance(value, str) and value.strip() for value in said.values()):
        return cast(dict[str, str], said)
    wanted = " and ".join(f"`{field}`" for field in fields)
    return f"{call.name} did not run: it takes {wanted}, both of them texts that are not empty, and nothing else."
