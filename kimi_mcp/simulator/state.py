"""Owns the state of one simulator: received requests, gates, scenario, files. Waits on events; no other I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import anyio

from kimi_mcp.simulator.dialects import Dialect
from kimi_mcp.simulator.faults import Scenario, Step, StepLike
from kimi_mcp.simulator.files import FileStore
from kimi_mcp.simulator.http import HttpRequest, RequestOutcome
from kimi_mcp.simulator.shapes import JsonObject, as_object
from kimi_mcp.simulator.tokens import PromptCache

EventObserver = Callable[[Step, bytes], None]
"""Is called with each event of a stream right before it is sent, and with the step that is played."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """A request that arrived, as it was when it was looked up."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: JsonObject | None
    """The parsed JSON object, where it was one."""
    raw: int
    """Bytes of the body."""
    at: float
    """Seconds of the event loop's monotonic clock."""
    outcome: RequestOutcome
    status: int | None
    """Of the response; None before its head."""

    @classmethod
    def of(cls, request: HttpRequest) -> ReceivedRequest:
        """The request as it is now."""
        return cls(
            method=request.method,
            path=request.path,
            headers=request.headers,
            body=as_object(request.body),
            raw=request.received_bytes,
            at=request.at,
            outcome=request.outcome,
            status=request.status,
        )


class SimulatorState:
    """What outlasts one request."""

    def __init__(
        self,
        dialect: Dialect,
        day: date,
        faults: Iterable[StepLike] = (),
        *,
        require_key: str | None,
        max_body: int,
        remember: int | None,
        on_event: EventObserver | None,
    ) -> None:
        self.dialect = dialect
        self.day = day
        self.require_key = require_key
        self.max_body = max_body
        self.on_event = on_event
        self.scenario = Scenario(faults)
        self.files = FileStore()
        self.cache = PromptCache()
        self.requests: deque[HttpRequest] = deque(maxlen=remember)
        self.answers = 0
        self.fibers = 0
        self._changed = anyio.Event()
        self._open_gates: set[str] = set()
        self._waiting: dict[str, int] = {}

    def add(self, request: HttpRequest) -> None:
        """Record a request."""
        request.at = anyio.current_time()
        self.requests.append(request)
        self.notify()

    def notify(self) -> None:
        """Wake everyone who waits for a change."""
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, condition: Callable[[], bool], within: float) -> None:
        """Return once the condition holds; raises TimeoutError."""
        with anyio.fail_after(within):
            while not condition():
                await self._changed.wait()

    def open_gate(self, name: str) -> None:
        """Let through every response that waits at the gate, now and later."""
        self._open_gates.add(name)
        self.notify()

    def waiting_at(self, name: str) -> int:
        """How many responses are held at the gate."""
        return self._waiting.get(name, 0)

    async def pass_gate(self, name: str) -> None:
        """Return once the gate is open."""
        self._waiting[name] = self._waiting.get(name, 0) + 1
        self.notify()
        try:
            while name not in self._open_gates:
                await self._changed.wait()
        finally:
            self._waiting[name] -= 1
            self.notify()

    def reset(self) -> None:
        """Forget requests, scenario, gates and the prompt cache; responses under way go on."""
        self.requests.clear()
        self.scenario.clear()
        self.cache.clear()
        self._open_gates.clear()
        self.notify()
