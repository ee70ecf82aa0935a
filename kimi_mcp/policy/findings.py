"""The rules of ``rules.toml``, what they may know, and what they find. Reads that one file of the package."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from kimi_mcp.core.errors import CallRefused, InvalidArguments, PolicyRefused
from kimi_mcp.core.profiles import Profile
from kimi_mcp.core.types import Adjustment

RuleAction = Literal["adjust", "warn", "refuse"]
"""What a rule does: adjust and report (refused under ``strict``), report, or refuse."""


OUTSIDE_THE_TABLE = InvalidArguments.code
"""What a finding names where a limit that is no rule refuses the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of ``rules.toml``."""

    id: str
    """The contract's name for it."""
    kind: str
    """Which function applies it; several rules may share one."""
    guards: str
    """The mistake it guards against."""
    action: RuleAction
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
        known = {each.name: options.pop(each.name) for each in fields(Rule) if each.name in options}
        rules[name] = Rule(id=name, options=options, **known)
    return rules


@cache
def signs(rule_id: str, option: str = "signs") -> tuple[re.Pattern[str], ...]:
    """The compiled signs of a rule of kind ``text-signs``, or what speaks against them (``unless``)."""
    return tuple(re.compile(sign, re.DOTALL) for sign in load_rules()[rule_id].options.get(option, ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyContext:
    """What the policy may know besides the request; it has no I/O of its own."""

    day: date
    """Today."""
    base_url: str
    """Where the request would go."""
    allowed_providers: tuple[str, ...]
    """Providers that may be named, the chosen one first."""
    provider_requested: str | None = None
    """The ``provider`` argument; None: left open."""
    strict: bool = False
    """Whether ``KIMI_POLICY`` is ``strict``."""
    served: frozenset[str] | None = None
    """The provider's own ids that it lists now; None: not known."""
    successors: tuple[Profile, ...] = ()
    """Under ``auto`` the provider's other models, in order of preference."""
    stands_in: bool = False
    """Whether the model's id is unknown to the catalogue and its profile is a substitute."""
    instant_offers: tuple[tuple[str, str], ...] = ()
    """Provider and model of every offer that answers without thinking today, whether allowed or not."""
    video_offers: tuple[tuple[str, str], ...] = ()
    """Provider and model of every offer that takes video today, whether allowed or not."""
    effort_offers: tuple[tuple[str, str], ...] = ()
    """Provider and model of every offer that takes an effort today, whether allowed or not."""
    web_offers: tuple[str, ...] = ()
    """The providers that search the web themselves, whether allowed or not."""
    matching_tools: tuple[Mapping[str, Any], ...] = ()
    """Tools that are known to be within the provider's dialect: those of a swarm are checked once."""
    reads_media: bool = False
    """Whether media are checked by their content later, so that what a data URI calls itself decides nothing."""
    own_record: bool = False
    """Whether assistant turns are as their models gave them, from our own record: blank reasoning is not made up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One objection of one rule: why nothing will be sent, or what adjusts the plan to it."""

    rule: str
    """The rule's id, or ``OUTSIDE_THE_TABLE``."""
    action: RuleAction
    field: str
    """The argument or wire field it is about."""
    asked: Any = None
    """What was asked for, as JSON."""
    sent: Any = None
    """What will be sent instead, as JSON."""
    message: str
    """What is wrong, in one sentence."""
    fix: str
    """What the caller can change."""
    note: str = ""
    """An additional sentence where the call is not refused; empty: none."""
    left_open: bool = False
    """Whether the caller left it open, so that even ``strict`` chooses."""
    changes: Mapping[str, Any] | None = None
    """What makes the plan follow the rule, by its fields."""

    @classmethod
    def of(
        cls,
        rule: Rule,
        *,
        field: str,
        asked: Any,
        sent: Any = None,
        note: str = "",
        action: RuleAction | None = None,
        left_open: bool = False,
        changes: Mapping[str, Any] | None = None,
        **places: Any,
    ) -> Finding:
        """A finding with its row's sentences filled in."""
        filled = {"field": field, "asked": asked, "sent": sent, **places}
        return cls(
            rule=rule.id,
            action=action or rule.action,
            field=field,
            asked=asked,
            sent=sent,
            message=rule.message.format_map(filled),
            fix=rule.fix.format_map(filled),
            note=note,
            left_open=left_open,
            changes=changes,
        )

    def as_adjustment(self) -> Adjustment:
        """The entry of a result's ``policy`` list."""
        action: Literal["adjusted", "warned"] = "adjusted" if self.action == "adjust" else "warned"
        why = f"{self.message} {self.note}".rstrip()
        return Adjustment(rule=self.rule, action=action, field=self.field, asked=self.asked, sent=self.sent, why=why)

    def as_error(self) -> CallRefused:
        """The error of a call that it refuses."""
        if self.rule == OUTSIDE_THE_TABLE:
            return InvalidArguments(self.message, fix=self.fix)
        return PolicyRefused(self.message, fix=self.fix, rule=self.rule)

    def as_json(self) -> dict[str, Any]:
        """The finding as ``kimi-mcp policy check --json`` prints it."""
        names = ("rule", "action", "field", "asked", "sent", "message", "fix")
        return {name: getattr(self, name) for name in names}


Findings = Iterator[Finding]
"""What a kind's function yields."""
