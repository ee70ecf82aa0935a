"""``kimi-mcp ui``: the live page, for whoever sits at this machine. I/O: a socket of 127.0.0.1, the store's; prints.

Whoever has this shell is the operator, and sees the runs of every caller. The link is all that stdout gets.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from kimi_mcp.cli.commands.run_store import store_settings
from kimi_mcp.cli.console import Printer, is_terminal
from kimi_mcp.core.errors import NotConfigured

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from kimi_mcp.core.settings import Settings
    from kimi_mcp.runs.store.store import RunStore
    from kimi_mcp.view.web.one_time_link import LinkAccess
    from kimi_mcp.view.web.routes import Viewer

BASE = "/ui"

CLOSE_S = 1.0
"""Seconds for closing the store at the end."""


def ui(
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0: any free one.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Only print the link.")] = False,
) -> None:
    """Look at runs in a browser, as they happen.

    Shows the runs of every server on this store, live: what runs, what it costs, each step of a swarm, answers and
    reasoning; and cancels them. Opens the browser with a link that works once, for this machine alone, and prints it.
    Asks no provider, needs no network. Runs until Ctrl-C.
    """
    import anyio

    settings = store_settings()
    anyio.run(_serve, settings, _listen(port), not no_open)


def _listen(port: int) -> socket.socket:
    import socket

    listener = socket.socket()
    if sys.platform != "win32":  # there it would let two share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except PermissionError:
        listener.close()
        raise NotConfigured(f"Port {port} may not be used.", fix="Leave --port out: a free one is chosen.") from None
    except OSError:
        listener.close()
        message = f"Port {port} of this machine is in use."
        raise NotConfigured(message, fix="Leave --port out: a free one is chosen.") from None
    return listener


async def _serve(settings: Settings, listener: socket.socket, opens: bool) -> None:
    import asyncio

    import anyio
    import uvicorn

    async with _opened(settings) as store:
        access, loop = make_access(store, listener.getsockname()[1]), asyncio.get_running_loop()

        class Server(uvicorn.Server):
            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                """End; uvicorn itself would wait for open pages, and end by the signal again."""
                self.should_exit = True
                loop.call_soon_threadsafe(access.end_streams)

        config = uvicorn.Config(
            access,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=512,
            timeout_graceful_shutdown=1,
        )
        is_interactive = os.name == "posix" and is_terminal(sys.stderr) and sys.stdin.isatty()
        _announce(access.new_link(), opens=opens, more=is_interactive)
        async with anyio.create_task_group() as tasks:
            if is_interactive:
                tasks.start_soon(_print_links, access)
            await Server(config).serve(sockets=[listener])
            tasks.cancel_scope.cancel()
    Printer(sys.stderr, indent=0).line("Ended.", "quiet")


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[RunStore]:
    import anyio

    from kimi_mcp.runs.store.store import open_store

    store = open_store(settings)
    try:
        yield store
    finally:
        with anyio.move_on_after(CLOSE_S, shield=True):
            await store.aclose()


def make_access(store: RunStore, port: int) -> LinkAccess:
    """The page over a store, and who may see it: an ASGI app."""
    from kimi_mcp.view.web.access import viewer_of
    from kimi_mcp.view.web.one_time_link import LinkAccess
    from kimi_mcp.view.web.page import view_app
    from kimi_mcp.view.web.routes import view_routes

    async def opened() -> RunStore:
        return store

    async def cancel(run_id: str, viewer: Viewer) -> None:
        await _cancel(store, run_id, viewer.caller)

    return LinkAccess(view_app(view_routes(opened, viewer_of, cancel, BASE), BASE), port, BASE)


async def _cancel(store: RunStore, run_id: str, caller: str | None) -> None:
    """End a run in whichever server it runs, as `kimi-mcp runs cancel` does."""
    import anyio

    from kimi_mcp.runs import Runs
    from kimi_mcp.runs.recorded import RecordedRun
    from kimi_mcp.swarm import recovered_outcome

    async with anyio.create_task_group() as tasks:
        runs = Runs(tasks, store, recover=recovered_outcome)
        run = await runs.find(run_id, caller, go_on=False)
        assert isinstance(run, RecordedRun)
        await run.cancel()


async def _print_links(access: LinkAccess) -> None:
    """Print another link whenever Enter is pressed: the first may have opened in a browser that was not meant."""
    import anyio

    terminal = sys.stdin.fileno()
    while True:
        await anyio.wait_readable(terminal)
        if not _is_in_front(terminal):
            await anyio.sleep(1)
        elif os.read(terminal, 4096):
            sys.stdout.write(f"{access.new_link()}\n")
            sys.stdout.flush()
        else:
            return


def _is_in_front(terminal: int) -> bool:
    """Whether what is typed there is for this process; one in the background that reads is stopped by its shell."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return True  # no shell controls it


def _announce(url: str, *, opens: bool, more: bool) -> None:
    """Print the link, and open it where there is a desktop: elsewhere a browser of the terminal would take that."""
    import threading
    import webbrowser

    has_desktop = sys.platform in ("darwin", "win32") or any(map(os.environ.get, _DESKTOP))
    page = Printer(sys.stderr, indent=0)
    page.line(f"{'Your browser opens this link' if opens and has_desktop else _OPEN_IT}; it works once:")
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    page.line("The page shows the runs of every server on this store.", "quiet")
    page.line("Enter prints another link. Ctrl-C ends it." if more else "Ctrl-C ends it.", "quiet")
    if opens and has_desktop:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()  # some wait for the browser's end


_OPEN_IT = "Open this link in a browser of this machine"
_DESKTOP = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
