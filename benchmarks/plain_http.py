"""The plain tool over HTTP: the SDK's own app around ``plain_server``'s tool, on uvicorn. ``--port PORT``."""

from __future__ import annotations

import sys

import uvicorn
from mcp.server import Server

from benchmarks.plain_server import call_tool, list_tools

if __name__ == "__main__":
    server = Server("plain", on_list_tools=list_tools, on_call_tool=call_tool)
    # Without a line of log for each request, which would cost it more; its connections wait for their turn.
    uvicorn.run(server.streamable_http_app(), port=int(sys.argv[2]), log_level="warning", timeout_keep_alive=600)
