"""``ProviderWebTools``: the web tools that a provider runs itself; ``WebLoop``: a call in which the model uses them.

I/O through ``upstream`` alone. A swarm's agents have the same tools. What a page or a search says is data: it goes to
the model in a frame, or sealed as the provider gave it, and only functions that the call began with are run.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import anyio

from kimi_mcp.core import observing
from kimi_mcp.core.errors import InvalidArguments, KimiError, ModelNotServed, RequestRejected
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import cost_usd
from kimi_mcp.core.redaction import clean, scrub
from kimi_mcp.core.tokens import estimated_tokens, with_margin
from kimi_mcp.core.types import (
    Completion,
    Source,
    TextPart,
    ToolCall,
    Turn,
    add_usage,
    joined_reasoning,
    system,
)
from kimi_mcp.core.untrusted import frame_output
from kimi_mcp.pipeline.attachments import LoadedPlan
from kimi_mcp.pipeline.call import DecidedCall
from kimi_mcp.pipeline.route import Route
from kimi_mcp.policy import judge, least_output
from kimi_mcp.provider import Endpoint, Upstream
from kimi_mcp.runs import Run

MAX_REQUESTS = 10
"""Requests of one call; in the last one the model must answer."""

MAX_CALLS = 24
"""Searches and fetched pages of one call."""

CALLS_AT_ONCE = 4
"""Of the calls of one turn."""

RESULT_CHARS = 30_000
"""Code points of one result that the model gets to read."""

SEALED_TIMES = 4
"""How much longer a sealed result may be: only the provider's models can open it, and cutting it would spoil it."""

MAX_SOURCES = 100
"""Sources of one call."""

MAX_FUNCTIONS = 16
"""Functions of a provider's formulas that are offered."""

SHOWN_CHARS = 120
"""Characters of a query or a URL that progress shows."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{1,63}\Z")
_URL = re.compile(r"https?://[^\s<>\"]{1,2000}\Z")
_HEADING = re.compile(r"\s*#{1,3} +(\S[^\n]{0,200})")
_CONCLUDE = "[kimi-mcp] {why} Search no more. Answer now from what you have, and say what is missing."

_LEFT_OUT = "[kimi-mcp: this result was left out, since the request was full]"
_NOT_RUN = "Not run: you have used all of your searches."
_EMPTY = "(Nothing was found.)"

_log = logging.getLogger(__name__)

Send = Callable[[LoadedPlan], Awaitable[Completion]]
"""Sends one request, whatever its answer is."""


def check_offered(plan: Plan, offers: Sequence[str], allowed: Sequence[str]) -> None:
    """Raise ``InvalidArguments`` where a plan's provider can't search; ``offers``: the providers that can."""
    provider = plan.profile.provider
    if provider.formulas or (provider.builtin_search and plan.mode == "instant"):
        return
    if provider.builtin_search:
        raise InvalidArguments(
            f"{provider.id} searches the web in instant mode only.",
            fix="Use kimi_instant with a `model` that can stop thinking, or leave `web` out.",
        )
    named = [offer for offer in offers if offer in allowed]
    raise InvalidArguments(
        f"{provider.id} has no web search of its own.",
        fix=f"Name a `provider` that has one ({', '.join(named)}), or leave `web` out."
        if named
        else "Leave `web` out. None of the allowed providers has one; let the operator choose or allow one that does "
        f"({', '.join(offers) or 'none is known'}) by KIMI_PROVIDER or KIMI_ALLOWED_PROVIDERS.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WebResult:
    """What one call of a web tool brought."""

    text: str
    """What the model gets as the tool's turn: framed, sealed, or a sentence of ours."""
    is_error: bool = False
    """Whether it failed."""
    sources: tuple[Source, ...] = ()
    """What was found or read."""
    cost_usd: float = 0.0
    """What it cost beside tokens."""


