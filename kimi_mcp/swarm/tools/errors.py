"""What went wrong with an MCP server, in sentences of ours: why it did not start, why a call failed. Pure, no I/O.

A library's or a server's own words go to nobody, except the error that a tool itself answers with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kimi_mcp.swarm.tools.stdio_client import TOO_LARGE, UNREADABLE

if TYPE_CHECKING:
    from mcp.shared.exceptions import MCPError

    from kimi_mcp.swarm.tools.http_client import LastResponse

ENDED: Final = "The server of this tool ended during the call. Whether the tool has acted is not known."
"""The result of a call whose server has ended."""

SDK_ERROR_PREFIXES: Final = (
    "Failed to parse",
    "Unexpected content type",
    "SSE stream",
    "server answered a request with 202",
)
"""How the SDK's own errors about an HTTP answer begin; they go on with the text of an exception, or a server's."""


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
