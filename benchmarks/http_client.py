"""Servers over HTTP, and a client that costs little: raw sockets, kept open, in both eras. I/O: loopback.

A connection sends one call at a time. Of a response it looks for the end and parses the last message, so that a server
never waits for it.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import processes
from benchmarks.processes import ABOUT, NEWEST, NEWEST_META, OLDER

_START_S = 60.0


class HttpServer(processes.Process):
    """An MCP server over HTTP on a port of its own."""

    def __init__(self, *command: str, tool: str, environment: Mapping[str, str] | None = None) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        super().__init__(*command, "--port", str(self.port), environment=environment, quiet=True)
        self.tool = tool
        self.folder: TemporaryDirectory[str] | None = None
        """A folder of its own, which goes when it goes."""

    def close(self) -> None:
        """End it, and remove its folder."""
        self.terminate()
        super().close()
        if self.folder is not None:
            self.folder.cleanup()

    def get(self, path: str) -> int:
        """The status of a GET, once it listens."""
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            with suppress(ConnectionRefusedError), Connection(self, NEWEST) as connection:
                return connection.request("GET", path)[0]
            time.sleep(0.002)
        raise TimeoutError("the server has not started")


class Connection:
    """A connection to a server, in an era: for its tool, or another one; of whoever has that token."""

    def __init__(self, server: HttpServer, era: str, *, tool: str | None = None, token: str | None = None) -> None:
        self.socket = socket.socket()
        self._port, self._era, self._tool, self._received = server.port, era, tool or server.tool, b""
        self._headers = (
            f"Host: 127.0.0.1:{server.port}\r\nAccept: application/json, text/event-stream\r\n"
            f"Content-Type: application/json\r\nMCP-Protocol-Version: {era}\r\n"
        )
        if token is not None:
            self._headers += f"Authorization: Bearer {token}\r\n"

    def __enter__(self) -> Connection:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def open(self) -> None:
        """Connect the socket."""
        self.socket.connect(("127.0.0.1", self._port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connect(self) -> None:
        """Connect, and open a session, as a host of the handshake era does."""
        self.open()
        if self._era == OLDER:
            about = {"protocolVersion": OLDER, "capabilities": {}, "clientInfo": ABOUT}
            head, _ = self.ask("initialize", about)
            session = next(line for line in head.split("\r\n") if line.lower().startswith("mcp-session-id:"))
            self._headers += session + "\r\n"
            self._send("POST", "/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"})
            self._response()

    def list_tools(self) -> None:
        """See that the tool is there."""
        _, message = self.ask("tools/list", {})
        assert self._tool in [tool["name"] for tool in message["result"]["tools"]], message

    def ask(self, method: str, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Send a request; the head of its response, and the message."""
        self._send_request(method, params)
        head, content = self._response()
        return head, json.loads(content)

    def request(self, method: str, path: str) -> tuple[int, bytes]:
        """Send a request of HTTP alone; its status and content."""
        self._send(method, path)
        head, content = self._response()
        return int(head.split()[1]), content

    def call(self, prompt: str, token: int | None = None) -> None:
        """Call the tool; with a token it reports progress."""
        params = {"name": self._tool, "arguments": {"prompt": prompt}}
        self._send_request("tools/call", params, {} if token is None else {"progressToken": token})

    def read(self) -> dict[str, Any] | None:
        """What has come; the message that answers, once that is complete."""
        piece = self.socket.recv(1 << 20)
        if not piece:
            raise ConnectionError("the server has closed the connection")
        self._received += piece
        found = _complete(self._received)
        if found is None:
            return None
        self._received = b""
        return json.loads(found[1])

    def _send_request(self, method: str, params: Mapping[str, Any], meta: Mapping[str, Any] = {}) -> None:
        meta = {**NEWEST_META, **meta} if self._era == NEWEST else meta
        params = {**params, "_meta": meta} if meta else params
        named = "" if method != "tools/call" else f"Mcp-Name: {params['name']}\r\n"
        more = f"Mcp-Method: {method}\r\n{named}" if self._era == NEWEST else ""
        self._send("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, more)

    def _send(self, method: str, path: str, message: Mapping[str, Any] | None = None, headers: str = "") -> None:
        body = b"" if message is None else json.dumps(message).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self._headers}{headers}Content-Length: {len(body)}\r\n\r\n"
        self.socket.sendall(head.encode() + body)

    def _response(self) -> tuple[str, bytes]:
        received = b""
        while (found := _complete(received)) is None:
            piece = self.socket.recv(1 << 20)
            if not piece:
                raise ConnectionError("the server has closed the connection")
            received += piece
        return found


