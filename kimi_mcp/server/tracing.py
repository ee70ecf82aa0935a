"""``Tracing``: spans and metrics of what happens, for OpenTelemetry. No I/O: where they go is ``telemetry``'s.

The names are those of the semantic conventions for generative AI, 0.1.0, and for MCP. The SDK of MCP makes the span of
each request; those of its calls to a provider are below it, and so are the agents of a swarm. No trace is passed on to
a provider.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any, cast
from urllib.parse import urlsplit

from mcp.shared.exceptions import MCPError
from mcp_types.methods import SPEC_CLIENT_METHODS
from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.propagate import extract
from opentelemetry.trace import Link, SpanKind, StatusCode, TracerProvider, get_current_span, get_tracer, use_span

from kimi_mcp.core import observing
from kimi_mcp.core.outcome import shortened
from kimi_mcp.core.profiles import Provider
from kimi_mcp.core.redaction import scrub
from kimi_mcp.core.version import __version__
from kimi_mcp.server.middleware import CallNext
from kimi_mcp.server.tools import TOOLS

MODEL_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Bounds of the histograms of what a model does, as the conventions have them."""

MCP_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
"""The same of requests of MCP."""

MOST_CHARS = 16_384
"""Characters of one text in a span, head and tail, where content is wanted at all."""

OTHER = "_OTHER"

Attributes = dict[str, Any]

_USAGE = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "reasoning.output_tokens": "reasoning_tokens",
    "cache_read.input_tokens": "cached_tokens",
}
_REASONING = ("reasoning_content", "reasoning")


