"""The checks that ask the provider: can it be reached, what does it serve, what would a call get. Does I/O."""

from __future__ import annotations

from dataclasses import replace

import anyio

from kimi_mcp import policy
from kimi_mcp.catalogue import Catalogue, selection
from kimi_mcp.cli.doctor.diagnosis import Diagnosis
from kimi_mcp.core.errors import AuthFailed, KimiError, ModelNotServed, RequestRejected
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.profiles import Profile, Provider
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.types import Mode, Request, user
from kimi_mcp.pipeline.call import Call
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.pipeline.route import list_matters, route_to, today
from kimi_mcp.provider import Endpoint, Upstream
from kimi_mcp.runs import Run, Runs
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.server.callers import LOCAL

QUESTION = "What is 2 + 3? Answer with the number alone."
"""What ``--probe`` asks, and what the model is chosen for."""


def policy_context(found: Diagnosis, settings: Settings, provider: Provider) -> policy.PolicyContext:
    """What the policy has to know for a call of today."""
    return policy.PolicyContext(
        day=today(),
        base_url=found.base_url or provider.base_url,
        allowed_providers=tuple(found.allowed_providers),
        strict=settings.policy == "strict",
    )


async def check_provider(found: Diagnosis, endpoint: Endpoint, facts: Catalogue) -> bool:
    """Ask the provider for its models; returns whether it can be asked for more."""
    provider, upstream = endpoint.provider, Upstream()
    try:
        found.served = served = sorted(await upstream.list_models(endpoint))
    except AuthFailed as error:
        # The same variable may hold a key of another platform, which is of no use here.
        twins = [
            each.id
            for each in facts.providers.values()
            if each is not provider and not set(provider.key_variables).isdisjoint(each.key_variables)
        ]
        more = [f" A key of {id} does not work here: if yours is one, set KIMI_PROVIDER={id}." for id in twins]
        found.add("reach", "bad", error.message, error.fix + "".join(more))
        return False
    except (ModelNotServed, RequestRejected):
        found.add("reach", "unknown", f"{provider.id} answers, but does not list its models.")
        return True
    except KimiError as error:
        found.add_error("reach", error)
        return False
    finally:
        await upstream.aclose()
    kimi = [name for name in served if "kimi" in name.lower()] or served
    names = f": {', '.join(kimi[:6])}{', …' if len(kimi) > 6 else '.'}" if kimi else "."
    found.add("reach", "ok", f"It answers, and lists {len(served)} models{names}")
    return True


def check_model(found: Diagnosis, settings: Settings, facts: Catalogue, endpoint: Endpoint) -> Profile | None:
    """What a call that names no model would get, decided as for such a call."""
    provider, context = endpoint.provider, policy_context(found, settings, endpoint.provider)
    if found.served is not None and provider.lists_models and list_matters(settings.model, endpoint):
        context = replace(context, served=frozenset(found.served))
    try:
        route = route_to(settings.model, endpoint, context, facts, by_setting=True)
        decided = route.decide(Request(mode="thinking", turns=(user(QUESTION),), model_asked=settings.model))
    except KimiError as error:
        found.add_error("model", error)
        return None
    profile, by_setting = decided.profile, settings.model != selection.AUTO
    found.model, until = profile.model.id, profile.serving.until
    why = " ".join(entry.why for entry in decided.adjustments) or "it is the first of the provider's list"
    why = "KIMI_MODEL names it" if by_setting else why.rstrip(".")
    found.add("model", "ok", f"{settings.model} is {found.model} today: {why}.")
    if until is not None:
        later = "it is served until then" if until > today() else "it has ended"
        found.add("model", "warn", f"{provider.id} ends {found.model} on {until.isoformat()}; {later}.")
    if settings.cache_ttl is not None and settings.cache_ttl not in profile.cache_ttls:
        sold = " or ".join(profile.cache_ttls) or "nothing to choose"
        message = f"KIMI_CACHE_TTL has no effect on {found.model} at {provider.id}, which offers {sold}."
        found.add("cache", "warn", message, "Unset it, or set KIMI_MODEL to a model that is cached for so long.")
    return profile


async def check_balance(found: Diagnosis, endpoint: Endpoint) -> None:
    """Ask for what the account has left, where the provider tells."""
    currency = endpoint.provider.balance_currency
    if currency is None:
        return
    upstream = Upstream()
    try:
        left = await upstream.balance(endpoint)
    except KimiError as error:
        found.add("balance", "unknown", f"What the account has left is not known: {error.message}")
        return
    finally:
        await upstream.aclose()
    found.balance = {"currency": currency, "available": left.available, "vouchers": left.vouchers, "cash": left.cash}
    of_which = f"{left.vouchers:,.2f} in vouchers and {left.cash:,.2f} in cash"
    message = f"The account has {left.available:,.2f} {currency} left: {of_which}."
    if left.available > 0:
        found.add("balance", "ok", message)
    else:
        found.add("balance", "bad", message, f"Top up the account: {endpoint.provider.id} refuses calls until then.")


async def probe_modes(found: Diagnosis, settings: Settings, profile: Profile) -> None:
    """Make one tiny call in each mode of the model, and compare it with the catalogue. Costs a few tokens."""
    pipeline = Pipeline(settings)
    try:
        for mode in profile.modes:
            outcome, reasoning_field = await _tiny_call(pipeline, mode)
            usage = outcome.usage
            found.probes.append(
                {
                    "mode": mode,
                    "status": outcome.status,
                    "model": outcome.model_answered,
                    "reasoning_field": reasoning_field,
                    "usage": usage is not None,
                    "total_tokens": usage.total_tokens if usage else None,
                    "total_s": round(outcome.timing.total_s, 3),
                    "error": outcome.error.code if outcome.error else None,
                }
            )
            _judge(found, profile, mode, outcome, reasoning_field)
    finally:
        await pipeline.aclose()


async def _tiny_call(pipeline: Pipeline, mode: Mode) -> tuple[Outcome, str | None]:
    """Its outcome, and the name of the field in which its reasoning came."""
    field: str | None = None

    async def work(run: Run) -> Outcome:
        nonlocal field
        outcome = await pipeline.run(Call(mode=mode, prompt=QUESTION), run)
        field = run.request_state.accumulator.completion().reasoning_field  # gone once the run has ended
        return outcome

    run = Run(caller=LOCAL, tool="probe", prompt=QUESTION)
    async with anyio.create_task_group() as tasks:
        Runs(tasks, RunStore(None)).start(run, work)
    return run.snapshot(), field


def _judge(found: Diagnosis, profile: Profile, mode: Mode, outcome: Outcome, reasoning_field: str | None) -> None:
    if outcome.error is not None:
        found.add("probe", "bad", f"In {mode} mode: {outcome.error.message}", outcome.error.fix)
        return
    found.add("probe", "ok", f"In {mode} mode {outcome.model_answered} answered in {outcome.timing.total_s:.1f} s.")
    for entry in outcome.policy:
        if entry.action == "warned":
            found.add("probe", "warn", entry.why)
    expected = profile.provider.reasoning_read[0]
    if mode == "thinking" and reasoning_field is not None:
        fits = reasoning_field == expected
        more = "" if fits else f"; the catalogue expects {expected} (all known names are read)"
        found.add("probe", "ok" if fits else "warn", f"Its reasoning came as {reasoning_field}{more}.")
    if mode == "instant" and outcome.reasoning:
        found.add("probe", "warn", "It thought in instant mode: the switch for thinking has no effect.")
    if outcome.usage is None:
        found.add("probe", "warn", "It reported no usage: what calls cost can't be counted.")
