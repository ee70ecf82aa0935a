"""``Pipeline``: the one path of every call, from its arguments to its outcome. Does I/O."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import cached_property, partial
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from kimi_mcp import catalogue, policy
from kimi_mcp.catalogue import credentials
from kimi_mcp.core import observing, redaction
from kimi_mcp.core.callers import LOCAL
from kimi_mcp.core.errors import (
    KimiError,
    ModelNotServed,
    RequestRejected,
    UpstreamBroken,
    internal_error,
)
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.tokens import estimated_tokens
from kimi_mcp.core.types import Completion, MediaKind, Request, TextPart, Turn, add_usage, system, user
from kimi_mcp.pipeline import continuing, conversation_history, outcomes
from kimi_mcp.pipeline.attachments import Attachments, LoadedPlan, MediaLimits
from kimi_mcp.pipeline.call import Call, DecidedCall
from kimi_mcp.pipeline.file_texts import FileTexts
from kimi_mcp.pipeline.route import Route, Router, today
from kimi_mcp.pipeline.uploads import Uploads
from kimi_mcp.pipeline.web import ProviderWebTools, WebLoop
from kimi_mcp.provider import Deadlines, Endpoint, Upstream
from kimi_mcp.provider.encoding import encode
from kimi_mcp.provider.request_state import RequestState
from kimi_mcp.runs import Run, RunFunction

if TYPE_CHECKING:
    from kimi_mcp.media.documents.pdf import PdfReader
    from kimi_mcp.media.roots import Roots
    from kimi_mcp.runs.store.records import RunRecord

log = logging.getLogger(__name__)

MOST_STAMPED = 1_000
"""Files that are looked at before a call begins."""


class Pipeline:
    """Answers calls.

    For tests: ``day``, ``draw`` (0 to 1, the jitter of retries), ``deadlines`` that no setting names, ``media_limits``,
    ``facts``.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        day: Callable[[], date] = today,
        draw: Callable[[], float] = random.random,
        deadlines: Deadlines | None = None,
        media_limits: MediaLimits | None = None,
        facts: catalogue.Catalogue | None = None,
    ) -> None:
        self.settings = settings
        """Read from the environment when the server started."""
        deadlines = replace(
            deadlines or Deadlines(),
            first_token_s=settings.first_token_timeout_s,
            idle_s=settings.idle_timeout_s,
            total_s=settings.total_timeout_s,
        )
        self.upstream = Upstream(deadlines=deadlines, max_concurrency=settings.max_concurrency, draw=draw)
        """Sends every request to a provider."""
        self.facts = facts = facts or catalogue.load_for(settings)
        """Models, providers and prices."""
        self.router = Router(settings, self.upstream, facts, day)
        """Resolves where requests go."""
        self._media_limits = media_limits or MediaLimits()
        uploads = Uploads(self.upstream)
        self._attachments = Attachments(self.upstream, uploads, self._media_limits, lambda: self.pdfs)
        self._file_texts = FileTexts(self.upstream, uploads, lambda: self.pdfs, facts.providers.values())
        redaction.hide(*credentials.keys(settings, facts).values())

    async def aclose(self) -> None:
        """Close every connection."""
        await self.upstream.aclose()

    async def run(self, call: Call, run: Run) -> Outcome:
        """The outcome of a call, good or bad; nothing but a cancellation is raised."""
        return await self.outcome(run, self._answer(call, run))

    async def outcome(self, run: Run, work: Awaitable[Outcome]) -> Outcome:
        """The outcome of a run's work, whatever that raises; what had arrived is in it."""
        log.debug("%s begins: %s", run.id, run.tool)
        try:
            outcome = await work
        except KimiError as error:
            log.debug("%s failed: %s", run.id, error.code)
            # Without its traceback, whose frames hold the request and all that came, for as long as the error is kept.
            return run.cut_off("failed", error.with_traceback(None))
        except Exception as fault:
            log.exception("a call failed because of a bug in kimi-mcp, or of a module that can't be imported")
            return run.cut_off("failed", internal_error(fault))
        log.debug("%s is %s after %d attempts", run.id, outcome.status, run.attempts)
        return outcome

    async def step(self, request: Request, route: Route, request_state: RequestState) -> Completion:
        """One request of a swarm; what arrives can be read in ``request_state`` meanwhile.

        It passes the policy like any other; the plan in ``request_state`` has what that changed. Raises a leaf of
        ``KimiError`` where it was refused or failed; returns with a finish reason, whichever it is.
        """
        plan = route.decide(request)
        request_state.begin(plan)
        return await self._send(LoadedPlan(plan=plan), request_state, route.endpoint, yields=True)

    def continuation(self, record: RunRecord, offered_roots: tuple[str, ...] | None = None) -> RunFunction:
        """The function that continues the cut answer of a run that has ended.

        ``offered_roots``: the host's own, for media of its folders. Raises ``InvalidArguments`` or ``PolicyRefused``
        for an answer that can't be continued.
        """
        continuing.check(record, self.facts.providers, self.router.endpoint)
        return lambda run: self.outcome(run, self._continue(record, run, offered_roots))

    async def file_stamps(
        self, names: Sequence[str], media: Sequence[tuple[MediaKind, str]], offered: tuple[str, ...] | None
    ) -> tuple[str, ...]:
        """The current state of the files that a call names: with changed files the same call is another one.

        A call that names more than ``MOST_STAMPED`` is always another one: whether it may be made is not known yet.
        """
        if len(names) + len(media) > MOST_STAMPED:
            return (token_hex(16),)

        def look() -> tuple[str, ...]:
            from kimi_mcp.media.loading import stamps

            return stamps(names, media, self.find_roots(offered))

        return await anyio.to_thread.run_sync(look, abandon_on_cancel=True)

    async def decided(self, call: Call, run: Run, *, dry: bool = False) -> DecidedCall:
        """Where a call goes, and what the policy makes of it; raises what refuses it.

        ``dry``: nothing is uploaded, and documents that the provider would read are empty.
        """
        run.mode = call.mode
        history = await conversation_history.before(call.conversation_id, run)
        observing.add_ids(conversation_id=run.conversation_id)
        route = await self.router.resolve(
            run,
            model=call.model or history.model_asked,
            provider=call.provider or history.provider,
            preferred=history.model_id,
        )
        earlier = history.sendable(thinking=call.mode == "thinking" or not route.profile.can_stop_thinking)

        def requested(file_texts: str | None) -> Request:
            run.turns = call.turns(file_texts)
            request = call.request(route.model_asked, earlier.with_turns(run.turns))
            return replace(request, cache_ttl=self.settings.cache_ttl)

        request, web = requested(None), None
        if call.files:
            prompt = (system(call.system or ""), user(call.prompt))
            answer = max(call.max_tokens or 0, policy.least_output(call.mode, route.profile))
            texts = await self._file_texts.read(
                call.files,
                partial(self._roots, call),
                route.endpoint,
                run.request_state,
                caller=run.caller,
                most_tokens=max(route.profile.model.context_tokens - answer - estimated_tokens(prompt), 0),
                allowed=lambda: route.decide(requested(None)),
                uploads=not dry,
            )
            request = requested(texts)
        plan = route.decide(request)
        if call.web:
            web = await ProviderWebTools.opened(self.upstream, route, plan)
            request = replace(request, tools=web.definitions)
            plan = route.decide(request)
        if earlier is not history:
            left_out = history.left_out(route.endpoint.provider.id)
            plan = replace(plan, adjustments=(*plan.adjustments, left_out))
        return DecidedCall(route=route, request=request, plan=plan, web=web)

    async def check_media(self, call: Call, plan: Plan, endpoint: Endpoint, *, caller: str) -> None:
        """Raise what prevents the media of a call from being sent; none of them is."""
        await self._attachments.check(plan, endpoint, partial(self._roots, call), caller=caller)

    async def _answer(self, call: Call, run: Run) -> Outcome:
        decided = await self.decided(call, run)
        plan, route = decided.plan, decided.route
        endpoint, roots = route.endpoint, partial(self._roots, call)
        log.debug("%s goes to %s: %s, %s", run.id, endpoint.provider.id, plan.profile.model.id, plan.mode)
        await run.begin(plan)
        async with self._attachments.loaded(
            plan, endpoint, roots, run.request_state, caller=run.caller, strict=route.context.strict
        ) as loaded:
            if loaded.plan is not plan:
                run.turns = (*run.turns[:-1], loaded.recorded_turns[-1])
                await run.begin(loaded.plan)
            if decided.web is None:
                completion = await self._send(loaded, run.request_state, endpoint)
            else:
                loop = WebLoop(decided, run, lambda each: self._send(each, run.request_state, endpoint))
                loaded, completion = await loop.answer(loaded)
            outcome = outcomes.outcome_of(loaded.plan, completion, run)
            if outcome.can_continue and self.settings.continues == "auto":
                return await self._continued(loaded, outcome, run, endpoint)
            if plan.response_schema is None or outcome.error is not None:
                return outcome
            return await self._parse_or_repair(loaded, plan.response_schema, completion, run, endpoint)

    async def _continue(self, record: RunRecord, run: Run, offered_roots: tuple[str, ...] | None) -> Outcome:
        """The outcome of a run whose answer is continued after it had ended; what it had stays, whatever fails."""
        try:
            run.turns = continuing.turns(record)
            history = await conversation_history.again(record, run)
            route = await self.router.resolve(
                run, model=history.model_asked, provider=history.provider, preferred=history.model_id
            )
            request = continuing.request(record, history.with_turns(run.turns))
            plan = route.decide(replace(request, cache_ttl=self.settings.cache_ttl))
            if record.model_id not in (None, plan.profile.model.id):
                raise ModelNotServed(
                    f"The answer is {record.model_id}'s, which {route.endpoint.provider.id} does not serve any more.",
                    fix="Call again: another model can't continue it.",
                )
            roots, strict = partial(self.find_roots, offered_roots, run.caller), route.context.strict
            async with self._attachments.loaded(
                plan, route.endpoint, roots, run.request_state, caller=run.caller, strict=strict
            ) as loaded:
                return await self._continued(loaded, record.outcome, run, route.endpoint, once=True)
        except KimiError as error:
            return run.cut_off("partial", error)

    async def _continued(
        self, loaded: LoadedPlan, cut: Outcome, run: Run, endpoint: Endpoint, *, once: bool = False
    ) -> Outcome:
        """The outcome of an answer that was cut, continued ``once``, and as often as the settings say."""
        outcome = cut
        for _ in range(continuing.MOST_TIMES if self.settings.continues == "auto" else once):
            before = outcome
            try:
                plan = continuing.plan_rest(loaded.plan, before, run.turns)
                await run.begin_again(plan, before, continues=True)
                completion = await self._send(replace(loaded, plan=plan), run.request_state, endpoint)
            except KimiError as error:  # what is there was paid for: it stays
                cost = None if run.request_state.accumulator.pieces else before.cost_usd
                return replace(run.cut_off("partial", error), cost_usd=cost)
            outcome = continuing.joined(before, outcomes.outcome_of(plan, completion, run))
            run.answer_turn = None  # it is longer now
            if not outcome.can_continue:
                break
        schema = loaded.plan.response_schema
        return outcome if schema is None or outcome.error is not None else outcomes.parsed(outcome, schema)

    @cached_property
    def pdfs(self) -> PdfReader:
        """Reads PDFs; imported when one is met."""
        from kimi_mcp.media.documents.pdf import PdfReader

        return PdfReader(self._media_limits.pdf)

    def _roots(self, call: Call) -> Roots:
        """The folders that this call may read from. Blocking."""
        return self.find_roots(call.offered_roots)

    def find_roots(self, offered: tuple[str, ...] | None, caller: str = LOCAL) -> Roots:
        """The folders that a caller whose host offers these may read from; empty: none but what the operator names.

        Blocking. ``caller``: of a run that may have begun on another server, over HTTP.
        """
        from kimi_mcp.media.roots import find_roots

        remote = self.settings.remote_callers or caller != LOCAL or offered == ()
        return find_roots(self.settings.roots, offered, remote=remote)

    async def _send(
        self, loaded: LoadedPlan, request_state: RequestState, endpoint: Endpoint, *, yields: bool = False
    ) -> Completion:
        """Send one request; its answer, with a finish reason. One that ``yields`` lets single calls go first."""

        async def stream() -> None:
            await self.upstream.stream(
                endpoint,
                encode(loaded.plan),
                request_state.accumulator,
                inlined=loaded.inlined,
                on_attempt=request_state.attempted,
                on_wait=request_state.waits,
                tokens=request_state.prompt_tokens + loaded.plan.max_tokens,
                yields=yields,
            )

        try:
            try:
                await stream()
            except (RequestRejected, ModelNotServed):
                if not await self._attachments.upload_missing(loaded, endpoint, request_state):
                    raise
                await stream()
        finally:
            outcomes.emit_cost(loaded.plan, request_state)
        if not request_state.accumulator.finished:
            raise UpstreamBroken(
                f"{endpoint.provider.id} ended the stream without saying that the answer is complete.",
                fix="Call again; if it happens often, look for a proxy between here and the provider.",
            )
        return request_state.accumulator.completion()

    async def _parse_or_repair(
        self, loaded: LoadedPlan, schema: Mapping[str, Any], first: Completion, run: Run, endpoint: Endpoint
    ) -> Outcome:
        """The outcome of an answer that must fit a schema: as it is, or after one repair, which is always reported."""
        plan = loaded.plan
        outcome, misfit = outcomes.with_parsed(outcomes.outcome_of(plan, first, run), schema)
        if misfit is None:
            return outcome
        note = policy.reported("answer-repaired", field="response_schema", fault=misfit)
        answered = run.answer_turn or Turn(
            role="assistant", parts=(TextPart(text=first.answer),), reasoning=first.reasoning
        )
        again = user(f"That does not fit the JSON schema: {misfit}. Answer again with the JSON value alone.")
        repair = replace(
            plan,
            turns=(*plan.turns, answered, again),
            tool_choice="none" if plan.tools else plan.tool_choice,
            adjustments=(*plan.adjustments, note),
        )
        try:
            await run.begin_again(repair, outcome)
            second = await self._send(replace(loaded, plan=repair), run.request_state, endpoint)
        except KimiError as error:  # the first answer was paid for: it stays
            kept = run.cut_off("partial", error)
            cost = None if run.request_state.accumulator.pieces else outcome.cost_usd  # of half an answer it is unknown
            return replace(kept, cost_usd=cost)
        run.answer_turn = None
        usage = add_usage(first.usage, second.usage)
        costs = outcome.cost_usd, outcomes.cost_of(repair, second)
        cost = None if None in costs else sum(filter(None, costs))
        outcome = replace(outcomes.outcome_of(repair, replace(second, usage=usage), run), cost_usd=cost)
        if outcome.status == "failed":  # the second answer is empty: the first one stays
            kept = outcomes.outcome_of(repair, replace(first, usage=usage), run)
            return replace(kept, status="partial", error=outcome.error, cost_usd=cost)
        return outcomes.parsed(outcome, schema, again=", nor did the one before it")
