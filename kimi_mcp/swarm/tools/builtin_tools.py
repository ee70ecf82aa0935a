"""The provider's own search tools as a source of tools like any other. Does I/O, through ``upstream`` alone.

They are offered wherever the catalogue says that the provider has them: what is searched for goes to nobody who does
not see the conversation anyway. Each call costs what the catalogue says.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, cast

import anyio

from kimi_mcp.core.errors import KimiError
from kimi_mcp.provider import Endpoint, Upstream
from kimi_mcp.swarm.tools.selection import ListedTool, SourceTools
from kimi_mcp.swarm.tools.source import ToolAnswer, ToolLimits

_log = logging.getLogger(__name__)


class BuiltinTools:
    """A source of tools that is the provider itself."""

    def __init__(self, upstream: Upstream, endpoint: Endpoint, limits: ToolLimits | None = None) -> None:
        self.name = endpoint.provider.formulas[0].partition("/")[0] if endpoint.provider.formulas else "provider"
        """The owner of its formulas, which is the name that patterns know it by."""
        self._upstream, self._endpoint, self._limits = upstream, endpoint, limits or ToolLimits()
        self._of: dict[str, str] = {}
        self._tools: list[ListedTool] = []
        self._disabled: dict[str, str] = {}
        self._known = anyio.Event()
        self._slots = anyio.Semaphore(self._limits.calls_at_once)
        self.fault: str | None = None
        """Why its tools are not there, as the end of a sentence about it; None: they are."""

    async def run(self) -> None:
        """Ask the provider what its formulas hold; raises nothing."""
        try:
            with anyio.move_on_after(self._limits.start_within_s) as scope:
                for uri in self._endpoint.provider.formulas:
                    await self._ask(uri)
            if scope.cancelled_caught:
                self.fault = f"it did not say within {self._limits.start_within_s:g} s what they are"
        except KimiError as error:
            self.fault = f"{self._endpoint.provider.id} does not offer them just now ({error.code})"
        except Exception:  # noqa: BLE001 - the swarm goes on without them
            _log.exception("the provider's tools failed by a fault of our own")
            self.fault = "kimi-mcp made a mistake with them, which its log tells"
        finally:
            self._known.set()

    async def _ask(self, uri: str) -> None:
        for function in await self._upstream.formula(self._endpoint, uri):
            name, schema = function.get("name"), function.get("parameters")
            if isinstance(name, str) and isinstance(schema, dict) and name not in self._of:
                self._of[name] = uri
                words = function.get("description")
                self._tools.append(
                    ListedTool(
                        name=name,
                        description=words if isinstance(words, str) else "",
                        schema=cast(dict[str, Any], schema),
                        read_only=True,  # the catalogue lists formulas that search, and no others
                    )
                )

    async def started(self) -> None:
        """Return when it is known whether its tools are there."""
        await self._known.wait()

    def stop(self) -> None:
        """Nothing is kept open."""

    def offer(self) -> SourceTools:
        """Its tools."""
        return SourceTools(source=self.name, tools=tuple(self._tools))

    def disable(self, name: str, why: str) -> None:
        """From now on a tool does not run."""
        self._disabled.setdefault(name, why)

    def disabled(self) -> Mapping[str, str]:
        """The tools that no longer run, each with why."""
        return self._disabled

    async def call(self, tool: ListedTool, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Run a tool; whatever happens is an answer."""
        provider = self._endpoint.provider
        within = self._limits.call_within_s
        ran = False
        with anyio.move_on_after(within):
            async with self._slots:
                ran = True
                written = json.dumps(arguments, ensure_ascii=False)
                try:
                    found = await self._upstream.run_formula(self._endpoint, self._of[tool.name], tool.name, written)
                except KimiError as error:
                    return ToolAnswer.failed(f"{provider.id} did not run the tool ({error.code}).")
                return ToolAnswer(
                    text=found.text,
                    is_error=not found.succeeded,
                    verbatim=found.sealed,
                    cost_usd=provider.formula_price,
                )
        return ToolAnswer.failed(f"The tool did not answer within {within:g} s.", ran=ran)
