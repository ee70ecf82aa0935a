"""The part of a diagnosis that asks the provider: is it there, what does it serve, what would a call get. Does I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kimi_mcp import policy
from kimi_mcp.catalogue import Catalogue, selection
from kimi_mcp.cli.doctor.diagnosis import Diagnosis
from kimi_mcp.core.errors import AuthFailed, KimiError, ModelNotServed, RequestRejected
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.types import Request, user
from kimi_mcp.pipeline.pipeline import today
from kimi_mcp.provider import Endpoint, Upstream

if TYPE_CHECKING:
    from kimi_mcp.core.profiles import Profile, Provider

QUESTION = "What is 2 + 3? Answer with the number alone."
"""What a call is decided on, and with ``--probe`` asked."""


def gathered_for(found: Diagnosis, settings: Settings, facts: Catalogue, provider: Provider) -> policy.PolicyContext:
    """What the policy is told of the world."""
    return policy.PolicyContext(
        day=today(),
        base_url=found.base_url or provider.base_url,
        allowed_providers=tuple(found.allowed),
        strict=settings.policy == "strict",
        served=frozenset(found.served) if found.served is not None else None,
        video_offers=facts.video_offers(today()),
    )


async def look_at_provider(found: Diagnosis, endpoint: Endpoint, facts: Catalogue) -> bool:
    """What the provider lists; whether it can be asked for more."""
    upstream = Upstream()
    try:
        served = await upstream.list_models(endpoint)
    except AuthFailed as error:
        more = "".join(
            f" A key of {twin} does not work here: if yours is one, set KIMI_PROVIDER={twin}."
            for twin in _twins(endpoint.provider, facts)
        )
        found.add("reach", "bad", error.message, error.fix + more)
        return False
    except (ModelNotServed, RequestRejected):
        found.add("reach", "unknown", f"{endpoint.provider.id} answers, but tells no list of its models.")
        return True
    except KimiError as error:
        found.fails("reach", error)
        return False
    finally:
        await upstream.aclose()
    found.served = sorted(served)
    found.add("reach", "ok", f"It answers, and lists {len(served)} models{_named(found.served)}.")
    return True


def _twins(provider: Provider, facts: Catalogue) -> list[str]:
    """Platforms whose keys stand in the same variable and are worth nothing at the other."""
    wanted = set(provider.key_variables)
    return [one.id for one in facts.providers.values() if one is not provider and wanted & {*one.key_variables}]


def _named(served: list[str]) -> str:
    kimi = [name for name in served if "kimi" in name.lower()] or served
    return (": " + ", ".join(kimi[:6]) + (", …" if len(kimi) > 6 else "")) if kimi else ""


def look_at_model(found: Diagnosis, settings: Settings, facts: Catalogue, provider: Provider) -> Profile | None:
    """What a call that names no model would get, decided as such a call would be."""
    counts = provider.lists_models and (settings.model == selection.AUTO or provider.self_hosted)
    gathered = gathered_for(found, settings, facts, provider)
    gathered = replace(gathered, served=gathered.served if counts else None)
    try:
        chosen = selection.choose(settings.model, provider, facts, served=gathered.served, by_setting=True)
    except KimiError as error:
        found.fails("model", error)
        return None
    gathered = replace(gathered, successors=chosen.successors, stands_in=chosen.stands_in)
    request = Request(mode="thinking", turns=(user(QUESTION),), model_asked=settings.model)
    decided = policy.decide(request, chosen.profile, gathered)
    if not isinstance(decided, Plan):
        found.add("model", "bad", decided.message, decided.fix)
        return None
    profile = decided.profile
    found.model = profile.model.id
    why = " ".join(entry.why for entry in decided.adjustments) or "it is the first of the provider's list"
    why = why if settings.model == selection.AUTO else "KIMI_MODEL says so"
    until = profile.serving.until
    found.add("model", "ok", f"{settings.model} is {profile.model.id} today: {why.rstrip('.')}.")
    if until is not None:
        later = "it is served until then" if until > today() else "it has ended"
        found.add("model", "warn", f"{provider.id} ends {profile.model.id} on {until.isoformat()}; {later}.")
    return profile
