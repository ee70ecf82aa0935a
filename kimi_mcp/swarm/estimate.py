"""``estimate_swarm`` and ``most_of``: what a swarm will cost. I/O: it may ask the provider for its models."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kimi_mcp.core.profiles import MILLION, counted_usd
from kimi_mcp.core.tokens import estimated_tokens, minimum_tokens, with_margin
from kimi_mcp.core.types import system, user
from kimi_mcp.pipeline.estimate import Estimate, LimitCheck, day_limit
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.runs import Run
from kimi_mcp.swarm import prompts
from kimi_mcp.swarm.agent import MAX_WIDENINGS
from kimi_mcp.swarm.call import SwarmCall
from kimi_mcp.swarm.limits import SwarmLimits
from kimi_mcp.swarm.orchestrate import OVERHEAD_TOKENS, effective_limits, first_request, prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmMost:
    """What a swarm that has not begun may use at most."""

    agents: int
    """Sub-agents."""
    usd: float
    """US dollars, by its limits and the price list; at the highest price where the true one is not known."""
    model: str
    """The id of its model."""
    provider: str
    """The id of its provider."""


async def most_of(call: SwarmCall, run: Run, pipeline: Pipeline, limits: SwarmLimits) -> SwarmMost:
    """What a swarm may use at most. Raises what refuses it.

    Its limit of US dollars counts, or what all of its requests cost if each is as long as it can be, where that is
    less: so it is for a few agents of one step each. What tools cost beside tokens is within the limit.
    """
    call = await prepare(call, pipeline, run.caller)
    route = await pipeline.router.resolve(run, model=call.model, provider=call.provider)
    plan = route.decide(first_request(call, route.model_asked))
    limits = effective_limits(limits, call, plan.limits, pipeline.settings)
    agents = len(call.items) or limits.agents
    price = (plan.price or pipeline.facts.highest_price).written_for(pipeline.settings.cache_ttl or "1h")
    context, ceiling = plan.profile.model.context_tokens, plan.profile.output_ceiling
    step_tokens = min(limits.step_tokens, ceiling)

    def request_usd(prompt_tokens: int, answer_tokens: int) -> float:
        return counted_usd(min(prompt_tokens, context), answer_tokens, price)

    longest = request_usd(context, min(limits.step_tokens << MAX_WIDENINGS, ceiling))
    of_agents = limits.agent_steps * longest
    if limits.agent_steps == 1:
        tasks = max(with_margin(estimated_tokens((user(task),))) for task in call.tasks or (call.prompt,))
        of_agents = request_usd(tasks + OVERHEAD_TOKENS if call.items else context, step_tokens)
    of_main = request_usd(context, step_tokens) if call.items else limits.steps * longest
    most = agents * of_agents + of_main
    return SwarmMost(
        agents=agents,
        usd=most if limits.usd is None else min(most, limits.usd),
        model=plan.profile.model.id,
        provider=plan.profile.provider.id,
    )


async def estimate_swarm(call: SwarmCall, run: Run, pipeline: Pipeline) -> Estimate:
    """The estimate of a swarm: its agents' first requests at least, its spending limit at most.

    No tool server is started: the definitions of tools are not counted. Raises what refuses the swarm.
    """
    call = await prepare(call, pipeline, run.caller)
    route = await pipeline.router.resolve(run, model=call.model, provider=call.provider)
    request = first_request(call, route.model_asked)
    plan = route.decide(replace(request, cache_ttl=pipeline.settings.cache_ttl))
    limits = effective_limits(SwarmLimits(), call, plan.limits, pipeline.settings)
    own = (
        prompts.system_prompt("agent", ())
        if call.items
        else prompts.system_prompt("main", (), steps=limits.steps, agents=limits.agents)
    )
    firsts = [(system(own), user(task)) for task in call.tasks or (call.prompt,)]
    prompt = sum(map(estimated_tokens, firsts))
    price = plan.price or pipeline.facts.highest_price
    step_tokens = min(limits.step_tokens, plan.profile.output_ceiling)
    longest = max(map(estimated_tokens, firsts))
    one = counted_usd(with_margin(longest), step_tokens, price)
    most = limits.usd or 0.0
    own_limit = LimitCheck(name=limits.usd_set_by, limit_usd=most).held(2 * one, most)
    of_the_day = await day_limit(run, pipeline.settings)
    return Estimate(
        provider=plan.profile.provider.id,
        model=plan.profile.serving.wire_id,
        mode="thinking",
        prompt_tokens=prompt,
        counted_by="estimate",
        max_tokens=step_tokens,
        context_tokens=plan.profile.model.context_tokens,
        requests=None,
        least_usd=None if plan.price is None else sum(map(minimum_tokens, firsts)) * plan.price.cached / MILLION,
        most_usd=None if plan.price is None else most,
        fits_context=longest + step_tokens <= plan.profile.model.context_tokens,
        limits=(own_limit, *(check.held(one, most) for check in of_the_day)),
        policy=plan.adjustments,
        uncounted=() if call.tools == () else ("the definitions and results of tools",),
    )
