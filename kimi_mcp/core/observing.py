"""What happens in calls, for whoever counts or traces it, and the ids of what is at work, for log lines. Pure, no I/O.

Nobody observes unless a setting asks for it: then every place that emits an event costs a look at an empty list.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from kimi_mcp.core.profiles import Provider  # which a command that only logs would pay for
    from kimi_mcp.core.types import Completion

log = logging.getLogger(__name__)

Ids = Mapping[str, str]
"""Ids by their name: ``request_id``, ``trace_id``, ``principal``, ``run_id``, ``conversation_id``, ``tool``."""

_IDS: ContextVar[Ids] = ContextVar("ids")
_NONE: Ids = {}


def ids() -> Ids:
    """The ids of what this task is at work on."""
    return _IDS.get(_NONE)


def add_ids(**known: str | None) -> Token[Ids]:
    """Add ids of what this task, and each task that it starts from here on, is at work on; None names nothing."""
    return _IDS.set({**ids(), **{key: value for key, value in known.items() if value is not None}})


@contextmanager
def with_ids(**known: str | None) -> Generator[None]:
    """The same until it is left; what was added meanwhile goes too."""
    token = add_ids(**known)
    try:
        yield
    finally:
        _IDS.reset(token)


@contextmanager
def without_ids() -> Generator[None]:
    """Without any, for work that goes on after what happens to start it."""
    token = _IDS.set(_NONE)
    try:
        yield
    finally:
        _IDS.reset(token)


# ── what happens ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """A call has its final outcome: once for each call, however often it is answered with a run that goes on."""

    tool: str
    status: str
    error: str | None = None
    """The code."""
    took_s: float | None = None
    """Seconds; None: it was answered without a run of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded:
    """One request to a provider is over: answered, failed or cancelled."""

    provider: Provider
    base_url: str
    body: Mapping[str, Any]
    """What was sent, with placeholders for media."""
    began_at: float
    """Seconds since 1970."""
    took_s: float
    first_chunk_s: float | None
    """Seconds until the first piece of reasoning, answer or tool call; None: there was none."""
    completion: Completion
    """What has arrived."""
    error: str | None
    """The code; None where it has a finish reason."""

    @property
    def model(self) -> str | None:
        """The model's id on the wire, where the catalogue knows it at that provider: a caller may name anything."""
        sent = self.body.get("model")
        return sent if any(row.wire_id == sent for row in self.provider.models) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """A provider was paid: for the tokens of a request, or for a run of one of its own tools."""

    provider: Provider
    usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUsed:
    """The store has done what was wanted of it, or has failed."""

    operation: Literal["read", "write"]
    took_s: float
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Responded:
    """An HTTP request was answered."""

    status: int


ObservedEvent = CallEnded | AttemptEnded | Spent | StoreUsed | Responded

# ── what is at work ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True, kw_only=True)
class AgentWork:
    """One agent of a swarm, from its start to its end."""

    agent: str
    """Its id in the run: ``main``, ``agent-1``."""
    error: str | None = None
    """The code, known at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuedWork:
    """A run that goes on after the request that began it: in another server, or with its answer continued."""

    tool: str
    traceparent: str
    """Of what began it, as W3C Trace Context writes it."""


Work = AgentWork | ContinuedWork


class Observer:
    """Hears of what happens."""

    def on_event(self, event: ObservedEvent) -> None:
        """It has happened. Takes no time."""

    def within(self, work: Work) -> AbstractContextManager[None]:
        """Surrounds a piece of work."""
        del work
        return nullcontext()


_observers: list[Observer] = []


@contextmanager
def observed_by(observer: Observer) -> Generator[None]:
    """Let someone observe all that happens in this process, until it is left."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def is_observed() -> bool:
    """Whether there is any observer."""
    return bool(_observers)


def emit(event: ObservedEvent) -> None:
    """Pass an event to every observer; what fails there harms no call."""
    for each in _observers:
        try:
            each.on_event(event)
        except Exception:
            log.exception("%s was not counted", type(event).__name__)


@contextmanager
def within(work: Work | None) -> Generator[None]:
    """Let every observer surround a piece of work; None: it needs no surroundings of its own."""
    with ExitStack() as around:
        if work is not None:
            for each in _observers:
                around.enter_context(each.within(work))
        yield
