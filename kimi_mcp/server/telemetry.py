"""Exports to OpenTelemetry, where ``OTEL_EXPORTER_OTLP_ENDPOINT`` or its like ask for it. I/O: in the SDK's threads.

The SDK and its exporters are the extra ``otel``, imported where they are wanted. Whatever is missing or wrong is logged
in a line; the server goes on without. Nothing is written to stdout, which is the protocol's over stdio.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import entry_points
from typing import Any, Final
from urllib.parse import unquote

import anyio
import anyio.to_thread

from kimi_mcp.core import observing, redaction
from kimi_mcp.core.background import contained
from kimi_mcp.core.version import __version__

SIGNALS: Final = ("traces", "metrics")
"""What is exported."""

CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable that asks for what was asked and answered, in spans."""

SAY_EVERY_S: Final = 600.0
"""Seconds between two log lines on exports that fail."""

_CAPTURES: Final = ("true", "span_only", "span_and_event")
_PROTOCOLS: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}

log = logging.getLogger(__name__)


def wanted(environment: Mapping[str, str]) -> dict[str, list[str]]:
    """The exporters that the environment names, by signal; an endpoint alone means ``otlp``."""
    found: dict[str, list[str]] = {}
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return found
    for signal in SIGNALS:
        endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
        by_default = "otlp" if any(map(environment.get, endpoints)) else "none"
        named = environment.get(f"OTEL_{signal.upper()}_EXPORTER") or by_default
        if names := [name for each in named.split(",") if (name := each.strip().lower()) not in ("", "none")]:
            found[signal] = names
    return found


@asynccontextmanager
async def exported(middleware: list[Any], environment: Mapping[str, str], *, within_s: float) -> AsyncGenerator[None]:
    """Export what happens in a server with that ``middleware``, until it is left, as the environment asks.

    ``within_s``: seconds for what is left then.
    """
    ends = _start(wanted(environment), environment)
    if not ends:
        yield
        return
    from kimi_mcp.server.tracing import Tracing

    _hide_headers(environment)
    tracing = Tracing(content=environment.get(CAPTURE, "").strip().lower() in _CAPTURES)
    middleware.insert(0, tracing.measure)
    try:
        with observing.observed_by(tracing):
            yield
    finally:
        with anyio.move_on_after(within_s, shield=True):
            for end in ends:
                last = partial(anyio.to_thread.run_sync, end, abandon_on_cancel=True)
                await contained("what OpenTelemetry still had was not exported", last)


def _start(exporters: Mapping[str, list[str]], environment: Mapping[str, str]) -> list[Callable[[], None]]:
    """Let the SDK export those signals; what ends it."""
    if not exporters:
        return []
    try:
        from opentelemetry.metrics import set_meter_provider
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
        from opentelemetry.trace import set_tracer_provider
    except ImportError:
        log.warning(
            "OTEL_* variables ask for %s, but OpenTelemetry's SDK is not installed: none are exported. Install the "
            "extra `otel` where kimi-mcp is (`pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http`), "
            "or unset them for kimi-mcp.",
            " and ".join(exporters),
        )
        return []
    _speak_for_the_sdk()
    ends: list[Callable[[], None]] = []
    resource = Resource.create({"service.version": __version__})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "kimi-mcp"}))
    if traces := [each for each in _exporters("traces", exporters, environment) if isinstance(each, SpanExporter)]:
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        for exporter in traces:
            tracers.add_span_processor(BatchSpanProcessor(exporter))
        set_tracer_provider(tracers)
        ends.append(tracers.shutdown)
    if metrics := [each for each in _exporters("metrics", exporters, environment) if isinstance(each, MetricExporter)]:
        meters = MeterProvider(list(map(PeriodicExportingMetricReader, metrics)), resource, shutdown_on_exit=False)
        set_meter_provider(meters)
        ends.append(meters.shutdown)
    return ends


def _exporters(signal: str, exporters: Mapping[str, list[str]], environment: Mapping[str, str]) -> Iterator[Any]:
    """The exporters of a signal, as far as they are installed and can be made."""
    for name in exporters.get(signal, ()):
        variable, found = f"OTEL_{signal.upper()}_EXPORTER", name
        if name == "otlp":
            variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL"
            protocol = environment.get(variable) or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
            found = _PROTOCOLS.get(protocol.strip().lower(), "")
        plugins = entry_points(group=f"opentelemetry_{signal}_exporter", name=found)
        try:
            (plugin,) = plugins
            yield plugin.load()(**({"out": sys.stderr} if name == "console" else {}))
        except Exception as fault:  # noqa: BLE001 - whatever it is, the server goes on
            message = "no %s are exported by %r: is its exporter installed, and %s right? (%s)"
            log.warning(message, signal, name[:40], variable, type(fault).__name__)


def _hide_headers(environment: Mapping[str, str]) -> None:
    """Keep the keys in the headers of exports out of log lines."""
    for name, value in environment.items():
        if name.startswith("OTEL_") and name.endswith("_HEADERS"):
            for each in value.split(","):
                redaction.hide(*unquote(each.partition("=")[2]).strip().split(" "))


def _speak_for_the_sdk() -> None:
    """Say now and then, in words of ours, that exports fail: what the SDK logs quotes others' texts."""
    logger = logging.getLogger("opentelemetry")
    logger.propagate = False
    logger.handlers[:] = [_Spokesman()]


class _Spokesman(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._logged_at = -SAY_EVERY_S

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() - self._logged_at >= SAY_EVERY_S:
            self._logged_at = time.monotonic()
            message = "OpenTelemetry has trouble in %s: is the collector of OTEL_EXPORTER_OTLP_ENDPOINT reachable?"
            log.warning(message, record.name)
