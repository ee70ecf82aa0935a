"""A run as a person at a terminal, or a program behind a pipe, follows it. Writes stdout and stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from kimi_mcp.cli.console import STYLES, Printer, changed, console, is_terminal, print_json, requests
from kimi_mcp.core.outcome import Outcome, structured
from kimi_mcp.core.redaction import GrowingText, clean
from kimi_mcp.runs.store.records import tokens

if TYPE_CHECKING:
    from kimi_mcp.runs import Run


class Progress:
    """One line on stderr that shows a waiting person what goes on; nothing in a pipe."""

    def __init__(self) -> None:
        self._spinner = Spinner("dots", style="green")
        self._live: Live | None = None
        if is_terminal(sys.stderr):
            self._live = Live(self._spinner, console=console(sys.stderr), auto_refresh=False, transient=True)

    def show(self, run: Run) -> None:
        """Show the phase of the run, in place of what was shown before."""
        if self._live is not None:
            self._spinner.update(text=Text(clean(run.phase(), "terminal")))
            self._live.start()
            self._live.refresh()

    def clear(self) -> None:
        """Remove the line."""
        if self._live is not None:
            self._live.stop()


class QuietWatch:
    """Prints once, at the end: for pipes."""

    def __init__(self, reasoning_chars: int | None) -> None:
        """``reasoning_chars``: as of :func:`print_result`."""
        self._reasoning_chars = reasoning_chars
        self._progress = Progress()

    def update(self, run: Run) -> None:
        """Show a person at stderr that the run goes on."""
        self._progress.show(run)

    def end(self, outcome: Outcome) -> None:
        """Print the outcome."""
        self._progress.clear()
        print_result(outcome, self._reasoning_chars)


class LiveWatch:
    """Prints what arrives as it arrives, the reasoning dim: for terminals."""

    def __init__(self) -> None:
        self._out, self._err = console(sys.stdout), Printer(sys.stderr, label=0, indent=0)
        self._progress = Progress()
        self._accumulator: object = None
        self._reported = 0
        self._line_open = False
        self._begin()

    def _begin(self) -> None:
        self._reasoning = self._answer = ""
        self._clean_reasoning, self._clean_answer = GrowingText(), GrowingText()

    def update(self, run: Run) -> None:
        """Print what has arrived since the last update."""
        if run.outcome is not None:
            return  # its pieces are gone; ``end`` has them all
        accumulator = run.request_state.accumulator
        for report in run.reports.lines[self._reported :]:
            self._progress.clear()
            self._close_line()
            self._err.line(clean(report, "terminal"), "quiet")
        self._reported = len(run.reports.lines)
        if not accumulator.pieces:
            self._progress.show(run)
            return
        if self._accumulator is not None and accumulator is not self._accumulator and not accumulator.continues:
            self._close_line()
            if run.kept is not None:
                self._begin()
                self._err.line("The answer did not fit the schema; it is requested once more.", "warn")
            self._answer, self._clean_answer = "", GrowingText()  # what came before a search is no part of it
        self._accumulator = accumulator
        reasoning = self._clean_reasoning.clean(run.reasoning or "")
        self._print(reasoning, self._clean_answer.clean(accumulator.answer))

    def end(self, outcome: Outcome) -> None:
        """Print the rest, and notes below it."""
        self._progress.clear()
        self._print(outcome.reasoning or "", outcome.answer)
        self._close_line()
        for number, source in enumerate(outcome.sources, 1):
            self._out.print(clean(f"{'' if number > 1 else chr(10)}{number:>2} {source.title}", "terminal"))
            self._out.print(clean(f"   {source.url}", "terminal"), style=STYLES["quiet"])
        if outcome.answer or outcome.reasoning:
            self._err.line()
        if outcome.error is not None and outcome.error.code == "cancelled":
            self._err.line("Cancelled: this is all that had arrived.", "warn")
        print_notes(outcome)
        if outcome.timing.attempts:
            self._err.line(_summary(outcome), "quiet")
        following = outcome.run_id if outcome.swarm else outcome.conversation_id
        if outcome.status == "completed" and following is not None:
            self._err.text(f"Continue with --conversation {following}")

    def _print(self, reasoning: str, answer: str) -> None:
        new_reasoning, new_answer = _rest(reasoning, self._reasoning), _rest(answer, self._answer)
        if new_reasoning and not self._answer:
            self._write(new_reasoning, "quiet")
            self._reasoning += new_reasoning
        if new_answer:
            if self._reasoning and not self._answer:
                self._close_line()
                self._out.print()
            self._write(new_answer)
            self._answer += new_answer

    def _write(self, text: str, kind: str = "") -> None:
        self._progress.clear()
        self._out.print(clean(text, "terminal"), style=STYLES.get(kind), end="", soft_wrap=True)
        self._out.file.flush()
        self._line_open = not text.endswith("\n")

    def _close_line(self) -> None:
        if self._line_open:
            self._out.print()
            self._line_open = False


def print_result(outcome: Outcome, reasoning_chars: int | None) -> None:
    """Print the answer, and on stderr what the policy did; or all as JSON, with that many characters of reasoning."""
    if reasoning_chars is not None:
        print_json(structured(outcome, reasoning_chars=reasoning_chars))
        return
    if answer := clean(outcome.answer, "terminal" if is_terminal(sys.stdout) else "host"):
        print(answer, flush=True)
    print_notes(outcome)


def print_notes(outcome: Outcome) -> None:
    """Print on stderr what the policy did."""
    for adjustment in outcome.policy:
        Printer(sys.stderr, indent=0).line(changed(adjustment), "warn")


def _rest(whole: str, printed: str) -> str:
    """What is still to be printed; nothing where another text is there already (of an answer requested again)."""
    return whole[len(printed) :] if whole.startswith(printed) else ""


def _summary(outcome: Outcome) -> str:
    usage, timing = outcome.usage, outcome.timing
    parts = [f"{outcome.model_answered or outcome.model_sent} at {outcome.provider}", str(outcome.mode)]
    count = tokens(usage)
    took = f"{timing.total_s:.1f} s" if count is None else f"{count:,} tokens in {timing.total_s:.1f} s"
    parts.append(took if timing.first_token_s is None else f"{took}, the first after {timing.first_token_s:.1f} s")
    if timing.attempts > 1:
        parts.append(requests(outcome))
    return " · ".join(parts)
