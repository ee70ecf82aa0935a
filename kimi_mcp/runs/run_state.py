"""``RunState``: what is known of a call while it runs, and what it reports. Pure, no I/O."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Price, counted_usd
from kimi_mcp.core.redaction import clean
from kimi_mcp.core.tokens import with_margin
from kimi_mcp.core.types import Mode, Source, Status, Timing, Turn, add_usage, joined_reasoning
from kimi_mcp.provider.request_state import RequestState
from kimi_mcp.runs.rounds import ArrivingText, Reports, Rounds, RunProgress, with_note


class RunState:
    """What is known of one call while it runs, and what it reports to those who wait for it."""

    def __init__(
        self, *, caller: str, tool: str, prompt: str, host: str | None = None, call_key: str | None = None
    ) -> None:
        self.id = f"run_{secrets.token_hex(12)}"
        """Random, not to be guessed."""
        self.caller = caller
        """Who may read it."""
        self.host = host
        """The program that called, by its own name; None: it gave none."""
        self.call_key = call_key
        """The hash of tool and arguments; None: it is never joined."""
        self.tool = tool
        """The tool that was called."""
        self.traceparent: str | None = None
        """Of the request that began it, as W3C Trace Context writes it; None: it is not traced."""
        self.prompt_head = " ".join(prompt[:200].split())[:80]
        """The beginning of its prompt, for lists."""
        self.conversation_id: str | None = None
        """The conversation it adds to."""
        self.follows: str | None = None
        """The run whose turns come before its own."""
        self.turns: tuple[Turn, ...] = ()
        """What it adds to its conversation; the answer comes after them."""
        self.request_state = RequestState(self.first_token_came)
        """The request that is running."""
        self.requests = 0
        """How many requests came before that one."""
        self.sources: tuple[Source, ...] = ()
        """The pages that it has looked at, in order."""
        self.answer_turn: Turn | None = None
        """Its answer as its conversation gets it; None: it is made of the outcome."""
        self.tools_usd = 0.0
        """What the provider's own tools have cost it, beside tokens."""
        self.reports = Reports()
        """What is reported to its waiters at once."""
        self.kept: Outcome | None = None
        """The outcome of an earlier request; it counts until the next one has a better one."""
        self.progress: RunProgress | None = None
        """Its state, where it has many requests; None: it has the one in ``request_state``."""
        self.limits: Callable[[], Mapping[str, float | None]] | None = None
        """Returns what its many requests may use, by name; None: it has one."""
        self.model_asked: str | None = None
        """The model by the name that the caller or the setting gave."""
        self.provider: str | None = None
        """The provider's id."""
        self.mode: Mode | None = None
        """Its mode."""
        self.outcome: Outcome | None = None
        """How it ended; None as long as it runs."""
        self.started_at = time.time()
        """Seconds since 1970."""
        self._created_at = self._began_at = time.monotonic()
        self._attempts_before, self._active_before_s, self._counted_before = 0, 0.0, 0.0
        self._first_token_s: float | None = None
        self._is_announced = False
        self._rounds: Rounds | None = None

    @property
    def attempts(self) -> int:
        """Upstream requests sent so far."""
        return self._attempts_before + (self.progress or self.request_state).attempts

    @property
    def is_known(self) -> bool:
        """Whether a caller may find it: something was sent, or its id was given out. A refused call is no run."""
        return bool(self.attempts or self._is_announced)

    def announce(self) -> bool:
        """From here on a caller may find it by its id; False where it was refused, and is no run."""
        if self.outcome is None:
            self._is_announced = True
        return self.is_known

    @property
    def plan(self) -> Plan | None:
        """What was sent; None as long as nothing was decided."""
        return self.request_state.plan

    def paid(self, usd: float) -> None:
        """Count what a tool of the provider has cost."""
        self.tools_usd += usd
        self._counted_before += usd

    def report(self, doing: str) -> None:
        """Tell those who wait what it does now, at once."""
        self.request_state.waits_for = clean(doing, "host")
        self.reports.add(self.request_state.waits_for)

    @property
    def reasoning(self) -> str | None:
        """All reasoning so far."""
        now = self.request_state.accumulator.reasoning
        return now if self._rounds is None else joined_reasoning(self._rounds.reasoning, now)

    def seconds(self) -> float:
        """Seconds since it was created."""
        return time.monotonic() - self._created_at

    def active_s(self) -> float:
        """Seconds that it ran, here and in its servers before."""
        return self._active_before_s + time.monotonic() - self._began_at

    def phase(self) -> str:
        """What it is doing, in a line: tokens, seconds, and which attempt."""
        doing, again = self.doing()
        return f"{doing} · {self.seconds():.0f} s{again}"

    def doing(self) -> tuple[str, str]:
        """The same without the seconds: what comes before them, and what behind."""
        if self.progress is not None:
            return clean(self.progress.phase(), "terminal"), ""
        accumulator = self.request_state.accumulator
        tokens = f" · about {accumulator.tokens:,} tokens" if accumulator.pieces else ""
        return f"{self.request_state.doing()}{tokens}", f" · attempt {self.attempts}" if self.attempts > 1 else ""

    def arriving(self) -> ArrivingText | None:
        """The text of the request that is running; None: of a run of many requests, none has begun."""
        if self.progress is not None:
            return self.progress.arriving()
        accumulator = self.request_state.accumulator
        return ArrivingText(
            self.requests,
            accumulator.pieces,
            accumulator.has_answer,
            lambda: (self.reasoning or "", accumulator.answer),
        )

    def timing(self) -> Timing:
        """How long it has taken so far."""
        return Timing(first_token_s=self._first_token_s, total_s=self.seconds(), attempts=self.attempts)

    def counted_usd(self, highest_price: Price | None) -> float:
        """What spending limits count for it so far; ``highest_price`` counts where the price is unknown."""
        if self.progress is not None:
            return self.progress.counted_usd(highest_price)
        plan = self.plan
        price = None if plan is None else plan.price or highest_price
        if plan is None or price is None:
            return self._counted_before
        request = self.request_state
        never_sent = self.outcome is not None and not request.attempts
        prompt_tokens = 0 if never_sent else with_margin(request.prompt_tokens)
        return self._counted_before + counted_usd(prompt_tokens, request.accumulator.tokens, price)

    def snapshot(self, status: Status = "running", error: KimiError | None = None) -> Outcome:
        """Its outcome so far, with exactly what has arrived; the final one once it has ended."""
        if self.outcome is not None:
            return self.outcome
        if self.kept is not None:
            kept = replace(self.kept, status=status, timing=self.timing(), error=error)
            if not self.request_state.attempts or self.plan is None:
                return replace(kept, conversation_id=self.conversation_id)
            return replace(
                kept,
                **self._continued(),
                conversation_id=self.conversation_id,
                cost_usd=None,
                policy=with_note(kept.policy, self.plan.adjustments[-1:]),
            )
        completion = self.request_state.accumulator.completion()
        sent = self.plan.profile.serving.wire_id if self.plan else None
        outcome = Outcome(
            status=status,
            run_id=self.id if self.is_known else None,
            conversation_id=self.conversation_id if self.is_known else None,
            answer=completion.answer,
            reasoning=self.reasoning,
            model_asked=self.model_asked,
            model_sent=sent if self.attempts else None,
            model_answered=completion.model,
            provider=self.provider,
            mode=self.mode,
            finish_reason=completion.finish_reason,
            usage=completion.usage,
            sources=self.sources,
            policy=self.plan.adjustments if self.plan else (),
            timing=self.timing(),
            error=error,
        )
        if (rounds := self._rounds) is not None and self.request_state.attempts:
            return replace(outcome, usage=add_usage(rounds.usage, completion.usage))
        if rounds is not None:  # between two requests all is known
            cost = None if rounds.cost_usd is None else rounds.cost_usd + self.tools_usd
            return replace(outcome, usage=rounds.usage, cost_usd=cost)
        return outcome if self.progress is None else self.progress.so_far(outcome)

    def _continued(self) -> dict[str, Any]:
        """What has arrived of an answer that is continued, with what came before; nothing of any other."""
        accumulator = self.request_state.accumulator
        if not (accumulator.continues and accumulator.pieces):
            return {}
        arrived = accumulator.completion()
        return {name: getattr(arrived, name) for name in ("answer", "reasoning", "finish_reason")}

    def cut_off(self, status: Status, error: KimiError) -> Outcome:
        """The outcome of a run that an error ends; of many requests those that had finished count."""
        outcome = self.snapshot(status, error)
        return outcome if self.progress is None else self.progress.stopped(outcome)

    def first_token_came(self) -> None:
        """The first token of any of its requests has arrived."""
        if self._first_token_s is None:
            self._first_token_s = self.seconds()
