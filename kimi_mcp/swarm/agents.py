"""``Agents``: who runs the sub-agents of a swarm. I/O: what they do."""

from __future__ import annotations

import logging
from typing import Protocol

from kimi_mcp.core.errors import KimiError, internal_error
from kimi_mcp.runs.jobs import Fenced
from kimi_mcp.swarm import prompts
from kimi_mcp.swarm.agent import AgentTask, ToolExecutor, run_agent
from kimi_mcp.swarm.stats import Agent
from kimi_mcp.swarm.step_runner import StepRunner
from kimi_mcp.swarm.tools import SwarmTools

RESERVED_TOKENS = 32_000
"""The assumed prompt of the main agent's last request, whose cost the sub-agents must leave."""

log = logging.getLogger(__name__)


class Agents(Protocol):
    """Runs sub-agents."""

    async def run(self, agent: Agent, own_system: str | None, prompt: str) -> None:
        """Let a sub-agent work on a task until it has ended; ``agent`` then has the outcome."""
        ...


class LocalAgents:
    """Runs sub-agents in this process."""

    def __init__(self, runner: StepRunner, tools: SwarmTools) -> None:
        self._runner, self._tools = runner, tools

    async def run(self, agent: Agent, own_system: str | None, prompt: str) -> None:
        """A sub-agent from its start to its end; whatever goes wrong with it, the others go on."""
        common, runner = prompts.system_prompt("agent", self._tools.names), self._runner
        task = AgentTask(
            system=f"{own_system}\n\n{common}" if own_system else common,
            prompt=prompt,
            steps=runner.ledger.limits.agent_steps,
            reserved_usd=runner.most_usd(RESERVED_TOKENS, runner.step_tokens),
        )
        try:
            await run_agent(agent, task, ToolExecutor(self._tools, runner), runner)
        except Fenced:
            raise
        except KimiError as error:
            agent.end("failed", error=error, answer=agent.arrived)
        except Exception as fault:
            log.exception("a sub-agent failed because of a bug in kimi-mcp")
            agent.end("failed", error=internal_error(fault), answer=agent.arrived)
