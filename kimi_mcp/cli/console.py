"""How the commands look: colour, folded lines and tables in a terminal, plain text in a pipe. Writes stdout and stderr.

A :class:`Page` is what a command prints on; it decides once whether a person or a program reads it. rich is imported
when the first page is opened.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TextIO

from kimi_mcp.core.redaction import escaped_json, printable, scrub_values

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from kimi_mcp.core.outcome import Outcome
    from kimi_mcp.core.types import Adjustment

WIDEST = 110
"""Columns beyond which lines become hard to read."""

NARROWEST = 40
"""Columns below which nothing is folded to fit."""

STYLES = {
    "ok": "green",
    "bad": "bold red",
    "warn": "yellow",
    "unknown": "dim",
    "quiet": "dim",
    "name": "bold",
    "head": "bold cyan",
    "adjust": "yellow",
    "adjusted": "yellow",
    "warned": "yellow",
    "refuse": "red",
}
"""What each kind of word looks like; a kind that is not here is plain."""

MARKS = {"ok": "✓", "bad": "✗", "warn": "!", "unknown": "·"}
"""What stands before a sentence that was held against the facts."""

# What errors say of a host's tools and arguments, and how a shell says it; the first that fits is taken.
_IN_A_SHELL: tuple[tuple[str, str], ...] = (
    (r"kimi_vision in `images`|`images` of kimi_vision", "--image"),
    (r"kimi_video (?:as|in) `video`|`video` of kimi_video", "--video"),
    (r"`files` of kimi_(?:think|instant)", "--file"),
    (r"`images` and `video`", "--image and --video"),
    (r"[Cc]all kimi_run without (?:`run_id`|arguments) to see your (?:latest )?runs", "`kimi-mcp runs` lists them"),
    (
        r"Wait for it with kimi_run, then give its `run_id` as",
        "Wait for it with `kimi-mcp runs resume ID`, then give ID as",
    ),
    (r"`run_id` as `conversation_id`", "id to --conversation"),
    (r"(?:the other tool )?\(`kimi_(\w+)` or `kimi_(\w+)`\)", r"--tool \1 or --tool \2"),
    (r"`?\bkimi_(think|instant|vision|video|swarm)\b`?", r"--tool \1"),
    (r"`?\bkimi_run\b`?", "`kimi-mcp runs`"),
    (
        r"The operator of this server allows (.+?) as provider, not (.+?)\.",
        r"KIMI_ALLOWED_PROVIDERS allows \1, not \2.",
    ),
    (r"[Ll]et the operator (choose or allow|add)\b", r"\1"),
    (r", which only the operator can,", ","),
    (r"^`prompt`", "The prompt"),
    (r"(?:the )?`prompt`", "the prompt"),
)

OPTIONS = {
    "system": "--system",
    "files": "--file",
    "images": "--image",
    "video": "--video",
    "mode": "--mode",
    "model": "--model",
    "provider": "--provider",
    "max_tokens": "--max-tokens",
    "temperature": "--temperature",
    "response_schema": "--schema",
    "conversation_id": "--conversation",
    "items": "--item",
    "tools": "--use",
    "max_agents": "--max-agents",
    "max_steps": "--max-steps",
    "max_agent_steps": "--max-agent-steps",
    "max_cost_usd": "--max-cost-usd",
}
"""For each argument of the tools the option of ``kimi-mcp ask`` that gives it."""

_ARGUMENT = re.compile(rf"(?:[Tt]he )?(?:argument )?`({'|'.join(OPTIONS)})`")


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at that stream, through something that can move a cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def safe(text: str) -> str:
    """A foreign text without any key, and without anything that would act on a terminal."""
    return printable(text)


def as_json_text(value: Any) -> str:
    """A JSON value for whoever reads stdout: no key is in it, and what would act on a terminal is escaped."""
    return escaped_json(json.dumps(scrub_values(value), indent=2, ensure_ascii=False))


def print_json(value: Any) -> None:
    """Print :func:`as_json_text`."""
    sys.stdout.write(f"{as_json_text(value)}\n")
    sys.stdout.flush()


def in_a_shell(text: str) -> str:
    """What an error or a rule says to a host's model, in the words of a shell: options instead of arguments."""
    for said, instead in _IN_A_SHELL:
        text = re.sub(said, instead, text)
    return _ARGUMENT.sub(lambda found: OPTIONS[found[1]], text)


