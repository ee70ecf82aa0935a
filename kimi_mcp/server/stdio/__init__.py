"""The stdio transport: one host on stdin and stdout, from its first byte to a clean end. Does I/O."""

from kimi_mcp.server.stdio.connection import leave, serve_stdio
from kimi_mcp.server.stdio.framing import TransportLimits

__all__ = ["TransportLimits", "leave", "serve_stdio"]
