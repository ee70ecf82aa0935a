"""Resolves where a run's requests go: provider, key, model. I/O: it may request the provider's list of models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from kimi_mcp import catalogue, policy
from kimi_mcp.catalogue import credentials, selection
from kimi_mcp.core.errors import ContextTooLong
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Profile
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.tokens import minimum_tokens
from kimi_mcp.core.types import Request
from kimi_mcp.provider import Endpoint, Upstream
from kimi_mcp.runs import Run

log = logging.getLogger(__name__)


def today() -> date:
    """The day on which catalogue dates are judged (UTC)."""
    return datetime.now(UTC).date()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where the requests of a run go, and what the policy must know to decide on them."""

    model_asked: str
    """What the caller or the setting named."""
    profile: Profile
    """The model that this means at that provider; under ``auto`` its most preferred."""
    context: policy.PolicyContext
    endpoint: Endpoint

    def decide(self, request: Request) -> Plan:
        """The plan of a request; raises ``PolicyRefused``, ``InvalidArguments`` or ``ContextTooLong``."""
        decision = policy.decide(request, self.profile, self.context)
        if isinstance(decision, policy.Finding):
            raise decision.as_error()
        _check_length(decision)
        return decision

    def with_tools(self, tools: Sequence[Mapping[str, Any]]) -> Route:
        """The same route for many requests with the same tools: their schemas are checked here, once."""
        usable = tuple(tools) if policy.tools_fit(tools, self.profile.provider) else ()
        return replace(self, context=replace(self.context, matching_tools=usable))


class Router:
    """Resolves routes from the settings, the catalogue and what the provider serves."""

    def __init__(
        self, settings: Settings, upstream: Upstream, facts: catalogue.Catalogue, day: Callable[[], date]
    ) -> None:
        self._settings, self._upstream, self._facts, self._day = settings, upstream, facts, day
        self._borrowing_logged = False

    def endpoint(self, provider: str | None) -> Endpoint:
        """Where requests to a provider go, by default the settings' own; raises why none can."""
        return self._resolved(provider, None)[0]

    async def resolve(
        self, run: Run, *, model: str | None, provider: str | None, preferred: str | None = None
    ) -> Route:
        """The route of a run, for the ``model`` and ``provider`` that its caller named.

        ``preferred``: the model that ``auto`` takes first, by its catalogue id. Raises the ``KimiError`` for which no
        request can be made.
        """
        run.model_asked = model or self._settings.model
        endpoint, context = self._resolved(provider, run)
        if list_matters(run.model_asked, endpoint):
            context = replace(context, served=await self._upstream.served_models(endpoint))
        return route_to(run.model_asked, endpoint, context, self._facts, by_setting=model is None, preferred=preferred)

    def _resolved(self, named: str | None, run: Run | None) -> tuple[Endpoint, policy.PolicyContext]:
        """URL and key of the provider that an argument or the settings name, once the policy admits it."""
        settings, facts = self._settings, self._facts
        credentials.check(settings, facts)
        default = credentials.chosen_provider(settings, facts)
        provider = credentials.named_provider(named, facts) if named else default
        if run is not None:
            run.provider = provider.id
        context = policy.PolicyContext(
            day=self._day(),
            base_url=(settings.base_url if provider is default else None) or provider.base_url,
            allowed_providers=credentials.allowed_providers(settings, facts, default),
            provider_requested=named and provider.id,
            strict=settings.policy == "strict",
            reads_media=True,
            own_record=True,
        )
        if refusal := policy.admit(context):
            raise refusal.as_error()
        access = credentials.access_to(provider, settings, default)
        if access.borrowed and not self._borrowing_logged:
            self._borrowing_logged = True
            log.warning("%s is used as the key of %s, because KIMI_PROVIDER says so", access.key_variable, provider.id)
        return Endpoint(provider=provider, base_url=access.base_url, key=access.key), context


def list_matters(name: str, endpoint: Endpoint) -> bool:
    """Whether the provider's list of models can change what a name means."""
    return name == selection.AUTO or endpoint.provider.self_hosted


def route_to(
    name: str,
    endpoint: Endpoint,
    context: policy.PolicyContext,
    facts: catalogue.Catalogue,
    *,
    by_setting: bool,
    preferred: str | None = None,
) -> Route:
    """The route to the model that a name means at a provider; ``context`` has what that serves, if it is known."""
    choice = selection.choose(
        name, endpoint.provider, facts, served=context.served, by_setting=by_setting, preferred=preferred
    )
    context = replace(
        context,
        successors=choice.successors,
        stands_in=choice.stands_in,
        video_offers=facts.video_offers(context.day),
        instant_offers=facts.instant_offers(context.day),
        web_offers=facts.web_offers,
        effort_offers=facts.effort_offers(context.day),
    )
    return Route(model_asked=name, profile=choice.profile, context=context, endpoint=endpoint)


def _check_length(plan: Plan) -> None:
    """Refuse what is certainly beyond the model's context, before it is paid for."""
    least, most = minimum_tokens(plan.turns), plan.profile.model.context_tokens
    if least <= most:
        return
    continued = any(turn.role == "assistant" for turn in plan.turns)
    raise ContextTooLong(
        f"The {'conversation' if continued else 'prompt'} has at least {least:,} tokens, {least - most:,} more than "
        f"the {most:,} that {plan.profile.model.id} takes in all.",
        fix="Branch off behind an earlier run by giving its `run_id` as `conversation_id`, start a new conversation, "
        "or name a `model` with a longer context."
        if continued
        else "Shorten `prompt`, or name a `model` with a longer context.",
    )
