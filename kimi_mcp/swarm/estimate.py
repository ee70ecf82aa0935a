"""``estimate_swarm``: what a swarm will cost at least and at most. I/O: it may ask the provider for its models."""

from __future__ import annotations

from dataclasses import replace

from kimi_mcp.core.profiles import MILLION, counted_usd
from kimi_mcp.core.tokens import estimated_tokens, minimum_tokens, with_margin
from kimi_mcp.core.types import system, user
from kimi_mcp.pipeline.estimate import Estimate, LimitCheck, day_limit
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.runs import Run
from kimi_mcp.swarm import prompts
from kimi_mcp.swarm.call import SwarmCall
from kimi_mcp.swarm.limits import SwarmLimits
from kimi_mcp.swarm.orchestrate import effective_limits, first_request, prepare


async def estimate_swarm(call: SwarmCall, run: Run, pipeline: Pipeline) -> Estimate:
    """The estimate of a swarm: its agents' first requests at least, its spending limit at most.

    No tool server is started: the definitions of tools are not counted. Raises what refuses the swarm.
    """
    call = await prepare(call, pipeline)
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
