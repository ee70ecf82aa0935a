"""``StepRunner``: where the agents of a swarm have their requests made, each a durable step.

Does I/O: it asks the path.

A step that the record holds is taken from there, whatever the limits say by now. Any other one asks the ledger, waits
for its place, goes along the one path, and is written down before anybody uses what it brought.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from kimi_mcp import catalogue, policy
from kimi_mcp.core.errors import KimiError, Overloaded, RateLimited
from kimi_mcp.core.pricing import cost_usd
from kimi_mcp.core.profiles import Price, Profile
from kimi_mcp.core.tokens import chars_in
from kimi_mcp.core.types import Completion, Request, Usage
from kimi_mcp.pipeline.pipeline import Pipeline, Route
from kimi_mcp.provider.request_state import RequestState
from kimi_mcp.runs import Run
from kimi_mcp.runs.steps import JSON, Steps
from kimi_mcp.swarm.concurrency import RETRY_DELAYS_S, SwarmConcurrency
from kimi_mcp.swarm.limits import BudgetLedger, Limit, Permission, limit_error
from kimi_mcp.swarm.stats import Agent, SwarmStats
from kimi_mcp.swarm.step_result import StepResult

STEP_TOKENS = 16_000
"""Reasoning and answer of one step: rate limits count what is asked for, and less is too little (rule
``thinking-budget``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRequest:
    """A request that an agent would make, before it is known whether it may."""

    make: Callable[[Limit | None], Request]
    """The request, as it is or as the last one for that limit."""
    prompt_tokens: int
    """About how many tokens it sends."""
    limit: Limit | None
    """A limit of the agent's own that it has reached."""
    goes_on: bool = True
    """Whether another one may follow."""
    kept_usd: float = 0.0
    """What must be left for somebody else's last request."""
    launches: bool = False
    """Whether a sub-agent begins with it."""


class StepRunner:
    """What the agents of one swarm share."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        route: Route,
        profile: Profile,
        run: Run,
        steps: Steps,
        concurrency: SwarmConcurrency,
        ledger: BudgetLedger,
        stats: SwarmStats,
    ) -> None:
        self.profile, self.ledger, self.stats = profile, ledger, stats
        self._pipeline, self._route, self._run = pipeline, route, run
        self._steps, self._concurrency = steps, concurrency
        self._dearest = catalogue.load().dearest

    @property
    def model_asked(self) -> str:
        """What the caller or the setting said."""
        return self._route.model_asked

    @property
    def step_tokens(self) -> int:
        """Reasoning and answer that a step is allowed at first."""
        return min(STEP_TOKENS, self.profile.output_ceiling)

    def share(self, parts: int) -> int:
        """How many characters each of so many results may have, for all of them to fit into one request."""
        room = self.profile.model.context_tokens - self.step_tokens
        return chars_in(room) // 2 // max(1, parts)

    async def step(
        self, key: str, told: JSON, make: Callable[[], Awaitable[JSON]], replayed: Callable[[JSON], None] | None = None
    ) -> JSON:
        """What a step brought: made now and written down before it is used, or from the record (``replayed`` hears)."""
        recorded = await self._steps.begin(key, told)
        if recorded is None:
            recorded = await make()
            await self._steps.finish(key, recorded)
        elif replayed is not None:
            replayed(recorded)
        return recorded

    async def ask(self, agent: Agent, key: str, told: JSON, draft: StepRequest) -> StepResult:
        """One request of an agent, counted."""
        held: list[Permission] = []

        async def make() -> JSON:
            return (await self._made(agent, draft, held)).as_json()

        try:
            said = StepResult.from_json(await self.step(key, told, make))
            agent.request_state = None
            self.ledger.count(usd=said.counted_usd, tokens=said.counted_tokens)
        finally:
            for permission in held:  # only now that it is counted: what is neither held nor counted is spent twice
                self.ledger.release(permission)
        self.stats.add(agent, said)
        return said

    def most_usd(self, prompt_tokens: int, max_tokens: int) -> float:
        """What a request may cost at most."""
        usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=max_tokens)
        return cost_usd(usage, self.profile.price or self._dearest) or 0.0

    async def _made(self, agent: Agent, draft: StepRequest, held: list[Permission]) -> StepResult:
        """A request, made; or why it is not. What the ledger holds for it is added to ``held``."""
        began = time.monotonic()
        request = draft.make(draft.limit)
        most = self.most_usd(draft.prompt_tokens, request.max_tokens or 0)
        then = most if draft.goes_on else 0.0
        if draft.launches and self.ledger.closed(most + then, kept=draft.kept_usd) is None:
            await (
                self._concurrency.wait_for_launch()
            )  # before the ledger is asked: meanwhile others may spend the last of it
        permission = await self.ledger.request_permission(
            most, then=then, kept=draft.kept_usd, limit=draft.limit, begins=draft.launches
        )
        if not permission.granted:
            return self._refused(permission.limit or "usd")
        held.append(permission)
        if permission.limit != draft.limit:
            request = draft.make(permission.limit)
        said = await self._patiently(agent, request, draft, began)
        return said if said.limit else replace(said, limit=permission.limit)

    def _refused(self, limit: Limit) -> StepResult:
        return StepResult(completion=Completion(), error=limit_error(limit, self.ledger.limits), limit=limit)

    async def _patiently(self, agent: Agent, request: Request, draft: StepRequest, began: float) -> StepResult:
        """The request, made again after a while where the provider refuses it for its rate."""
        said = await self._sent(agent, request, draft, began)
        for again_s in RETRY_DELAYS_S:
            if not isinstance(said.error, RateLimited | Overloaded):
                break
            await self._concurrency.sleep(again_s)
            said = await self._sent(agent, request, draft, began, attempts=said.attempts)
        return said

    async def _sent(
        self, agent: Agent, request: Request, draft: StepRequest, began: float, *, attempts: int = 0
    ) -> StepResult:
        error: KimiError | None = None
        async with self._concurrency.places:
            if draft.launches and not attempts and (limit := self.ledger.reached()):
                return self._refused(limit)  # used up while it waited for its place
            generation = self._concurrency.generation
            agent.request_state = request_state = _Paced(self._run, self._concurrency, generation)
            request_state.attempts, sent = attempts, time.monotonic()
            try:
                completion = await self._pipeline.step(request, self._route, request_state)
                self._concurrency.succeeded()
            except KimiError as failure:
                completion, error = (
                    request_state.accumulator.completion(),
                    failure.with_traceback(None),
                )  # it holds the request
                if isinstance(failure, RateLimited | Overloaded):
                    self._concurrency.rate_limited(generation)
            took = time.monotonic() - sent
        said = self._priced(completion, request_state, draft.prompt_tokens)
        return replace(said, error=error, waited_s=sent - began, took_s=took, attempts=request_state.attempts)

    def _priced(self, completion: Completion, request_state: RequestState, prompt_tokens: int) -> StepResult:
        """What arrived, with what it cost and what the limits count for it."""
        plan, pieces, usage = request_state.plan, request_state.accumulator.pieces, completion.usage
        price = self._price_of(completion.model)
        counted = usage
        if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
            counted = (
                Usage(prompt_tokens=prompt_tokens, completion_tokens=request_state.accumulator.tokens)
                if pieces
                else Usage()
            )
        assert counted is not None
        judged = policy.judge(plan, completion) if plan and completion.finish_reason else ()
        return StepResult(
            completion=completion,
            pieces=pieces,
            cost_usd=cost_usd(usage, price) if pieces or usage else 0.0,
            counted_usd=cost_usd(counted, price or self._dearest) or 0.0,
            counted_tokens=(counted.prompt_tokens or 0) + (counted.completion_tokens or 0),
            sent=plan.profile.serving.wire_id if plan and request_state.attempts else None,
            policy=(*plan.adjustments, *judged) if plan else (),
        )

    def _price_of(self, answered: str | None) -> Price | None:
        """The price of the model that answered; that of the one asked, where the catalogue does not know its name."""
        other = catalogue.load().profile(self.profile.provider.id, answered) if answered else None
        return (other or self.profile).price


class _Paced(RequestState):
    """A request whose waits for the provider's rate are felt by the whole swarm."""

    def __init__(self, run: Run, concurrency: SwarmConcurrency, generation: int) -> None:
        super().__init__(run.first_token_came)
        self._concurrency, self._generation = concurrency, generation

    def waits(self, seconds: float, code: str) -> None:
        """An attempt failed and another one will be made."""
        super().waits(seconds, code)
        if self.attempts and code in (RateLimited.code, Overloaded.code):
            self._concurrency.rate_limited(self._generation)
