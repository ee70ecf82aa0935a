"""``run_agent``: the loop of one agent, main agent or sub-agent. No I/O of its own: step runner and tools do it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import anyio

from kimi_mcp.core import observing
from kimi_mcp.core.errors import AnswerCutOff, ContextTooLong
from kimi_mcp.core.outcome import shortened
from kimi_mcp.core.tokens import chars_in, estimated_tokens, with_margin
from kimi_mcp.core.types import Completion, Request, TextPart, ToolCall, Turn, system, user
from kimi_mcp.pipeline.outcomes import shortfall
from kimi_mcp.runs.store.records import JSON, Used
from kimi_mcp.swarm import prompts
from kimi_mcp.swarm.coordinator import Coordinator
from kimi_mcp.swarm.limits import Limit
from kimi_mcp.swarm.stats import Agent, StepResult
from kimi_mcp.swarm.step_runner import StepRequest, StepRunner
from kimi_mcp.swarm.tools import CallResult, SwarmTools

MAX_WIDENINGS = 2
"""How often an agent's token limit of a step is doubled after an answer that was cut."""

MAX_LOST_REASONING = 2
"""How many turns in a row may lose their reasoning before the agent concludes without tools."""

MAX_MISFITS = 2
"""How often in a row a tool's arguments may not fit before an agent loses the tool: the first time is repaired."""

TARGET_SHARE = 0.7
"""The share of the context that is used at most once something was removed."""

MIN_REMOVABLE_CHARS = 400
"""A tool result that is no longer than this stays: its note would save nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTask:
    """What an agent is to do."""

    system: str
    """Its system prompt."""
    prompt: str
    """The task: the last user message of each of its requests."""
    steps: int
    """Requests that it may make."""
    is_main: bool = False
    """Whether it is the main agent, which begins at once and always may conclude."""
    reserved_usd: float = 0.0
    """What it must leave for the main agent's last request."""


async def run_agent(agent: Agent, task: AgentTask, tools: Coordinator | ToolExecutor, runner: StepRunner) -> None:
    """Work on a task until it is done or can't be; ``agent`` then has the outcome."""
    work = observing.AgentWork(agent=agent.id)
    with observing.within(work):
        await _run_agent(agent, task, tools, runner)
        work.error = agent.error and agent.error.code


async def _run_agent(agent: Agent, task: AgentTask, tools: Coordinator | ToolExecutor, runner: StepRunner) -> None:
    conversation = _Conversation(task, tools, runner)
    while agent.status == "running":
        key = f"{agent.id}/step-{agent.requested + 1}"
        result = await runner.request(agent, key, conversation.about(agent), conversation.next_request(agent))
        completion, reasoning = result.completion, result.completion.reasoning
        may_go_on = result.limit is None and agent.steps < task.steps
        calls = (completion.tool_calls or completion.malformed_calls) and tools.definitions
        lost_reasoning = reasoning is None or (reasoning != "" and not reasoning.strip())  # rule ``reasoning-replayed``
        if isinstance(result.error, ContextTooLong) and may_go_on and conversation.shrink():
            continue
        if result.error is not None:
            agent.end("failed", error=result.error, answer=completion.answer)
        elif completion.finish_reason == "length" and may_go_on and conversation.widen():
            continue  # the cut turn is left out, and requested again
        elif not calls or result.limit is not None or completion.finish_reason in ("length", "content_filter"):
            conclude(agent, result, runner.profile.provider.id)
        elif completion.tool_calls and lost_reasoning:
            conversation.lost_reasoning += 1  # the turn can't be sent back, so none of its calls is run
        else:
            conversation.lost_reasoning = 0
            await conversation.use_tools(agent, key, completion)


