"""A scripted stand-in for Anthropic's messages API: records what a host offers its model. I/O: a local socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Request = dict[str, Any]
Block = dict[str, Any]
"""One content block of a reply: ``{"type": "text", "text": ...}`` or a ``tool_use`` with ``name`` and ``input``."""


class ScriptedModel:
    """What the host asked so far, and what it is answered."""

    def __init__(self, script: Callable[[Request], Block]) -> None:
        self.script = script
        self.requests: list[Request] = []
        """The requests that offered tools, in order."""
        self.url = ""


@contextmanager
def scripted_model(script: Callable[[Request], Block]) -> Iterator[ScriptedModel]:
    """Serve the script; requests without tools (titles and the like) are answered with ``ok``."""
    model = ScriptedModel(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if not self.path.startswith("/v1/messages") or "count_tokens" in self.path:
                self._reply("application/json", json.dumps({"input_tokens": 1}).encode())
                return
            block: Block = {"type": "text", "text": "ok"}
            if request.get("tools"):
                model.requests.append(request)
                block = script(request)
            events = _events(request["model"], block, len(model.requests))
            body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
            self._reply("text/event-stream", body.encode())

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            self._reply("application/json", b"{}")

        def _reply(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    model.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()


def _events(model: str, block: Block, number: int) -> list[dict[str, Any]]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": model, "content": []}
    start: dict[str, Any]
    if block["type"] == "text":
        start, delta, stop = {"type": "text", "text": ""}, {"type": "text_delta", "text": block["text"]}, "end_turn"
    else:
        start = {"type": "tool_use", "id": f"toolu_{number}", "name": block["name"], "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        stop = "tool_use"
    return [
        {"type": "message_start", "message": message | {"stop_reason": None, "stop_sequence": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": start},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]
