"""``kimi-mcp serve --transport http``: owns the process, from its settings to its exit. I/O: a socket, signals.

How it ends (SIGTERM, SIGINT)
-----------------------------
1. It is not ready any more and takes no new calls; it still answers everything else, so that who has a run can ask for
   it. Running calls get ``KIMI_DRAIN_S``. (One of several replicas returns its jobs at once, and takes calls for
   another moment: ``Membership``.)
2. The runs that no other server can continue are stopped: each records what has arrived, and that is its answer.
3. Calls that still wait, for a swarm or for a run elsewhere, are answered with their run, and every open stream is
   closed. A swarm is left for the next server, which continues it.

A second signal skips what is left of 1.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from types import FrameType
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import anyio
import uvicorn
from mcp.server import Server

from kimi_mcp.core import json_logs, redaction
from kimi_mcp.core.errors import InvalidArguments, NotConfigured
from kimi_mcp.core.setting_values import is_https_or_local
from kimi_mcp.core.settings import Settings, read_settings
from kimi_mcp.server.app import build_server
from kimi_mcp.server.entry_point import KEY_SUFFIXES, telemetry, tune_collector
from kimi_mcp.server.http.app import HttpApp
from kimi_mcp.server.http.auth.verifiers import KINDS, kinds_set
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.http.connections import HEADER_BYTES, bind, bounded
from kimi_mcp.server.http.gate import ENDPOINT, UI
from kimi_mcp.server.http.membership import Membership
from kimi_mcp.server.http.start_check import check_role, check_settings
from kimi_mcp.server.replicas import make_replica
from kimi_mcp.server.state import ServerState
from kimi_mcp.server.stdio.connection import leave

if TYPE_CHECKING:
    from kimi_mcp.runs.jobs import Role

LOOK_EVERY_S = 0.05
"""Seconds between two looks at what still runs, when the server ends."""

LAST_EXPORTS_S = 3.0
"""Seconds for what OpenTelemetry still has to export at the end."""

_TASKS_END_S = 2
"""Seconds that uvicorn gives what is left of requests, once every stream was ended."""


def serve_http(host: str, port: int, role: Role = "all") -> NoReturn:
    """Serve clients over HTTP until a signal; ends the process. Raises ``KimiError`` where it can't start."""
    settings = read_settings(os.environ)
    check_settings(settings)
    check_role(settings, role)
    _check_filled_in(os.environ)
    listener = listen(host, port, authenticated=bool(kinds_set(settings)))
    json_logs.configure(settings.log_level)
    keys = (value for name, value in settings.possible_keys.items() if name.endswith(KEY_SUFFIXES))
    redaction.hide(*keys, *settings.secrets)
    _allow_many_connections()
    serving = HttpServing(settings, listener, role=role)
    tune_collector()
    sys.stderr.write(_worker_banner(serving.local_url) if role == "worker" else _banner(settings, serving.local_url))
    sys.stderr.flush()

    async def serve_and_leave() -> None:
        asyncio.get_running_loop().set_exception_handler(json_logs.loop_exception)
        async with telemetry(serving.app.middleware, within_s=LAST_EXPORTS_S):
            await serving.serve()
        leave(0)  # from within: the loop's own end waits for every thread, and a resolver may take half a minute

    anyio.run(serve_and_leave)
    raise AssertionError("the process has left")


def _check_filled_in(environment: Mapping[str, str]) -> None:
    """Elsewhere such a value counts as unset; here whoever set it would believe that callers need a token."""
    for variable in (kind.variable for kind in KINDS):
        if "${" in environment.get(variable, ""):
            raise NotConfigured(
                f"{variable} still reads ${{…}}: what starts the server did not fill it in.",
                fix=f"Set {variable} to its value, or unset it: then callers need no token.",
            )


def _worker_banner(local_url: str) -> str:
    address = local_url.removesuffix(ENDPOINT)
    return f"kimi-mcp takes jobs of swarms as a worker; probes find it at {address}/readyz\nCtrl-C ends it.\n"


