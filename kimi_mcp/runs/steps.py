"""``Steps``: what makes a long run durable. No I/O of its own.

Each upstream request and each tool call of a swarm is a step. It is begun before it is made and finished before its
result is used. A finished step is never made again: beginning it anew, in this process or in the one that continues the
run, returns the recorded result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

JSON = Mapping[str, Any]
"""An object of plain JSON values."""


class Steps(Protocol):
    """The steps of one run."""

    async def begin(self, key: str, description: JSON) -> JSON | None:
        """Begin a step; its result, where it was finished before.

        ``key`` is unique within the run and independent of the clock, such as ``agent-3/step-2/tool-1``;
        ``description`` is for people who look at the run: who makes it and what it asks for.
        """
        ...

    async def finish(self, key: str, result: JSON) -> None:
        """Record its result; returns once it can't be lost any more."""
        ...
