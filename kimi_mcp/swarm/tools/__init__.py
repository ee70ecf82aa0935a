"""The tools of a swarm's sub-agents: opened once a swarm, called by any of its agents at the same time. Does I/O."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import anyio
import anyio.to_thread

from kimi_mcp.core.json_schema import Undecided, can_be_written, misfit, refuse_constant
from kimi_mcp.core.redaction import clean, hide
from kimi_mcp.swarm.tools.config import VARIABLE, check_servers, printable_name, read_servers
from kimi_mcp.swarm.tools.connection import McpServer
from kimi_mcp.swarm.tools.selection import OfferedTool, may_match, select_tools
from kimi_mcp.swarm.tools.source import BuiltinTools, CallResult, ToolLimits, ToolSource

__all__ = ["BuiltinTools", "CallResult", "SwarmTools", "ToolLimits", "check_servers", "open_tools"]

CLOSE_WITHIN_S = 3.0
"""Seconds that all servers together may take to end; then they are killed."""

_log = logging.getLogger(__name__)
_unfit = partial(CallResult.refused, repairable=True)


class SwarmTools:
    """The tools of one swarm, and the one way to call them."""

    def __init__(
        self, tools: Sequence[OfferedTool] = (), sources: Sequence[ToolSource] = (), *, warnings: Sequence[str] = ()
    ) -> None:
        self.definitions: Sequence[Mapping[str, Any]] = [offered.definition for offered in tools]
        """Function definitions for ``Request.tools``; a resumed swarm sets those that it began with."""
        self.fingerprints = {offered.name: offered.tool.fingerprint for offered in tools}
        """Per function name a hash of its source's listing, to keep with the run (``open_tools(recorded=…)``)."""
        self.servers = list(dict.fromkeys(one.source.name for one in tools if isinstance(one.source, McpServer)))
        """The servers of the file whose tools are offered, by name."""
        self._tools = {offered.name: offered for offered in tools}
        self._warnings = list(warnings)
        self._available = [source for source in sources if source.fault is None]

    @property
    def names(self) -> Sequence[str]:
        """The names of the functions that are offered."""
        return [tool["name"] for tool in self.definitions]

    @property
    def warnings(self) -> Sequence[str]:
        """What is missing and why, in our own sentences, without any server's text; grows while it is open."""
        gone = [source for source in self._available if source.fault is not None]
        missing = [name for name in self.names if name not in self._tools]
        return [
            *self._warnings,
            *(f"The tools of {printable_name(source.name)} are gone: {source.fault}." for source in gone),
            *(
                f"`{name}` is disabled: {why}."
                for name, offered in self._tools.items()
                if (why := offered.source.disabled.get(offered.tool.name)) is not None
            ),
            *([f"Tools that the swarm began with are not there any more: {', '.join(missing)}."] if missing else []),
        ]

    async def call(self, name: str, arguments: str) -> CallResult:
        """Run a tool with arguments as a model wrote them, JSON text. Raises nothing but a cancellation."""
        offered = self._tools.get(name)
        if offered is None:
            if name in (names := self.names):
                return CallResult.refused(f"{name} did not run. It is not there any more.")
            there_are = f"There are: {', '.join(names)}." if names else "There are none."
            return CallResult.refused(f"There is no tool `{printable_name(name)}`. {there_are}", repairable=bool(names))
        parsed = parse_arguments(arguments, offered.tool.schema, most_chars=offered.source.limits.arguments_chars)
        if isinstance(parsed, CallResult):
            return parsed
        try:
            return await offered.source.call(name, offered.tool, parsed)
        except Exception:  # noqa: BLE001 - a call never raises
            _log.exception("a tool call failed because of a bug in kimi-mcp")
            return CallResult.failed("kimi-mcp made a mistake with this call, which its log records.")


