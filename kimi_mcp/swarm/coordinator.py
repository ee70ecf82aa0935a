"""``Coordinator``: the main agent's tools ``create_subagent`` and ``assign_task``, of arXiv 2602.02276. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import anyio

from kimi_mcp.core.types import ToolCall
from kimi_mcp.swarm import prompts
from kimi_mcp.swarm.stats import Agent
from kimi_mcp.swarm.step_runner import StepRunner

if TYPE_CHECKING:
    from kimi_mcp.swarm.agents import Agents

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "create_subagent": ("name", "system_prompt"),
    "assign_task": ("agent", "prompt"),
}
"""The tools and their arguments, all of them required texts."""

MAX_NAME_CHARS = 64
"""Characters of a sub-agent's name."""


class Coordinator:
    """The tools of the main agent, and the sub-agents that it has created."""

    def __init__(self, runner: StepRunner, agents: Agents) -> None:
        self.definitions: Sequence[Mapping[str, Any]] = [_definition(name) for name in ARGUMENTS]
        self._runner, self._agents = runner, agents
        self._created: dict[str, str] = {}

    async def use(self, agent: Agent, key: str, calls: Sequence[ToolCall]) -> Sequence[str]:
        """The results of a turn's calls: sub-agents are created first, then all tasks run at the same time."""
        del agent, key  # only the sub-agents' own steps are recorded: the results follow from those
        results: dict[int, str] = {}
        assigned: dict[int, Mapping[str, str]] = {}
        workers: dict[int, Agent] = {}
        for at, call in enumerate(calls):
            arguments = _parse(call)
            if isinstance(arguments, str):
                results[at] = arguments
            elif call.name == "create_subagent":
                results[at] = self._create(arguments["name"].strip(), arguments["system_prompt"])
            else:
                assigned[at] = arguments
        async with anyio.create_task_group() as tasks:
            for at, arguments in assigned.items():
                name = arguments["agent"].strip()
                if (refusal := self._refusal(name)) is not None:
                    results[at] = refusal
                    continue
                workers[at] = self._runner.stats.add_agent(name)
                tasks.start_soon(self._agents.run, workers[at], self._created[name], arguments["prompt"])
        share = self._runner.share(len(workers))
        results |= {at: worker.report(share) for at, worker in workers.items()}
        return [results[at] for at in range(len(calls))]

    def _create(self, name: str, system_prompt: str) -> str:
        if len(name) > MAX_NAME_CHARS or not name.isprintable():
            return f"Not created: a name is one line of at most {MAX_NAME_CHARS} characters."
        if name in self._created:
            return f"Not created: there is a sub-agent {name} already. Give it tasks, or choose another name."
        self._created[name] = system_prompt
        return f"{name} is there. Give it a task with assign_task."

    def _refusal(self, name: str) -> str | None:
        """Why a task is not assigned; None: it is."""
        most = self._runner.ledger.limits.agents
        if name not in self._created:
            created = ", ".join(self._created) or "none so far"
            return f"Not assigned: there is no sub-agent of that name. You have created: {created}."
        if len(self._runner.stats.agents) >= most:
            return f"Not assigned: the swarm has assigned all of its {most} tasks."
        return None


def _definition(tool: str) -> Mapping[str, Any]:
    """A tool in the form of ``tools[].function`` on the wire."""
    arguments = ARGUMENTS[tool]
    return {
        "name": tool,
        "description": prompts.render(f"tools.{tool}"),
        "parameters": {
            "type": "object",
            "properties": {
                name: {"type": "string", "description": prompts.render(f"tools.{tool}_{name}")} for name in arguments
            },
            "required": list(arguments),
            "additionalProperties": False,
        },
    }


def _parse(call: ToolCall) -> Mapping[str, str] | str:
    """A call's arguments; or what is wrong with them, for the model to fix."""
    names = ARGUMENTS.get(call.name)
    if names is None:
        return prompts.render("notes.unknown_tool", name=call.name[:80], names=", ".join(ARGUMENTS))
    arguments = cast(dict[str, Any], json.loads(call.arguments))
    if arguments.keys() == set(names) and all(isinstance(text, str) and text.strip() for text in arguments.values()):
        return arguments
    wanted = " and ".join(f"`{name}`" for name in names)
    return f"{call.name} did not run: it takes {wanted}, both of them texts that are not empty, and nothing else."
