"""Requests to providers: streamed, retried, timed, and failing only with our own errors. Does I/O."""

from kimi_mcp.provider.calls import Upstream
from kimi_mcp.provider.endpoint import Endpoint
from kimi_mcp.provider.failures import Deadlines
from kimi_mcp.provider.json_requests import Fiber, Purpose, RemoteFile, Upload
from kimi_mcp.provider.retry import MOST_ATTEMPTS

__all__ = ["MOST_ATTEMPTS", "Deadlines", "Endpoint", "Fiber", "Purpose", "RemoteFile", "Upload", "Upstream"]