class ProviderWebTools:
    """The functions of a provider's own web tools, and the one way to run them."""

    def __init__(self, upstream: Upstream, endpoint: Endpoint, *, result_chars: int = RESULT_CHARS) -> None:
        self._upstream, self._endpoint, self._result_chars = upstream, endpoint, result_chars
        self._formulas: dict[str, str] = {}
        self.functions: dict[str, Mapping[str, Any]] = {}
        """What is offered, by name, as the provider lists it."""

    async def list(self) -> None:
        """List the functions of the formulas. Raises the ``KimiError`` for which the search can't be had."""
        provider = self._endpoint.provider
        for uri in provider.formulas:
            self._add(uri, await self._upstream.list_functions(self._endpoint, uri))
        for uri in provider.free_formulas:
            try:
                self._add(uri, await self._upstream.list_functions(self._endpoint, uri))
            except KimiError as error:
                _log.info("%s does not offer %s just now: %s", provider.id, uri, error.code)

    @classmethod
    async def opened(cls, upstream: Upstream, route: Route, plan: Plan) -> ProviderWebTools:
        """Those for a call; without formulas the search inside the chat, where that works.

        Raises ``InvalidArguments`` where the provider has none, and the ``KimiError`` for which they can't be had.
        """
        check_offered(plan, route.context.web_offers, route.context.allowed_providers)
        provider, tools = route.endpoint.provider, cls(upstream, route.endpoint)
        with suppress(ModelNotServed, RequestRejected):  # a gateway that has chats alone answers 404
            await tools.list()
        if not tools.functions and provider.builtin_search and plan.mode == "instant":
            tools.functions[provider.builtin_search] = {"name": provider.builtin_search}
        if not tools.functions:
            raise InvalidArguments(
                f"{route.endpoint.host} has none of the web tools of {provider.id}.",
                fix="Leave `web` out; the operator can set KIMI_BASE_URL to the provider's own URL.",
            )
        return tools

    @property
    def definitions(self) -> tuple[Mapping[str, Any], ...]:
        """The functions as they go into a request."""
        return tuple(map(_definition, self.functions.values()))

    def _add(self, uri: str, functions: Sequence[Mapping[str, Any]]) -> None:
        for function in functions:
            name, schema = function.get("name"), function.get("parameters")
            if not isinstance(name, str) or not _NAME.match(name) or not isinstance(schema, dict):
                continue
            if name not in self.functions and len(self.functions) < MAX_FUNCTIONS:
                self.functions[name], self._formulas[name] = function, uri

    def price(self, name: str) -> float:
        """US dollars of one run of a function."""
        provider = self._endpoint.provider
        is_free = name not in self.functions or self._formulas.get(name) in provider.free_formulas
        return 0.0 if is_free else provider.formula_price

    async def run(self, name: str, arguments: str, *, shown_as: str | None = None) -> WebResult:
        """Run a function with arguments as JSON text; ``shown_as``: its name for the model. Raises nothing."""
        result = await self._run(name, arguments, shown_as)
        if result.cost_usd:
            observing.emit(observing.Spent(provider=self._endpoint.provider, usd=result.cost_usd))
        return result

    async def _run(self, name: str, arguments: str, shown_as: str | None) -> WebResult:
        provider, most = self._endpoint.provider, self._result_chars
        if name not in self.functions:
            names = ", ".join(self.functions)
            return WebResult(text=f"There is no tool `{clean(name[:80], 'model')}`. There are: {names}.", is_error=True)
        cost = self.price(name)
        if name == provider.builtin_search:
            return WebResult(text=arguments, cost_usd=cost)
        if scrub(arguments) != arguments:
            return WebResult(text="The call holds a secret and was not run.", is_error=True)
        try:
            fiber = await self._upstream.run_function(self._endpoint, self._formulas[name], name, arguments)
        except KimiError as error:
            return WebResult(text=f"{provider.id} did not run the tool ({error.code}).", is_error=True)
        if not fiber.succeeded:
            text = frame_output(shown_as or name, fiber.text, most=most, failed=True)
            return WebResult(text=text, is_error=True, cost_usd=cost)
        if len(fiber.text) > SEALED_TIMES * most and fiber.sealed:
            return WebResult(text="The tool's answer is too long to pass on.", is_error=True, cost_usd=cost)
        text = fiber.text if fiber.sealed else frame_output(shown_as or name, fiber.text, most=most, failed=False)
        return WebResult(text=text, sources=_sources(fiber.references, arguments, fiber.text), cost_usd=cost)


