"""One MCP server through its life: started, listed, called, watched, restarted once, ended. Does I/O.

Whatever a server does or fails to do, it costs its own tools and nothing else: nothing here raises but a cancellation
of the caller's. Reasons are sentences of ours; what a server says stands in the results of its tools alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.version import __version__
from kimi_mcp.swarm.tools.config import ServerConfig, printable_name
from kimi_mcp.swarm.tools.errors import ENDED, error_answer, may_speak_other_era, session_expired, start_fault
from kimi_mcp.swarm.tools.http_client import LastResponse, http_streams
from kimi_mcp.swarm.tools.output import render_blocks
from kimi_mcp.swarm.tools.selection import ListedTool, SourceTools
from kimi_mcp.swarm.tools.source import ToolAnswer, ToolLimits
from kimi_mcp.swarm.tools.stdio_client import stdio_streams

if TYPE_CHECKING:
    from mcp.client.client import Client

RESTARTS: Final = 1
"""How often a server that died is started again."""

MOST_LISTED: Final = 20_000
"""Tools of one server that are looked at."""

MOST_PAGES: Final = 1_000
"""Pages of one listing."""

LONGEST_TOOL_NAME: Final = 256
"""Code points of a tool's own name."""

MOST_RELISTINGS: Final = 20
"""Times that a server may say that its tools changed; after that they are taken for changed."""

DRAINED_S: Final = 0.5
"""Seconds after a server's end in which its last answers are read."""

_log = logging.getLogger(__name__)


class _Life:
    """One start of a server, up to its end."""

    def __init__(self) -> None:
        self.over = self.died = False
        self.ended = anyio.Event()
        self.calls: set[anyio.CancelScope] = set()

    def die(self) -> None:
        """It has ended by itself; what it said before is still on its way."""
        self.died = True
        self.ended.set()

    async def drained(self) -> None:
        """Wait a little for the calls that are under way: what it answered before its end is still read."""
        with anyio.move_on_after(DRAINED_S):
            while self.calls:  # noqa: ASYNC110 - there is one waiter, and seldom
                await anyio.sleep(0.01)

    def end(self) -> None:
        """It has ended: whoever still waits for it waits no longer."""
        self.over = True
        self.ended.set()
        for scope in self.calls:
            scope.cancel()


