"""A run as a person at a terminal, or a program behind a pipe, watches it. Writes stdout and stderr; asks nobody."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from kimi_mcp.cli.console import STYLES, Printer, changed, console, is_terminal, requests, safe
from kimi_mcp.core.redaction import Growing

if TYPE_CHECKING:
    from kimi_mcp.core.outcome import Outcome
    from kimi_mcp.runs import Run

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAMES_A_SECOND = 10


class RunWatcher(Protocol):
    """Somebody who looks at a run while it lives and once when it has ended."""

    def look(self, run: Run) -> None:
        """The run goes on."""
        ...

    def end(self, outcome: Outcome) -> None:
        """It is over."""
        ...


class Progress:
    """The one line on stderr that tells a waiting person what goes on; nothing where nobody looks."""

    def __init__(self) -> None:
        self._seen = is_terminal(sys.stderr)
        self._shown = False

    def show(self, run: Run) -> None:
        """Write it, over the one before."""
        if self._seen:
            frame = _FRAMES[int(run.seconds() * _FRAMES_A_SECOND) % len(_FRAMES)]
            sys.stderr.write(f"\r\x1b[2K{frame} {safe(run.phase())}"[: _columns() + 5])
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        """Take it away."""
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._shown = False


class QuietWatch:
    """Prints once, at the end: for pipes."""

    def __init__(self, render: Callable[[Outcome], str], *, notes: bool = False) -> None:
        """``notes``: whether what the policy did is told on stderr, because what is printed does not tell it."""
        self._render = render
        self._notes = notes
        self._progress = Progress()

    def look(self, run: Run) -> None:
        """Tell a person at stderr that the run goes on."""
        self._progress.show(run)

    def end(self, outcome: Outcome) -> None:
        """Print what is to be printed of it, if anything."""
        self._progress.clear()
        if said := self._render(outcome):
            print(said, flush=True)
        for adjustment in outcome.policy if self._notes else ():
            Printer(sys.stderr, label=0, indent=0).line(changed(adjustment), "warn")


class LiveWatch:
    """Prints what arrives as it arrives, the reasoning dim: for terminals."""

    def __init__(self) -> None:
        self._out, self._err = console(sys.stdout), console(sys.stderr)
        self._progress = Progress()
        self._accumulator: object = None
        self._reasoning = self._answer = ""
        self._thinking, self._answering = Growing(), Growing()
        self._line_open = False

    def look(self, run: Run) -> None:
        """Print what has come since the last look."""
        if run.outcome is not None:
            return  # it has let go of its pieces; ``end`` has them all
        if run.request_state.waits_for is not None:
            self._progress.show(run)
            return
        accumulator = run.request_state.accumulator
        if self._accumulator is not None and accumulator is not self._accumulator:
            self._asked_again()
        self._accumulator = accumulator
        self._print(self._thinking.clean(accumulator.reasoning or ""), self._answering.clean(accumulator.answer))

    def end(self, outcome: Outcome) -> None:
        """Print the rest, and below it what else is to be said."""
        self._progress.clear()
        self._print(outcome.reasoning or "", outcome.answer)
        self._close_line()
        if outcome.answer or outcome.reasoning:
            self._err.print()
        if outcome.error is not None and outcome.error.code == "cancelled":
            self._note("Cancelled: what stands above is all that had arrived.", "warn")
        for adjustment in outcome.policy:
            self._note(changed(adjustment), "warn")
        if outcome.timing.attempts:
            self._note(_summary(outcome), "quiet")

    def _print(self, reasoning: str, answer: str) -> None:
        thought, said = _rest(reasoning, self._reasoning), _rest(answer, self._answer)
        if thought and not self._answer:
            self._write(thought, "quiet")
            self._reasoning += thought
        if said:
            if self._reasoning and not self._answer:
                self._close_line()
                self._out.print()
            self._write(said)
            self._answer += said

    def _write(self, text: str, kind: str = "") -> None:
        self._progress.clear()
        self._out.print(safe(text), style=STYLES.get(kind), end="", soft_wrap=True)
        self._out.file.flush()
        self._line_open = not text.endswith("\n")

    def _close_line(self) -> None:
        if self._line_open:
            self._out.print()
            self._line_open = False

    def _asked_again(self) -> None:
        self._close_line()
        self._reasoning = self._answer = ""
        self._thinking, self._answering = Growing(), Growing()
        self._note("That did not fit the schema; it is asked for once more.", "warn")

    def _note(self, text: str, kind: str) -> None:
        self._err.print(safe(text), style=STYLES[kind])


def _rest(whole: str, printed: str) -> str:
    """What is still to be printed; nothing where another text stands there already (an answer that was asked anew)."""
    return whole[len(printed) :] if whole.startswith(printed) else ""


def _summary(outcome: Outcome) -> str:
    usage, timing = outcome.usage, outcome.timing
    said = [f"{outcome.model_answered or outcome.model_sent} at {outcome.provider}", str(outcome.mode)]
    tokens = usage.completion_tokens if usage is not None else None
    took = f"{timing.total_s:.1f} s" if tokens is None else f"{tokens:,} tokens in {timing.total_s:.1f} s"
    said.append(took if timing.first_token_s is None else f"{took}, the first after {timing.first_token_s:.1f} s")
    if timing.attempts > 1:
        said.append(requests(outcome))
    if outcome.conversation_id is not None:
        said.append(f"go on with --conversation {outcome.conversation_id}")
    return " · ".join(said)


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns - 1
