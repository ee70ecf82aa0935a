"""Steps that are kept in memory, for as long as a test needs them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from kimi_mcp.runs.store.records import JSON
from kimi_mcp.runs.store.running_steps import TextsSoFar
from kimi_mcp.runs.store.steps import Steps


class MemorySteps(Steps):
    """The steps of one run."""

    def __init__(self) -> None:
        self.descriptions: dict[str, JSON] = {}
        """The description of each step, in the order in which they began."""
        self.results: dict[str, JSON] = {}
        """The result of each finished step."""

    async def begin(self, key: str, description: JSON) -> JSON | None:
        self.descriptions.setdefault(key, description)
        return self.results.get(key)

    def running(self, key: str, texts: TextsSoFar) -> AbstractContextManager[None]:
        del key, texts
        return nullcontext()

    async def finish(self, key: str, result: JSON) -> None:
        self.results[key] = result
