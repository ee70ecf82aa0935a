"""What a rule can find, and what it may know: the values of this package. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from kimi_mcp.core.errors import Code
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Profile
from kimi_mcp.core.types import Adjustment
from kimi_mcp.policy.rules import Rule, RuleAction


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyContext:
    """What the policy may know besides the request; it has no I/O of its own."""

    day: date
    """Today."""
    base_url: str
    """Where the request would go."""
    allowed_providers: tuple[str, ...]
    """Providers that may be named, the chosen one first."""
    provider_asked: str | None = None
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
    """Provider and model of every place that answers without thinking today, whether allowed or not."""
    video_offers: tuple[tuple[str, str], ...] = ()
    """Provider and model of every place that takes video today, whether allowed or not."""
    fitting_tools: tuple[Mapping[str, Any], ...] = ()
    """Tools that are known to be within the provider's dialect: those of a longer work are judged once."""
    reads_media: bool = False
    """Whether media are judged by their content on the way, so that what a data URI calls itself decides nothing."""
    own_record: bool = False
    """Whether assistant turns are as their models gave them, from our own record: blank reasoning is not made up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRefusal:
    """Why nothing will be sent."""

    rule: str | None
    """The rule that refused; None: a limit outside the table."""
    code: Code = "policy_refused"
    """The contract's code."""
    message: str
    """What is wrong, in the caller's words."""
    fix: str
    """What to change."""


def _unchanged(plan: Plan) -> Plan:
    return plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One objection of one rule, and what adjusts the plan to it."""

    rule: str
    """The rule's id."""
    action: RuleAction
    """What is done about it."""
    field: str
    """The argument or wire field it is about."""
    asked: Any
    """What was asked for, as JSON."""
    sent: Any
    """What will be sent instead, as JSON."""
    message: str
    """What is wrong, in one sentence."""
    fix: str
    """What the caller can change."""
    note: str = ""
    """An additional sentence where the plan was adjusted; empty: none."""
    left_open: bool = False
    """Whether the caller left it open, so that even ``strict`` chooses."""
    adjust: Callable[[Plan], Plan] = _unchanged
    """Makes the plan follow the rule."""

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
        adjust: Callable[[Plan], Plan] = _unchanged,
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
            adjust=adjust,
        )

    @classmethod
    def beside_the_table(cls, refusal: PolicyRefusal) -> Finding:
        """A limit that has no row, in the form of a finding."""
        return cls(
            rule=refusal.code,
            action="refuse",
            field="max_tokens",
            asked=None,
            sent=None,
            message=refusal.message,
            fix=refusal.fix,
        )

    def as_adjustment(self) -> Adjustment:
        """The entry of a result's ``policy`` list."""
        action: Literal["adjusted", "warned"] = "adjusted" if self.action == "adjust" else "warned"
        why = f"{self.message} {self.note}".rstrip()
        return Adjustment(rule=self.rule, action=action, field=self.field, asked=self.asked, sent=self.sent, why=why)

    def as_json(self) -> dict[str, Any]:
        """The finding as ``kimi-mcp policy check --json`` prints it."""
        names = ("rule", "action", "field", "asked", "sent", "message", "fix")
        return {name: getattr(self, name) for name in names}


Findings = Iterator[Finding]
"""What a kind's function yields."""
