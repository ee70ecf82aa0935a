"""The backend of these tests, and a real server process to talk to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.server.stdio.peer import Peer

SERVER = Path(__file__).with_name("tiny_server.py")

Start = Callable[..., AbstractAsyncContextManager[Peer]]
"""Starts the tiny server: ``start(stderr=…, NAME="value for its environment")``."""


@asynccontextmanager
async def _started(stderr: Any = subprocess.DEVNULL, **environment: str) -> AsyncIterator[Peer]:
    command = [sys.executable, str(SERVER)]
    process = await anyio.open_process(command, env={**os.environ, **environment}, stderr=stderr)
    try:
        yield Peer(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.aclose()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def start() -> Start:
    """Start a tiny server; it is killed when the test leaves."""
    return _started


@pytest.fixture(scope="module")
async def peer() -> AsyncIterator[Peer]:
    """One tiny server for all the tests of a file that it must survive: whatever they send, it goes on serving."""
    async with _started() as peer:
        await peer.initialize()
        yield peer