def _definition(function: Mapping[str, Any]) -> Mapping[str, Any]:
    """A function as it goes into a request: its name, its description cleaned, its parameters."""
    known = {key: function[key] for key in ("name", "parameters") if key in function}
    description = function.get("description")
    return known | ({"description": clean(description[:4_000], "model")} if isinstance(description, str) else {})


def _sources(references: Sequence[tuple[str, str]], arguments: str, text: str) -> tuple[Source, ...]:
    """What a search found, else the page that was fetched, with its heading as title."""
    if references:
        return tuple(Source(title=title, url=url) for title, url in references if _URL.match(url))
    url: Any = None
    with suppress(ValueError, RecursionError, AttributeError):
        url = json.loads(arguments).get("url")
    if not isinstance(url, str) or not _URL.match(url):
        return ()
    heading = _HEADING.match(text)
    return (Source(title=heading[1].strip() if heading else "", url=url),)


class WebLoop:
    """One call whose model may search: requests and searches take turns until it answers.

    Each turn is recorded before anything else is paid for, and budgets are checked there.
    """

    def __init__(self, decided: DecidedCall, run: Run, send: Send) -> None:
        assert decided.web is not None, "only a call that may search gets here"
        self._tools, self._request, self._route = decided.web, decided.request, decided.route
        self._run, self._send = run, send
        self._calls = 0

    async def answer(self, loaded: LoadedPlan) -> tuple[LoadedPlan, Completion]:
        """The last request's plan, and the answer: its text, all reasoning, the tokens of all requests."""
        run, first = self._run, loaded.plan
        done: list[Completion] = []
        added: tuple[Turn, ...] = ()
        why: str | None = None
        while True:
            completion = await self._send(loaded)
            done.append(completion)
            wants_more = completion.tool_calls or completion.malformed_calls
            if why is not None or not wants_more or completion.finish_reason in ("length", "content_filter"):
                break
            plan = loaded.plan
            run.round_over(completion, cost_usd(completion.usage, plan.profile.price_of(completion.model)))
            if not completion.tool_calls or _reasoning_lost(plan, completion):
                why = "Your last calls could not be read."  # such a turn can't be sent back, so nothing of it is run
                plan = replace(plan, adjustments=(*plan.adjustments, *judge(plan, completion)))
            else:
                calling = _assistant(completion)
                run.turns = (*run.turns, calling)
                results = await self._use(completion.tool_calls)
                if not self._fits((*first.turns, *added, calling, *results), plan):
                    results = [replace(turn, parts=(TextPart(text=_LEFT_OUT),)) for turn in results]
                    why = "Your context is full."
                added, run.turns = (*added, calling, *results), (*run.turns, *results)
                if len(done) + 1 >= MAX_REQUESTS or self._calls >= MAX_CALLS:
                    why = why or "You have used all of your searches."
            loaded = replace(loaded, plan=self._next_plan(plan, first, added, why))
            await run.begin(loaded.plan)
        if len(done) > 1:
            run.answer_turn = _assistant(replace(completion, tool_calls=()))
        return loaded, _together(done)

    def _next_plan(self, plan: Plan, first: Plan, added: tuple[Turn, ...], why: str | None) -> Plan:
        """The next request: it passes the policy like any other, which also bounds its answer anew."""
        decided = self._route.decide(replace(self._request, turns=(*self._request.turns, *added)))
        note = () if why is None else (system(_CONCLUDE.format(why=why)),)  # sent, and no turn of the conversation
        return replace(
            plan,
            turns=(*first.turns, *added, *note),
            max_tokens=decided.max_tokens,
            tool_choice="none" if why is not None else plan.tool_choice,
            adjustments=(*plan.adjustments, *(each for each in decided.adjustments if each not in plan.adjustments)),
        )

    def _fits(self, turns: tuple[Turn, ...], plan: Plan) -> bool:
        """Whether an answer still fits behind the next request, by an estimate that is rather too high."""
        tokens = with_margin(estimated_tokens(turns, plan.tools))
        return tokens + least_output(plan.mode, plan.profile) <= plan.profile.model.context_tokens

    async def _use(self, calls: Sequence[ToolCall]) -> list[Turn]:
        """The results of one turn's calls, in their order; none is missing. Raises ``BudgetExceeded`` before any."""
        allowed = calls[: MAX_CALLS - self._calls]
        self._calls += len(allowed)
        self._run.report(", ".join(dict.fromkeys(_shown(call) for call in allowed[:CALLS_AT_ONCE])))
        most_usd = sum(self._tools.price(call.name) for call in allowed)
        self._run.paid(most_usd)  # before it is: a run may be billed, however it ends
        try:
            await self._run.record()
        except KimiError:
            self._run.paid(-most_usd)
            raise
        results: dict[int, WebResult] = {}
        slots = anyio.CapacityLimiter(CALLS_AT_ONCE)

        async def use(number: int, call: ToolCall) -> None:
            async with slots:
                results[number] = await self._tools.run(call.name, call.arguments)

        async with anyio.create_task_group() as tasks:
            for number, call in enumerate(allowed):
                tasks.start_soon(use, number, call)
        found = [results[number] for number in range(len(allowed))]
        self._run.paid(sum(each.cost_usd for each in found) - most_usd)
        self._add_sources([source for each in found for source in each.sources])
        texts = [*(each.text or _EMPTY for each in found), *[_NOT_RUN] * (len(calls) - len(allowed))]
        return [
            Turn(role="tool", parts=(TextPart(text=text),), tool_call_id=call.id)
            for call, text in zip(calls, texts, strict=True)
        ]

    def _add_sources(self, found: Sequence[Source]) -> None:
        """Add what is new, in order; a page without a title has the one under which it was found, else its URL."""
        known = {source.url: source for source in self._run.sources}
        for source in found:
            title = " ".join(clean(source.title, "host").split())[:200]
            if source.url not in known and len(known) < MAX_SOURCES:
                known[source.url] = Source(title=title or source.url, url=source.url)
        self._run.sources = tuple(known.values())