class _Refused(Exception):
    """A start came to nothing."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class McpServer:
    """A source of tools that is an MCP server of the operator's file."""

    def __init__(self, server: ServerConfig, limits: ToolLimits) -> None:
        self.name = server.name
        """Its key in the file."""
        self._server, self._limits = server, limits
        self._seen = LastResponse()
        self._tools: dict[str, ListedTool] = {}
        self._changed: dict[str, str] = {}
        self._client: Client | None = None
        self._life = _Life()
        self._ready = anyio.Event()
        self._settled = anyio.Event()
        self._stirred = anyio.Event()
        self._stop = anyio.Event()
        self._slots = anyio.Semaphore(limits.calls_at_once)
        self._listed_once = False
        self.fault: str | None = None
        """Why its tools are not there, as the end of a sentence about it; None: they are."""
        self.notes: list[str] = []
        """What else is worth a warning, in whole sentences."""

    # ── its life ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Start it, keep it, restart it once; returns when it is to stop or is gone for good."""
        try:
            for _ in range(1 + RESTARTS):
                self.fault = None
                try:
                    await self._live()
                except _Refused as refused:
                    self.fault = refused.why
                except Exception:  # noqa: BLE001 - its fault or ours, it is this server's end and nobody else's
                    _log.exception("a tool server failed by a fault of our own")
                    self.fault = "kimi-mcp made a mistake with it, which its log tells"
                if self._stop.is_set() or not self._listed_once:
                    break  # what never worked does not work a second time
                _log.warning("the tool server %s ended", printable_name(self.name))
            if not self._stop.is_set():
                self.fault = self.fault or "it ended, was started again, and ended again"
                _log.warning("the tools of %s are gone: %s", printable_name(self.name), self.fault)
        finally:
            self._client = None
            self._ready.set()
            self._settled.set()

    async def started(self) -> None:
        """Return when it is known whether its tools are there."""
        await self._ready.wait()

    def stop(self) -> None:
        """Ask it to leave."""
        self._stop.set()
        self._life.end()

    async def _live(self) -> None:
        from mcp.shared.exceptions import MCPError

        try:
            await self._live_in("legacy")
        except MCPError as refused:
            # Servers of the handshake era first: some of them end at any other first message.
            if not may_speak_other_era(refused, self._seen, died=self._life.died):
                raise _Refused(self._why(refused)) from None
            try:
                await self._live_in("auto")
            except MCPError as again:
                raise _Refused(self._why(again)) from None

    async def _live_in(self, era: str) -> None:
        """One life in one of the two eras of the protocol. Raises ``MCPError`` where the handshake is refused."""
        from mcp.shared.exceptions import MCPError

        life = self._life = _Life()
        listed = False
        with anyio.CancelScope(deadline=anyio.current_time() + self._limits.start_within_s) as scope:
            try:
                async with AsyncExitStack() as open_things:
                    client = await self._connected(open_things, era, life)
                    tools = await self._list(client)
                    scope.deadline = float("inf")
                    self._adopt(tools)
                    listed = self._listed_once = True
                    self.fault, self._client = None, client
                    self._settled.set()
                    self._ready.set()
                    await self._watch(client, life)
            except Exception as fault:  # noqa: BLE001 - whatever the libraries raise is this server's own end
                first = _only(fault)
                if listed:
                    _log.debug("the session with %s broke", printable_name(self.name), exc_info=first)
                elif isinstance(first, MCPError | _Refused):
                    raise first from None
                else:
                    raise _Refused(self._why(first)) from None
            finally:
                self._client = None
                life.end()
        if scope.cancelled_caught and not listed:
            raise _Refused(f"it was not ready within {self._limits.start_within_s:g} s")

    async def _connected(self, open_things: AsyncExitStack, era: str, life: _Life) -> Client:
        from mcp import Client
        from mcp.types import Implementation, ToolListChangedNotification

        async def heard(message: Any) -> None:
            if isinstance(message, ToolListChangedNotification):
                self._stir()

        if self._server.url is None:
            way = stdio_streams(self._server, on_end=life.die)
        else:
            way = http_streams(self._server, self._seen)
        client = Client(
            way,
            mode=era,
            cache=None,
            message_handler=heard,
            client_info=Implementation(name="kimi-mcp", version=__version__),
        )
        return await open_things.enter_async_context(client)

    def _why(self, fault: BaseException) -> str:
        return start_fault(fault, self._seen, died=self._life.died)

    # ── its tools ─────────────────────────────────────────────────────────────────────────────────────────────────

    def offer(self) -> SourceTools:
        """What it lists, and what its entry allows."""
        return SourceTools(source=self.name, tools=tuple(self._tools.values()), allow=self._server.allow)

    async def _list(self, client: Client) -> dict[str, ListedTool]:
        """All pages of its listing; of two tools with one name the first counts."""
        from mcp.types import PaginatedRequestParams

        found: dict[str, ListedTool] = {}
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            params = None if cursor is None else PaginatedRequestParams(cursor=cursor)
            page = await client.session.list_tools(params=params)
            for tool in page.tools:
                if len(found) < MOST_LISTED and len(tool.name) <= LONGEST_TOOL_NAME:
                    found.setdefault(
                        tool.name,
                        ListedTool(
                            name=tool.name,
                            description=tool.description or tool.title or "",
                            schema=tool.input_schema,
                            read_only=tool.annotations is not None and tool.annotations.read_only_hint is True,
                        ),
                    )
            cursor = page.next_cursor
            if not cursor or len(found) >= MOST_LISTED:
                break
        return found

    def _adopt(self, tools: dict[str, ListedTool]) -> None:
        """Take a listing: the first one is what the model was told, any other is held against it."""
        if not self._listed_once:
            self._tools = tools
            return
        for name, known in self._tools.items():
            now = tools.get(name)
            if now is None:
                self._changed.setdefault(name, "its server no longer lists it")
            elif now.fingerprint != known.fingerprint:
                self._changed.setdefault(name, "its server changed its definition while the swarm was running")

    def disable(self, name: str, why: str) -> None:
        """From now on a tool does not run."""
        self._changed.setdefault(name, why)

    def disabled(self) -> Mapping[str, str]:
        """The tools that no longer run, each with why, as the end of a sentence about it."""
        return self._changed

    def _stir(self) -> None:
        """Its tools are said to have changed: no call until it is known which."""
        self._settled = anyio.Event() if self._settled.is_set() else self._settled
        self._stirred.set()

    async def _watch(self, client: Client, life: _Life) -> None:
        """List anew whenever it says that its tools changed; until its end."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._relist, client, life)
            if self._tells_changes_on_request(client):
                tasks.start_soon(self._listen, client)
            await life.ended.wait()
            self._client = None
            if not self._stop.is_set():
                self._ready = anyio.Event()
            await life.drained()
            tasks.cancel_scope.cancel()

    async def _relist(self, client: Client, life: _Life) -> None:
        for _ in range(MOST_RELISTINGS):
            await self._stirred.wait()
            self._stirred = anyio.Event()
            tools: dict[str, ListedTool] | None = None
            try:
                with anyio.move_on_after(self._limits.start_within_s):
                    tools = await self._list(client)
            except Exception as fault:  # noqa: BLE001 - whatever it answers, it is its own fault
                if life.ended.is_set():
                    return  # it has ended: what lists next is its next life
                _log.debug("%s could not be listed anew", printable_name(self.name), exc_info=fault)
            self._adopt(tools or {})
            if not self._stirred.is_set():
                self._settled.set()
        for name in self._tools:
            self._changed.setdefault(name, "its server says again and again that its tools change")
        self._settled.set()
        await anyio.sleep_forever()

    @staticmethod
    def _tells_changes_on_request(client: Client) -> bool:
        from mcp.types.version import MODERN_PROTOCOL_VERSIONS

        tools = client.server_capabilities.tools
        return client.protocol_version in MODERN_PROTOCOL_VERSIONS and tools is not None and tools.list_changed is True

    async def _listen(self, client: Client) -> None:
        """In the newer era changes are told only to who asks for it."""
        try:
            async with client.listen(tools_list_changed=True) as events:
                async for _ in events:
                    self._stir()
        except Exception as fault:  # noqa: BLE001 - it said that it could tell, and can't: a later listing will
            _log.debug("%s does not tell of changes", printable_name(self.name), exc_info=fault)

    # ── its calls ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def call(self, tool: ListedTool, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Run a tool; whatever happens is an answer."""
        within = self._limits.call_within_s
        ran = False
        life = self._life
        with anyio.move_on_after(within) as scope:
            async with self._slots:
                await self._ready.wait()
                await self._settled.wait()
                if (client := self._client) is None:
                    return ToolAnswer.refused(f"The server of this tool is gone: {self.fault or 'it ended'}.")
                if (why := self._changed.get(tool.name)) is not None:
                    return ToolAnswer.refused(f"This tool is disabled: {why}.")
                life = self._life
                life.calls.add(scope)
                try:
                    ran = True
                    return await self._called(client, life, tool, arguments)
                finally:
                    life.calls.discard(scope)
        if life.over and ran:
            return ToolAnswer.failed(ENDED)
        return ToolAnswer.failed(f"The tool did not answer within {within:g} s.", ran=ran)

    async def _called(self, client: Client, life: _Life, tool: ListedTool, arguments: Mapping[str, Any]) -> ToolAnswer:
        from mcp.shared.exceptions import MCPError
        from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult, InputRequiredResult
        from pydantic import TypeAdapter, ValidationError

        asked = CallToolRequest(params=CallToolRequestParams(name=tool.name, arguments=dict(arguments)))
        answers: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)
        try:
            # Not by call_tool: that holds the result against the server's own schema, in time that has no bound.
            result = await client.session.send_request(asked, answers)
        except MCPError as fault:
            if session_expired(fault, self._seen):
                life.ended.set()  # a new session is begun
            return error_answer(fault, self._seen, died=life.died)
        except ValidationError:
            return ToolAnswer.failed("The tool's answer can't be read: it does not keep to the protocol.")
        except KimiError:
            raise
        except Exception as fault:  # noqa: BLE001 - the boundary: what the libraries raise is this call's failure
            _log.debug("a call of %s failed", printable_name(self.name), exc_info=fault)
            return ToolAnswer.failed("The tool's answer can't be read.")
        if isinstance(result, InputRequiredResult):
            return ToolAnswer.failed("The tool wants to ask a person, and a sub-agent has none to ask.")
        text = render_blocks(result.content, result.structured_content, most=self._limits.result_chars)
        return ToolAnswer(text=text, is_error=result.is_error is True)


def _only(fault: Exception) -> Exception:
    """The first exception within a group of groups."""
    found: Any = fault
    while isinstance(found, ExceptionGroup):
        found = cast(ExceptionGroup[Exception], found).exceptions[0]
    return found
