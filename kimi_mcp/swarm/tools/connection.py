"""One MCP server from its start to its end: listed, called, watched, restarted once. Does I/O.

Whatever a server does or fails to do costs its own tools and nothing else. Reasons are sentences of ours: the words of
a server or a library go to nobody, except the error that a tool itself answers with.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from kimi_mcp.core.version import __version__
from kimi_mcp.swarm.tools.config import ServerConfig, printable_name
from kimi_mcp.swarm.tools.http_client import LastResponse, http_streams
from kimi_mcp.swarm.tools.output import render_blocks
from kimi_mcp.swarm.tools.source import CallResult, ListedTool, ToolLimits, ToolSource
from kimi_mcp.swarm.tools.stdio_client import TOO_LARGE, UNREADABLE, stdio_streams

if TYPE_CHECKING:
    from mcp.client.client import Client
    from mcp.shared.exceptions import MCPError

RESTARTS: Final = 1
"""How often a server that died is started again."""

MAX_LISTED: Final = 20_000
"""Tools of one server that are read."""

MAX_PAGES: Final = 1_000
"""Pages of one listing."""

MAX_TOOL_NAME_CHARS: Final = 256
"""Code points of a tool's own name."""

MAX_RELISTINGS: Final = 20
"""Times that a server may announce that its tools changed; after that all of them are disabled."""

DRAIN_S: Final = 0.5
"""Seconds after a server's end in which its last answers are read."""

ENDED: Final = "The server of this tool ended during the call. Whether the tool has acted is not known."
"""The result of a call whose server has ended."""

SDK_ERROR_PREFIXES: Final = (
    "Failed to parse",
    "Unexpected content type",
    "SSE stream",
    "server answered a request with 202",
)
"""How the SDK's own errors about an HTTP answer begin; they go on with the text of an exception, or a server's."""

_log = logging.getLogger(__name__)


class _Session:
    """One start of a server, up to its end."""

    def __init__(self) -> None:
        self.died = False
        self.ended = anyio.Event()
        self.calls: set[anyio.CancelScope] = set()

    def die(self) -> None:
        """It has ended by itself; what it sent before is still being read."""
        self.died = True
        self.ended.set()

    async def drain(self) -> None:
        """Wait a little for the answers that it sent before its end."""
        with anyio.move_on_after(DRAIN_S):
            while self.calls:  # noqa: ASYNC110 - there is one waiter, and seldom
                await anyio.sleep(0.01)

    def end(self) -> None:
        """It has ended, and so have the calls that still wait for it."""
        self.ended.set()
        for scope in self.calls:
            scope.cancel()


