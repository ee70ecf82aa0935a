"""``run_agent``: the loop of one agent, main agent or sub-agent. No I/O of its own: step runner and tools do it.

Ask, let the tools run that the answer calls, give back what they brought, ask again, until there is an answer. Every
turn that goes into the conversation is one that the provider takes back: a turn that called tools goes with its exact
reasoning or not at all, a call that could not be read is not in it, and each one that is has its answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kimi_mcp.core.errors import AnswerCutOff, ContentFiltered, ContextTooLong, KimiError
from kimi_mcp.core.types import Completion, Request, TextPart, ToolCall, Turn, system, user
from kimi_mcp.swarm import prompts
from kimi_mcp.swarm.context_window import estimate_tokens, fit_turns
from kimi_mcp.swarm.limits import Limit, conclude_reason
from kimi_mcp.swarm.stats import Agent
from kimi_mcp.swarm.step_result import StepResult
from kimi_mcp.swarm.step_runner import StepRequest, StepRunner

MAX_WIDENINGS = 2
"""How often an agent's bound on a step is doubled after an answer that was cut."""

MAX_LOST_REASONING = 2
"""How many turns in a row may lose their reasoning before the agent concludes without tools."""


class AgentTools(Protocol):
    """What an agent can do besides talking."""

    @property
    def definitions(self) -> Sequence[Mapping[str, Any]]:
        """Its tools, as they stand on the wire."""
        ...

    async def use(self, agent: Agent, key: str, calls: Sequence[ToolCall]) -> Sequence[str]:
        """What the calls of one turn bring, in their order; none is left out, whatever goes wrong."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTask:
    """What an agent is to do."""

    system: str
    """Its system prompt."""
    prompt: str
    """The task: the last user message of each of its requests."""
    steps: int
    """Requests that it may make."""
    leads: bool = False
    """Whether it is the main agent, which begins at once and always may conclude."""
    kept_usd: float = 0.0
    """What it must leave for the main agent's last request."""


async def run_agent(agent: Agent, task: AgentTask, hands: AgentTools, runner: StepRunner) -> None:
    """Work on a task until it is done or can't be; how it ended stands in the agent's line."""
    talk = _Conversation(task, hands, runner)
    while agent.status == "running":
        key = f"{agent.id}/step-{agent.asked + 1}"
        said = await runner.ask(agent, key, talk.told(agent), talk.draft(agent))
        done, more = said.completion, said.limit is None and agent.steps < task.steps
        calls = bool(done.tool_calls or done.malformed_calls) and bool(hands.definitions)
        if isinstance(said.error, ContextTooLong) and more and talk.shrink():
            continue
        if said.error is not None:
            agent.end("failed", error=said.error, answer=done.answer)
        elif done.finish_reason == "length" and more and talk.widen():
            continue  # the cut turn is left out, and asked for again
        elif not calls or said.limit is not None or done.finish_reason in ("length", "content_filter"):
            conclude(agent, said, runner.profile.provider.id)
        elif done.tool_calls and not _replayable(done.reasoning):
            talk.lost += 1  # the turn can't be sent back, so nothing that it asks for is run
        else:
            talk.lost = 0
            await talk.act(agent, key, done)


def _replayable(reasoning: str | None) -> bool:
    """Whether a turn that called tools may be sent on (rule ``reasoning-replayed``): an empty text may, a blank not."""
    return reasoning is not None and (reasoning == "" or bool(reasoning.strip()))


