"""How a block is written in Markdown. Pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [tuple(head), ("---",) * len(head), *(tuple(_cell(cell) for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text for a cell: names of variables and control tokens as code, pipes escaped."""
    parts = re.sub(r"<\|\w+\|>", r"`\g<0>`", text).split("`")
    parts[::2] = [re.sub(r"\b[A-Z]+(?:_[A-Z]+)+\b", r"`\g<0>`", part) for part in parts[::2]]
    return " ".join("`".join(parts).replace("|", r"\|").split())


def as_code(names: Iterable[object]) -> str:
    """Names, each as code."""
    return ", ".join(f"`{name}`" for name in names)
