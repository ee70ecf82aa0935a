"""A server whose environment asks for OpenTelemetry: what its collector gets, and what happens where it can't."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kimi_mcp.server import telemetry
from kimi_mcp.simulator import Simulator
from tests.server.clients import wait_until
from tests.server.processes import server_process

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Collector:
    """What was sent to a collector."""

    def __init__(self) -> None:
        self.url = ""
        self.traces = ExportTraceServiceRequest()
        self.metrics = ExportMetricsServiceRequest()

    @property
    def spans(self) -> dict[str, Any]:
        """By their names."""
        scopes = [scope for resource in self.traces.resource_spans for scope in resource.scope_spans]
        return {span.name: span for scope in scopes for span in scope.spans}

    @property
    def names(self) -> set[str]:
        """Of the metrics."""
        scopes = [scope for resource in self.metrics.resource_metrics for scope in resource.scope_metrics]
        return {metric.name for scope in scopes for metric in scope.metrics}


@contextmanager
def collector() -> Iterator[Collector]:
    """One on a socket of this process."""
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            {"/v1/traces": found.traces, "/v1/metrics": found.metrics}[self.path].MergeFromString(content)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "200"}
"""Milliseconds between two exports."""


async def test_a_collector_gets_the_spans_and_metrics_of_a_server_over_stdio(sim: Simulator, tmp_path: Path) -> None:
    with collector() as got:
        async with server_process(sim, stderr=tmp_path / "log", **{ENDPOINT: got.url}, **SOON) as client:
            result = await client.call_tool("kimi_instant", {"prompt": "x"})
            assert result.structured_content is not None
            await wait_until(lambda: "tools/call kimi_instant" in got.spans and "kimi_mcp.cost" in got.names)
    assert (tmp_path / "log").read_text() == ""
    call, chat = got.spans["tools/call kimi_instant"], got.spans["chat kimi-k2.5"]
    assert (chat.trace_id, chat.parent_span_id) == (call.trace_id, call.span_id)
    (service,) = [
        each.value.string_value
        for each in got.traces.resource_spans[0].resource.attributes
        if each.key == "service.name"
    ]
    assert service == "kimi-mcp"
    assert {"gen_ai.client.inference.duration", "mcp.server.operation.duration", "kimi_mcp.cost"} <= got.names


async def test_without_the_sdk_the_log_says_what_to_install_and_the_server_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.metrics", None)
    middleware: list[Any] = []
    async with telemetry.exported(middleware, {ENDPOINT: "http://127.0.0.1:9"}, within_s=1):
        assert middleware == []
    (line,) = caplog.records
    assert "pip install opentelemetry-sdk" in line.getMessage()


@pytest.mark.parametrize(
    ("variables", "signals"),
    [
        ({}, {}),
        ({"OTEL_SERVICE_NAME": "x"}, {}),
        ({ENDPOINT: "http://x"}, {"traces": ["otlp"], "metrics": ["otlp"]}),
        ({ENDPOINT: "http://x", "OTEL_METRICS_EXPORTER": "none"}, {"traces": ["otlp"]}),
        ({ENDPOINT: "http://x", "OTEL_SDK_DISABLED": "true"}, {}),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x"}, {"metrics": ["otlp"]}),
        ({"OTEL_TRACES_EXPORTER": "console, OTLP"}, {"traces": ["console", "otlp"]}),
    ],
)
def test_the_environment_says_what_is_exported(variables: dict[str, str], signals: dict[str, list[str]]) -> None:
    assert telemetry.wanted(variables) == signals