class _Conversation:
    """An agent's conversation so far."""

    def __init__(self, task: AgentTask, tools: Coordinator | ToolExecutor, runner: StepRunner) -> None:
        self._task, self._tools, self._runner = task, tools, runner
        self._definitions = tuple(tools.definitions)
        self._definitions_tokens = estimate_tokens((), self._definitions)
        self._turns: tuple[Turn, ...] = (system(task.system), user(task.prompt))
        self._widened = 0
        self._context_tokens = runner.profile.model.context_tokens
        self.lost_reasoning = 0
        """Turns in a row that lost their reasoning."""

    def about(self, agent: Agent) -> Mapping[str, Any]:
        """The next step's description in the record, for people."""
        first = {"system": self._task.system, "task": self._task.prompt} if not agent.requested else {}
        return {"kind": "request", "agent": agent.id, "name": agent.name, "step": agent.requested + 1, **first}

    def next_request(self, agent: Agent) -> StepRequest:
        """The next request, with as many turns as fit."""
        max_prompt = self._context_tokens - self._max_tokens
        self._turns = fit_turns(self._turns, max_prompt - self._definitions_tokens)
        tokens = estimate_tokens(self._turns) + self._definitions_tokens
        limit: Limit | None = None
        if self._definitions and agent.steps + 1 >= self._task.steps:
            limit = "steps" if self._task.is_main else "agent_steps"
        elif self.lost_reasoning >= MAX_LOST_REASONING:
            limit = "reasoning"
        elif tokens > max_prompt:
            limit = "context"
        return StepRequest(
            build=self._request,
            prompt_tokens=tokens,
            limit=limit,
            may_go_on=bool(self._definitions),
            reserved_usd=self._task.reserved_usd,
            launches=not agent.requested and not self._task.is_main,
        )

    async def use_tools(self, agent: Agent, key: str, completion: Completion) -> None:
        """Run the tools that a turn calls; add the turn and the results."""
        added: list[Turn] = []
        if calls := completion.tool_calls:
            parts = (TextPart(text=completion.answer),) if completion.answer.strip() else ()
            added.append(Turn(role="assistant", parts=parts, reasoning=completion.reasoning, tool_calls=calls))
            for call, text in zip(calls, await self._tools.use(agent, key, calls), strict=True):
                part = TextPart(text=text if text.strip() else prompts.render("notes.empty"))
                added.append(Turn(role="tool", parts=(part,), tool_call_id=call.id))
        if completion.malformed_calls:
            added.append(system(prompts.render("notes.malformed", count=completion.malformed_calls)))
        self._turns = (*self._turns, *added)

    def widen(self) -> bool:
        """Allow twice as many tokens for a step; False at the limit."""
        self._widened += 1
        return self._widened <= MAX_WIDENINGS and self._max_tokens < self._runner.profile.output_ceiling

    def shrink(self) -> bool:
        """Use half of the context, as the provider counts more tokens than we do. False the second time."""
        whole = self._runner.profile.model.context_tokens
        self._context_tokens, shrunk = whole // 2, self._context_tokens == whole
        return shrunk

    @property
    def _max_tokens(self) -> int:
        return min(self._runner.step_tokens << min(self._widened, MAX_WIDENINGS), self._runner.profile.output_ceiling)

    def _request(self, limit: Limit | None) -> Request:
        turns, tool_choice = self._turns, None
        if limit is not None and self._definitions:
            why = self._runner.ledger.limits.conclude_reason(limit)
            turns, tool_choice = (*turns, system(prompts.render("notes.conclude", why=why))), "none"
        return Request(
            mode="thinking",
            turns=turns,
            max_tokens=self._max_tokens,
            tools=self._definitions,
            tool_choice=tool_choice,
            effort=self._runner.effort,
            cache_ttl=self._runner.cache_ttl if not self._task.is_main else self._runner.pipeline.settings.cache_ttl,
            model_asked=self._runner.route.model_asked,
        )


def conclude(agent: Agent, result: StepResult, provider: str) -> None:
    """End an agent by the result of its last request; ``provider`` is named where the answer is incomplete."""
    used_up = AnswerCutOff("The answer used up its tokens.", fix="Ask for less at once.")
    again = "Call again, or split the work into smaller parts."
    error = shortfall(result.completion, provider, used_up=used_up, again=again)
    answer = result.completion.answer
    if error is None and result.limit is None:
        agent.end("completed", answer=answer)
    else:
        agent.end("partial" if answer.strip() else "failed", error=error, answer=answer)


def estimate_tokens(turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]] = ()) -> int:
    """The tokens of turns and definitions of tools, rather too many than too few."""
    return with_margin(estimated_tokens(turns, tools))


