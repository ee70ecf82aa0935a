"""How the commands look: colour, folded lines and tables in a terminal, plain text in a pipe. Writes stdout and stderr.

A command prints with a :class:`Printer`, which decides once whether a person or a program reads it. rich is imported
with the first of them.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TextIO

from kimi_mcp.core.errors import InvalidArguments, KimiError
from kimi_mcp.core.redaction import clean, escaped_json, scrub_values

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from kimi_mcp.core.outcome import Outcome
    from kimi_mcp.core.types import Adjustment

WIDEST = 110
"""Columns beyond which lines become hard to read."""

NARROWEST = 40
"""Columns below which nothing is folded to fit."""

LEAST_CUT = 8
"""Columns below which a text of a table is left out instead of cut."""

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
"""The style of each kind of text; any other kind is plain."""

MARKS = {"ok": "✓", "bad": "✗", "warn": "!", "unknown": "·"}
"""The mark of each state."""

# A host's tools and arguments in error messages, and what they are in a shell.
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
    (r"`?\bkimi_(?!run\b|mcp\b)([a-z]+)\b`?", r"--tool \1"),
    (r"`?\bkimi_run\b`?", "`kimi-mcp runs`"),
    (
        r"The operator of this server allows (.+?) as provider, not (.+?)\.",
        r"KIMI_ALLOWED_PROVIDERS allows \1, not \2.",
    ),
    (r"[Ll]et the operator (choose or allow|add)\b", r"\1"),
    (r"; the operator can (?:also )?", ", or "),
    (r"ask the operator to (raise)", r"\1"),
    (r"Whoever runs this server may allow them", "Allow them"),
    (r"Restart the server, or set", "Set"),
    (r"known to this server", "known here"),
    (r"this server has", "this process has"),
    (r", which only the operator can,", ","),
    (r"^`prompt`", "The prompt"),
    (r"(?:the )?`prompt`", "the prompt"),
)

_SPELLED_ALIKE = (
    *("system", "video", "mode", "model", "provider", "max_tokens", "temperature", "effort", "web"),
    *("max_agents", "max_steps", "max_agent_steps", "max_cost_usd"),
)
OPTIONS = {
    **{name: f"--{name.replace('_', '-')}" for name in _SPELLED_ALIKE},
    "files": "--file",
    "images": "--image",
    "response_schema": "--schema",
    "conversation_id": "--conversation",
    "items": "--item",
    "tools": "--use",
}
"""The option of ``kimi-mcp ask`` for each argument of the tools."""

_FIELD = re.compile(rf"({'|'.join(OPTIONS)})(?:\[(\d+)\])?")
_ARGUMENT = re.compile(rf"(?:[Tt]he )?(?:argument )?`({_FIELD.pattern})`")


def is_terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def print_json(value: Any) -> None:
    """Print a JSON value without keys, and with control characters escaped."""
    text = escaped_json(json.dumps(scrub_values(value), indent=2, ensure_ascii=False))
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def in_a_shell(text: str) -> str:
    """An error or a rule that is written for a host's model, in the words of a shell: options instead of arguments."""
    for pattern, instead in _IN_A_SHELL:
        text = re.sub(pattern, instead, text)
    return _ARGUMENT.sub(lambda found: option(found[1]), text)


def option(field: str) -> str:
    """The option for an argument, ``images[1]`` is ``--image number 2``; any other field as it is."""
    if (found := _FIELD.fullmatch(field)) is None:
        return field
    return OPTIONS[found[1]] + (f" number {int(found[2]) + 1}" if found[2] else "")


