"""Servers in processes of their own, and their clients; the provider is a simulator on a socket. I/O."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

import anyio
from anyio.abc import Process
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from kimi_mcp.simulator import Simulator
from tests.server.clients import environment
from tests.server.stdio.peer import Peer


def process_environment(sim: Simulator | None, provider: str | None = "simulator", **variables: str) -> dict[str, str]:
    """The environment of a real server process."""
    return {**os.environ, **environment(sim, provider, **variables)}


@asynccontextmanager
async def server_process(
    sim: Simulator | None,
    mode: str = "auto",
    *,
    stderr: Path | None = None,
    provider: str | None = "simulator",
    **variables: str,
) -> AsyncIterator[Client]:
    """A server as a host starts it, and the official client; its stderr goes to a file."""
    log: TextIO
    with Path(stderr or os.devnull).open("w", encoding="utf-8") as log:
        started = StdioServerParameters(
            command=sys.executable,
            args=["-m", "kimi_mcp"],
            env=process_environment(sim, provider, **variables),
        )
        async with Client(stdio_client(started, errlog=log), mode=mode) as client:
            yield client


@asynccontextmanager
async def raw_server_process(
    sim: Simulator | None,
    *module: str,
    stderr: Any = None,
    provider: str | None = "simulator",
    **variables: str,
) -> AsyncIterator[Peer]:
    """A server process to write bytes and send signals to; killed when the test leaves.

    ``module`` is another one than the package that serves, and its arguments.
    """
    started = await anyio.open_process(
        [sys.executable, "-m", *(module or ("kimi_mcp",))],
        env=process_environment(sim, provider, **variables),
        stderr=stderr,
    )
    try:
        yield Peer(started)
    finally:
        if started.returncode is None:
            started.kill()
        await started.aclose()


@asynccontextmanager
async def http_server_process(
    sim: Simulator | None, provider: str | None = "simulator", **variables: str
) -> AsyncIterator[tuple[str, Process]]:
    """A server over HTTP: its endpoint, and its process, which is killed when the test leaves."""
    command = [sys.executable, "-m", "kimi_mcp", "serve", "--transport", "http", "--port", "0"]
    started = await anyio.open_process(command, env=process_environment(sim, provider, **variables), stdin=None)
    assert started.stderr is not None
    try:
        message = (await started.stderr.receive()).decode()
        yield next(word for word in message.split() if word.startswith("http://")), started
    finally:
        if started.returncode is None:
            started.kill()
        await started.aclose()
