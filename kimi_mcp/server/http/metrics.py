"""``Metrics``: what Prometheus reads of the server at ``/metrics``. No I/O, but what it reads of its own process.

No label takes a value that a client chose: tools, providers and models are those that are known here, and only so many
principals get a label of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client import disable_created_metrics as _disable_created_metrics
from prometheus_client.exposition import choose_encoder

from kimi_mcp.core import observing
from kimi_mcp.core.callers import LOCAL
from kimi_mcp.core.version import __version__

MOST_PRINCIPALS = 1000
"""Principals that get a label of their own, where they are labels at all; any other one is ``other``."""

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800)
"""Bounds for what a model does; the last is ``KIMI_TOTAL_TIMEOUT_S`` unless set."""

STORE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

OTHER = "other"

_disable_created_metrics()  # a second series beside each counter, which nobody asked for


class Metrics(observing.Observer):
    """Counts what happens from its making on."""

    def __init__(self, *, now: Mapping[str, tuple[str, Callable[[], float]]], by_principal: bool) -> None:
        """``now``: what is read when Prometheus asks, and what that is, by the metric's name."""
        self._registry = registry = CollectorRegistry()
        self._by_principal, self._principals = by_principal, set[str]()
        whose = ("principal",) if by_principal else ()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"kimi_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(f"kimi_{name}", what, labels, registry=registry, buckets=buckets)

        self._calls = counter("calls", "Calls of tools that have ended.", "tool", "status", *whose)
        self._errors = counter("errors", "Calls that ended with an error, by its code.", "tool", "code", *whose)
        self._call_s = histogram("call_duration_seconds", "From a call to the end of its run.", "tool")
        self._tokens = counter(
            "tokens",
            "Tokens that providers reported; reasoning is part of output, cached part of input.",
            *("provider", "model", "kind", *whose),
        )
        self._usd = counter("cost_usd", "US dollars, where the price is known.", "provider", *whose)
        self._attempts = counter("upstream_attempts", "Requests to providers.", "provider", "model", "result")
        self._attempt_s = histogram("upstream_duration_seconds", "Of one request to a provider.", "provider", "model")
        self._first_chunk_s = histogram(
            "time_to_first_chunk_seconds",
            "From sending a request to the first piece of its reasoning or answer.",
            *("provider", "model"),
        )
        self._store_s = histogram(
            "store_duration_seconds", "Of one operation of the store.", "operation", buckets=STORE_SECONDS
        )
        self._store_failures = counter("store_failures", "Operations that the store did not do.", "operation")
        self._responses = counter(
            "http_responses", "HTTP responses; 499: the client left before there was one.", "status"
        )
        for name, (what, read) in now.items():
            Gauge(f"kimi_{name}", what, registry=registry).set_function(read)
        Info("kimi_build", "The version.", registry=registry).info({"version": __version__})
        ProcessCollector(registry=registry)

    def on_event(self, event: observing.ObservedEvent) -> None:
        """Count it."""
        match event:
            case observing.CallEnded(tool=tool, status=status, error=code, took_s=took_s):
                whose = self._whose()
                self._calls.labels(tool, status, *whose).inc()
                if code is not None:
                    self._errors.labels(tool, code, *whose).inc()
                if took_s is not None:
                    self._call_s.labels(tool).observe(took_s)
            case observing.AttemptEnded():
                self._attempt(event)
            case observing.Spent(provider=provider, usd=usd):
                self._usd.labels(provider.id, *self._whose()).inc(usd)
            case observing.StoreUsed(operation=operation, took_s=took_s, failed=failed):
                self._store_s.labels(operation).observe(took_s)
                if failed:
                    self._store_failures.labels(operation).inc()
            case observing.Responded(status=status):
                self._responses.labels(str(status)).inc()

    def page(self, accept: str) -> tuple[bytes, str]:
        """The page in the format that is wanted, and its content type. Takes some milliseconds a thousand lines."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _attempt(self, event: observing.AttemptEnded) -> None:
        provider, model, usage = event.provider.id, event.model or OTHER, event.completion.usage
        self._attempts.labels(provider, model, event.error or "ok").inc()
        self._attempt_s.labels(provider, model).observe(event.took_s)
        if event.first_chunk_s is not None:
            self._first_chunk_s.labels(provider, model).observe(event.first_chunk_s)
        if usage is not None:
            kinds = {
                "input": usage.prompt_tokens,
                "output": usage.completion_tokens,
                "reasoning": usage.reasoning_tokens,
                "cached": usage.cached_tokens,
            }
            for kind, tokens in kinds.items():
                if tokens is not None:
                    self._tokens.labels(provider, model, kind, *self._whose()).inc(tokens)

    def _whose(self) -> tuple[str, ...]:
        if not self._by_principal:
            return ()
        principal = observing.ids().get("principal", LOCAL)
        if principal not in self._principals:
            if len(self._principals) >= MOST_PRINCIPALS:
                return (OTHER,)
            self._principals.add(principal)
        return (principal,)