def _banner(settings: Settings, local_url: str) -> str:
    kinds, url = kinds_set(settings), settings.http_url
    who = "without authentication: every program of this machine can call it."
    if kinds:
        who = f"for callers with a token ({', '.join(kind.variable for kind in kinds)})."
    elif url is not None and not is_https_or_local(url.replace("https://", "http://", 1)):
        who = "without authentication: whoever reaches KIMI_HTTP_URL can call it and spend your money."
    text = f"kimi-mcp serves the Model Context Protocol at {local_url}\n{who} Ctrl-C ends it.\n"
    if settings.http_ui == "on":
        text += f"Its runs can be looked at in a browser: {(url or local_url).removesuffix(ENDPOINT)}{UI}\n"
    if url is not None:
        text += f"Clients reach it at {url}\n"
    elif ip_address(urlsplit(local_url).hostname or "").is_unspecified:
        text += "Set KIMI_HTTP_URL to the URL that clients have: by another name than localhost they are refused.\n"
    return text


def leave_failed() -> NoReturn:
    """End the process at once, for its supervisor to start it anew."""
    leave(1)


def listen(host: str, port: int, *, authenticated: bool = False) -> socket.socket:
    """The socket of an address: of this machine for itself, or of any where callers are authenticated.

    Raises ``InvalidArguments`` and ``NotConfigured``.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InvalidArguments("--host is no address.", fix="Use --host 127.0.0.1.") from None
    family, *_, address = found[0]
    if not authenticated and not ip_address(str(address[0]).partition("%")[0]).is_loopback:
        ways = " or ".join(kind.variable for kind in KINDS)
        raise InvalidArguments(
            "Whoever reaches that address could spend your money, since there is no authentication: without one "
            "kimi-mcp serves HTTP on this machine's own address alone.",
            fix=f"Set {ways} (`kimi-mcp tokens add NAME` makes a token), or use --host 127.0.0.1.",
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
        role: Role = "all",
        on_lost: Callable[[], None] = leave_failed,
    ) -> None:
        """``limits`` and ``build`` are for tests. Without a cluster there is the role "all" alone.

        ``on_lost``: what a replica does that others take for dead.
        """
        # Who calls over HTTP may sit at another machine, at the other end of a tunnel.
        settings = replace(settings, remote_callers=True)
        host, port = listener.getsockname()[:2]
        self._settings, self._limits, self._listener = settings, limits or HttpLimits(), listener
        self.local_url = f"http://{f'[{host}]' if ':' in host else host}:{port}{ENDPOINT}"
        """The endpoint on this machine."""
        self.url = settings.http_url or self.local_url
        """The endpoint, as clients reach it."""
        self.app = HttpApp(settings, build(settings), self._limits, host=host, url=self.url, role=role)
        """What answers."""
        self._stopping, self._hurried = anyio.Event(), False
        if settings.cluster == "on":
            unready_s = 0.0 if role == "worker" else self._limits.unready_s
            joining = partial(make_replica, role=role)
            self.app.membership = Membership(self.app.gate, joining, unready_s=unready_s, on_lost=on_lost)
        config = uvicorn.Config(
            self.app.entrance,
            http=bounded(self._limits),
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="error",  # its warnings are of malformed requests, which anybody can send
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
                tasks.start_soon(self._be_a_replica)
                await self._uvicorn.serve(sockets=[self._listener])
            tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """Begin the end; a second time: wait for no call any more."""
        self._hurried = self._stopping.is_set()
        self._stopping.set()

    async def _be_a_replica(self) -> None:
        await self.app.started.wait()
        if self.app.membership is not None and self.app.state is not None:
            await self.app.membership.keep(self.app.state)

    async def _end(self) -> None:
        await self._stopping.wait()
        self.app.gate.leaving = True
        if self.app.membership is not None:
            await self.app.membership.drain(lambda: self._hurried)
        self.app.gate.drain()
        await _while(lambda: self.app.busy and not self._hurried, self._settings.drain_s)
        if (state := self.app.state) is not None:
            runs = state.runs
            await _while(lambda: runs is not None and runs.stop_ending(), self._limits.last_answers_s)
            state.answer_all()
            await _while(lambda: self.app.gate.answering, self._limits.last_answers_s)
        self.app.gate.end()
        if self.app.membership is not None:
            await self.app.membership.aclose()
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
