"""The stdio transport: one host on stdin and stdout, from its first byte to a clean end. Does I/O.

``connection`` feeds the SDK's server and ends it, ``framing`` (pure) says what a line may be, ``descriptors`` owns the
two ends of the wire.
"""

from kimi_mcp.server.stdio.connection import leave, serve_stdio
from kimi_mcp.server.stdio.framing import TransportLimits

__all__ = ["TransportLimits", "leave", "serve_stdio"]
