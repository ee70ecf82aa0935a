"""Owns the state of one simulator: received requests, gates, scenario, files. Waits on events; no other I/O."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable
from datetime import date

import anyio

from kimi_mcp.simulator.accounts import Accounts, RateLimits
from kimi_mcp.simulator.cache import PromptCache
from kimi_mcp.simulator.dialects import Dialect
from kimi_mcp.simulator.faults import RequestSummary, Step, StepLike, read_step
from kimi_mcp.simulator.files import FileStore
from kimi_mcp.simulator.http import ReceivedRequest

EventObserver = Callable[[Step, bytes], None]
"""Is called with each event of a stream right before it is sent, and with the step that is played."""


class SimulatorState:
    """What outlasts one request."""

    def __init__(
        self,
        dialect: Dialect,
        day: date,
        faults: Iterable[StepLike] = (),
        *,
        require_key: str | None,
        rate_limits: RateLimits,
        max_body: int,
        remember: int | None,
        on_event: EventObserver | None,
        clock: Callable[[], float],
    ) -> None:
        self.dialect = dialect
        self.day = day
        self.require_key = require_key
        self.max_body = max_body
        self.on_event = on_event
        self._clock = clock
        self.files = FileStore()
        """The uploaded files."""
        self.cache = PromptCache(clock)
        self.accounts = Accounts(rate_limits, clock)
        """What each account has sent."""
        self.billed_usd = 0.0
        """What all answers have cost so far, by Moonshot's price list."""
        self.answers = 0
        self.fibers = 0
        self._steps: list[tuple[Step, float]] = []
        """Each with the number of requests it still serves."""
        self._requests: deque[ReceivedRequest] = deque(maxlen=remember)
        self._changed = anyio.Event()
        self._open_gates: set[str] = set()
        self._waiting = Counter[str]()
        self.play(*faults)

    @property
    def requests(self) -> list[ReceivedRequest]:
        """Every request since the start or the last reset, in order of arrival; each changes until it has ended."""
        return list(self._requests)

    def add(self, request: ReceivedRequest) -> None:
        """Record a request."""
        request.at = anyio.current_time()
        self._requests.append(request)
        self.notify()

    def play(self, *steps: StepLike) -> None:
        """Append steps to the scenario; raises ScenarioError."""
        made = [read_step(step, number) for number, step in enumerate(steps, len(self._steps) + 1)]
        self._steps += [(step, math.inf if step.times == "always" else step.times) for step in made]

    def take_step(self, request: RequestSummary, *, unchecked: bool) -> Step | None:
        """The scenario's step for a request, used up by one; None where no step is for it."""
        for index, (step, times) in enumerate(self._steps):
            if step.unchecked == unchecked and step.match.fits(request):
                if times == 1:
                    del self._steps[index]
                else:
                    self._steps[index] = (step, times - 1)
                return step
        return None

    def notify(self) -> None:
        """Wake everyone who waits for a change."""
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, condition: Callable[[], bool], within: float = 60) -> None:
        """Return once the condition holds, checked after each change; raises TimeoutError."""
        with anyio.fail_after(within):
            while not condition():
                await self._changed.wait()

    def open_gate(self, name: str) -> None:
        """Let through every response that waits at the gate, now and later."""
        self._open_gates.add(name)
        self.notify()

    def waiting_at(self, name: str) -> int:
        """How many responses are held at the gate."""
        return self._waiting[name]

    async def pass_gate(self, name: str) -> None:
        """Return once the gate is open."""
        self._waiting[name] += 1
        self.notify()
        try:
            while name not in self._open_gates:
                await self._changed.wait()
        finally:
            self._waiting[name] -= 1
            self.notify()

    def reset(self) -> None:
        """Forget requests, scenario, gates and the prompt cache; files stay, and responses under way go on."""
        self._requests.clear()
        self._steps.clear()
        self.cache = PromptCache(self._clock)
        self._open_gates.clear()
        self.notify()
