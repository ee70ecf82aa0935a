"""Owns what one simulator knows: the log of its requests, gates, scenario, files. Waits on events; no other I/O."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal, NoReturn

import anyio

from kimi_mcp.simulator.dialects import Dialect
from kimi_mcp.simulator.faults import CHAT_PATH, Scenario, StepLike
from kimi_mcp.simulator.files import FileStore
from kimi_mcp.simulator.http import HttpRequest
from kimi_mcp.simulator.shapes import JsonObject, as_object
from kimi_mcp.simulator.tokens import PromptCache

RequestOutcome = Literal["answered", "cut", "client_gone", "open"]
"""How a response ended: whole, cut by its scenario, left by its client, or not yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """A request that arrived, as it stood when it was looked at."""

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


class Exchange:
    """One request and what became of it."""

    def __init__(self, request: HttpRequest, body: object, at: float) -> None:
        self.request = request
        self.body = body
        self.at = at
        self.outcome: RequestOutcome = "open"
        self.status: int | None = None

    @property
    def is_chat(self) -> bool:
        """Whether it asks for an answer."""
        return self.request.method == "POST" and self.request.path == CHAT_PATH

    def snapshot(self) -> ReceivedRequest:
        """As it stands now."""
        return ReceivedRequest(
            method=self.request.method,
            path=self.request.path,
            headers=self.request.headers,
            body=as_object(self.body),
            raw=self.request.received,
            at=self.at,
            outcome=self.outcome,
            status=self.status,
        )


class World:
    """What outlasts one request."""

    def __init__(
        self,
        dialect: Dialect,
        faults: Iterable[StepLike],
        require_key: str | None,
        day: date,
        most_bytes: int,
        remember: int | None,
    ) -> None:
        self.dialect = dialect
        self.day = day
        self.require_key = require_key
        self.most_bytes = most_bytes
        self.scenario = Scenario(faults)
        self.files = FileStore()
        self.cache = PromptCache()
        self.exchanges: deque[Exchange] = deque(maxlen=remember)
        self.answers = 0
        self.fibers = 0
        self._changed = anyio.Event()
        self._open_gates: set[str] = set()
        self._waiting: dict[str, int] = {}

    def begin(self, request: HttpRequest, body: object) -> Exchange:
        """Log a request."""
        exchange = Exchange(request, body, anyio.current_time())
        self.exchanges.append(exchange)
        self.notify()
        return exchange

    def finish(self, exchange: Exchange, outcome: RequestOutcome, status: int | None) -> None:
        """Log how it ended."""
        exchange.outcome, exchange.status = outcome, status
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
        """Let through everything that waits at the gate, now and later."""
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
        self.exchanges.clear()
        self.scenario.clear()
        self.cache.clear()
        self._open_gates.clear()
        self.notify()


def parse_json(data: bytes) -> object:
    """The JSON value; raises ValueError, also for what nests too deep."""
    try:
        return json.loads(data, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
