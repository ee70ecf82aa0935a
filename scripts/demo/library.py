"""A small MCP server for the demo's sub-agents, with one tool that looks a city up. I/O: JSON lines on stdio.

Written by hand and without our own code, as a foreign server would be.
"""

from __future__ import annotations

import json
import sys
from typing import Any

SHELVES = {
    "Rome": "Rome: 2,800,000 people, on the Tiber.",
    "Oslo": "Oslo: 720,000 people, at the end of its fjord.",
    "Lima": "Lima: 10,000,000 people, on the Pacific.",
}
"""What can be looked up."""

LOOK_UP = {
    "name": "look_up",
    "description": "Looks a city up.",
    "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "annotations": {"readOnlyHint": True},
}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """The result of a request."""
    if method == "initialize":
        about = {"name": "library", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": about}
    if method == "tools/list":
        return {"tools": [LOOK_UP]}
    if method == "tools/call":
        text = SHELVES.get(params["arguments"].get("city", ""), "Nothing is known of that.")
        return {"content": [{"type": "text", "text": text}], "isError": False}
    return {}


def main() -> None:
    """Answer one line after the other until stdin ends."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message:
            if message["method"] in ("initialize", "tools/list", "tools/call", "ping"):
                reply: dict[str, Any] = {"result": answer(message["method"], message.get("params", {}))}
            else:
                reply = {"error": {"code": -32601, "message": "Method not found"}}
            sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
