"""``kimi-mcp serve --transport http``: owns the process, from its settings to its exit. I/O: a socket, signals.

How it ends (SIGTERM, SIGINT)
-----------------------------
1. It is not ready any more and takes no new calls; it still answers everything else, so that who has a run can ask for
   it. Running calls get ``KIMI_DRAIN_S``.
2. Calls that still wait are answered with what is there, and every open stream is closed.
3. The runs end: each records what has arrived; a swarm is left for the next server, which continues it.

A second signal skips what is left of 1.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from types import FrameType
from typing import NoReturn

import anyio
import uvicorn
from mcp.server import Server

from kimi_mcp.core import json_logs, redaction
from kimi_mcp.core.errors import InvalidArguments, NotConfigured
from kimi_mcp.core.settings import Settings, read_settings
from kimi_mcp.server.app import build_server
from kimi_mcp.server.entry_point import KEY_SUFFIXES, tune_collector
from kimi_mcp.server.http.app import HttpApp
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.http.connections import HEADER_BYTES, bind, bounded
from kimi_mcp.server.http.gate import ENDPOINT
from kimi_mcp.server.state import ServerState
from kimi_mcp.server.stdio.connection import leave

LOOK_EVERY_S = 0.05
"""Seconds between two looks at what still runs, when the server ends."""

_TASKS_END_S = 2
"""Seconds that uvicorn gives what is left of requests, once every stream was ended."""


def serve_http(host: str, port: int) -> NoReturn:
    """Serve clients over HTTP until a signal; ends the process. Raises ``KimiError`` where it can't start."""
    settings = read_settings(os.environ)
    if settings.unreadable:
        raise settings.unreadable[0]
    listener = listen(host, port)
    json_logs.configure(settings.log_level)
    redaction.hide(*(value for name, value in settings.possible_keys.items() if name.endswith(KEY_SUFFIXES)))
    _allow_many_connections()
    serving = HttpServing(settings, listener)
    tune_collector()
    sys.stderr.write(
        f"kimi-mcp serves the Model Context Protocol at {serving.local_url}\n"
        "without authentication: every program of this machine can call it. Ctrl-C ends it.\n"
    )
    sys.stderr.flush()

    async def serve_and_leave() -> None:
        asyncio.get_running_loop().set_exception_handler(json_logs.loop_exception)
        await serving.serve()
        leave(0)  # from within: the loop's own end waits for every thread, and a resolver may take half a minute

    anyio.run(serve_and_leave)
    raise AssertionError("the process has left")


def listen(host: str, port: int) -> socket.socket:
    """The socket of an address of this machine for itself. Raises ``InvalidArguments`` and ``NotConfigured``."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InvalidArguments("--host is no address.", fix="Use --host 127.0.0.1.") from None
    family, *_, address = found[0]
    if not ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise InvalidArguments(
            "kimi-mcp serves HTTP on this machine's own address alone: it has no authentication (there are no "
            "KIMI_HTTP_TOKENS, KIMI_OIDC_ISSUER and KIMI_INTROSPECTION_URL in this version), so that whoever reaches "
            "another address could spend your money.",
            fix="Use --host 127.0.0.1; from another machine reach it through a tunnel, such as `ssh -L`.",
        )
    try:
        return bind(family, address)
    except PermissionError:
        raise NotConfigured(f"Port {port} may not be used.", fix="Choose one above 1023 with --port.") from None
    except OSError:
        message = f"Port {port} of this machine is in use."
        raise NotConfigured(message, fix="End the other program, or choose another port with --port.") from None


class HttpServing:
    """A server on a socket, until it has to stop."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        limits: HttpLimits | None = None,
        build: Callable[[Settings], Server[ServerState]] = build_server,
    ) -> None:
        """``limits`` and ``build`` are for tests."""
        # Who calls over HTTP may sit at another machine, at the other end of a tunnel.
        settings = replace(settings, remote_callers=True)
        host, port = listener.getsockname()[:2]
        self._settings, self._limits, self._listener = settings, limits or HttpLimits(), listener
        self.local_url = f"http://{f'[{host}]' if ':' in host else host}:{port}{ENDPOINT}"
        """The endpoint on this machine."""
        self.url = settings.http_url or self.local_url
        """The endpoint, as clients reach it."""
        self.app = HttpApp(settings, build(settings), self._limits, host=host, url=self.url)
        """What answers."""
        self._stopping, self._hurried = anyio.Event(), False
        config = uvicorn.Config(
            self.app.gate,
            http=bounded(self._limits),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=round(self._limits.idle_s),
            timeout_graceful_shutdown=_TASKS_END_S,
            h11_max_incomplete_event_size=HEADER_BYTES,
        )
        self._uvicorn = _Uvicorn(config, self.stop)

    async def serve(self) -> None:
        """Serve until the end of the last call."""
        async with anyio.create_task_group() as tasks:
            with self._listener:
                tasks.start_soon(self._end)
                await self._uvicorn.serve(sockets=[self._listener])
            tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """Begin the end; a second time: wait for no call any more."""
        self._hurried = self._stopping.is_set()
        self._stopping.set()

    async def _end(self) -> None:
        await self._stopping.wait()
        self.app.gate.draining = True
        await _while(lambda: self.app.busy and not self._hurried, self._settings.drain_s)
        if (state := self.app.state) is not None:
            state.answer_all()
            await _while(lambda: self.app.gate.answering, self._limits.last_answers_s)
        self.app.gate.end()
        self._uvicorn.should_exit = True


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_signal: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_signal = on_signal
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the process is ending already
                self._loop.call_soon_threadsafe(self._on_signal)


async def _while(condition: Callable[[], bool], at_most_s: float) -> None:
    end = anyio.current_time() + at_most_s
    while condition() and anyio.current_time() < end:  # noqa: ASYNC110 - runs and calls have no event in common
        await anyio.sleep(LOOK_EVERY_S)


def _allow_many_connections() -> None:
    """Let the process have as many descriptors as it may; many systems give 1,024 unless asked."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
