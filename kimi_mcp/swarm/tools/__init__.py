"""The tools of a swarm's sub-agents: opened once a swarm, called by any of its agents at the same time. Does I/O.

::

    async with open_toolbox(settings.swarm_mcp, patterns=tools, moonshot_schemas=…, builtin=…) as toolbox:
        toolbox.definitions      # function definitions for ``Request.tools``: fixed while it is open
        toolbox.warnings         # what is not there and why, in sentences of ours; grows while it is open
        toolbox.fingerprints     # to keep with the run: ``open_tools(recorded=…)`` lets no other tools run later
        result = await toolbox.call(name, arguments_json)

``call`` raises nothing but a cancellation. Its ``CallResult`` is plain data, the same for the same answer: recorded by
the journal and read back with ``CallResult.from_json``, it stands in for the call in a replay. ``repairable`` says
that nothing has run and that the model may send better arguments, once. What a tool said stands in a frame that it
can't close; sentences without a frame are ours.

``servers`` reads the operator's file, ``connection`` keeps one MCP server over ``process`` or ``endpoint``,
``official`` is the provider's own tools; ``choosing``, ``arguments``, ``telling`` and ``failing`` are pure.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from kimi_mcp.core.redaction import SECRETS
from kimi_mcp.core.types import from_record
from kimi_mcp.swarm.tools.arguments import InvalidToolArguments, read_arguments
from kimi_mcp.swarm.tools.builtin_tools import BuiltinTools
from kimi_mcp.swarm.tools.config import VARIABLE, check_servers, printable_name, read_servers
from kimi_mcp.swarm.tools.connection import McpServer
from kimi_mcp.swarm.tools.output import frame_output
from kimi_mcp.swarm.tools.selection import OfferedTool, select_tools
from kimi_mcp.swarm.tools.source import ToolAnswer, ToolLimits, ToolSource

__all__ = ["BuiltinTools", "CallResult", "SwarmTools", "ToolLimits", "check_servers", "open_tools"]

CLOSE_WITHIN_S = 3.0
"""Seconds that all servers together may take to leave; then they are ended."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """What came of one call: plain data."""

    text: str
    """What the model gets as the tool's turn."""
    is_error: bool
    """Whether the call failed, was refused, or is reported as failed by the tool."""
    repairable: bool = False
    """Whether nothing ran and the model may mend its call, once."""
    ran: bool = True
    """Whether the tool was reached, and so may have acted."""
    cost_usd: float = 0.0
    """What the call cost beside tokens."""

    def as_json(self) -> dict[str, Any]:
        """For the journal."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> CallResult:
        """Back from the journal."""
        return from_record(cls, kept)


class SwarmTools:
    """The tools that are open, and the one way to call them."""

    def __init__(
        self, sources: Sequence[ToolSource], tools: Sequence[OfferedTool], warnings: Sequence[str], limits: ToolLimits
    ) -> None:
        self._sources, self._limits = sources, limits
        self._tools = {offered.name: offered for offered in tools}
        self._warnings = tuple(warnings)
        self._absent = {at for at, source in enumerate(sources) if source.fault is not None}

    @property
    def definitions(self) -> tuple[Mapping[str, Any], ...]:
        """Function definitions as they stand under ``tools[].function``, within the dialect that was asked for."""
        return tuple(offered.definition for offered in self._tools.values())

    @property
    def fingerprints(self) -> dict[str, str]:
        """Per function name a hash of what its source tells about it."""
        return {name: offered.tool.fingerprint for name, offered in self._tools.items()}

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers of the file whose tools are offered, by name."""
        used = dict.fromkeys(offered.source for offered in self._tools.values())
        return tuple(self._sources[at].name for at in used if isinstance(self._sources[at], McpServer))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is not there and why; whole sentences of ours, in which a server says nothing."""
        told = list(self._warnings)
        for at, source in enumerate(self._sources):
            if source.fault is not None and at not in self._absent:
                told.append(f"The tools of {printable_name(source.name)} are gone: {source.fault}.")
        for name, offered in self._tools.items():
            if (why := self._sources[offered.source].disabled().get(offered.tool.name)) is not None:
                told.append(f"`{name}` is disabled: {why}.")
        return tuple(told)

    async def call(self, name: str, arguments: str) -> CallResult:
        """Run a tool with the arguments that a model wrote, JSON text. Only what is offered ever runs."""
        offered = self._tools.get(name)
        if offered is None:
            there_are = f"There are: {', '.join(self._tools)}." if self._tools else "There are none."
            return _refused(f"There is no tool `{printable_name(name)}`. {there_are}", repairable=bool(self._tools))
        source = self._sources[offered.source]
        if (why := source.disabled().get(offered.tool.name)) is not None:
            return _refused(f"This tool is disabled: {why}.")
        read = read_arguments(arguments, offered.tool.schema, most_chars=self._limits.arguments_chars)
        if isinstance(read, InvalidToolArguments):
            return _refused(read.why, repairable=read.repairable)
        try:
            answer = await source.call(offered.tool, read)
        except Exception:  # noqa: BLE001 - a call never raises
            _log.exception("a tool call failed by a fault of our own")
            answer = ToolAnswer.failed("kimi-mcp made a mistake with this call, which its log tells.")
        return self._told(name, answer)

    def _told(self, name: str, answer: ToolAnswer) -> CallResult:
        text = answer.text
        if answer.verbatim and len(text) > 4 * self._limits.result_chars:
            answer = ToolAnswer(
                text="The tool's answer is too long to pass on.", is_error=True, cost_usd=answer.cost_usd
            )
            text = answer.text
        elif not answer.ours and not answer.verbatim:
            text = frame_output(name, text, most=self._limits.result_chars, failed=answer.is_error)
        return CallResult(text=text, is_error=answer.is_error, ran=answer.ran, cost_usd=answer.cost_usd)


def _refused(why: str, *, repairable: bool = False) -> CallResult:
    return CallResult(text=why, is_error=True, repairable=repairable, ran=False)


@asynccontextmanager
async def open_tools(
    file: str | None,
    *,
    patterns: Sequence[str] = (),
    moonshot_schemas: bool = True,
    builtin: BuiltinTools | None = None,
    recorded: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    limits: ToolLimits | None = None,
) -> AsyncGenerator[SwarmTools]:
    """Start every server of the file; the tools that sub-agents may use. Whatever was started is ended with it.

    ``file``: ``KIMI_SWARM_MCP``; None: there are no servers. ``patterns``: the caller's ``tools``.
    ``moonshot_schemas``: whether the provider wants its own dialect (``Provider.moonshot_schemas``): schemas are
    rewritten here, once, and the policy's rule finds nothing to mend. ``official``: the provider's own tools, where it
    has some. ``recorded``: the fingerprints that were kept when the run began; a tool that has changed since does not
    run, nor does a new one. ``environment``: what ``${VAR}`` in the file refers to; None: this process's own.

    Raises ``NotConfigured`` for a file that can't be used and ``InvalidArguments`` for patterns that name nothing.
    A server that fails costs its own tools alone.
    """
    limits = limits or ToolLimits()
    servers = ()
    if file is not None:
        read = partial(read_servers, file, os.environ if environment is None else environment)
        servers = await anyio.to_thread.run_sync(read)
    for server in servers:
        SECRETS.add(*server.secrets)
    sources: list[ToolSource] = [McpServer(server, limits) for server in servers]
    sources += [builtin] if builtin is not None else []
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        running = [_Running(source) for source in sources]
        for one in running:
            tasks.start_soon(one.run)
        try:
            for source in sources:
                await source.started()
            yield await _opened(sources, patterns, moonshot_schemas, recorded, limits)
        except Exception as error:  # noqa: BLE001 - it is raised below, where no task group wraps it
            failure = error
        for source in sources:
            source.stop()
        with anyio.move_on_after(CLOSE_WITHIN_S):
            for one in running:
                await one.done.wait()
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Running:
    """A source at work, and when it is done."""

    def __init__(self, source: ToolSource) -> None:
        self._source = source
        self.done = anyio.Event()

    async def run(self) -> None:
        try:
            await self._source.run()
        finally:
            self.done.set()


async def _opened(
    sources: Sequence[ToolSource],
    patterns: Sequence[str],
    moonshot_schemas: bool,
    recorded: Mapping[str, str] | None,
    limits: ToolLimits,
) -> SwarmTools:
    """The toolbox over sources of which it is known what they list."""
    offers = [source.offer() for source in sources]
    absent = [source for source in sources if source.fault is not None]
    warnings = [f"The tools of {printable_name(source.name)} are not there: {source.fault}." for source in absent]
    lenient = bool(absent) or recorded is not None  # a swarm that goes on has begun with what they named
    pick = partial(select_tools, offers, patterns, moonshot_schemas=moonshot_schemas, lenient=lenient)
    chosen = await anyio.to_thread.run_sync(pick)
    tools = chosen.tools
    warnings += chosen.warnings
    if recorded is not None:
        tools = tuple(one for one in tools if one.name in recorded)
        for one in tools:
            if recorded[one.name] != one.tool.fingerprint:
                why = "its definition is another one than when this swarm began"
                sources[one.source].disable(one.tool.name, why)
    if not sources:
        warnings.append(f"Sub-agents have no tools: {VARIABLE} names no file.")
    elif not tools:
        warnings.append("Sub-agents have no tools.")
    return SwarmTools(sources, tools, warnings, limits)
