"""Every fact that is kept as data, with its source and age, the oldest first. Reads the package's TOML files, prints.

``python -m scripts.facts`` shows which facts to read again; ``docs/reference/facts.md`` has those that no code reads.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import kimi_mcp
from kimi_mcp.cli.console import Printer, print_json

__all__ = ["Fact", "facts", "main"]

PACKAGE = Path(kimi_mcp.__file__).parent

FILES = (
    "catalogue/models/*.toml",
    "catalogue/providers/*.toml",
    "catalogue/*.toml",
    "policy/rules.toml",
    "server/client_quirks.toml",
)
"""The files whose tables each have a source and a date; of a list each row has."""

NAMES = ("id", "model", "engine", "client", "phrase", "topic", "who")
"""What tells a list's rows apart; the first that a row has is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One table of facts, or one row of a list of them."""

    file: str
    """Its file within the package."""
    table: str
    """Its table there, and for a row what tells it apart; of a fact for people its topic."""
    source: str
    """Where a person can check it."""
    day: date
    """The day of the fact."""
    doubt: str | None
    """What casts doubt on it."""
    text: str | None
    """Its words, where the row is for people."""

    def age(self, today: date) -> int:
        """Days since the day of the fact."""
        return (today - self.day).days


def facts(package: Path = PACKAGE) -> list[Fact]:
    """All of them, the oldest first. Raises ``ValueError`` for a table without source or date, naming it."""
    files = [path for pattern in FILES for path in sorted(package.glob(pattern))]
    found = [fact for path in files for fact in _read(path.relative_to(package).as_posix(), path)]
    return sorted(found, key=lambda fact: (fact.day, fact.file, fact.table))


def _read(file: str, path: Path) -> Iterator[Fact]:
    for key, value in tomllib.loads(path.read_text("utf-8")).items():
        if isinstance(value, dict):
            yield _fact(file, key, cast("dict[str, Any]", value))
        elif isinstance(value, list):
            for row in cast("list[dict[str, Any]]", value):
                named = next((str(row[name]) for name in NAMES if name in row), key)
                yield _fact(file, named if named == key or "fact" in row else f"{key} {named}", row)


def _fact(file: str, table: str, row: dict[str, Any]) -> Fact:
    source, day = row.get("source"), row.get("date")
    if not source or not isinstance(day, date):
        raise ValueError(f"{file}: {table} has no {'date' if source else 'source'}")
    return Fact(file=file, table=table, source=source, day=day, doubt=row.get("doubt"), text=row.get("fact"))


def main(arguments: Sequence[str] | None = None, today: date | None = None) -> int:
    """Print them; the exit status: 1 where one is older than ``--max-age``."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.facts", description="Every fact with its source and age, the oldest first."
    )
    parser.add_argument("--max-age", type=int, metavar="DAYS", help="mark older facts, and exit 1 if there is one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    day, found = today or datetime.now(UTC).date(), facts()
    old = [fact for fact in found if options.max_age is not None and fact.age(day) > options.max_age]
    if options.json:
        print_json([_as_json(fact, day, old=fact in old) for fact in found])
    else:
        _show(found, old, day)
    if old:
        print(
            f"{len(old)} of {len(found)} facts are older than {options.max_age} days: read them again.", file=sys.stderr
        )
    return 1 if old else 0


def _as_json(fact: Fact, day: date, *, old: bool) -> dict[str, Any]:
    return {
        "file": fact.file,
        "table": fact.table,
        "fact": fact.text,
        "source": fact.source,
        "date": fact.day.isoformat(),
        "age_days": fact.age(day),
        "doubt": fact.doubt,
        "too_old": old,
    }


def _show(found: Sequence[Fact], old: Sequence[Fact], day: date) -> None:
    page = Printer(indent=0)
    for fact in found:
        page.heading(f"{fact.age(day)} days", f"{fact.day.isoformat()}  {fact.file}  {fact.table}")
        for label, text, style in (
            ("", fact.text, ""),
            ("source", fact.source, "quiet"),
            ("in doubt", fact.doubt, "warn"),
            ("too old", "read it again" if fact in old else None, "bad"),
        ):
            if text:
                page.row(label, text, style)


if __name__ == "__main__":
    sys.exit(main())
