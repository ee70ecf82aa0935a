"""The names in the tables of docs/contract.md, which the code must have, and no others. Reads the file."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).parents[1] / "docs" / "contract.md").read_text("utf-8")


def rows(head: str) -> list[list[str]]:
    """The cells of the table whose first column is ``head``."""
    table = TEXT.split(f"\n| {head} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [re.split(r"(?<!\\)\|", line.strip("| ")) for line in table]


def names(cell: str) -> list[str]:
    """What stands in a cell as code."""
    return re.findall(r"`([^`]+)`", cell)


SETTINGS = {name: row[1].strip() for row in rows("variable") for name in names(row[0])}
"""Every variable, and what it means."""

RULES = {name: re.findall(r"\w+", row[2])[0] for row in rows("id") for name in names(row[0])}
"""Every rule, and what it does: adjust, warn or refuse."""

CODES = names(TEXT.split("`code` is one of: ", 1)[1].split(". `message`", 1)[0])
"""Every code of an error."""

RESULT = re.findall(r"(?:^|  )(\w+)  +(?=[\"{\[\w])", TEXT.split("```\n", 1)[1].split("```", 1)[0], re.MULTILINE)
"""Every field of a result, in order."""

ARGUMENTS: dict[str, set[str]] = {}
"""For each tool its arguments beyond ``prompt``, with the words that they take."""

for _tool, _cell in rows("tool"):
    _named = {name.rstrip("[]") for name in names(_cell)}
    _same = _cell.strip().startswith("the same")
    ARGUMENTS[names(_tool)[0]] = ARGUMENTS["kimi_think"] - _named if _same else _named
