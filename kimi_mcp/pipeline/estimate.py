"""``Estimate``: what a call will cost at least and at most, and whether it fits. I/O: the provider's own count."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, Literal

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.json_values import to_json
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import MILLION, Price, counted_usd
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.tokens import IMAGE_TOKENS, estimated_tokens, minimum_tokens, with_margin
from kimi_mcp.core.types import Adjustment, Mode, TextPart, Turn
from kimi_mcp.pipeline import continuing
from kimi_mcp.pipeline.call import Call
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.pipeline.web import MAX_REQUESTS
from kimi_mcp.provider import Endpoint, Upstream
from kimi_mcp.provider.encoding import encode
from kimi_mcp.runs import Run

log = logging.getLogger(__name__)

CallState = Literal["fits", "may stop it", "refuses it"]
"""What a limit does to a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitCheck:
    """One spending limit, held against a call."""

    name: str
    """The variable or argument that sets it."""
    limit_usd: float
    spent_usd: float = 0.0
    """What is used up of it before the call."""
    state: CallState = "fits"

    def held(self, first_usd: float, most_usd: float) -> LimitCheck:
        """With its state for a call that begins at ``first_usd`` and costs ``most_usd`` at most."""
        left = self.limit_usd - self.spent_usd
        state: CallState = "refuses it" if first_usd > left else "may stop it" if most_usd > left else "fits"
        return replace(self, state=state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is known of a call before it is sent."""

    provider: str
    model: str
    """The provider's id of the model."""
    mode: Mode
    prompt_tokens: int
    """Tokens of the first request, of a swarm those of all agents' first requests."""
    counted_by: Literal["provider", "estimate"]
    """``provider``: by its own tokenizer. ``estimate``: ours, by the size of the texts."""
    max_tokens: int
    """Reasoning and answer of one request at most."""
    context_tokens: int
    """What the model takes in all."""
    requests: int | None = 1
    """Upstream requests at most; None: as many as the limits allow."""
    least_usd: float | None = None
    """With the prompt read from the cache, and no answer; None: the price is unknown."""
    most_usd: float | None = None
    """With the prompt written to the cache, and every answer at its limit; None: the price is unknown."""
    fits_context: bool = True
    """Whether prompt and answer fit into the model's context together."""
    limits: tuple[LimitCheck, ...] = ()
    """The spending limits that count; where the price is unknown, at the catalogue's highest."""
    policy: tuple[Adjustment, ...] = ()
    """What the policy changes and warns of."""
    uncounted: tuple[str, ...] = ()
    """What else will cost something, and how much nobody knows beforehand."""

    @property
    def fits(self) -> bool:
        """Whether the call would be sent, as far as is known."""
        return self.fits_context and all(limit.state != "refuses it" for limit in self.limits)

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {"fits": self.fits, **to_json(self)}


async def estimate_call(call: Call, run: Run, pipeline: Pipeline) -> Estimate:
    """The estimate of one call; no answer is requested. Raises what refuses the call."""
    settings, fallback = pipeline.settings, pipeline.facts.highest_price
    decided = await pipeline.decided(call, run, dry=True)
    route, plan = decided.route, decided.plan
    await pipeline.check_media(call, plan, route.endpoint, caller=run.caller)
    limits = await day_limit(run, settings)
    if settings.budget_usd_per_call is not None:
        limits = (LimitCheck(name="KIMI_BUDGET_USD_PER_CALL", limit_usd=settings.budget_usd_per_call), *limits)
    goes_on = continuing.MOST_TIMES if settings.continues == "auto" else 0
    counted = await _counted(plan, route.endpoint, pipeline.upstream)
    prompt = estimated_tokens(plan.turns, plan.tools) if counted is None else counted
    requests = 1 + (goes_on if plan.profile.provider.continues_answers else plan.response_schema is not None)
    if call.web:
        requests = MAX_REQUESTS
    certain = minimum_tokens(plan.turns) if counted is None else counted
    expected = with_margin(prompt) if counted is None else counted
    most = most_usd(expected, plan.max_tokens, requests, plan.price or fallback)
    first = counted_usd(with_margin(estimated_tokens(plan.turns, plan.tools)), 0, plan.price or fallback)
    profile, has_clip = plan.profile, any(part.kind == "video" for turn in plan.turns for part in turn.media)
    uncounted = ["the clip's tokens"] if has_clip else []
    if any(name.lower().endswith((".docx", ".pptx", ".xlsx", ".epub")) for name in call.files):
        uncounted.append("the text that the provider takes out of documents")
    return Estimate(
        provider=profile.provider.id,
        model=profile.serving.wire_id,
        mode=plan.mode,
        prompt_tokens=prompt,
        counted_by="estimate" if counted is None else "provider",
        max_tokens=plan.max_tokens,
        context_tokens=profile.model.context_tokens,
        requests=requests,
        least_usd=None if plan.price is None else certain * plan.price.cached / MILLION,
        most_usd=None if plan.price is None else most,
        fits_context=prompt + plan.max_tokens <= profile.model.context_tokens,
        limits=tuple(limit.held(first, most) for limit in limits),
        policy=plan.adjustments,
        uncounted=(*uncounted, *["what is searched for and read"] * call.web),
    )


async def day_limit(run: Run, settings: Settings) -> tuple[LimitCheck, ...]:
    """The spending limit of the day, and what is spent of it; empty where there is none."""
    if settings.budget_usd_per_day is None:
        return ()
    spent = await run.store.spent_today_usd()
    return (LimitCheck(name="KIMI_BUDGET_USD_PER_DAY", limit_usd=settings.budget_usd_per_day, spent_usd=spent),)


def most_usd(prompt_tokens: int, max_tokens: int, requests: int, price: Price) -> float:
    """US dollars of so many requests, each of which has the answers before it in its prompt, all at their limit."""
    prompts = requests * prompt_tokens + max_tokens * requests * (requests - 1) // 2
    return counted_usd(prompts, requests * max_tokens, price)


async def _counted(plan: Plan, endpoint: Endpoint, upstream: Upstream) -> int | None:
    """The provider's own count of the prompt; None where it has none, or does not answer.

    Pictures stay here: they count the same, whatever they show (IMAGE_TOKENS).
    """
    if not plan.profile.provider.estimates_tokens:
        return None
    texts = replace(plan, turns=tuple(map(_without_media, plan.turns)))
    pictures = sum(part.kind == "image" for turn in plan.turns for part in turn.media)
    try:
        messages = encode(texts)["messages"]
        tokens = await upstream.estimated_tokens(endpoint, plan.profile.serving.wire_id, messages)
    except KimiError as error:
        log.info("the provider does not count the tokens: %s", error.code)
        return None
    return tokens + pictures * IMAGE_TOKENS


def _without_media(turn: Turn) -> Turn:
    return replace(turn, parts=tuple(part for part in turn.parts if isinstance(part, TextPart)))
