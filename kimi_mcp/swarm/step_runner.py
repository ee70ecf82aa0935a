"""``StepRunner``: makes the requests of a swarm's agents, each a durable step. I/O through the pipeline.

A result that the store does not take at once is paid for all the same, also where the swarm is stopped meanwhile: it
is counted, used, and recorded before any other step begins.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio

from kimi_mcp import policy
from kimi_mcp.core.errors import KimiError, Overloaded, RateLimited, UpstreamUnreachable
from kimi_mcp.core.profiles import Profile, cost_usd
from kimi_mcp.core.tokens import chars_in
from kimi_mcp.core.types import CacheTtl, Completion, Request, Usage
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.pipeline.route import Route
from kimi_mcp.provider.request_state import RequestState
from kimi_mcp.runs import Run
from kimi_mcp.runs.store.records import JSON, Used
from kimi_mcp.runs.store.retries import with_retries
from kimi_mcp.swarm.ledger import Ledger, Wanted
from kimi_mcp.swarm.limits import Limit, SwarmConcurrency
from kimi_mcp.swarm.stats import Agent, StepResult, SwarmStats

if TYPE_CHECKING:
    from kimi_mcp.runs.store.steps import Steps

RETRY_DELAYS_S = (3.0, 10.0)
"""Seconds before a request is repeated that was refused for its rate."""

UNREACHABLE_DELAYS_S = (3.0, 5.0, 10.0, 15.0, 15.0)
"""Seconds before a request is repeated for which no connection could be made, where there was one before."""

WRITTEN_WITHIN_S = 0.5
"""Seconds until a result is recorded; after that it is used, and goes on being recorded."""

WRITE_EVERY_S = 5.0
"""Seconds between two attempts to record what the store did not take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRequest:
    """A request that an agent wants to make."""

    build: Callable[[Limit | None], Request]
    """Builds the request, as the last one where a limit is given."""
    prompt_tokens: int
    """About how many tokens it sends."""
    limit: Limit | None
    """A limit of the agent's own that it has reached."""
    may_go_on: bool = True
    """Whether another one may follow."""
    reserved_usd: float = 0.0
    """What must be left for another agent's last request."""
    launches: bool = False
    """Whether a sub-agent begins with it."""