class _Conversation:
    """An agent's conversation. Mutable: it grows turn by turn."""

    def __init__(self, task: AgentTask, hands: AgentTools, runner: StepRunner) -> None:
        self._task, self._hands, self._runner = task, hands, runner
        self._tools = tuple(hands.definitions)
        self._tools_size = estimate_tokens((), self._tools)
        self._turns: tuple[Turn, ...] = (system(task.system), user(task.prompt))
        self._widened = 0
        self._room = runner.profile.model.context_tokens
        self.lost = 0
        """Turns in a row that lost their reasoning."""

    def told(self, agent: Agent) -> Mapping[str, Any]:
        """What people are told of its next step."""
        first = {"system": self._task.system, "task": self._task.prompt} if not agent.asked else {}
        return {"kind": "request", "agent": agent.id, "name": agent.name, "step": agent.asked + 1, **first}

    def draft(self, agent: Agent) -> StepRequest:
        """Its next request."""
        room = self._room - self._max_tokens
        self._turns = fit_turns(self._turns, room - self._tools_size)
        tokens = estimate_tokens(self._turns) + self._tools_size
        limit: Limit | None = None
        if self._tools and agent.steps + 1 >= self._task.steps:
            limit = "steps" if self._task.leads else "agent_steps"
        elif self.lost >= MAX_LOST_REASONING:
            limit = "reasoning"
        elif tokens > room:
            limit = "context"
        return StepRequest(
            make=self._request,
            prompt_tokens=tokens,
            limit=limit,
            goes_on=bool(self._tools),
            kept_usd=self._task.kept_usd,
            launches=not agent.asked and not self._task.leads,
        )

    async def act(self, agent: Agent, key: str, done: Completion) -> None:
        """Let the tools run that a turn calls; the turn and what they brought go into the conversation."""
        added: list[Turn] = []
        if done.tool_calls:
            parts = (TextPart(text=done.answer),) if done.answer.strip() else ()
            added.append(Turn(role="assistant", parts=parts, reasoning=done.reasoning, tool_calls=done.tool_calls))
            texts = await self._hands.use(agent, key, done.tool_calls)
            for call, text in zip(done.tool_calls, texts, strict=True):
                brought = TextPart(text=text if text.strip() else prompts.render("notes.empty"))
                added.append(Turn(role="tool", parts=(brought,), tool_call_id=call.id))
        if done.malformed_calls:
            added.append(system(prompts.render("notes.malformed", count=done.malformed_calls)))
        self._turns = (*self._turns, *added)

    def widen(self) -> bool:
        """Allow twice as many tokens for a step; False where that was done often enough, or can't be."""
        self._widened += 1
        return self._widened <= MAX_WIDENINGS and self._max_tokens < self._runner.profile.output_ceiling

    def shrink(self) -> bool:
        """Take the context for half as long: the provider counts more tokens than we do. False the second time."""
        whole = self._runner.profile.model.context_tokens
        self._room, shrunk = whole // 2, self._room == whole
        return shrunk

    @property
    def _max_tokens(self) -> int:
        return min(self._runner.step_tokens << min(self._widened, MAX_WIDENINGS), self._runner.profile.output_ceiling)

    def _request(self, limit: Limit | None) -> Request:
        turns = self._turns
        if limit is not None and self._tools:
            why = conclude_reason(limit, self._runner.ledger.limits)
            turns = (*turns, system(prompts.render("notes.conclude", why=why)))
        return Request(
            mode="thinking",
            turns=turns,
            max_tokens=self._max_tokens,
            tools=self._tools,
            tool_choice="none" if limit is not None and self._tools else None,
            model_asked=self._runner.model_asked,
        )


def conclude(agent: Agent, said: StepResult, provider: str) -> None:
    """An answer has come, or what stands in its place."""
    done, error = said.completion, _shortfall(said.completion, provider)
    whole = error is None and said.limit is None
    status = "completed" if whole else "partial" if done.answer.strip() else "failed"
    agent.end(status, error=error, answer=done.answer)


def _shortfall(done: Completion, provider: str) -> KimiError | None:
    """What an agent's last answer lacks; None: it is whole."""
    if done.finish_reason == "content_filter":
        return ContentFiltered(
            f"The content filter of {provider} stopped the answer.",
            fix="Change `prompt`, or name another `provider`.",
        )
    if done.finish_reason == "length":
        return AnswerCutOff("The answer used up its tokens.", fix="Ask for less at once.")
    if not done.answer.strip():
        return AnswerCutOff(
            f"{provider} ended its turn without an answer.", fix="Call again, or split the work into smaller parts."
        )
    return None
