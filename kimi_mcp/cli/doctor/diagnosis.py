"""``Diagnosis``: what ``kimi-mcp doctor`` has found. No I/O."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.redaction import scrub
from kimi_mcp.core.version import __version__

State = Literal["ok", "warn", "bad", "unknown"]
"""``bad``: no call would work. ``warn``: worth a look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding."""

    about: str
    """Its subject, one word."""
    state: State
    message: str
    fix: str
    """Empty where none is needed."""


@dataclass(slots=True, kw_only=True)
class Diagnosis:
    """All that was found. It never holds a key, nor a part of one."""

    packages: dict[str, str] = field(default_factory=dict[str, str])
    variables: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    """Every variable that is read, and its state; never its value."""
    user_files: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """The files of ``KIMI_CATALOGUE``, and whether each adds a model or provider, or changes one of ours."""
    provider: str | None = None
    why: str | None = None
    """What chose the provider."""
    base_url: str | None = None
    key_variable: str | None = None
    """The variable whose key a call would carry."""
    allowed_providers: list[str] = field(default_factory=list[str])
    served: list[str] | None = None
    """Models that the provider lists; None: unknown."""
    model: str | None = None
    """What a call that names no model would get."""
    balance: dict[str, Any] | None = None
    """What the account has left, where a probe could ask for it."""
    journal: dict[str, Any] | None = None
    """Where runs are kept, and the state of that store."""
    probes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    checks: list[Check] = field(default_factory=list[Check])
    """Every finding, in the order in which they were made."""

    @property
    def works(self) -> bool:
        """Whether a call would work, as far as is known."""
        return self.model is not None and not any(check.state == "bad" for check in self.checks)

    def add(self, about: str, state: State, message: str, fix: str = "") -> None:
        """Record a finding."""
        self.checks.append(Check(about=about, state=state, message=scrub(message), fix=scrub(fix)))

    def add_error(self, about: str, error: KimiError) -> None:
        """Record an error as a finding."""
        self.add(about, "bad", error.message, error.fix)

    def as_json(self) -> dict[str, Any]:
        """The diagnosis as ``--json`` prints it."""
        checks = [
            {"about": check.about, "state": check.state, "message": check.message, "fix": check.fix or None}
            for check in self.checks
        ]
        program = {"works": self.works, "version": __version__, "python": sys.version.split()[0]}
        return {**program, **asdict(self), "checks": checks}
