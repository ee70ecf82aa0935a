"""``Steps``: the two calls behind which a long work is durable. No I/O of its own.

Each upstream request and each tool call of a swarm is a step. It is begun before it is made and finished before its
result is used; a step that was finished once is never made again: beginning it anew, in this process or in the one
that takes over, gives back what was recorded. What is handed over is plain JSON, and a step's key says which step of
the work it is whatever the clock says, so that a work that is replayed takes the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

JSON = Mapping[str, Any]
"""An object of plain JSON values."""


class Steps(Protocol):
    """The steps of one run."""

    async def begin(self, key: str, told: JSON) -> JSON | None:
        """Begin a step; what it brought, where it was finished before.

        ``key`` is unique within the run, such as ``agent-3/step-2/tool-1``; ``told`` is for people who look at the run:
        who makes it and what it asks for.
        """
        ...

    async def finish(self, key: str, result: JSON) -> None:
        """Write down what a step brought; returns once it can't be lost any more."""
        ...


class PassingSteps:
    """Steps that live as long as the process."""

    def __init__(self) -> None:
        self.told: dict[str, JSON] = {}
        """What was told of each step, in the order in which they were begun."""
        self.results: dict[str, JSON] = {}
        """What each finished step brought."""

    async def begin(self, key: str, told: JSON) -> JSON | None:
        """What the step brought, where it was finished before."""
        self.told.setdefault(key, told)
        return self.results.get(key)

    async def finish(self, key: str, result: JSON) -> None:
        """Keep it."""
        self.results[key] = result
