"""The rows of ``rules.toml``, read once. Reads that one file of the package, no other I/O."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

RuleAction = Literal["adjust", "warn", "refuse"]
"""What a rule does: adjust and report (refused under ``strict``), report, or refuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row: an id that users hold on to, and what it says when it objects."""

    id: str
    """The contract's name for it."""
    kind: str
    """Which function looks; several rules may share one."""
    guards: str
    """The mistake it guards against."""
    action: RuleAction
    """What it does when it objects."""
    message: str
    """The sentence for the caller, with ``{places}`` that the finding fills."""
    fix: str
    """What the caller can change, with ``{places}`` likewise."""
    source: str
    """Where the rule comes from."""
    date: date
    """The day of that source."""
    options: Mapping[str, Any]
    """What its kind needs to know: limits, signs, hosts."""

    def as_json(self) -> dict[str, Any]:
        """The row as ``kimi-mcp policy --json`` prints it."""
        row = asdict(self)
        del row["options"]
        return row | {"date": self.date.isoformat()}


@cache
def load_rules() -> Mapping[str, Rule]:
    """Every rule by id, in the order of the file."""
    rows = tomllib.loads((Path(__file__).parent / "rules.toml").read_text("utf-8"))
    rules: dict[str, Rule] = {}
    for name, options in cast(dict[str, dict[str, Any]], rows).items():
        known = {field.name: options.pop(field.name) for field in fields(Rule) if field.name in options}
        rules[name] = Rule(id=name, options=options, **known)
    return rules


@cache
def signs(rule_id: str, option: str = "signs") -> tuple[re.Pattern[str], ...]:
    """The compiled signs of a rule of kind ``text-signs``, or what speaks against them (``unless``)."""
    return tuple(re.compile(sign, re.DOTALL) for sign in load_rules()[rule_id].options.get(option, ()))
