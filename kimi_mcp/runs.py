"""Runs: every call is one, and it belongs to the server, not to the request that asked for it. I/O: none but waiting.

A handler asks for a run and waits for it; the run goes on in the server's own task group when the handler is gone, and
what has arrived can be read at any moment. Kept in memory: a finished run stays readable until ``KEEP`` newer ones
have finished or their texts pass ``KEEP_CHARS``.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio
from anyio.abc import TaskGroup

from kimi_mcp.errors import Cancelled, KimiError, RunNotFound
from kimi_mcp.exchange import Exchange
from kimi_mcp.outcome import Outcome
from kimi_mcp.plan import Plan
from kimi_mcp.types import Completion, Mode, Status, Timing

KEEP = 64
"""Finished runs that stay readable."""

KEEP_CHARS = 4_000_000
"""Code points of answers and reasoning that finished runs may hold together; the newest run is always kept."""


class Run:
    """One call while it lives and after. Mutable: it grows as its answer does."""

    def __init__(self, *, caller: str, tool: str, prompt: str) -> None:
        self.id = f"run_{secrets.token_hex(12)}"
        """Random, not to be guessed."""
        self.caller = caller
        """Who may read it."""
        self.tool = tool
        """The tool that was called."""
        self.prompt_head = " ".join(prompt[:200].split())[:80]
        """The beginning of its prompt, for lists."""
        self.exchange = Exchange(self._first_token)
        """The request that is under way."""
        self.kept: Completion | None = None
        """What an earlier request of this run brought: it stands until the next one has brought something better."""
        self.model_asked: str | None = None
        """What the caller or the setting said."""
        self.provider: str | None = None
        """Who answers."""
        self.mode: Mode | None = None
        """The mode it is asked in."""
        self.done = anyio.Event()
        """Set when it has ended."""
        self.outcome: Outcome | None = None
        """How it ended; None as long as it runs."""
        self._scope = anyio.CancelScope()
        self._started = time.monotonic()
        self._attempts_before = 0
        self._first: float | None = None
        self._told = False

    def cancel(self) -> None:
        """End it; the upstream request is closed at once."""
        self._scope.cancel()

    @property
    def attempts(self) -> int:
        """Upstream requests sent so far."""
        return self._attempts_before + self.exchange.attempts

    @property
    def plan(self) -> Plan | None:
        """What was sent; None as long as nothing was decided."""
        return self.exchange.plan

    def begin(self, plan: Plan) -> None:
        """The policy has decided; from here on something may be paid for."""
        self.exchange.begin(plan)
        self.mode, self.provider = plan.mode, plan.profile.provider.id

    def begin_anew(self, plan: Plan) -> None:
        """Another request for the same answer goes out; what the one before brought is kept."""
        self.kept, self._attempts_before = self.exchange.fold.completion(), self.attempts
        self.exchange = Exchange(self._first_token)
        self.begin(plan)

    def seconds(self) -> float:
        """Since it was asked for."""
        return time.monotonic() - self._started

    def phase(self) -> str:
        """What it is at, in a line for whoever waits: doing what, tokens, seconds, and which attempt."""
        exchange = self.exchange
        tokens = f" · about {exchange.fold.pieces:,} tokens" if exchange.fold.pieces else ""
        again = f" · attempt {self.attempts}" if self.attempts > 1 else ""
        return f"{exchange.doing()}{tokens} · {self.seconds():.0f} s{again}"

    def timing(self) -> Timing:
        """How long it has taken so far."""
        return Timing(first_token_s=self._first, total_s=self.seconds(), attempts=self.attempts)

    def snapshot(self, status: Status = "running", error: KimiError | None = None) -> Outcome:
        """The run with exactly what has arrived; its outcome once it has one."""
        if self.outcome is not None:
            return self.outcome
        completion = self.kept or self.exchange.fold.completion()
        self._told = self._told or status == "running"  # from here on somebody may ask for it
        sent = self.plan.profile.serving.wire_id if self.plan else None
        return Outcome(
            status=status,
            run_id=self.id if self.attempts or self._told else None,
            answer=completion.answer,
            reasoning=completion.reasoning,
            model_asked=self.model_asked,
            model_sent=sent if self.attempts else None,
            model_answered=completion.model,
            provider=self.provider,
            mode=self.mode,
            finish_reason=completion.finish_reason,
            usage=completion.usage,
            policy=self.plan.adjustments if self.plan else (),
            timing=self.timing(),
            error=error,
        )

    async def live(self, work: Callable[[Run], Awaitable[Outcome]]) -> None:
        """Run to the end, whatever end that is; the outcome is set before ``done`` is."""
        try:
            with self._scope:
                outcome = await work(self)
                self.outcome = replace(outcome, timing=self.timing())
        finally:
            if self.outcome is None:
                stopped = Cancelled("The run was cancelled.", fix="Call again if you still want the answer.")
                self.outcome = self.snapshot("cancelled", stopped)
            self._attempts_before = self.attempts
            self.exchange, self.kept = Exchange(), None  # the outcome has it all
            self.done.set()

    def _first_token(self) -> None:
        if self._first is None:
            self._first = self.seconds()


class Runs:
    """The runs of this process."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._runs: dict[str, Run] = {}
        self._finished: deque[Run] = deque()
        self._held = 0

    def start(self, run: Run, work: Callable[[Run], Awaitable[Outcome]]) -> Run:
        """Let a run live in the server's task group."""
        self._runs[run.id] = run
        self._tasks.start_soon(self._live, run, work)
        return run

    def find(self, run_id: str, caller: str) -> Run:
        """A run by its id, for the caller it belongs to; ``RunNotFound`` otherwise."""
        run = self._runs.get(run_id)
        if run is None or run.caller != caller:
            raise RunNotFound(
                "No run of that id is known to this server.",
                fix="Call kimi_run without `run_id` to see your latest runs.",
            )
        return run

    def latest(self, caller: str, most: int = 10) -> list[Run]:
        """A caller's newest runs, the newest first; calls that were refused before anything ran are none."""
        runs = (run for run in reversed(self._runs.values()) if run.caller == caller)
        return [run for run in runs if run.outcome is None or run.outcome.run_id is not None][:most]

    async def _live(self, run: Run, work: Callable[[Run], Awaitable[Outcome]]) -> None:
        try:
            await run.live(work)
        finally:
            self._ended(run)

    def _ended(self, run: Run) -> None:
        """Keep a run that can be asked for, and let go of those that ended longest ago."""
        if run.outcome is None or run.outcome.run_id is None:
            del self._runs[run.id]
            return
        self._finished.append(run)
        self._held += _size(run)
        while len(self._finished) > KEEP or (self._held > KEEP_CHARS and len(self._finished) > 1):
            oldest = self._finished.popleft()
            self._held -= _size(oldest)
            del self._runs[oldest.id]


def _size(run: Run) -> int:
    outcome = run.outcome
    return 0 if outcome is None else len(outcome.answer) + len(outcome.reasoning or "")
