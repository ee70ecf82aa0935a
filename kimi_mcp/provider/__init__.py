"""Requests to providers: streamed, retried, timed, and failing only with our own errors. Does I/O.

The only package that sends requests to a provider and imports openai (on first use). ``calls`` has the retry loop,
``attempt`` one request and its stream, ``json_requests`` the rest of the API, ``clients`` and ``connections`` the
sockets.
"""

from kimi_mcp.provider.calls import Upstream
from kimi_mcp.provider.endpoint import Endpoint
from kimi_mcp.provider.failures import Deadlines
from kimi_mcp.provider.json_requests import Fiber, RemoteFile, Upload
from kimi_mcp.provider.retry import MOST_ATTEMPTS

__all__ = ["MOST_ATTEMPTS", "Deadlines", "Endpoint", "Fiber", "RemoteFile", "Upload", "Upstream"]
