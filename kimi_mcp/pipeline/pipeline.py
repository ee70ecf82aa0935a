"""The one path that every call takes, from arguments to outcome. I/O: it asks the rooms below, in this order.

A turn, a shell's ``ask`` and, later, a swarm's step all come through :meth:`Engine.run`; there is no second way to an
upstream. It is where errors become outcomes: what a call cost and what had arrived is never lost on the way.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from kimi_mcp import catalogue, policy
from kimi_mcp import provider as upstream
from kimi_mcp.catalogue import credentials, selection
from kimi_mcp.core import redaction
from kimi_mcp.core import response_schema as structure
from kimi_mcp.core.errors import (
    CallRefused,
    ContextTooLong,
    InvalidArguments,
    KimiError,
    ModelNotServed,
    PolicyRefused,
    RequestRejected,
    UpstreamBroken,
    fault_of_ours,
)
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Profile, Provider
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.tokens import least_tokens, likely_tokens
from kimi_mcp.core.types import (
    SAMPLING,
    Completion,
    MediaKind,
    MediaPart,
    Mode,
    Request,
    TextPart,
    Turn,
    system,
    user,
)
from kimi_mcp.pipeline import conversation_history
from kimi_mcp.pipeline.attachments import Attachments, LoadedPlan
from kimi_mcp.pipeline.completion_result import asked_again, concluded, cost_of, shortfall, summed
from kimi_mcp.provider.encoding import encode
from kimi_mcp.provider.request_state import RequestState
from kimi_mcp.runs import Run

if TYPE_CHECKING:
    from kimi_mcp.media.roots import Roots

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one tool call asks for, once its arguments were validated."""

    mode: Mode
    """The mode of the tool that was called."""
    prompt: str
    """Verbatim."""
    system: str | None = None
    """A system prompt; None: none is sent."""
    images: tuple[str, ...] = ()
    """Pictures, each a path, an https URL, a data URI or an ``ms://`` id."""
    video: str | None = None
    """A clip, in the same forms."""
    files: tuple[str, ...] = ()
    """Text files to send along, by name or glob."""
    conversation_id: str | None = None
    """The conversation that it continues, or the run behind which it branches off; None: it starts one."""
    offered_roots: tuple[str, ...] | None = None
    """The host's own roots as ``file://`` URIs; None where it offers none."""
    response_schema: Mapping[str, Any] | None = None
    """JSON schema of the answer."""
    max_tokens: int | None = None
    """Bound on reasoning plus answer, in tokens."""
    temperature: float | None = None
    """Sampling temperature."""
    model: str | None = None
    """The ``model`` argument; None: the setting decides."""
    provider: str | None = None
    """The ``provider`` argument; None: the settings decide."""

    @property
    def names_files(self) -> bool:
        """Whether it names anything that may lie in a folder of the user's."""
        return bool(self.files or self.images or self.video)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where the requests of a run go, and all that the policy must know to decide them."""

    model_asked: str
    """What the caller or the setting said."""
    profile: Profile
    """The model that this means at that provider; under ``auto`` its most preferred."""
    gathered: policy.PolicyContext
    """What was found out about the world."""
    endpoint: upstream.Endpoint
    """The provider's URL and the key."""

    def decide(self, request: Request) -> Plan:
        """The plan of a request; raises ``PolicyRefused``, ``InvalidArguments`` or ``ContextTooLong``."""
        decision = policy.decide(request, self.profile, self.gathered)
        if isinstance(decision, policy.PolicyRefusal):
            raise _error_of(decision)
        _fits(decision)
        return decision

    def with_tools(self, tools: Sequence[Mapping[str, Any]]) -> Route:
        """The same route, for many requests with the same tools: whether those fit the dialect is judged here, once."""
        fitting = tuple(tools) if policy.tools_fit(tools, self.profile.provider) else ()
        return replace(self, gathered=replace(self.gathered, fitting_tools=fitting))


def today() -> date:
    """The day on which catalogue dates are judged (UTC)."""
    return datetime.now(UTC).date()