def never_fail_to_encode() -> None:
    """Replace characters that a terminal can't show, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def console(stream: TextIO) -> Console:
    """A console on a stream; NO_COLOR and FORCE_COLOR are respected."""
    from rich.console import Console

    made = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=not is_terminal(stream))
    if is_terminal(stream):
        made.width = min(made.width, WIDEST)
    return made


def complain(message: str, fix: str = "") -> None:
    """Print an error on stderr: one sentence plus the fix."""
    page = Printer(sys.stderr, label=len("kimi-mcp: "), indent=0)
    page.row("kimi-mcp:", in_a_shell(message), label_kind="bad")
    if fix:
        page.row("", in_a_shell(fix))


def exit_status(error: KimiError) -> int:
    """2 for wrong usage, as of the options that typer refuses, else 1."""
    return 2 if isinstance(error, InvalidArguments) else 1


def changed(adjustment: Adjustment) -> str:
    """What a rule changed or warned of, in a line."""
    why = in_a_shell(adjustment.why)
    if adjustment.action == "warned":
        return f"{adjustment.rule}: {why}"
    return f"{adjustment.rule}: {change(option(adjustment.field), adjustment.asked, adjustment.sent)}. {why}"


def change(field: str, asked: Any, sent: Any) -> str:
    """What was asked for, and what is sent instead."""
    return f"{field} {shown(asked)} → {'left out' if sent is None else shown(sent)}"


def requests(outcome: Outcome) -> str:
    """How many requests a call took; a swarm and a search send many, none of them a second attempt."""
    return counted(outcome.timing.attempts, "request" if outcome.swarm or outcome.sources else "attempt")


def counted(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shown(value: Any) -> str:
    """A JSON value for a person."""
    if isinstance(value, float):
        return f"{value:g}"
    return "nothing" if value is None else clean(str(value), "terminal")


_CODE = re.compile(r"`[^`\n]+`")
_KEPT_BLANK = "\ue000"
"""Replaces a blank within backticks while a line is folded: what is to be typed stays on one line."""


class Printer:
    """Prints rows of a label and a text, headings, marks and tables.

    In a terminal texts are folded beside their label and coloured; in a pipe a row is a line.
    """

    def __init__(self, stream: TextIO | None = None, *, label: int = 12, indent: int = 2) -> None:
        self._out = console(stream or sys.stdout)
        self.folds = is_terminal(stream or sys.stdout) and self._out.width >= NARROWEST
        """Whether a person reads it."""
        self.width = self._out.width if self.folds else sys.maxsize
        """In columns."""
        self._label, self._indent = label, " " * indent

    def heading(self, text: str, aside: str = "") -> None:
        """A line above what it is about."""
        line = self._text("").append_text(self._text(text, "head"))
        self._hanging("", "", line.append_text(self._text(f"  {aside}" if aside else "", "quiet")))

    def line(self, text: str = "", kind: str = "") -> None:
        """A line by itself."""
        self._hanging("", "", self._text(text, kind))

    def text(self, text: str) -> None:
        """A text as it is, for the terminal to wrap: what is copied from it has the text's own lines."""
        self._out.print(self._text(text), soft_wrap=True)

    def row(self, label: str, text: str, kind: str = "", *, label_kind: str = "quiet") -> None:
        """A text beside its label; its further lines are below its first."""
        self._hanging(self._indent + self._padded(label), label_kind, self._text(text, kind))

    def command(self, label: str, text: str) -> None:
        """A command to be pasted, beside its label: never folded, so that it can be selected as one line."""
        self._line((self._indent + self._padded(label), "quiet"), (text, ""))

    def columns(self, *cells: tuple[str, str]) -> None:
        """One line of texts, each with its kind; they are padded already."""
        self._line((self._indent, ""), *((f"{text}  ", kind) for text, kind in cells))

    def mark(self, state: str, text: str, kind: str = "", *, fix: str = "") -> None:
        """A finding (ok, bad, warn or unknown), and below it the fix."""
        kind = kind or ("bad" if state == "bad" else "")
        self._hanging(f"{self._indent}{MARKS[state]} ", state, self._text(text, kind))
        if fix:
            self._hanging(f"{self._indent}  → ", state, self._text(fix))

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        right: Collection[int] = (),
        optional: Sequence[int] = (),
        cut_last: bool = False,
    ) -> None:
        """Aligned columns; a cell may begin with ``kind|`` to be coloured.

        Where a terminal is too narrow, the last column is cut if it may be, and ``optional`` columns are left out in
        their order. ``right``: columns aligned to the right.
        """
        from rich.cells import cell_len, set_cell_size

        cells = [[("quiet", name) for name in head], *([_split(cell) for cell in row] for row in rows)]
        widths = [max(cell_len(text) for _, text in column) for column in zip(*cells, strict=True)]
        shown, last = list(range(len(head))), len(head) - 1 if cut_last else None
        rest = self.width
        for place in (*optional, None):
            rest = self.width - len(self._indent) - sum(widths[each] + 2 for each in shown if each != last)
            if place is None or rest >= (LEAST_CUT if last in shown else -2):
                break
            shown.remove(place)
        if last is not None:
            widths[last] = min(widths[last], max(rest, LEAST_CUT))
        for row in cells:
            padded: list[tuple[str, str]] = []
            for place in shown:
                kind, text = row[place]
                if cell_len(text) > widths[place]:
                    text = set_cell_size(text, widths[place] - 1).rstrip() + "…"
                blank = " " * (widths[place] - cell_len(text))
                padded.append((blank + text if place in right else text + blank, kind))
            self.columns(*padded)

    def waiting(self, text: str) -> AbstractContextManager[Any]:
        """While inside, a person sees that something goes on."""
        return self._out.status(text, spinner="dots") if self.folds else nullcontext()

    def _padded(self, label: str) -> str:
        return label.ljust(max(self._label, len(label) + 1))

    def _text(self, text: str, kind: str = "") -> Text:
        from rich.text import Text

        return Text(clean(text, "terminal"), style=STYLES.get(kind, ""), end="")

    def _line(self, *pieces: tuple[str, str]) -> None:
        line = self._text("")
        for text, kind in pieces:
            line.append_text(self._text(text, kind))
        line.rstrip()
        self._out.print(line, soft_wrap=True)

    def _hanging(self, head: str, head_kind: str, text: Text) -> None:
        """A text behind its head; its further lines are indented by as much."""
        for number, piece in enumerate(self._folded(text, len(head))):
            start = self._text(" " * len(head)) if number else self._text("").append_text(self._text(head, head_kind))
            self._out.print(start.append_text(piece), soft_wrap=True)

    def _folded(self, text: Text, taken: int) -> list[Text]:
        if not self.folds:
            return list(text.split("\n")) if len(text) else [text]
        width = max(20, self.width - taken)
        kept = text.copy()
        kept.plain = _CODE.sub(
            lambda code: code[0].replace(" ", _KEPT_BLANK) if len(code[0]) <= width else code[0], text.plain
        )
        lines = list(kept.wrap(self._out, width))
        for line in lines:
            line.plain = line.plain.replace(_KEPT_BLANK, " ")
            line.rstrip()
        return lines or [text]


def _split(cell: str) -> tuple[str, str]:
    kind, bar, text = cell.partition("|")
    return (kind, text) if bar and kind in STYLES else ("", cell)
