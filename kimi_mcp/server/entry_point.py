"""``kimi-mcp serve``: starts the server, quickly. Owns the process: its environment, collector and exit.

A host may begin its first turn before a slow server is ready. So nothing that only the first call needs is imported
here, and the garbage collector pauses while modules load.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from kimi_mcp.server.stdio.early import EarlyConnection, EarlyReplies, Handover, claim, refuse_all

if TYPE_CHECKING:
    from kimi_mcp.core.settings import Settings
    from kimi_mcp.runs.jobs import Role

GC_THRESHOLDS = (20_000, 20, 20)
"""A busy server makes a thousand objects a request and hardly a cycle: with the default thresholds the collector took a
tenth of its processor time."""

KEY_SUFFIXES = ("KEY", "TOKEN")
"""How the variables of all providers' keys end. Their values are hidden in logs before the first call, which loads the
catalogue and hides exactly the keys: loading it earlier would delay ``initialize`` by some 50 ms."""


LAST_EXPORTS_S = 0.4
"""Seconds for what OpenTelemetry still has to export at the end: clients kill a server 2 s after they closed stdin."""


def tune_collector() -> None:
    """Let the collector skip what was imported, and run seldom on the rest."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()


def serve() -> NoReturn:
    """Serve one client on stdin and stdout until it leaves; ends the process."""
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # none is wanted, and looking for them takes 5 ms
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the transport takes it: no traceback of an import
    if sys.stdin is not None and sys.stdin.isatty():
        print(
            "kimi-mcp serves the Model Context Protocol on stdin and stdout: a host starts it.\n"
            "Press Ctrl-D to end. Try `kimi-mcp ask`, `kimi-mcp demo` or `kimi-mcp --help`.",
            file=sys.stderr,
        )
    source, sink = claim()
    try:
        early = EarlyConnection(source, sink)
    except (OSError, ValueError) as fault:
        _refuse(fault, Handover(source=source, sink=sink, replies=EarlyReplies({})))
    early.start()
    try:
        run = _prepared(early)
    except (Exception, SystemExit) as fault:  # noqa: BLE001 - whatever is broken
        _refuse(fault, early.stop())
    run()
    raise AssertionError("the process has left")


def _refuse(fault: BaseException, handover: Handover) -> NoReturn:
    """Serve a host of a broken installation: it must hear of it. Ends the process."""
    traceback.print_exception(fault)
    refuse_all(handover)
    os._exit(1)


def serve_over_http(host: str, port: int, role: Role = "all") -> NoReturn:
    """Serve clients over HTTP until a signal; ends the process. Raises ``KimiError`` where it can't start."""
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        from kimi_mcp.server.http.serving import serve_http

        serve_http(host, port, role)
    finally:
        gc.enable()


def telemetry(middleware: list[Any], *, within_s: float) -> AbstractAsyncContextManager[None]:
    """Exports what happens in a server with that middleware, where the environment asks for it.

    ``within_s``: for what is left at its end.
    """
    if not any(name.startswith("OTEL_") for name in os.environ):
        return nullcontext()
    from kimi_mcp.server.telemetry import exported

    return exported(middleware, os.environ, within_s=within_s)


def _for_one_client(settings: Settings) -> Settings:
    """The settings over stdio: a host is answered whatever they are, and its first call says what is wrong."""
    if settings.cluster == "off":
        return settings
    from kimi_mcp.core.errors import NotConfigured

    error = NotConfigured(
        "KIMI_CLUSTER=on is for HTTP servers: over stdio a host has a server of its own.",
        fix="Unset KIMI_CLUSTER, or start `kimi-mcp serve --transport http`.",
    )
    return replace(settings, unreadable=(*settings.unreadable, error))


def _prepared(early: EarlyConnection) -> Callable[[], None]:
    """Import the server, and return what runs it. Raises whatever a broken installation raises."""
    import anyio

    from kimi_mcp.core import json_logs, redaction
    from kimi_mcp.core.settings import read_settings
    from kimi_mcp.server.app import build_server
    from kimi_mcp.server.stdio.connection import leave, serve_stdio

    settings = _for_one_client(read_settings(os.environ))
    json_logs.configure(settings.log_level)
    keys = (value for name, value in settings.possible_keys.items() if name.endswith(KEY_SUFFIXES))
    redaction.hide(*keys, *settings.secrets)
    server = build_server(settings)

    async def serve_and_leave() -> None:
        async with telemetry(server.middleware, within_s=LAST_EXPORTS_S):
            await serve_stdio(server, handover=early.stop())
        leave(0)  # from within: the loop's own end waits for every thread, and a resolver may take half a minute

    tune_collector()
    return lambda: anyio.run(serve_and_leave)