class Pipeline:
    """Takes calls along the one path."""

    def __init__(self, settings: Settings, *, day: Callable[[], date] = today) -> None:
        self.settings = settings
        """What the environment said when the server started."""
        self._day = day
        self._said_borrowed = False
        self._upstream = upstream.Upstream(
            deadlines=upstream.Deadlines(
                first_token_s=settings.first_token_timeout_s,
                idle_s=settings.idle_timeout_s,
                total_s=settings.total_timeout_s,
            ),
            max_concurrency=settings.max_concurrency,
        )
        self._attachments = Attachments(self._upstream)
        redaction.SECRETS.add(*credentials.keys(settings, catalogue.load()).values())

    @property
    def upstream(self) -> upstream.Upstream:
        """The one route to providers, for who asks them something else than a completion."""
        return self._upstream

    async def aclose(self) -> None:
        """Close every connection."""
        await self._upstream.aclose()

    async def run(self, call: Call, run: Run) -> Outcome:
        """The outcome of a call, good or bad; nothing but a cancellation is raised."""
        return await self.concluded(run, self._path(call, run))

    async def concluded(self, run: Run, path: Awaitable[Outcome]) -> Outcome:
        """The outcome of a run along a path, whatever that path raises; what had arrived is in it."""
        log.debug("%s begins: %s", run.id, run.tool)
        try:
            outcome = await path
        except KimiError as error:
            log.debug("%s failed: %s", run.id, error.code)
            # Without its traceback, whose frames hold the request and all that came, for as long as the error is kept.
            return run.cut_off("failed", error.with_traceback(None))
        except Exception:
            log.exception("a call failed by a fault of our own")
            return run.cut_off("failed", fault_of_ours())
        log.debug("%s is %s after %d attempts", run.id, outcome.status, run.attempts)
        return outcome

    async def step(self, request: Request, route: Route, request_state: RequestState) -> Completion:
        """One request of a longer work, such as an agent's; what arrives can be read in ``request_state`` meanwhile.

        It passes the policy as any other; what was changed stands in the request_state's plan. Raises a leaf of
        ``KimiError`` where it was refused or failed; returns with a finish reason, whichever it is.
        """
        plan = route.decide(request)
        request_state.begin(plan)
        return await self._ask(LoadedPlan(plan=plan), request_state, route.endpoint, yields=True)

    async def stamps(self, call: Call) -> tuple[str, ...]:
        """What the files that a call names look like now: about changed ones the same call is another one."""
        if not call.names_files:
            return ()
        from kimi_mcp.media.stamps import stamps

        return await anyio.to_thread.run_sync(stamps, call.files, _sources(call), self._roots(call))

    def check_reach(self, provider: str) -> None:
        """Raise the ``KimiError`` for which no request of this server can go to a provider."""
        facts = catalogue.load()
        credentials.check(self.settings, facts)
        default = credentials.chosen_provider(self.settings, facts)
        chosen = credentials.named_provider(provider, facts)
        self._admitted(chosen, default, provider)
        credentials.access_to(chosen, self.settings, default)

    def _admitted(self, chosen: Provider, default: Provider, asked: str | None) -> policy.PolicyContext:
        """What the settings tell the policy of a provider; raises where it refuses."""
        settings = self.settings
        gathered = policy.PolicyContext(
            day=self._day(),
            base_url=(settings.base_url if chosen is default else None) or chosen.base_url,
            allowed_providers=credentials.allowed_providers(settings, catalogue.load(), default),
            provider_asked=asked and chosen.id,
            strict=settings.policy == "strict",
            reads_media=True,
            own_record=True,
        )
        if refusal := policy.admit(gathered):
            raise _error_of(refusal)
        return gathered

    async def resolve_route(
        self, run: Run, *, model: str | None, provider: str | None, preferred: str | None = None
    ) -> Route:
        """Where a run's requests go: everything that the policy must know, asked for before it decides.

        ``preferred``: the model that ``auto`` takes first, by its catalogue id.
        """
        settings, facts, day = self.settings, catalogue.load(), self._day()
        credentials.check(settings, facts)
        run.model_asked = model or settings.model
        default = credentials.chosen_provider(settings, facts)
        chosen_provider = credentials.named_provider(provider, facts) if provider else default
        run.provider = chosen_provider.id
        gathered = self._admitted(chosen_provider, default, provider)
        reached = credentials.access_to(chosen_provider, settings, default)
        endpoint = upstream.Endpoint(provider=chosen_provider, base_url=reached.base_url, key=reached.key)
        if reached.borrowed and not self._said_borrowed:
            self._said_borrowed = True
            log.warning(
                "%s is used as the key of %s, because KIMI_PROVIDER says so", reached.key_variable, chosen_provider.id
            )
        served = await self._served(run.model_asked, chosen_provider.self_hosted, endpoint)
        chosen = selection.choose(
            run.model_asked, chosen_provider, facts, served=served, by_setting=model is None, preferred=preferred
        )
        gathered = replace(
            gathered,
            served=served,
            successors=chosen.successors,
            stands_in=chosen.stands_in,
            video_offers=facts.video_offers(day),
            instant_offers=facts.instant_offers(day),
        )
        return Route(model_asked=run.model_asked, profile=chosen.profile, gathered=gathered, endpoint=endpoint)

    async def _path(self, call: Call, run: Run) -> Outcome:
        run.mode = call.mode
        before = await conversation_history.before(call.conversation_id, run)
        route = await self.resolve_route(
            run,
            model=call.model or before.model_asked,
            provider=call.provider or before.provider,
            preferred=before.model_id,
        )
        run.turns = _asked(call, await self._texts(call, route.profile))
        plan = route.decide(_request(call, route.model_asked, before.with_asked(run.turns)))
        log.debug("%s goes to %s: %s, %s", run.id, route.endpoint.provider.id, plan.profile.model.id, plan.mode)
        await run.begin(plan)
        roots = partial(self._roots, call)
        attaching = self._attachments.attached(
            plan, route.endpoint, roots, run.request_state, strict=route.gathered.strict
        )
        async with attaching as attached:
            if attached.plan is not plan:
                run.turns = (*run.turns[:-1], attached.shown[-1])
                await run.begin(attached.plan)
            completion = await self._ask(attached, run.request_state, route.endpoint)
            if plan.response_schema is None or shortfall(plan, completion):
                return concluded(attached.plan, completion, run)
            return await self._structured(attached, plan.response_schema, completion, run, route.endpoint)

    async def _served(self, asked: str, self_hosted: bool, endpoint: upstream.Endpoint) -> frozenset[str] | None:
        """What the provider lists now, asked only where the answer can change the choice."""
        if not endpoint.provider.lists_models or not (asked == selection.AUTO or self_hosted):
            return None
        return await self._upstream.served_models(endpoint)

    async def _texts(self, call: Call, profile: Profile) -> str | None:
        """The files that the call names, as one text; None where it names none."""
        if not call.files:
            return None
        from kimi_mcp.media.text_files import as_context, gather_texts

        asked = (system(call.system or ""), user(call.prompt))
        answer = max(call.max_tokens or 0, policy.least_output(call.mode, profile))
        most = max(profile.model.context_tokens - answer - likely_tokens(asked), 0)
        gather = partial(gather_texts, call.files, self._roots(call), most_tokens=most)
        return as_context(await anyio.to_thread.run_sync(gather))

    def _roots(self, call: Call) -> Roots:
        """The folders that this call may read from."""
        from kimi_mcp.media.roots import find_roots

        return find_roots(self.settings.roots, call.offered_roots)

    async def _ask(
        self, attached: LoadedPlan, request_state: RequestState, endpoint: upstream.Endpoint, *, yields: bool = False
    ) -> Completion:
        """One request, streamed and folded; success needs a finish reason. One of many ``yields`` to single ones."""
        try:
            await self._stream(attached, request_state, endpoint, yields)
        except (RequestRejected, ModelNotServed):
            if not await self._attachments.renewed(attached, endpoint, request_state):
                raise
            await self._stream(
                attached, request_state, endpoint, yields
            )  # what had been uploaded was gone: it is there again
        if not request_state.accumulator.finished:
            raise UpstreamBroken(
                f"{endpoint.provider.id} ended the stream without saying that the answer is whole.",
                fix="Call again; if it happens often, look for a proxy between here and the provider.",
            )
        return request_state.accumulator.completion()

    async def _stream(
        self, attached: LoadedPlan, request_state: RequestState, endpoint: upstream.Endpoint, yields: bool
    ) -> None:
        body = encode(attached.plan)
        await self._upstream.stream(
            endpoint,
            body,
            request_state.accumulator,
            inlined=attached.inlined,
            on_attempt=request_state.attempted,
            on_wait=request_state.waits,
            tokens=likely_tokens(attached.plan.turns, attached.plan.tools) + attached.plan.max_tokens,
            yields=yields,
        )

    async def _structured(
        self, attached: LoadedPlan, schema: Mapping[str, Any], first: Completion, run: Run, endpoint: upstream.Endpoint
    ) -> Outcome:
        """The outcome of an answer that must fit a schema: as it is, or after one repair, which is always reported."""
        plan = attached.plan
        try:
            value, fault = structure.read_answer(first.answer, schema)
        except structure.Unchecked as unchecked:
            return replace(concluded(plan, first, run), status="partial", error=unchecked.error)
        if fault is None:
            return replace(concluded(plan, first, run), parsed=value)
        again = asked_again(plan, first, fault)
        try:
            await run.begin_again(again)
            second = await self._ask(replace(attached, plan=again), run.request_state, endpoint)
        except KimiError as error:  # the first answer was paid for: it stays
            kept = concluded(again if run.request_state.attempts else plan, first, run)
            cost = (
                None if run.request_state.accumulator.pieces else kept.cost_usd
            )  # nobody says what half an answer cost
            return replace(kept, status="partial", error=error, cost_usd=cost)
        usage = summed(first.usage, second.usage)
        costs = cost_of(plan, first), cost_of(again, second)
        cost = None if None in costs else sum(filter(None, costs))
        outcome = replace(concluded(again, replace(second, usage=usage), run), cost_usd=cost)
        if outcome.status == "failed":  # so it does where the second one holds nothing
            kept = concluded(again, replace(first, usage=usage), run)
            return replace(kept, status="partial", error=outcome.error, cost_usd=cost)
        try:
            value, fault = structure.read_answer(second.answer, schema)
        except structure.Unchecked as unchecked:
            return replace(outcome, status="partial", error=outcome.error or unchecked.error)
        if fault is None or outcome.error is not None:
            return replace(outcome, parsed=value)
        misfit = UpstreamBroken(
            f"The answer does not fit the response_schema, nor did the one before it: {fault}.",
            fix="Simplify `response_schema`, or name its fields in the prompt.",
        )
        return replace(outcome, status="partial", error=misfit)


