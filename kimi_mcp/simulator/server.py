"""Owns the simulator's life: listening, connections, and the handle that tests hold. I/O."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Self

import anyio
import anyio.abc
import h11
from anyio import AsyncContextManagerMixin

from kimi_mcp.simulator.accounts import NO_LIMITS, RateLimits
from kimi_mcp.simulator.dialects import DIALECTS, FACTS_DAY
from kimi_mcp.simulator.faults import CHAT_PATH, StepLike, load_scenario
from kimi_mcp.simulator.http import ClientGone, Connection, CutOff, ReceivedRequest, ResponseWriter
from kimi_mcp.simulator.routes import JSON_HEADERS, Response
from kimi_mcp.simulator.state import EventObserver, SimulatorState

MAX_BODY_BYTES = 100 * 1024 * 1024
"""Largest request body (Moonshot vision guide: 100 MB)."""

_BACKLOG = 1024
_REMEMBERED = 100
"""Requests that a simulator of its own process keeps: nothing there can look them up."""


class SimulatorError(Exception):
    """The simulator can't start; the message is one sentence for the person who tried."""


class Simulator(SimulatorState, AsyncContextManagerMixin):
    """A strict stand-in for one provider's API, on a real socket of this machine.

    `async with Simulator(provider="moonshot") as sim:` listens until the block is left. `now` is the day it takes for
    today, which decides what is served; by default the day its facts were collected. `remember` bounds the list of
    requests. `rate_limits` hold for each account over all its clients. `on_event` is called with each event that is
    sent. `clock` (seconds) times the prompt cache and the limits' minute.
    """

    def __init__(
        self,
        provider: str = "moonshot",
        faults: Sequence[StepLike] = (),
        port: int = 0,
        require_key: str | None = None,
        now: date | None = None,
        *,
        host: str = "127.0.0.1",
        max_body: int = MAX_BODY_BYTES,
        rate_limits: RateLimits = NO_LIMITS,
        remember: int | None = None,
        on_event: EventObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if provider not in DIALECTS:
            raise SimulatorError(f"there is no provider {provider!r}; known are {', '.join(DIALECTS)}")
        super().__init__(
            DIALECTS[provider],
            now or FACTS_DAY,
            faults,
            require_key=require_key,
            rate_limits=rate_limits,
            max_body=max_body,
            remember=remember,
            on_event=on_event,
            clock=clock,
        )
        self._host = host
        self._port = port
        self._connections: set[Connection] = set()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._server: asyncio.Server | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            self._server = await asyncio.start_server(
                self._connected, self._host, self._port, family=family, backlog=_BACKLOG, start_serving=False
            )
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else error
            raise SimulatorError(
                f"the simulator can't listen on {self._host}:{self._port} ({reason}); choose another --port"
            ) from None
        self._port = self._server.sockets[0].getsockname()[1]
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as self._tasks:
                await self._server.start_serving()
                try:
                    yield self
                except Exception as error:  # noqa: BLE001 - raised again as it is, not inside a group
                    failure = error
                finally:
                    self.stop_listening()
                    self._tasks.cancel_scope.cancel()
        finally:
            for connection in self._connections:
                connection.close()
            self.files.close()
        if failure is not None:
            raise failure

    def stop_listening(self) -> None:
        """Refuse new connections from now on; open ones go on."""
        if self._server is not None:
            self._server.close()

    @property
    def base_url(self) -> str:
        """What a client is configured with."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/v1"

    @property
    def open_streams(self) -> int:
        """Chat requests whose response is not over."""
        return sum(one.outcome == "open" and (one.method, one.path) == ("POST", CHAT_PATH) for one in self.requests)

    async def client_gone(self, n: int = 1, within: float = 60) -> None:
        """Return once n requests were ended by their client; raises TimeoutError."""
        await self.until(lambda: sum(one.outcome == "client_gone" for one in self.requests) >= n, within)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._tasks is None or self._tasks.cancel_scope.cancel_called:
            writer.close()
        else:
            connection = Connection(reader, writer)
            self._connections.add(connection)
            self._tasks.start_soon(self._serve, connection)

    async def _serve(self, connection: Connection) -> None:
        """Serve one connection, request after request."""
        try:
            while True:
                try:
                    request = await connection.next_request()
                    if request is None or not await self._respond(connection, request):
                        break
                except h11.RemoteProtocolError as error:
                    body = b'{"error":{"type":"invalid_request_error","message":"Invalid request: malformed HTTP"}}'
                    writer = ResponseWriter(connection, keep_alive=False)
                    await writer.start(error.error_status_hint, JSON_HEADERS, length=len(body))
                    await writer.write(body, last=True)
                    break
            if not connection.gone:
                await connection.finish()
        except ClientGone:
            pass
        finally:
            self._connections.discard(connection)
            connection.close()

    async def _respond(self, connection: Connection, request: ReceivedRequest) -> bool:
        """Answer one request; whether the connection carries another."""
        cut: CutOff | None = None
        tasks = anyio.create_task_group()
        response = Response(self, connection, request, tasks)
        async with tasks:
            try:
                await response.respond()
            except CutOff as found:
                cut = found
                if cut.how == "stall":
                    await anyio.sleep_forever()
            except ClientGone:
                response.client_gone = True
            finally:
                writer = response.writer
                complete = writer is not None and writer.complete
                request.status = writer.status if writer else None
                if response.client_gone and not complete:
                    request.outcome = "client_gone"
                elif cut or complete:
                    request.outcome = "cut" if cut else "answered"
                self.notify()
            tasks.cancel_scope.cancel()
        if cut and cut.how == "reset":
            connection.reset()
        keep_alive = response.writer is not None and response.writer.keep_alive
        return keep_alive and request.outcome == "answered" and not response.client_gone


async def serve_simulator(
    provider: str = "simulator",
    host: str = "127.0.0.1",
    port: int = 8731,
    faults_file: Path | None = None,
    announce: Callable[[str], None] = print,
    rate_limits: RateLimits = NO_LIMITS,
) -> None:
    """Run a simulator until cancelled, announcing its base URL first; raises SimulatorError and ScenarioError."""
    faults = load_scenario(faults_file) if faults_file else []
    async with Simulator(provider, faults, port, host=host, rate_limits=rate_limits, remember=_REMEMBERED) as simulator:
        announce(simulator.base_url)
        await anyio.sleep_forever()
