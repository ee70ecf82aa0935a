"""An MCP endpoint over HTTP, by hand on a real socket: as bad as the text of a call says."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import h11
from anyio.abc import SocketAttribute, SocketStream

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}


class OddEndpoint:
    """What it received, and what it answers."""

    def __init__(self, flags: frozenset[str]) -> None:
        self.flags = flags
        self.port = 0
        self.seen: list[dict[str, str]] = []
        self.sessions = 0
        self.forget = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def connection(self, stream: SocketStream) -> None:
        async with stream:
            try:
                while await self._exchange(stream):
                    pass
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, h11.RemoteProtocolError):
                pass

    async def _exchange(self, stream: SocketStream) -> bool:
        wire, body, request = h11.Connection(h11.SERVER), b"", None
        while not isinstance(event := wire.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                wire.receive_data(await stream.receive())
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                return False
        assert request is not None
        headers = {name.decode(): value.decode() for name, value in request.headers}
        self.seen.append({"method": request.method.decode(), **headers})
        status, kind, answer = self._answer(request.method.decode(), headers, json.loads(body) if body else {})
        if status == 0:
            await stream.aclose()
            return False
        if status == -1:
            await anyio.sleep_forever()
        fields = [("content-type", kind), ("mcp-session-id", f"s{self.sessions}")]
        if kind == "gzip":
            fields = [("content-type", "application/json"), ("content-encoding", "gzip")]
        if status == 307:
            fields.append(("location", "http://localhost:1/elsewhere"))
        fields.append(("content-length", str(len(answer))))
        await stream.send(wire.send(h11.Response(status_code=status, headers=fields)) or b"")
        for at in range(0, len(answer), 1 << 20):
            await stream.send(wire.send(h11.Data(data=answer[at : at + (1 << 20)])) or b"")
        await stream.send(wire.send(h11.EndOfMessage()) or b"")
        return True

    def _answer(self, method: str, headers: dict[str, str], message: dict[str, Any]) -> tuple[int, str, bytes]:
        if "unauthorized" in self.flags:
            return 401, "text/html", b"<p>Wrong key: " + headers.get("authorization", "").encode()
        if method != "POST":
            return 405, "text/plain", b""
        if "id" not in message:
            return 202, "text/plain", b""
        if message["method"] == "initialize":
            self.sessions += 1
            self.forget = False
            version = message["params"]["protocolVersion"]
            found: Any = {
                "protocolVersion": version,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "o", "version": "1"},
            }
        elif self.forget:
            return 404, "text/plain", b"no such session"
        elif message["method"] == "tools/list":
            tool = {"name": "echo", "inputSchema": SCHEMA, "annotations": {"readOnlyHint": True}}
            found = {"tools": [tool]}
        else:
            text = message["params"]["arguments"]["text"]
            match text:
                case "reset":
                    return 0, "", b""
                case "hang":
                    return -1, "", b""
                case "500":
                    return 500, "text/html", b"<h1>secret trace</h1>"
                case "redirect":
                    return 307, "text/plain", b""
                case "html":
                    return 200, "text/html", b"<p>hello"
                case "no json":
                    return 200, "application/json", b"{"
                case "forget":
                    self.forget = True
                case "gzip":
                    return 200, "gzip", gzip.compress(b" " * 50_000_000)
                case "large":
                    text = "y" * 20_000_000
                case "large event":
                    answer = {"jsonrpc": "2.0", "id": message["id"], "result": {"content": "y" * 20_000_000}}
                    return 200, "text/event-stream", f"data: {json.dumps(answer)}\n\n".encode()
                case _:
                    pass
            found = {"content": [{"type": "text", "text": text}]}
        answer = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": found})
        if "events" in self.flags:
            return 200, "text/event-stream", f"event: message\ndata: {answer}\n\n".encode()
        return 200, "application/json", answer.encode()


@asynccontextmanager
async def odd_endpoint(*flags: str) -> AsyncGenerator[OddEndpoint]:
    """An endpoint that runs."""
    endpoint = OddEndpoint(frozenset(flags))
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    endpoint.port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, endpoint.connection)
        yield endpoint
        tasks.cancel_scope.cancel()
