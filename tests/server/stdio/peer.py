"""How these tests talk to a real server process: whatever bytes they want, and one JSON object a line back."""

from __future__ import annotations

import json
import signal
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": "hello",
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
"""The handshake's first message."""


class Peer:
    """A client that writes whatever bytes a test wants, to a process that may have been spawned for it."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin = process.stdin
        self._stdout = BufferedByteReceiveStream(process.stdout)

    async def send(self, *lines: object) -> None:
        """Write each line: bytes as they are, anything else as JSON."""
        for line in lines:
            raw = line if isinstance(line, bytes) else json.dumps(line).encode()
            await self._stdin.send(raw + b"\n")

    async def send_raw(self, chunk: bytes) -> None:
        """Write bytes, no newline added."""
        await self._stdin.send(chunk)

    async def receive(self) -> dict[str, Any]:
        """The next line on the wire, which must be one JSON object."""
        line = await self._stdout.receive_until(b"\n", 1 << 26)
        message = json.loads(line)
        assert isinstance(message, dict)
        assert message["jsonrpc"] == "2.0"
        return message

    async def request(self, message: object) -> dict[str, Any]:
        """Send one line and take the next reply."""
        await self.send(message)
        return await self.receive()

    async def initialize(self) -> None:
        """Do the handshake."""
        assert "result" in await self.request(INITIALIZE)
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def call(self, tool: str, request_id: int = 7, /, **arguments: object) -> None:
        """Call a tool without waiting for its result."""
        params = {"name": tool, "arguments": arguments}
        await self.send({"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params})

    async def still_serves(self) -> None:
        """The next request must be answered."""
        assert await self.request({"jsonrpc": "2.0", "id": "ping", "method": "ping"}) == {
            "jsonrpc": "2.0",
            "id": "ping",
            "result": {},
        }

    async def close_stdin(self) -> None:
        """What a host does first when it is done."""
        await self._stdin.aclose()

    async def remaining(self) -> list[dict[str, Any]]:
        """What is still on the wire until the process closes it."""
        messages: list[dict[str, Any]] = []
        while True:
            try:
                messages.append(await self.receive())
            except (anyio.EndOfStream, anyio.IncompleteRead):
                return messages

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self.process.send_signal(number)

    async def exit_status(self) -> int:
        """The exit status, once the process has ended."""
        with anyio.fail_after(60):
            return await self.process.wait()

    async def log_lines(self) -> list[dict[str, Any]]:
        """Every line the process wrote to a piped stderr, once it has left; each must be JSON."""
        assert self.process.stderr is not None
        raw = b"".join([chunk async for chunk in self.process.stderr])
        return [json.loads(line) for line in raw.splitlines()]