@asynccontextmanager
async def open_tools(
    file: str | None,
    *,
    patterns: Sequence[str] = (),
    moonshot_schemas: bool = True,
    builtin: Sequence[ToolSource] = (),
    recorded: Mapping[str, str] | None = None,
    limits: ToolLimits | None = None,
) -> AsyncGenerator[SwarmTools]:
    """Start every server of the file; the tools that sub-agents may use. Whatever was started is ended with it.

    ``file``: ``KIMI_SWARM_MCP``, if it is set. ``patterns``: the caller's ``tools``. ``builtin``: sources that are no
    server; one whose name the file uses is left out. ``recorded``: the fingerprints of the tools that the swarm began
    with; one that has changed since does not run, nor does a new one. Raises ``NotConfigured`` for a file that can't be
    used, ``InvalidArguments`` for patterns that match nothing. A server that fails costs its own tools alone.
    """
    limits = limits or ToolLimits()
    servers = await anyio.to_thread.run_sync(read_servers, file, os.environ) if file is not None else ()
    for server in servers:
        hide(*server.secrets)
    sources: list[ToolSource] = [McpServer(server, limits) for server in servers]
    named = {source.name for source in sources}
    sources += [source for source in builtin if source.name not in named]
    wanted = [source for source in sources if may_match(source, patterns)]
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        for source in sources:
            tasks.start_soon(source.run)
        try:
            for source in sources:
                await source.ready.wait()
            absent = [source for source in wanted if source.fault is not None]
            yield await _selected(sources, absent, patterns, moonshot_schemas, recorded)
        except Exception as error:  # noqa: BLE001 - it is raised below, where no task group wraps it
            failure = error
        for source in sources:
            source.stop()
        tasks.cancel_scope.deadline = anyio.current_time() + CLOSE_WITHIN_S
    if failure is not None:
        raise failure


async def _selected(
    sources: Sequence[ToolSource],
    absent: Sequence[ToolSource],
    patterns: Sequence[str],
    moonshot_schemas: bool,
    recorded: Mapping[str, str] | None,
) -> SwarmTools:
    """The tools that are offered, of sources whose listings are known; ``absent``: those that the caller misses."""
    warnings = [f"The tools of {printable_name(source.name)} are not there: {source.fault}." for source in absent]
    lenient = bool(absent) or recorded is not None  # a resumed swarm began with what the patterns matched then
    select = partial(select_tools, sources, patterns, moonshot_schemas=moonshot_schemas, lenient=lenient)
    tools, left_out = await anyio.to_thread.run_sync(select)
    warnings += left_out
    if recorded is not None:
        tools = [offered for offered in tools if offered.name in recorded]
        for offered in tools:
            if recorded[offered.name] != offered.tool.fingerprint:
                why = "its definition is another one than when this swarm began"
                offered.source.disabled.setdefault(offered.tool.name, why)
    if not sources:
        warnings.append(f"Sub-agents have no tools: {VARIABLE} names no file.")
    elif not tools:
        warnings.append("Sub-agents have no tools.")
    return SwarmTools(tools, sources, warnings=warnings)


def parse_arguments(text: str, schema: Mapping[str, Any], *, most_chars: int) -> dict[str, Any] | CallResult:
    """The arguments of a call, or why it is refused. Bounded in time, whatever the schema holds."""
    if len(text) > most_chars:
        return _unfit(f"The arguments are longer than {most_chars:,} characters.")
    try:
        value: Any = json.loads(text, parse_constant=refuse_constant) if text.strip() else {}
    except (ValueError, RecursionError):
        return _unfit("The arguments are not JSON. Send them once more, as one JSON object.")
    if not isinstance(value, dict):
        return _unfit("The arguments are not a JSON object. Send them once more, as one.")
    arguments = cast(dict[str, Any], value)
    if not can_be_written(arguments):
        return _unfit("The arguments hold half a surrogate pair or a number beyond all bounds.")
    try:
        fault = misfit(arguments, schema)
    except Undecided as unsure:
        if unsure.reason == "pattern":
            return arguments  # all that is left to check, and the tool's own server checks that too
        return CallResult.refused(
            "The tool's own schema is too intricate to check the arguments against it, so it is not called."
        )
    if fault is None:
        return arguments
    place = f"`{_quotable(fault.place, 200)}`" if fault.place else "the whole"
    rule = f"{fault.rule}: {_quotable(json.dumps(fault.wanted, ensure_ascii=False), 300)}"
    return _unfit(f"The arguments don't fit the tool's schema: {place} breaks the rule `{rule}`. Fix and call again.")


def _quotable(text: str, most: int) -> str:
    """A part of a schema or of arguments, as a sentence of ours can quote it."""
    plain = clean(text, "model").replace("`", "'").replace("\n", " ")
    return plain if len(plain) <= most else plain[:most] + "…"
