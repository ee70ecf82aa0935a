"""The provider's own search tools as a source of tools like any other. I/O through ``upstream`` alone.

They are offered wherever the catalogue lists them for the provider, which sees the conversation anyway. The catalogue
has the price of a call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import anyio

from kimi_mcp.core.errors import KimiError
from kimi_mcp.provider import Endpoint, Upstream
from kimi_mcp.swarm.tools.source import CallResult, ListedTool, ToolLimits, ToolSource


class BuiltinTools(ToolSource):
    """A source of tools that is the provider itself, named after the owner of its formulas."""

    def __init__(self, upstream: Upstream, endpoint: Endpoint, limits: ToolLimits | None = None) -> None:
        super().__init__(endpoint.provider.formulas[0].partition("/")[0], limits or ToolLimits())
        self._upstream, self._endpoint = upstream, endpoint
        self._formulas: dict[str, str] = {}

    async def serve(self) -> None:
        """List the functions of the provider's formulas."""
        try:
            with anyio.fail_after(self.limits.start_within_s):
                for uri in self._endpoint.provider.formulas:
                    for function in await self._upstream.list_functions(self._endpoint, uri):
                        self._add(uri, function)
        except TimeoutError:
            self.fault = f"it did not list them within {self.limits.start_within_s:g} s"
        except KimiError as error:
            self.fault = f"{self._endpoint.provider.id} does not offer them just now ({error.code})"

    def _add(self, uri: str, function: Mapping[str, Any]) -> None:
        name, schema, description = (function.get(key) for key in ("name", "parameters", "description"))
        if isinstance(name, str) and isinstance(schema, dict) and name not in self.tools:
            self._formulas[name] = uri
            self.tools[name] = ListedTool(
                name=name,
                description=description if isinstance(description, str) else "",
                schema=cast(dict[str, Any], schema),
                read_only=True,  # the catalogue lists formulas that search, and no others
            )

    def stop(self) -> None:
        """Do nothing: ``serve`` has ended."""

    async def send(self, name: str, tool: ListedTool, arguments: Mapping[str, Any]) -> CallResult:
        """Let the provider run a formula's function."""
        provider, written = self._endpoint.provider, json.dumps(arguments, ensure_ascii=False)
        try:
            fiber = await self._upstream.run_function(self._endpoint, self._formulas[tool.name], tool.name, written)
        except KimiError as error:
            return CallResult.failed(f"{provider.id} did not run the tool ({error.code}).")
        if not fiber.sealed:
            return self.framed(name, fiber.text, is_error=not fiber.succeeded, cost_usd=provider.formula_price)
        if len(fiber.text) > 4 * self.limits.result_chars:  # only the provider's models can open it: cutting spoils it
            return CallResult.failed("The tool's answer is too long to pass on.", cost_usd=provider.formula_price)
        return CallResult(text=fiber.text, cost_usd=provider.formula_price)
