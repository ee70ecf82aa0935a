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

from tests.stdio.peer import Peer

SERVER = Path(__file__).with_name("tiny_server.py")

Start = Callable[..., AbstractAsyncContextManager[Peer]]
"""Starts the tiny server: ``start(stderr=…, NAME="value for its environment")``."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def start() -> Start:
    """Start the tiny server; it is killed when the test leaves."""

    @asynccontextmanager
    async def started(stderr: Any = subprocess.DEVNULL, **environment: str) -> AsyncIterator[Peer]:
        command = [sys.executable, str(SERVER)]
        process = await anyio.open_process(command, env={**os.environ, **environment}, stderr=stderr)
        try:
            yield Peer(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.aclose()

    return started
