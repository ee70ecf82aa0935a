"""What OpenTelemetry gets of calls: spans below the caller's own, and metrics, in the SDK's own memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kimi_mcp import catalogue
from kimi_mcp.core import observing
from kimi_mcp.core.redaction import hide
from kimi_mcp.core.types import Completion
from kimi_mcp.server.state import Timings
from kimi_mcp.server.tracing import Tracing
from kimi_mcp.simulator import Simulator
from tests.server.clients import ServerOptions, connect
from tests.server.requests import chats

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
META: Any = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
TELL = {"prompt": "Tell me about {{item}}.", "items": ["Rome", "Oslo"], "tools": ["none"]}


class Telemetry:
    """What has been recorded."""

    def __init__(self, *, content: bool) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracing = Tracing(content=content, tracers=tracers, meters=meters)

    def spans(self, name: str) -> Sequence[ReadableSpan]:
        """Those whose names begin so, in the order of their ends."""
        return [span for span in self._spans.get_finished_spans() if span.name.startswith(name)]

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """The attributes and the value of each point of a metric."""
        data = self._reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        found = [metric for scope in scopes for metric in scope.metrics if metric.name == name]
        return [
            (dict(point.attributes or {}), getattr(point, "value", None) or getattr(point, "sum", None))
            for metric in found
            for point in metric.data.data_points
        ]


@contextmanager
def observed(*, content: bool = False) -> Iterator[Telemetry]:
    telemetry = Telemetry(content=content)
    with observing.observed_by(telemetry.tracing):
        yield telemetry


def hexadecimal(span: ReadableSpan) -> tuple[str, str, str | None]:
    """The ids of a span's trace, of itself and of its parent."""
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", span.parent and f"{span.parent.span_id:016x}"


def attempt(model: str) -> observing.AttemptEnded:
    """A request to an engine, which has failed."""
    return observing.AttemptEnded(
        provider=catalogue.load().providers["vllm"],
        base_url="http://127.0.0.1:8000/v1",
        body={"model": model, "messages": []},
        began_at=0.0,
        took_s=1.0,
        first_chunk_s=None,
        completion=Completion(),
        error="upstream_timeout",
    )


async def test_a_request_to_a_provider_is_a_span_below_the_callers_own_and_takes_no_trace_along(
    sim: Simulator, mode: str
) -> None:
    with observed() as telemetry:
        async with connect(sim, mode) as kimi:
            result = await kimi.call("kimi_think", {"prompt": "Hi"}, meta=META)
    (span,) = telemetry.spans("chat ")
    trace, _, parent = hexadecimal(span)
    assert (span.name, trace, parent) == ("chat kimi-k2.5", TRACE, SPAN)
    attributes: dict[str, Any] = dict(span.attributes or {})
    assert attributes["gen_ai.provider.name"] == "moonshot_ai"
    assert attributes["gen_ai.conversation.id"] == result.structured["conversation_id"]
    assert attributes["kimi_mcp.run.id"] == result.run_id
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert attributes["gen_ai.usage.input_tokens"] == result.structured["usage"]["prompt_tokens"]
    assert attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert "gen_ai.input.messages" not in attributes
    assert not [name for name in chats(sim)[0].headers if name.startswith(("trace", "baggage"))]
    known = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "kimi-k2.5", "server.address": "127.0.0.1"}
    for name in ("duration", "time_to_first_chunk", "usage.input_tokens", "usage.output_tokens"):
        ((found, value),) = telemetry.points(f"gen_ai.client.inference.{name}")
        assert known.items() <= found.items()
        assert value > 0
    assert telemetry.points("kimi_mcp.cost") == [
        ({"gen_ai.provider.name": "moonshot_ai"}, pytest.approx(result.structured["usage"]["cost_usd"], rel=0.01))
    ]