def _assistant(completion: Completion) -> Turn:
    """An answer as its conversation has it."""
    parts = (TextPart(text=completion.answer),) if completion.answer.strip() or not completion.tool_calls else ()
    return Turn(role="assistant", parts=parts, reasoning=completion.reasoning, tool_calls=completion.tool_calls)


def _reasoning_lost(plan: Plan, completion: Completion) -> bool:
    """Whether a turn that calls tools came without its reasoning, so that it can't be sent back."""
    reasoning = completion.reasoning
    return plan.mode == "thinking" and (reasoning is None or (reasoning != "" and not reasoning.strip()))


def _together(done: Sequence[Completion]) -> Completion:
    """Several answers as one: the text of the last, the reasoning and the tokens of all."""
    whole = done[0]
    for each in done[1:]:
        reasoning = joined_reasoning(whole.reasoning, each.reasoning)
        whole = replace(each, reasoning=reasoning, usage=add_usage(whole.usage, each.usage))
    return whole


def _shown(call: ToolCall) -> str:
    """What a call looks for, for progress: its first text."""
    values: Any = {}
    with suppress(ValueError, RecursionError):
        values = json.loads(call.arguments)
    texts = cast(dict[str, Any], values).values() if isinstance(values, dict) else ()
    text = " ".join(next((each for each in texts if isinstance(each, str)), "").split())
    return f"{call.name[:40]} “{text[:SHOWN_CHARS]}”" if text else call.name[:40]
