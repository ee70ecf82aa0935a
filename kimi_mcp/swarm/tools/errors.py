"""What went wrong with an MCP server, in words of ours: why it did not start, what a failed call answers. Pure, no I/O.

What a library or a server says of it reaches nobody, but for the error that a tool itself answers with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kimi_mcp.swarm.tools.source import ToolAnswer
from kimi_mcp.swarm.tools.stdio_client import TOO_LARGE, UNREADABLE

if TYPE_CHECKING:
    from mcp.shared.exceptions import MCPError

    from kimi_mcp.swarm.tools.http_client import LastResponse

ENDED: Final = "The server of this tool ended during the call. Whether the tool has acted is not known."
"""What a call brings whose server has ended."""

SDK_ERROR_PREFIXES: Final = (
    "Failed to parse",
    "Unexpected content type",
    "SSE stream",
    "server answered a request with 202",
)
"""How the SDK's own errors about an HTTP answer begin; they go on with the text of an exception, or a server's."""


def start_fault(fault: BaseException, seen: LastResponse, *, died: bool) -> str:
    """Why a start failed, as the end of a sentence about the server. ``died``: its process has ended by itself."""
    from mcp.shared.exceptions import MCPError
    from pydantic import ValidationError

    if not isinstance(fault, ValidationError):
        match seen.status:
            case None:
                return "nobody answers at its `url`"
            case 401 | 403 as status:
                return f"it refuses us with HTTP {status}: look at its `headers`"
            case status if status >= 300:
                return f"it answers with HTTP {status}: look at its `url`"
            case _:
                pass
    match fault:
        case FileNotFoundError() | NotADirectoryError():
            return "its `command` or its `cwd` is not there"
        case PermissionError():
            return "its `command` may not be run"
        case OSError():
            return "its `command` can't be started"
        case MCPError() if died:
            return "its process ended before it was ready (KIMI_LOG_LEVEL=INFO shows what it said)"
        case MCPError() if fault.code == TOO_LARGE:
            return "what it lists is larger than 8 MB"
        case MCPError():
            return "it refused to begin"
        case _:
            return "what it answers is not what MCP asks for"


def may_speak_other_era(fault: MCPError, seen: LastResponse, *, died: bool) -> bool:
    """Whether a server that refused one handshake may take the other."""
    return not (died or fault.code in (TOO_LARGE, UNREADABLE) or seen.status in (None, 401, 403))


def session_expired(fault: MCPError, seen: LastResponse) -> bool:
    """Whether a server behind a URL knows our session no more."""
    from mcp.types import INVALID_REQUEST

    return seen.status == 404 and fault.code == INVALID_REQUEST


def error_answer(fault: MCPError, seen: LastResponse, *, died: bool) -> ToolAnswer:
    """What a call brings that ended in a protocol error. ``died``: the server's process has ended by itself."""
    from mcp.types import CONNECTION_CLOSED

    if fault.code == TOO_LARGE:
        return ToolAnswer.failed("The tool's answer is larger than 8 MB and was dropped.")
    if fault.code == UNREADABLE:
        return ToolAnswer.failed("The tool's answer can't be read: it is no JSON.")
    if fault.code == CONNECTION_CLOSED and died:
        return ToolAnswer.failed(ENDED)
    if seen.status is None:
        return ToolAnswer.failed("The server of this tool can't be reached just now.")
    if session_expired(fault, seen):
        return ToolAnswer.failed("The server of this tool has forgotten its session. Call the tool again.")
    if seen.status and fault.message.startswith(SDK_ERROR_PREFIXES):
        return ToolAnswer.failed("The tool's answer can't be read, or is larger than 8 MB.")
    if seen.status >= 300:
        return ToolAnswer.failed(f"The server of this tool answers with HTTP {seen.status}.")
    return ToolAnswer(text=fault.message, is_error=True)