class McpServer(ToolSource):
    """A source of tools that is an MCP server of the operator's file."""

    def __init__(self, server: ServerConfig, limits: ToolLimits) -> None:
        super().__init__(server.name, limits, allow=server.allow)
        self._server = server
        self._last_response = LastResponse()
        self._client: Client | None = None
        self._session = _Session()
        self._listed = False
        self._changed = anyio.Event()
        self._stop = anyio.Event()

    # ── start and end ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        for _ in range(1 + RESTARTS):
            self.fault = None
            try:
                await self._connect()
            except TimeoutError:
                self.fault = f"it was not ready within {self.limits.start_within_s:g} s"
            except Exception as fault:  # noqa: BLE001 - whatever the libraries raise, this server did not start
                self.fault = start_fault(fault, self._last_response, died=self._session.died)
            if self._stop.is_set() or not self._listed:
                break  # what never worked does not work a second time
            _log.warning("the tool server %s ended", printable_name(self.name))
        if not self._stop.is_set():
            self.fault = self.fault or "it ended, was started again, and ended again"
            _log.warning("the tools of %s are gone: %s", printable_name(self.name), self.fault)

    def stop(self) -> None:
        """Ask it to end."""
        self._stop.set()
        self._session.end()

    async def _connect(self) -> None:
        """Keep one session, in the handshake era of the protocol first: some servers end at any other first message."""
        from mcp.shared.exceptions import MCPError

        try:
            await self._connect_in("legacy")
        except MCPError as refused:
            if not may_speak_other_era(refused, self._last_response, died=self._session.died):
                raise
            await self._connect_in("auto")

    async def _connect_in(self, era: str) -> None:
        """Keep one session in an era of the protocol, up to its end. Raises what keeps the server from being listed."""
        session = self._session = _Session()
        listed = False
        try:
            with anyio.fail_after(self.limits.start_within_s) as scope:
                async with self._new_client(era, session) as client:
                    tools = await self._list(client)
                    scope.deadline = math.inf
                    self._compare(tools)
                    listed = self._listed = True
                    self.fault, self._client = None, client
                    self.ready.set()
                    await self._watch(client, session)
        except Exception as fault:  # noqa: BLE001 - whatever the libraries raise ends this server alone
            first: Exception = fault
            while isinstance(first, ExceptionGroup):
                first = cast(ExceptionGroup[Exception], first).exceptions[0]
            if not listed:
                raise first from None
            _log.debug("the session with %s broke", printable_name(self.name), exc_info=first)
        finally:
            self._client = None
            session.end()

    def _new_client(self, era: str, session: _Session) -> Client:
        from mcp import Client
        from mcp.types import Implementation, ToolListChangedNotification

        async def handle(message: Any) -> None:
            if isinstance(message, ToolListChangedNotification):
                self._announce_change()

        if self._server.url is None:
            streams = stdio_streams(self._server, on_end=session.die)
        else:
            streams = http_streams(self._server, self._last_response)
        info = Implementation(name="kimi-mcp", version=__version__)
        return Client(streams, mode=era, cache=None, message_handler=handle, client_info=info)

    # ── its tools ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _list(self, client: Client) -> dict[str, ListedTool]:
        """All pages of its listing; of two tools with one name the first counts."""
        from mcp.types import PaginatedRequestParams

        found: dict[str, ListedTool] = {}
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            params = None if cursor is None else PaginatedRequestParams(cursor=cursor)
            page = await client.session.list_tools(params=params)
            for tool in page.tools:
                if len(found) < MAX_LISTED and len(tool.name) <= MAX_TOOL_NAME_CHARS:
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
            if not cursor or len(found) >= MAX_LISTED:
                break
        return found

    def _compare(self, tools: dict[str, ListedTool]) -> None:
        """Keep the first listing, which the model gets; disable what differs from it in a later one."""
        if not self._listed:
            self.tools = tools
        for name, first in self.tools.items():
            if name not in tools:
                self.disable(name, "its server no longer lists it")
            elif tools[name].fingerprint != first.fingerprint:
                self.disable(name, "its server changed its definition while the swarm was running")

    def _announce_change(self) -> None:
        """Its tools have changed: no call until they are listed again."""
        self._hold_calls()
        self._changed.set()

    def _hold_calls(self) -> None:
        if self.ready.is_set():
            self.ready = anyio.Event()

    async def _watch(self, client: Client, session: _Session) -> None:
        """List again whenever its tools change; until its end."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._list_again, client, session)
            tasks.start_soon(self._subscribe, client)
            await session.ended.wait()
            self._client = None
            if not self._stop.is_set():
                self._hold_calls()
            await session.drain()
            tasks.cancel_scope.cancel()

    async def _list_again(self, client: Client, session: _Session) -> None:
        for _ in range(MAX_RELISTINGS):
            await self._changed.wait()
            self._changed = anyio.Event()
            tools: dict[str, ListedTool] = {}
            try:
                with anyio.move_on_after(self.limits.start_within_s):
                    tools = await self._list(client)
            except Exception as fault:  # noqa: BLE001 - whatever it answers, it is its own fault
                _log.debug("%s could not be listed again", printable_name(self.name), exc_info=fault)
            if session.ended.is_set():
                return  # its next session is listed anyway
            self._compare(tools)
            if not self._changed.is_set():
                self.ready.set()
        for name in self.tools:
            self.disable(name, "its server announces again and again that its tools change")
        self.ready.set()

    async def _subscribe(self, client: Client) -> None:
        """In the newer era a server announces changes to subscribers only."""
        from mcp.types.version import MODERN_PROTOCOL_VERSIONS

        tools = client.server_capabilities.tools
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS or tools is None or tools.list_changed is not True:
            return
        try:
            async with client.listen(tools_list_changed=True) as events:
                async for _ in events:
                    self._announce_change()
        except Exception as fault:  # noqa: BLE001 - it claimed that it could, and can't: it is listed at a restart
            _log.debug("%s does not announce changes", printable_name(self.name), exc_info=fault)

    # ── its calls ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _send(self, name: str, tool: ListedTool, arguments: Mapping[str, Any]) -> CallResult:
        if (client := self._client) is None:
            return CallResult.refused(f"The server of this tool is gone: {self.fault or 'it ended'}.")
        session = self._session
        with anyio.CancelScope() as scope:
            session.calls.add(scope)
            try:
                return await self._request(client, session, name, tool, arguments)
            finally:
                session.calls.discard(scope)
        return CallResult.failed(ENDED)

    async def _request(
        self, client: Client, session: _Session, name: str, tool: ListedTool, arguments: Mapping[str, Any]
    ) -> CallResult:
        from mcp.shared.exceptions import MCPError
        from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult, InputRequiredResult
        from pydantic import TypeAdapter, ValidationError

        request = CallToolRequest(params=CallToolRequestParams(name=tool.name, arguments=dict(arguments)))
        results: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)
        try:
            # Not by call_tool: that checks the result against the server's own schema, in time that has no bound.
            result = await client.session.send_request(request, results)
        except MCPError as fault:
            if session_expired(fault, self._last_response):
                session.ended.set()  # a new session is begun
            if (why := call_fault(fault, self._last_response, died=session.died)) is not None:
                return CallResult.failed(why)
            return self._answered(name, fault.message, is_error=True)
        except ValidationError:
            return CallResult.failed("The tool's answer can't be read: it does not keep to the protocol.")
        except Exception as fault:  # noqa: BLE001 - whatever the libraries raise is this call's failure
            _log.debug("a call of %s failed", printable_name(self.name), exc_info=fault)
            return CallResult.failed("The tool's answer can't be read.")
        if isinstance(result, InputRequiredResult):
            return CallResult.failed("The tool wants to ask a person, and a sub-agent has none to ask.")
        text = render_blocks(result.content, result.structured_content, most=self.limits.result_chars)
        return self._answered(name, text, is_error=result.is_error is True)


# ── what went wrong, in sentences of ours ─────────────────────────────────────────────────────────────────────────────


def start_fault(fault: Exception, response: LastResponse, *, died: bool) -> str:
    """Why a start failed, as the end of a sentence about the server. ``died``: its process has ended by itself."""
    from mcp.shared.exceptions import MCPError
    from pydantic import ValidationError

    status = response.status
    if isinstance(fault, ValidationError):
        return "its answers do not keep to MCP"
    if status is None:
        return "nobody answers at its `url`"
    if status in (401, 403):
        return f"it refuses us with HTTP {status}: look at its `headers`"
    if status >= 300:
        return f"it answers with HTTP {status}: look at its `url`"
    match fault:
        case FileNotFoundError() | NotADirectoryError():
            return "its `command` or its `cwd` is not there"
        case PermissionError():
            return "its `command` may not be run"
        case OSError():
            return "its `command` can't be started"
        case MCPError() if died:
            return "its process ended before it was ready (KIMI_LOG_LEVEL=INFO shows what it wrote to stderr)"
        case MCPError() if fault.code == TOO_LARGE:
            return "its listing is larger than 8 MB"
        case MCPError():
            return "it refused the handshake"
        case _:
            return "its answers do not keep to MCP"


def may_speak_other_era(fault: MCPError, response: LastResponse, *, died: bool) -> bool:
    """Whether a server that refused one handshake may take the other."""
    return not (died or fault.code in (TOO_LARGE, UNREADABLE) or response.status in (None, 401, 403))


def session_expired(fault: MCPError, response: LastResponse) -> bool:
    """Whether a server behind a URL no longer knows our session."""
    from mcp.types import INVALID_REQUEST

    return response.status == 404 and fault.code == INVALID_REQUEST


def call_fault(fault: MCPError, response: LastResponse, *, died: bool) -> str | None:
    """Why a call ended in a protocol error; None: it is the tool's own error. ``died``: its process has ended."""
    from mcp.types import CONNECTION_CLOSED

    status = response.status
    if fault.code == TOO_LARGE:
        return "The tool's answer is larger than 8 MB and was dropped."
    if fault.code == UNREADABLE:
        return "The tool's answer can't be read: it is no JSON."
    if fault.code == CONNECTION_CLOSED and died:
        return ENDED
    if status is None:
        return "The server of this tool can't be reached just now."
    if session_expired(fault, response):
        return "The server of this tool has forgotten its session. Call the tool again."
    if status and fault.message.startswith(SDK_ERROR_PREFIXES):
        return "The tool's answer can't be read, or is larger than 8 MB."
    return f"The server of this tool answers with HTTP {status}." if status >= 300 else None