def never_fail_to_encode() -> None:
    """Let a terminal that can't show a sign show another one, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def console(stream: TextIO) -> Console:
    """A console on a stream; NO_COLOR and FORCE_COLOR count as everywhere."""
    from rich.console import Console

    looked_at = is_terminal(stream)
    made = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=not looked_at)
    if looked_at and made.width > WIDEST:
        made.width = WIDEST
    return made


def complain(message: str, fix: str = "") -> None:
    """An error: one sentence plus the mend, on stderr."""
    page = Printer(sys.stderr, label=len("kimi-mcp: "), indent=0)
    page.row("kimi-mcp:", in_a_shell(message), label_kind="bad")
    if fix:
        page.row("", in_a_shell(fix))


def changed(adjustment: Adjustment) -> str:
    """What a rule changed or warns of, in a line."""
    why = in_a_shell(adjustment.why)
    if adjustment.action == "warned":
        return f"{adjustment.rule}: {why}"
    sent = "left out" if adjustment.sent is None else shown(adjustment.sent)
    return f"{adjustment.rule}: {adjustment.field} {shown(adjustment.asked)} → {sent}. {why}"


def requests(outcome: Outcome) -> str:
    """How many requests a call took; a swarm sends many, and none of them is a second attempt."""
    made = outcome.timing.attempts
    return f"{made} {'request' if outcome.swarm is not None else 'attempt'}{'' if made == 1 else 's'}"


def shown(value: Any) -> str:
    """A JSON value for a person."""
    if isinstance(value, float):
        return f"{value:g}"
    return "nothing" if value is None else safe(str(value))


_CODE = re.compile(r"`[^`\n]+`")
_HELD = "\ue000"
"""Stands for a blank within backticks while a line is folded: what is to be typed stays on one line."""


class Printer:
    """What a command prints on: rows of a label and a text, headings, marks and tables.

    For a terminal texts are folded beside their label and coloured; for a pipe a row is a line.
    """

    def __init__(self, stream: TextIO | None = None, *, label: int = 12, indent: int = 2) -> None:
        self._out = console(stream or sys.stdout)
        self.folds = is_terminal(stream or sys.stdout) and self._out.width >= NARROWEST
        """Whether a person reads it."""
        self.width = self._out.width if self.folds else sys.maxsize
        """Columns there are."""
        self._label, self._indent = label, indent

    def heading(self, text: str, aside: str = "") -> None:
        """What follows is about this."""
        line = self._text("", "").append_text(self._text(text, "head"))
        if aside:
            line.append_text(self._text(f"  {aside}", "quiet"))
        self._out.print(line)

    def line(self, text: str = "", kind: str = "") -> None:
        """A line by itself."""
        self._out.print(self._text(text, kind))

    def row(self, label: str, text: str, kind: str = "", *, label_kind: str = "quiet") -> None:
        """A text beside its label; its further lines stand below its first."""
        start = " " * self._indent
        gap = max(self._label, len(label) + 1)
        body = self._text(text, kind)
        lines = self._folded(body, len(start) + gap) or [body]
        for number, piece in enumerate(lines):
            head = self._text(label.ljust(gap) if number == 0 else " " * gap, label_kind if number == 0 else "")
            line = self._text(start, "") + head
            line.append_text(piece)
            self._out.print(line, soft_wrap=True)

    def command(self, label: str, text: str) -> None:
        """A command to be pasted, beside its label: never folded, so that it can be selected as one line."""
        line = self._text(" " * self._indent, "") + self._text(label.ljust(max(self._label, len(label) + 1)), "quiet")
        self._out.print(line.append_text(self._text(text, "")), soft_wrap=True)

    def columns(self, *cells: tuple[str, str]) -> None:
        """One line of texts, each with its kind; they bring their own width."""
        line = self._text(" " * self._indent, "")
        for place, (text, kind) in enumerate(cells):
            line.append_text(self._text(text + ("  " if place < len(cells) - 1 else ""), kind))
        line.rstrip()
        self._out.print(line, soft_wrap=True)

    def mark(self, state: str, text: str, kind: str = "", *, fix: str = "") -> None:
        """A sentence that was held against the facts (ok, bad, warn or unknown), and below it the mend."""
        self._marked(MARKS[state], state, text, kind or ("bad" if state == "bad" else ""), self._indent)
        if fix:
            self._marked("→", state, fix, "", self._indent + 2)

    def _marked(self, sign: str, sign_kind: str, text: str, kind: str, indent: int) -> None:
        for number, piece in enumerate(self._folded(self._text(text, kind), indent + 2)):
            line = self._text(" " * indent, "") + self._text(f"{sign} " if number == 0 else "  ", sign_kind)
            line.append_text(piece)
            self._out.print(line, soft_wrap=True)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
        """Aligned columns; a cell may begin with ``kind|`` to be coloured."""
        from rich.cells import cell_len

        cells = [[_split(cell) for cell in row] for row in rows]
        columns = zip(head, *([text for _, text in row] for row in cells), strict=True)
        widths = [max(map(cell_len, column)) for column in columns]
        for row in ([("quiet", name) for name in head], *cells):
            line = self._text(" " * self._indent, "")
            for place, (kind, text) in enumerate(row):
                blank = " " * (widths[place] - cell_len(text))
                last = place == len(row) - 1
                padded = blank + text if place in right else text if last else text + blank
                line.append_text(self._text(padded + ("" if last else "  "), kind))
            line.rstrip()
            self._out.print(line, soft_wrap=True)

    def waiting(self, text: str) -> AbstractContextManager[Any]:
        """While inside, a person sees that something is going on."""
        return self._out.status(text, spinner="dots") if self.folds else nullcontext()

    def _text(self, text: str, kind: str) -> Text:
        from rich.text import Text

        return Text(safe(text), style=STYLES.get(kind, ""), end="")

    def _folded(self, text: Text, taken: int) -> list[Text]:
        if not self.folds:
            return list(text.split("\n")) if len(text) else [text]
        room = max(20, self.width - taken)
        held = text.copy()
        held.plain = _CODE.sub(
            lambda code: code[0].replace(" ", _HELD) if len(code[0]) <= room else code[0], text.plain
        )
        lines = list(held.wrap(self._out, room))
        for line in lines:
            line.plain = line.plain.replace(_HELD, " ")
            line.rstrip()
        return lines or [text]


def _split(cell: str) -> tuple[str, str]:
    kind, bar, text = cell.partition("|")
    return (kind, text) if bar and kind in STYLES else ("", cell)
