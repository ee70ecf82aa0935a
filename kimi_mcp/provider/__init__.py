"""Requests to providers: streamed, retried, timed, and failing only in our own words. Does I/O.

The only room that speaks to a provider and imports openai (on first use). ``calls`` has the retry loop, ``attempt`` one
request and its reading, ``clients`` and ``transport`` the sockets; ``sse``, ``retry``, ``quoting``, ``refusals`` and
``faults`` are pure.
"""

from kimi_mcp.provider.attempt import StreamSink
from kimi_mcp.provider.calls import Endpoint, Upstream
from kimi_mcp.provider.failures import Deadlines
from kimi_mcp.provider.files import RemoteFile, Upload
from kimi_mcp.provider.formulas import Fiber
from kimi_mcp.provider.retry import MOST_ATTEMPTS

__all__ = ["MOST_ATTEMPTS", "Deadlines", "Endpoint", "Fiber", "RemoteFile", "StreamSink", "Upload", "Upstream"]