async def test_each_attempt_is_a_span_with_its_error(sim: Simulator) -> None:
    sim.play({"status": 503, "retry_after": 0})
    with observed() as telemetry:
        async with connect(sim) as kimi:
            assert (await kimi.instant()).status == "completed"
    errors = [(span.attributes or {}).get("error.type") for span in telemetry.spans("chat ")]
    assert errors == ["overloaded", None]
    assert [span.status.is_ok for span in telemetry.spans("chat ")] == [False, True]


async def test_agents_of_a_swarm_are_spans_with_their_requests_below_them(sim: Simulator) -> None:
    with observed() as telemetry:
        async with connect(sim) as kimi:
            assert (await kimi.call("kimi_swarm", TELL, meta=META)).status == "completed"
    agents = telemetry.spans("invoke_agent ")
    assert sorted(span.name for span in agents) == ["invoke_agent agent-1", "invoke_agent agent-2", "invoke_agent main"]
    assert {hexadecimal(span)[0::2] for span in agents} == {(TRACE, SPAN)}
    parents = [hexadecimal(span)[2] for span in telemetry.spans("chat ")]
    assert sorted(map(str, parents)) == sorted(hexadecimal(span)[1] for span in agents)
    assert "Rome" not in str([(span.name, span.attributes) for span in agents])


async def test_a_swarm_that_another_server_takes_over_links_to_what_began_it(sim: Simulator) -> None:
    sim.play({"match": {"text": "Tell me about Oslo."}, "gate": "never", "times": 1})
    at_once = ServerOptions(timings=Timings(warm_up_after_s=3600, recover_after_s=0))
    with observed() as telemetry:
        async with connect(sim, KIMI_REPLY_WITHIN_S="0.05") as kimi:
            begun = await kimi.call("kimi_swarm", TELL, meta=META)
            assert begun.status == "running"
            await sim.until(lambda: sim.waiting_at("never") == 1)
        async with connect(sim, options=at_once) as kimi:
            assert (await kimi.ended(await kimi.run(begun.run_id, wait_s=60))).status == "completed"
    (again,) = telemetry.spans("continue kimi_swarm")
    assert hexadecimal(again)[0] != TRACE
    assert [f"{link.context.trace_id:032x}" for link in again.links] == [TRACE]
    below = [span for span in telemetry.spans("invoke_agent main") if hexadecimal(span)[2] == hexadecimal(again)[1]]
    assert len(below) == 1


async def test_content_is_in_spans_where_it_is_wanted_and_never_a_key(sim: Simulator) -> None:
    hide("sk-test-47f1c09be2-secret")
    sim.play({"reasoning": "Hm.", "content": "It is sk-test-47f1c09be2-secret."})
    with observed(content=True) as telemetry:
        async with connect(sim) as kimi:
            await kimi.think("What is sk-test-47f1c09be2-secret?", system="Be brief.")
    attributes = dict(telemetry.spans("chat ")[0].attributes or {})
    requested, answered = (json.loads(str(attributes[f"gen_ai.{each}.messages"])) for each in ("input", "output"))
    assert [(each["role"], each["parts"]) for each in requested] == [
        ("system", [{"type": "text", "content": "Be brief."}]),
        ("user", [{"type": "text", "content": "What is [hidden]?"}]),
    ]
    assert [part["type"] for part in answered[0]["parts"]] == ["reasoning", "text"]
    assert "47f1c09be2" not in str(attributes)


def test_a_model_that_the_catalogue_does_not_know_is_no_attribute_of_a_metric() -> None:
    with observed() as telemetry:
        observing.emit(attempt("my/own-model"))
    assert telemetry.spans("chat my/own-model")
    ((found, _),) = telemetry.points("gen_ai.client.inference.duration")
    assert found["gen_ai.request.model"] == "_OTHER"


async def test_an_observer_that_fails_costs_no_answer(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(observing.Observer):
        def on_event(self, event: observing.ObservedEvent) -> None:
            raise RuntimeError("no more memory")

    with observing.observed_by(Broken()):
        async with connect(sim) as kimi:
            assert (await kimi.instant()).status == "completed"
    assert "AttemptEnded was not counted" in caplog.text
