"""Owns the simulator's life: listening, connections, and the handle that tests hold. I/O."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.abc
import h11

from kimi_mcp.simulator.dialects import DIALECTS, FACTS_DAY
from kimi_mcp.simulator.faults import StepLike, load_scenario
from kimi_mcp.simulator.http import ClientGone, CutOff, HttpConnection, HttpRequest, Reply, Wire
from kimi_mcp.simulator.routes import Response
from kimi_mcp.simulator.state import ReceivedRequest, World

MOST_BYTES = 100 * 1024 * 1024
"""Largest request body (Moonshot vision guide: 100 MB)."""

_BACKLOG = 1024
_REMEMBERED = 100
"""Requests that a simulator of its own process keeps: nobody there can ask for them."""


class SimulatorError(Exception):
    """The simulator can't start; the message is one sentence for the person who tried."""


class Simulator:
    """A strict stand-in for one provider's API, on a real socket of this machine.

    `async with Simulator(provider="moonshot") as sim:` listens until the block is left. `now` is the day it believes
    it is, which decides what is served; by default the day its facts were gathered. `remember` bounds the log.
    """

    def __init__(
        self,
        provider: str = "moonshot",
        faults: Sequence[StepLike] | None = None,
        port: int = 0,
        require_key: str | None = None,
        now: date | None = None,
        *,
        host: str = "127.0.0.1",
        max_body: int = MOST_BYTES,
        remember: int | None = None,
    ) -> None:
        if provider not in DIALECTS:
            raise SimulatorError(f"there is no provider {provider!r}; known are {', '.join(DIALECTS)}")
        day = now.date() if isinstance(now, datetime) else now or FACTS_DAY
        self._world = World(DIALECTS[provider], faults or (), require_key, day, max_body, remember)
        self._host = host
        self._port = port
        self._wires: set[Wire] = set()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        listener = self._listen()
        self._port = listener.getsockname()[1]
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Wire(self._connected), sock=listener, backlog=_BACKLOG)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._tasks is not None
        self.stop_listening()
        self._tasks.cancel_scope.cancel()
        try:
            if isinstance(error, Exception):  # the block's own error leaves as it is, not inside a group
                await self._tasks.__aexit__(None, None, None)
                return None
            return await self._tasks.__aexit__(kind, error, trace)
        finally:
            for wire in list(self._wires):
                wire.close()
            self._world.files.close()

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # The protocol is named because asyncio sets TCP_NODELAY on no socket without it: 40 ms a response.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if os.name == "posix":  # elsewhere it would share a port that is taken
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise SimulatorError(
                f"the simulator can't listen on {self._host}:{self._port} ({error.strerror}); choose another --port"
            ) from None
        listener.setblocking(False)
        return listener

    def stop_listening(self) -> None:
        """Refuse new connections from now on; those that stand go on."""
        if self._server is not None:
            self._server.close()

    @property
    def base_url(self) -> str:
        """What a client is configured with."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/v1"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """Every request since the start or the last reset, in order of arrival, as it stands now."""
        return [exchange.snapshot() for exchange in self._world.exchanges]

    @property
    def open_streams(self) -> int:
        """Chat requests whose response is not over."""
        return sum(one.is_chat and one.outcome == "open" for one in self._world.exchanges)

    def play(self, *steps: StepLike) -> None:
        """Append steps to the scenario."""
        self._world.scenario.add(*steps)

    def open_gate(self, name: str) -> None:
        """Let through every response that waits, or will wait, at that gate."""
        self._world.open_gate(name)

    def waiting_at(self, name: str) -> int:
        """How many responses are held at that gate now."""
        return self._world.waiting_at(name)

    async def until(self, condition: Callable[[], bool], within: float = 30) -> None:
        """Return once the condition holds, looked at after each change; raises TimeoutError."""
        await self._world.until(condition, within)

    async def client_gone(self, n: int = 1, within: float = 30) -> None:
        """Return once n requests were ended by their client; raises TimeoutError."""
        await self.until(lambda: sum(one.outcome == "client_gone" for one in self._world.exchanges) >= n, within)

    def reset(self) -> None:
        """Forget requests, scenario, gates and the prompt cache; uploaded files stay."""
        self._world.reset()

    def _connected(self, wire: Wire) -> None:
        if self._tasks is None or self._tasks.cancel_scope.cancel_called:
            wire.close()
        else:
            self._tasks.start_soon(self._serve, wire)

    async def _serve(self, wire: Wire) -> None:
        """One connection, request after request."""
        self._wires.add(wire)
        connection = HttpConnection(wire)
        try:
            while True:
                try:
                    request = await connection.request()
                    if request is None or not await self._exchange(wire, request):
                        break
                except h11.RemoteProtocolError as error:
                    await self._malformed(wire, error.error_status_hint)
                    break
            if not wire.gone:
                wire.finish()
                await connection.linger()
        except ClientGone:
            pass
        finally:
            self._wires.discard(wire)
            wire.close()

    async def _exchange(self, wire: Wire, request: HttpRequest) -> bool:
        """Answer one request; whether the connection carries another."""
        cut: CutOff | None = None
        scope = anyio.CancelScope()
        response = Response(self._world, wire, request, scope)
        with scope:
            try:
                await response.respond()
            except CutOff as found:
                cut = found
                if cut.how == "stall":
                    await anyio.sleep_forever()
            except ClientGone:
                scope.cancel()
            finally:
                wire.on_gone = None
        exchange, reply = response.exchange, response.reply
        if exchange is not None:
            whole = reply is not None and reply.whole
            over = "cut" if cut else "answered"
            over = "client_gone" if scope.cancel_called and not whole else over
            self._world.finish(exchange, over, reply.status if reply else None)
        if cut and cut.how == "reset":
            wire.reset()
        return cut is None and not scope.cancel_called and response.keeps_alive

    @staticmethod
    async def _malformed(wire: Wire, status: int) -> None:
        body = b'{"error":{"type":"invalid_request_error","message":"Invalid request: malformed HTTP"}}'
        reply = Reply(wire, keep_alive=False)
        await reply.head(status, {"content-type": "application/json"}, length=len(body))
        await reply.write([body], last=True)


async def serve_simulator(
    provider: str = "simulator",
    host: str = "127.0.0.1",
    port: int = 8731,
    faults_file: Path | str | None = None,
    announce: Callable[[str], None] = lambda line: print(line, flush=True),
) -> None:
    """Run a simulator until cancelled, announcing its base URL first; raises SimulatorError and ScenarioError."""
    faults = load_scenario(Path(faults_file)) if faults_file else []
    async with Simulator(provider, faults, port, host=host, remember=_REMEMBERED) as simulator:
        announce(simulator.base_url)
        await anyio.sleep_forever()
