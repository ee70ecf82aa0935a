"""A shell for tests: commands in this process or in one of their own, where nothing is configured.

In this process is the rule. A process of its own is for what only one has: signals, a terminal, an exit at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import Process
from typer.testing import CliRunner

import kimi_mcp
from kimi_mcp.cli.commands import app
from kimi_mcp.simulator import Simulator


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def to(sim: Simulator, **more: str) -> dict[str, str]:
    """The settings that lead to a simulator."""
    return {"KIMI_PROVIDER": "simulator", "KIMI_BASE_URL": sim.base_url, **more}


_ALONE = threading.Lock()
"""Held while a command has this process's streams and environment to itself."""


async def kimi(*arguments: str, settings: dict[str, str] | None = None, stdin: bytes = b"") -> Ended:
    """Run ``kimi-mcp`` to its end in this process, in a thread of its own and without a terminal.

    A command that is ended by a signal leaves its process at once, so it needs one of its own: :func:`started`.
    """
    with anyio.fail_after(60):
        # One that hangs is left behind with the streams, and fails this test and those that run a command after it.
        run = partial(kimi_here, *arguments, settings=settings, stdin=stdin)
        return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)


def kimi_here(*arguments: str, settings: dict[str, str] | None = None, stdin: bytes = b"") -> Ended:
    """The same for a test that is no coroutine."""
    assert _ALONE.acquire(timeout=60), "a command before this one hangs"
    with contextlib.ExitStack() as after, pytest.MonkeyPatch.context() as process:
        after.callback(_ALONE.release)
        process.setattr(sys, "argv", [str(Path(kimi_mcp.__file__).with_name("__main__.py")), *arguments])
        done = CliRunner().invoke(
            app, arguments, input=stdin, env=settings, catch_exceptions=False, prog_name="kimi-mcp"
        )
    return _ended(done.exit_code, done.stdout_bytes, done.stderr_bytes)


async def kimi_process(*arguments: str, settings: dict[str, str] | None = None, stdin: bytes = b"") -> Ended:
    """Run ``kimi-mcp`` to its end as a process of its own, without a terminal: half a second of CPU time."""
    with anyio.fail_after(60):
        done = await anyio.run_process(
            [sys.executable, "-m", "kimi_mcp", *arguments],
            input=stdin,
            env=os.environ | {"PYTHONUTF8": "1"} | (settings or {}),
            check=False,
        )
    return _ended(done.returncode, done.stdout, done.stderr)


def _ended(status: int, out: bytes, err: bytes) -> Ended:
    ended = Ended(status=status, out=out.decode(), err=err.decode())
    assert "Traceback" not in ended.out + ended.err
    return ended


@asynccontextmanager
async def started(*arguments: str, settings: dict[str, str] | None = None, **streams: Any) -> AsyncIterator[Process]:
    """``kimi-mcp`` while it runs; killed where the test leaves it running."""
    command = [sys.executable, "-m", "kimi_mcp", *arguments]
    environment = os.environ | {"PYTHONUTF8": "1"} | (settings or {})
    async with await anyio.open_process(command, env=environment, **streams) as process:
        try:
            with anyio.fail_after(60):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