def fit_turns(turns: Sequence[Turn], max_tokens: int) -> tuple[Turn, ...]:
    """The turns where they fit into ``max_tokens``; else with tool results removed or shortened, always the same.

    From the oldest on, each result is replaced by a note; those of the last turn are only shortened, head and tail
    kept. All other turns stay byte for byte, so that every provider takes the conversation. More is removed than one
    step needs, so that the provider's prompt cache is not lost at each step.
    """
    if estimate_tokens(turns) <= max_tokens:
        return tuple(turns)
    fitted, target = list(turns), int(max_tokens * TARGET_SHARE)
    last_calls = max((at for at, turn in enumerate(turns) if turn.tool_calls), default=len(turns))
    long = [at for at, turn in enumerate(turns) if turn.role == "tool" and len(turn.text) > MIN_REMOVABLE_CHARS]
    for at in long:
        if at > last_calls or estimate_tokens(fitted) <= target:
            break
        note = prompts.render("notes.removed", chars=f"{len(turns[at].text):,}")
        fitted[at] = replace(turns[at], parts=(TextPart(text=note),))
    latest = [at for at in long if at > last_calls]
    excess = estimate_tokens(fitted) - target
    if excess > 0 and latest:
        chars = sum(len(turns[at].text) for at in latest)
        share = max(MIN_REMOVABLE_CHARS, (chars - chars_in(excess)) // len(latest))
        for at in latest:
            fitted[at] = replace(turns[at], parts=(TextPart(text=shortened(turns[at].text, share)),))
    return tuple(fitted)


class ToolExecutor:
    """The tools of one sub-agent; each call is a durable step, refused ones too. I/O: the tools and the record."""

    def __init__(self, tools: SwarmTools, runner: StepRunner) -> None:
        self.definitions = tools.definitions
        self._tools, self._runner = tools, runner
        self._misfits: dict[str, int] = {}

    async def use(self, agent: Agent, key: str, calls: Sequence[ToolCall]) -> Sequence[str]:
        """The results of one turn's calls, in their order; none is missing. They run at the same time."""
        records: dict[int, JSON] = {}
        ledger = self._runner.ledger

        async def run(number: int, call: ToolCall) -> None:
            about = {"kind": "tool", "agent": agent.id, "tool": call.name, "arguments": call.arguments}
            step = f"{key}/tool-{number}"
            try:
                records[number] = record = await self._runner.step(step, about, lambda: self._run(step, call))
                ledger.count(step, Used(usd=float(record["cost_usd"]), tool_calls=int(record["ran"])))
            finally:
                await ledger.release(step)

        try:
            async with anyio.create_task_group() as tasks:
                for number, call in enumerate(calls, 1):
                    tasks.start_soon(run, number, call)
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None  # such as a record that takes no more: the agent's error names it
        agent.add_tool_calls(list(records.values()))
        return [self._text(call, records[number]) for number, call in enumerate(calls, 1)]

    async def _run(self, key: str, call: ToolCall) -> JSON:
        """Run a call, unless it is refused; the record of it."""
        began = time.monotonic()
        result = await self._refusal(key, call) or await self._tools.call(call.name, call.arguments)
        return {
            "text": result.text,
            "is_error": result.is_error,
            "misfit": result.repairable,
            "ran": result.ran,
            "cost_usd": result.cost_usd,
            "took_s": round(time.monotonic() - began, 4),
        }

    async def _refusal(self, key: str, call: ToolCall) -> CallResult | None:
        """Why a call does not run; None: it does."""
        if call.name not in self._tools.names:
            names = ", ".join(self._tools.names)
            return CallResult.refused(prompts.render("notes.unknown_tool", name=call.name[:80], names=names))
        if self._misfits.get(call.name, 0) >= MAX_MISFITS:
            return CallResult.refused(prompts.render("notes.closed_tool", name=call.name))
        if not await self._runner.ledger.request_tool_call(key):
            why = self._runner.ledger.limits.conclude_reason("tool_calls")
            return CallResult.refused(prompts.render("notes.not_run", name=call.name, why=why))
        return None

    def _text(self, call: ToolCall, record: JSON) -> str:
        """What the model reads; the misfits of a turn are counted in the order of its calls."""
        text = str(record["text"])
        if not record["misfit"]:
            if record["ran"]:
                self._misfits.pop(call.name, None)
            return text
        self._misfits[call.name] = self._misfits.get(call.name, 0) + 1
        again = self._misfits[call.name] >= MAX_MISFITS
        return text + prompts.render("notes.misfit_again" if again else "notes.misfit")