@dataclass(kw_only=True)
class StepRunner:
    """What the agents of one swarm share, and the one way in which they make requests."""

    pipeline: Pipeline
    route: Route
    profile: Profile
    run: Run
    steps: Steps
    concurrency: SwarmConcurrency
    ledger: Ledger
    stats: SwarmStats
    effort: str | None
    """How much its agents are to think; None: left open."""
    cache_ttl: CacheTtl | None
    """How long the sub-agents' prompts are to stay in the provider's cache; None: left open."""
    before: SwarmStats | None
    """How far a resumed swarm was: the run's progress until its replay has as many attempts."""
    is_patient: bool = False
    """Whether its provider was reached before: an agent waits for it for a while once it can't be reached."""

    def __post_init__(self) -> None:
        self.step_tokens = min(self.ledger.limits.step_tokens, self.profile.output_ceiling)
        """Reasoning and answer that a step is allowed at first."""
        self._highest_price = self.pipeline.facts.highest_price
        self._unwritten: dict[str, JSON] = {}
        self._writing: asyncio.Future[None] | None = None

    def close(self) -> None:
        """Try no more to record what the store did not take: the swarm is over, and its outcome has it."""
        if self._writing is not None:
            self._writing.cancel()

    def share(self, parts: int) -> int:
        """How many characters each of so many results may have, for all of them to fit into one request."""
        tokens = self.profile.model.context_tokens - self.step_tokens
        return chars_in(tokens) // 2 // max(1, parts)

    def most_usd(self, prompt_tokens: int, max_tokens: int) -> float:
        """What a request may cost at most."""
        usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=max_tokens)
        price = self.profile.price or self._highest_price
        return cost_usd(usage, price.written_for(self.cache_ttl)) or 0.0

    async def step(self, key: str, about: JSON, make: Callable[[], Awaitable[JSON]]) -> JSON:
        """A step's result: made now and recorded before it is used, or from the record."""
        recorded = await self._begin(key, about)
        if recorded is None:
            recorded = await make()
            is_written = False
            with suppress(KimiError), anyio.move_on_after(WRITTEN_WITHIN_S, shield=True):
                await self.steps.finish(key, recorded)
                is_written = True
            if not is_written:
                self._unwritten[key] = recorded
                if self._writing is None or self._writing.done():
                    self._writing = asyncio.ensure_future(self._keep_writing())
        return recorded

    async def written(self) -> None:
        """Return once every result is recorded, however long the store does not take it."""
        while self._unwritten:
            with suppress(KimiError):
                await self._write()
                return
            await self.concurrency.sleep(WRITE_EVERY_S)

    async def _begin(self, key: str, about: JSON) -> JSON | None:
        """Begin a step once all results are recorded: a resumed swarm has no step without those before it."""

        async def begin() -> JSON | None:
            await self._write()
            return await self.steps.begin(key, about)

        return await with_retries(begin, sleep=self.concurrency.sleep)

    async def _write(self) -> None:
        """Record the results that the store did not take; twice does no harm."""
        for key, result in list(self._unwritten.items()):
            await self.steps.finish(key, result)
            self._unwritten.pop(key, None)

    async def _keep_writing(self) -> None:
        while self._unwritten:
            await self.concurrency.sleep(WRITE_EVERY_S)
            with suppress(KimiError):
                await self._write()

    async def request(self, agent: Agent, key: str, about: JSON, request: StepRequest) -> StepResult:
        """Make one request of an agent, and count it."""

        async def make() -> JSON:
            return (await self._make(agent, key, request)).as_json()

        try:
            with self.steps.running(key, agent.texts):
                result = StepResult.from_json(await self.step(key, about, make))
            agent.request_state = None
            self.ledger.count(key, Used(usd=result.counted_usd, tokens=result.counted_tokens))
        finally:
            await self.ledger.release(key)  # where it was not counted
        self.stats.add(agent, result)
        self.report_progress()
        return result

    def report_progress(self) -> None:
        """Let the run's progress be that of these stats, once a replay is as far as the swarm was."""
        if self.before is None or self.stats.attempts >= self.before.attempts:
            self.run.progress = self.stats

    async def _make(self, agent: Agent, key: str, wanted: StepRequest) -> StepResult:
        """Make a request, again after a while where its rate is limited."""
        began = time.monotonic()
        request = wanted.build(wanted.limit)
        most = self.most_usd(wanted.prompt_tokens, request.max_tokens or 0)
        then, reserved = most if wanted.may_go_on else 0.0, wanted.reserved_usd
        if wanted.launches and not self.ledger.used_up(most + then, reserved=reserved):
            # Before the permission: meanwhile other agents may spend the last of the budget.
            await self.concurrency.wait_for_launch()
        needed = Wanted(usd=most, then=then, reserved=reserved, limit=wanted.limit, begins=wanted.launches)
        is_granted, limit = await self.ledger.request_permission(key, needed)
        if not is_granted:
            return self._refused(limit or "usd")
        if limit != wanted.limit:
            request = wanted.build(limit)
        result = await self._send(agent, request, wanted, began, most)
        is_patient = self.is_patient or agent.requested > 0
        limited, unreachable = list(RETRY_DELAYS_S), list(UNREACHABLE_DELAYS_S) if is_patient else []
        while True:
            is_limited = isinstance(result.error, RateLimited | Overloaded)
            delays = limited if is_limited else unreachable if isinstance(result.error, UpstreamUnreachable) else []
            if not delays:
                break
            await self.concurrency.sleep(delays.pop(0))
            result = await self._send(agent, request, wanted, began, most, attempts=result.attempts)
        return result if result.limit else replace(result, limit=limit)

    def _refused(self, limit: Limit) -> StepResult:
        return StepResult(completion=Completion(), error=self.ledger.limits.error(limit), limit=limit)

    async def _send(
        self, agent: Agent, request: Request, wanted: StepRequest, began: float, held_usd: float, *, attempts: int = 0
    ) -> StepResult:
        error: KimiError | None = None
        async with self.concurrency.slots:
            begins = wanted.launches and not attempts
            if begins and (limit := self.ledger.used_up(held_usd, reserved=wanted.reserved_usd)):
                return self._refused(limit)  # used up while it waited for its slot
            generation = self.concurrency.generation
            agent.request_state = state = _SwarmRequest(self.run, self.concurrency, generation)
            state.attempts, sent = attempts, time.monotonic()
            try:
                completion = await self.pipeline.step(request, self.route, state)
                self.concurrency.succeeded()
            except KimiError as failure:
                completion = state.accumulator.completion()
                error = failure.with_traceback(None)  # which holds the request
                if isinstance(failure, RateLimited | Overloaded):
                    self.concurrency.rate_limited(generation)
            took = time.monotonic() - sent
        result = self._priced(completion, state, wanted.prompt_tokens)
        return replace(result, error=error, waited_s=sent - began, took_s=took, attempts=state.attempts)

    def _priced(self, completion: Completion, state: RequestState, prompt_tokens: int) -> StepResult:
        """What arrived, with its cost and what the limits count for it."""
        plan, pieces, usage = state.plan, state.accumulator.pieces, completion.usage
        price = plan.price_of(completion.model) if plan else None
        counted = usage or Usage()
        if pieces and None in (counted.prompt_tokens, counted.completion_tokens):
            counted = Usage(prompt_tokens=prompt_tokens, completion_tokens=state.accumulator.tokens)
        judged = policy.judge(plan, completion) if plan and completion.finish_reason else ()
        return StepResult(
            completion=completion,
            pieces=pieces,
            cost_usd=cost_usd(usage, price) if pieces or usage else 0.0,
            counted_usd=cost_usd(counted, price or self._highest_price) or 0.0,
            counted_tokens=(counted.prompt_tokens or 0) + (counted.completion_tokens or 0),
            sent=plan.profile.serving.wire_id if plan and state.attempts else None,
            policy=(*plan.adjustments, *judged) if plan else (),
        )


class _SwarmRequest(RequestState):
    """A request whose rate limits slow down the whole swarm."""

    def __init__(self, run: Run, concurrency: SwarmConcurrency, generation: int) -> None:
        super().__init__(run.first_token_came)
        self._concurrency, self._generation = concurrency, generation

    def waits(self, seconds: float, code: str) -> None:
        """An attempt failed and another one will be made."""
        super().waits(seconds, code)
        if self.attempts and code in (RateLimited.code, Overloaded.code):
            self._concurrency.rate_limited(self._generation)