def _asked(call: Call, texts: str | None) -> tuple[Turn, ...]:
    """The turns that a call adds to its conversation."""
    media = _media(call) if call.images or call.video else []
    asked = Turn(role="user", parts=(*media, TextPart(text=call.prompt)))
    before = [system(call.system)] if call.system else []
    before += [user(texts)] if texts else []  # not a system turn: what stands in a file has no say
    return (*before, asked)


def _request(call: Call, model_asked: str, turns: tuple[Turn, ...]) -> Request:
    return Request(
        mode=call.mode,
        turns=turns,
        sampling={} if call.temperature is None else {SAMPLING[0]: call.temperature},
        max_tokens=call.max_tokens,
        response_schema=call.response_schema,
        model_asked=model_asked,
    )


def _media(call: Call) -> list[MediaPart]:
    from kimi_mcp.media.loading import part_of

    return [part_of(kind, source) for kind, source in _sources(call)]


def _sources(call: Call) -> list[tuple[MediaKind, str]]:
    pictures: list[tuple[MediaKind, str]] = [("image", source) for source in call.images]
    return [*pictures, ("video", call.video)] if call.video else pictures


def _error_of(refusal: policy.PolicyRefusal) -> CallRefused:
    kind = InvalidArguments if refusal.rule is None else PolicyRefused
    return kind(refusal.message, fix=refusal.fix, rule=refusal.rule)


def _fits(plan: Plan) -> None:
    """Refuse what is certainly beyond the model's context, before it is paid for."""
    least, most = least_tokens(plan.turns), plan.profile.model.context_tokens
    if least <= most:
        return
    whole = any(turn.role == "assistant" for turn in plan.turns)
    raise ContextTooLong(
        f"The {'conversation' if whole else 'prompt'} has at least {least:,} tokens, {least - most:,} more than the "
        f"{most:,} that {plan.profile.model.id} takes in all.",
        fix="Branch off behind an earlier run by giving its `run_id` as `conversation_id`, start a new conversation, "
        "or name a `model` with a longer context."
        if whole
        else "Shorten `prompt`, or name a `model` with a longer context.",
    )
