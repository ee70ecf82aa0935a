"""What a doctor writes down. Pure, no I/O. No key, nor a part of one, ever stands in it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.redaction import scrub
from kimi_mcp.core.version import __version__

State = Literal["ok", "warn", "bad", "unknown"]
"""``bad``: no call would work. ``warn``: it is worth a look. ``unknown``: that can't be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One sentence that was held against the facts."""

    about: str
    """What it is about, one word."""
    state: State
    """How it came out."""
    said: str
    """The sentence."""
    fix: str = ""
    """The mend; empty where none is needed."""

    def as_json(self) -> dict[str, Any]:
        """The check as ``--json`` prints it."""
        return {"about": self.about, "state": self.state, "said": self.said, "fix": self.fix or None}


@dataclass(slots=True, kw_only=True)
class Diagnosis:
    """All that was found. Mutable: it grows while the doctor looks."""

    packages: dict[str, str]
    """What we stand on, by name and version."""
    variables: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    """Every variable that is read, and whether it is set; never a key."""
    provider: str | None = None
    """Who would answer."""
    why: str | None = None
    """What chose it."""
    base_url: str | None = None
    """Where a call would go."""
    key_variable: str | None = None
    """Which variable's key it would carry."""
    allowed: list[str] = field(default_factory=list[str])
    """Providers that a call may name."""
    served: list[str] | None = None
    """What the provider lists; None: that is not known."""
    model: str | None = None
    """What a call that names no model would get."""
    journal: dict[str, Any] | None = None
    """Where runs are kept, and how that is."""
    probes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What the tiny calls came back with."""
    checks: list[Check] = field(default_factory=list[Check])
    """Every finding, in the order in which they were made."""

    @property
    def works(self) -> bool:
        """Whether a call would work, as far as anybody can tell."""
        return self.model is not None and not any(check.state == "bad" for check in self.checks)

    def add(self, about: str, state: State, said: str, fix: str = "") -> None:
        """One more finding."""
        self.checks.append(Check(about=about, state=state, said=scrub(said), fix=scrub(fix)))

    def fails(self, about: str, error: KimiError) -> None:
        """One more finding: an error of ours."""
        self.add(about, "bad", error.message, error.fix)

    def as_json(self) -> dict[str, Any]:
        """The diagnosis as ``--json`` prints it."""
        return {
            "works": self.works,
            "version": __version__,
            "python": sys.version.split()[0],
            "packages": self.packages,
            "variables": self.variables,
            "provider": self.provider,
            "why": self.why,
            "base_url": self.base_url,
            "key_variable": self.key_variable,
            "allowed_providers": self.allowed,
            "served": self.served,
            "model": self.model,
            "journal": self.journal,
            "probes": self.probes,
            "checks": [check.as_json() for check in self.checks],
        }
