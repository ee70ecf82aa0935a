"""One MCP server from its start to its end: listed, called, watched, restarted once. Does I/O.

Faults are described in our own words: no text of a server or a library is passed on, except the error that a tool
itself answers with.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.version import __version__
from kimi_mcp.swarm.tools.config import ServerConfig, printable_name
from kimi_mcp.swarm.tools.http_client import http_streams
from kimi_mcp.swarm.tools.source import CallResult, ListedTool, ToolLimits, ToolSource, render_blocks
from kimi_mcp.swarm.tools.stdio_client import TOO_LARGE, UNREADABLE, stdio_streams

if TYPE_CHECKING:
    from mcp.client.client import Client
    from mcp.shared.exceptions import MCPError

SDK_ERROR_PREFIXES: Final = (
    "Failed to parse",
    "Unexpected content type",
    "SSE stream",
    "server answered a request with 202",
)
"""How the SDK's own errors about an HTTP answer begin; the rest is an exception's or a server's text."""

_log = logging.getLogger(__name__)


class McpServer(ToolSource):
    """A source of tools that is an MCP server of the operator's file."""

    def __init__(self, server: ServerConfig, limits: ToolLimits) -> None:
        super().__init__(server.name, limits, allow=server.allow)
        self._server, self._printable = server, printable_name(server.name)
        self._client: Client | None = None
        self._ended, self._changed = anyio.Event(), anyio.Event()
        self._died = self._listed = self._stopped = False
        self._calls = 0
        self._http_status: int | None = 0
        """Of its last response; None: nobody answered; 0: nothing was requested over HTTP."""

    async def serve(self) -> None:
        """Start the server, and once more if it dies; keep it until it is to stop."""
        for _ in range(2):
            self.fault = None
            try:
                await self._connect()
            except TimeoutError:
                self.fault = f"it was not ready within {self.limits.start_within_s:g} s"
            except Exception as fault:  # noqa: BLE001 - whatever the libraries raise, this server did not start
                self.fault = self._start_fault(fault)
            if self._stopped or not self._listed:
                break  # what never worked does not work a second time
            _log.warning("the tool server %s ended", self._printable)
        if not self._stopped:
            self.fault = self.fault or "it ended, was started again, and ended again"
            _log.warning("the tools of %s are gone: %s", self._printable, self.fault)

    def stop(self) -> None:
        """End it."""
        self._stopped = True
        self._ended.set()

    def _die(self) -> None:
        """Record that it ended by itself; what it sent before is still being read."""
        self._died = True
        self._ended.set()

    def _record_status(self, status: int | None) -> None:
        self._http_status = status

    async def _connect(self) -> None:
        """Keep one session, in the handshake era of the protocol first: some servers exit at any other message."""
        from mcp.shared.exceptions import MCPError

        try:
            await self._keep_session("legacy")
        except MCPError as refused:
            unreadable = self._died or refused.code in (TOO_LARGE, UNREADABLE)
            if unreadable or self._http_status in (None, 401, 403):
                raise
            await self._keep_session("auto")

    async def _keep_session(self, era: str) -> None:
        """Keep one session in an era of the protocol, up to its end. Raises what keeps the server from being listed."""
        from mcp import Client
        from mcp.types import Implementation, ToolListChangedNotification

        async def handle(message: Any) -> None:
            if isinstance(message, ToolListChangedNotification):
                self._announce_change()

        self._ended, self._died, listed = anyio.Event(), False, False
        if (url := self._server.url) is None:
            streams = stdio_streams(self._server, on_end=self._die)
        else:
            streams = http_streams(url, self._server.headers, on_response=self._record_status)
        info = Implementation(name="kimi-mcp", version=__version__)
        try:
            with anyio.fail_after(self.limits.start_within_s) as scope:
                async with Client(streams, mode=era, cache=None, message_handler=handle, client_info=info) as client:
                    tools = await self._list(client)
                    scope.deadline = math.inf
                    self._compare(tools)
                    listed = self._listed = True
                    self.fault, self._client = None, client
                    self.ready.set()
                    await self._watch(client)
        except Exception as fault:  # noqa: BLE001 - whatever the libraries raise ends this server alone
            first: Exception = fault
            while isinstance(first, ExceptionGroup):
                first = cast(ExceptionGroup[Exception], first).exceptions[0]
            if not listed:
                raise first from None
            _log.debug("the session with %s broke", self._printable, exc_info=first)
        finally:
            self._client = None
            self._ended.set()

    async def _watch(self, client: Client) -> None:
        """List the tools again whenever they change; until the session's end."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._relist, client)
            tasks.start_soon(self._subscribe, client)
            await self._ended.wait()
            self._client = None
            if not self._stopped:
                self._hold_calls()
            with anyio.move_on_after(self.limits.drain_s):
                while self._calls:  # noqa: ASYNC110 - there is one waiter, and seldom
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()

    async def _list(self, client: Client) -> dict[str, ListedTool]:
        """All pages of a server's listing; of two tools with one name the first counts."""
        from mcp.types import PaginatedRequestParams

        found: dict[str, ListedTool] = {}
        params: PaginatedRequestParams | None = None
        while True:
            page = await client.session.list_tools(params=params)
            for tool in page.tools:
                if len(found) < self.limits.listed_tools and len(tool.name) <= self.limits.name_chars:
                    listed = ListedTool(
                        name=tool.name,
                        description=tool.description or tool.title or "",
                        schema=tool.input_schema,
                        read_only=tool.annotations is not None and tool.annotations.read_only_hint is True,
                    )
                    found.setdefault(tool.name, listed)
            if not page.next_cursor or len(found) >= self.limits.listed_tools:
                return found
            params = PaginatedRequestParams(cursor=page.next_cursor)

    def _compare(self, tools: Mapping[str, ListedTool]) -> None:
        """Keep the first listing, which the model gets; disable what differs from it in a later one."""
        if not self._listed:
            self.tools = dict(tools)
        for name, first in self.tools.items():
            if name not in tools:
                self.disabled.setdefault(name, "its server no longer lists it")
            elif tools[name].fingerprint != first.fingerprint:
                self.disabled.setdefault(name, "its server changed its definition while the swarm was running")

    def _announce_change(self) -> None:
        """Its tools have changed: no call is sent until they are listed again."""
        self._hold_calls()
        self._changed.set()

    def _hold_calls(self) -> None:
        if self.ready.is_set():
            self.ready = anyio.Event()

    async def _relist(self, client: Client) -> None:
        for _ in range(self.limits.relistings):
            await self._changed.wait()
            self._changed = anyio.Event()
            tools: Mapping[str, ListedTool] = {}
            try:
                with anyio.move_on_after(self.limits.start_within_s):
                    tools = await self._list(client)
            except Exception as fault:  # noqa: BLE001 - whatever the server answers, its tools are disabled
                _log.debug("%s could not be listed again", self._printable, exc_info=fault)
            if self._ended.is_set():
                return  # its next session is listed anyway
            self._compare(tools)
            if not self._changed.is_set():
                self.ready.set()
        for name in self.tools:
            self.disabled.setdefault(name, "its server announces again and again that its tools change")
        self.ready.set()

    async def _subscribe(self, client: Client) -> None:
        """Subscribe to changes of the tools: in the newer era a server announces them to subscribers only."""
        from mcp.types.version import MODERN_PROTOCOL_VERSIONS

        tools = client.server_capabilities.tools
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS or tools is None or tools.list_changed is not True:
            return
        try:
            async with client.listen(tools_list_changed=True) as events:
                async for _ in events:
                    self._announce_change()
        except Exception as fault:  # noqa: BLE001 - it promised to, and can't: changes are seen at a restart
            _log.debug("%s does not announce changes", self._printable, exc_info=fault)

    async def send(self, name: str, tool: ListedTool, arguments: Mapping[str, Any]) -> CallResult:
        """Send a call to the server, as ``ToolSource`` describes it."""
        from mcp.shared.exceptions import MCPError
        from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult, InputRequiredResult
        from pydantic import TypeAdapter

        if (client := self._client) is None:
            return CallResult.refused(f"The server of this tool is gone: {self.fault or 'it ended'}.")
        request = CallToolRequest(params=CallToolRequestParams(name=tool.name, arguments=dict(arguments)))
        results: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)
        self._calls += 1
        try:
            # Not by call_tool: that checks the result against the server's own schema, in time that has no bound.
            result = await client.session.send_request(request, results)
        except MCPError as fault:
            why = self._call_fault(fault)
            return self.framed(name, fault.message, is_error=True) if why is None else CallResult.failed(why)
        except Exception as fault:  # noqa: BLE001 - whatever the libraries raise is this call's failure
            _log.debug("a call of %s failed", self._printable, exc_info=fault)
            return CallResult.failed("The tool's answer can't be read: it does not keep to the protocol.")
        finally:
            self._calls -= 1
        if isinstance(result, InputRequiredResult):
            return CallResult.failed("The tool wants to ask a person, and a sub-agent has none to ask.")
        text = render_blocks(result.content, result.structured_content, most=self.limits.result_chars)
        return self.framed(name, text, is_error=result.is_error is True)

    def _start_fault(self, fault: Exception) -> str:
        """Why a start failed, as the end of a sentence about the server."""
        from mcp.shared.exceptions import MCPError
        from pydantic import ValidationError

        status = self._http_status
        if isinstance(fault, NotConfigured):
            return "SSL_CERT_FILE or SSL_CERT_DIR names no certificates that can be read"
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
            case MCPError() if self._died:
                return "its process ended before it was ready (KIMI_LOG_LEVEL=INFO shows what it wrote to stderr)"
            case MCPError() if fault.code == TOO_LARGE:
                return "its listing is larger than 8 MB"
            case MCPError():
                return "it refused the handshake"
            case _:
                return "its answers do not keep to MCP"

    def _call_fault(self, fault: MCPError) -> str | None:
        """Why a call ended in a protocol error, in a sentence; None: it is the tool's own error."""
        from mcp.types import CONNECTION_CLOSED, INVALID_REQUEST

        status = self._http_status
        if fault.code == TOO_LARGE:
            return "The tool's answer is larger than 8 MB and was dropped."
        if fault.code == UNREADABLE:
            return "The tool's answer can't be read: it is no JSON."
        if status == 404 and fault.code == INVALID_REQUEST:
            self._ended.set()  # a new session is begun
            return "The server of this tool has forgotten its session. Call the tool again."
        if status and fault.message.startswith(SDK_ERROR_PREFIXES):
            return "The tool's answer can't be read, or is larger than 8 MB."
        if fault.code == CONNECTION_CLOSED and self._ended.is_set():
            return "The server of this tool ended during the call. Whether the tool has acted is not known."
        if status is None:
            return "The server of this tool can't be reached just now."
        return f"The server of this tool answers with HTTP {status}." if status >= 300 else None