class Tracing(observing.Observer):
    """Makes spans and metrics."""

    def __init__(
        self, *, content: bool, tracers: TracerProvider | None = None, meters: MeterProvider | None = None
    ) -> None:
        """``content``: whether spans have prompts and answers; the providers are the process's own if None."""
        self._content = content
        self._tracer = get_tracer("kimi-mcp", __version__, tracers)
        meter = get_meter("kimi-mcp", __version__, meters)

        def seconds(name: str, what: str, bounds: tuple[float, ...]) -> Any:
            return meter.create_histogram(name, "s", what, explicit_bucket_boundaries_advisory=bounds)

        inference = "gen_ai.client.inference"
        self._inference_s = seconds(f"{inference}.duration", "Of one request to a provider.", MODEL_SECONDS)
        self._first_chunk_s = seconds(f"{inference}.time_to_first_chunk", "Until an answer begins.", MODEL_SECONDS)
        self._agent_s = seconds("gen_ai.invoke_agent.duration", "Of one agent of a swarm.", MODEL_SECONDS)
        self._request_s = seconds("mcp.server.operation.duration", "Of one request to this server.", MCP_SECONDS)
        self._usage = {
            name: meter.create_counter(f"{inference}.usage.{name}", "{token}", "Tokens that providers reported.")
            for name in _USAGE
        }
        self._usd = meter.create_counter("kimi_mcp.cost", "{USD}", "US dollars, where the price is known.")

    def on_event(self, event: observing.ObservedEvent) -> None:
        """Make the span of a request to a provider, and measure it."""
        match event:
            case observing.AttemptEnded():
                self._attempt(event)
            case observing.Spent(provider=provider, usd=usd):
                self._usd.add(usd, _provider(provider))
            case _:
                pass

    @contextmanager
    def within(self, work: observing.Work) -> Generator[None]:
        """The span of a piece of work."""
        links: list[Link] = []
        if isinstance(work, observing.AgentWork):
            name = f"invoke_agent {work.agent}"
            attributes: Attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": work.agent}
        else:
            name, attributes = f"continue {work.tool}", {}
            began_by = get_current_span(extract({"traceparent": work.traceparent})).get_span_context()
            links = [Link(began_by)] if began_by.is_valid else []
        span, began = self._tracer.start_span(name, attributes=attributes | _run(), links=links), perf_counter()
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield
            finally:
                if isinstance(work, observing.AgentWork):
                    error = _failed(work.error)
                    span.set_attributes(error)
                    if error:
                        span.set_status(StatusCode.ERROR)
                    self._agent_s.record(perf_counter() - began, {"gen_ai.operation.name": "invoke_agent", **error})

    async def measure(self, ctx: Any, call_next: CallNext) -> Any:
        """Middleware of the server: how long each request took."""
        if ctx.request_id is None:
            return await call_next(ctx)
        began, error = perf_counter(), "cancelled"
        try:
            result = await call_next(ctx)
            error = "tool_error" if _is_error(result) else None
            return result
        except MCPError as fault:
            error = str(fault.error.code)
            raise
        except Exception as fault:
            error = type(fault).__qualname__
            raise
        finally:
            name = cast("Mapping[str, Any]", ctx.params or {}).get("name")
            attributes: Attributes = {
                "mcp.method.name": ctx.method if ctx.method in SPEC_CLIENT_METHODS else OTHER,
                "mcp.protocol.version": ctx.protocol_version,
                "network.transport": "pipe" if ctx.request is None else "tcp",
            }
            if ctx.method == "tools/call":
                tool = name if isinstance(name, str) and name in TOOLS else OTHER
                attributes |= {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": tool}
            self._request_s.record(perf_counter() - began, attributes | _failed(error))

    def _attempt(self, event: observing.AttemptEnded) -> None:
        url, usage, body = urlsplit(event.base_url), event.completion.usage, event.body
        where: Attributes = {
            "gen_ai.operation.name": "chat",
            **_provider(event.provider),
            "server.address": url.hostname or "",
            "server.port": url.port or (443 if url.scheme == "https" else 80),
        }
        model, error = body.get("model"), _failed(event.error)
        span = self._tracer.start_span(
            f"chat {model}",
            kind=SpanKind.CLIENT,
            attributes={**where, "gen_ai.request.model": model},
            start_time=round(event.began_at * 1e9),
        )
        if span.is_recording():
            span.set_attributes(_request(body) | _response(event) | _run() | error)
            if self._content:
                span.set_attributes(_content(event))
            if error:
                span.set_status(StatusCode.ERROR)
        span.end(round((event.began_at + event.took_s) * 1e9))
        # A caller may name any model to an engine that serves one: only known ones are distinguished.
        where["gen_ai.request.model"] = event.model or OTHER
        self._inference_s.record(event.took_s, where | error)
        if event.first_chunk_s is not None:
            self._first_chunk_s.record(event.first_chunk_s, where)
        for name, counter in self._usage.items():
            if usage is not None and (tokens := getattr(usage, _USAGE[name])) is not None:
                counter.add(tokens, {**where, "gen_ai.token.modality": "unknown"})


def _provider(provider: Provider) -> Attributes:
    return {"gen_ai.provider.name": provider.telemetry_name or provider.id}


def _is_error(result: Any) -> bool:
    return isinstance(result, Mapping) and cast("Mapping[str, Any]", result).get("isError") is True


def _failed(error: str | None) -> Attributes:
    return {} if error is None else {"error.type": error}


def _run() -> Attributes:
    """What the run at work has for its spans."""
    known = {"run_id": "kimi_mcp.run.id", "conversation_id": "gen_ai.conversation.id"}
    return {name: value for each, name in known.items() if (value := observing.ids().get(each)) is not None}


def _request(body: Mapping[str, Any]) -> Attributes:
    names = {
        "max_tokens": "max_tokens",
        "max_completion_tokens": "max_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "reasoning_effort": "reasoning.level",
        "stream": "stream",
    }
    return {f"gen_ai.request.{name}": body[each] for each, name in names.items() if each in body}


def _response(event: observing.AttemptEnded) -> Attributes:
    completion, usage = event.completion, event.completion.usage
    found: Attributes = {
        "gen_ai.response.finish_reasons": [completion.finish_reason or "error"],
        "gen_ai.response.model": completion.model and scrub(completion.model),
        "gen_ai.response.time_to_first_chunk": event.first_chunk_s,
    }
    for name, field in _USAGE.items() if usage is not None else ():
        found[f"gen_ai.usage.{name}"] = getattr(usage, field)
    return {name: value for name, value in found.items() if value is not None}


def _content(event: observing.AttemptEnded) -> Attributes:
    """Prompts and answers, as JSON, without any secret and any medium."""
    completion = event.completion
    messages = [{"role": turn.get("role"), "parts": list(_parts(turn))} for turn in event.body.get("messages", ())]
    parts = [{"type": "reasoning", "content": _shown(completion.reasoning)}] if completion.reasoning else []
    parts += [{"type": "text", "content": _shown(completion.answer)}] if completion.answer else []
    parts += [_call(each.id, each.name, each.arguments) for each in completion.tool_calls]
    answered = [{"role": "assistant", "parts": parts, "finish_reason": completion.finish_reason or "error"}]
    texts = {"gen_ai.input.messages": messages, "gen_ai.output.messages": answered}
    return {name: json.dumps(value, ensure_ascii=False) for name, value in texts.items()}


def _parts(turn: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of a message as the conventions write them; a medium is named and left out."""
    for name in _REASONING:
        if turn.get(name):
            yield {"type": "reasoning", "content": _shown(turn[name])}
            break
    content: Any = turn.get("content")
    if turn.get("role") == "tool":
        yield {"type": "tool_call_response", "id": turn.get("tool_call_id"), "response": _shown(content)}
        return
    for each in [{"type": "text", "text": content}] if isinstance(content, str) else content or ():
        is_text = each["type"] == "text"
        yield {"type": "text", "content": _shown(each["text"])} if is_text else {"type": each["type"]}
    for call in turn.get("tool_calls") or ():
        yield _call(call.get("id"), call["function"]["name"], call["function"]["arguments"])


def _call(call_id: Any, name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": call_id, "name": name, "arguments": _shown(arguments)}


def _shown(text: Any) -> str:
    return shortened(scrub(text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)), MOST_CHARS)