def _complete(received: bytes) -> tuple[str, bytes] | None:
    """The head and the last message of a response, once it is complete."""
    head, blank, body = received.partition(b"\r\n\r\n")
    if not blank:
        return None
    lines = head.lower()
    if b"transfer-encoding: chunked" in lines:
        if not body.endswith(b"0\r\n\r\n"):
            return None
        return head.decode(), body.rpartition(b"data: ")[2].partition(b"\r\n")[0]
    length = lines.partition(b"content-length:")[2].partition(b"\r\n")[0]
    wanted = int(length) if length else 0
    return (head.decode(), body) if len(body) >= wanted else None


class Client:
    """So many connections to a server, in an era."""

    def __init__(self, server: HttpServer, era: str, connections: int) -> None:
        self._server = server
        self._connections = [Connection(server, era) for _ in range(connections)]

    def connect(self) -> None:
        """Open a session on each connection, where the era has them; list the tools."""
        for connection in self._connections:
            connection.connect()
        self._connections[0].list_tools()

    def close(self) -> None:
        """Close them all."""
        for connection in self._connections:
            connection.socket.close()

    def cpu_s(self) -> float:
        """CPU seconds that the server has used so far."""
        return self._server.cpu_s()

    def calls(self, prompt: str, number: int, *, in_flight: int) -> None:
        """Call the tool so many times, so many calls at once, and see that each of them succeeded."""
        for _, message in self.results(prompt, number, in_flight=in_flight):
            assert succeeded(message), message

    def results(
        self, prompt: str, number: int, *, in_flight: int, progress: bool = False
    ) -> Iterator[tuple[float, dict[str, Any]]]:
        """Likewise: when each was answered, by the monotonic clock, and the message."""
        with selectors.DefaultSelector() as selector:
            sent = min(number, in_flight)
            for at, connection in enumerate(self._connections[:sent]):
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                connection.call(prompt, at if progress else None)
            answered = 0
            while answered < number:
                for key, _ in selector.select():
                    connection: Connection = key.data
                    if (message := connection.read()) is None:
                        continue
                    answered += 1
                    if sent < number:
                        connection.call(prompt, sent if progress else None)
                        sent += 1
                    yield time.monotonic(), message


def succeeded(message: Mapping[str, Any]) -> bool:
    """Whether a call has an answer."""
    result = message.get("result", {})
    return not result.get("isError") and bool(result.get("content", [{}])[0].get("text"))


def ours(source: processes.Source, *, at_once: int = 16, **more: str) -> HttpServer:
    """``kimi-mcp serve --transport http``, pointed there, with a data folder of its own; ``more`` are variables."""
    folder, environment = processes.our_environment(source, at_once, **more)
    command = "-m", "kimi_mcp", "serve", "--transport", "http"
    server = HttpServer(*command, tool="kimi_think", environment=environment)
    server.folder = folder
    return server


def plain(source: processes.Source) -> HttpServer:
    """The plain tool over HTTP."""
    environment = {**source.environment, "PLAIN_BASE_URL": source.base_url}
    return HttpServer("-m", "benchmarks.plain_http", tool="ask", environment=environment)
