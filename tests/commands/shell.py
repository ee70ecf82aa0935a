"""A shell for tests: commands in processes of their own, in an environment in which nothing is configured."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.abc import Process

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


async def kimi(*arguments: str, settings: dict[str, str] | None = None, stdin: bytes = b"") -> Ended:
    """Run ``kimi-mcp`` to its end, without a terminal."""
    with anyio.fail_after(30):
        done = await anyio.run_process(
            [sys.executable, "-m", "kimi_mcp", *arguments],
            input=stdin,
            env=os.environ | {"PYTHONUTF8": "1"} | (settings or {}),
            check=False,
        )
    ended = Ended(status=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())
    assert "Traceback" not in ended.out + ended.err
    return ended


@asynccontextmanager
async def started(*arguments: str, settings: dict[str, str] | None = None, **streams: Any) -> AsyncIterator[Process]:
    """``kimi-mcp`` while it runs; killed where the test leaves it running."""
    command = [sys.executable, "-m", "kimi_mcp", *arguments]
    environment = os.environ | {"PYTHONUTF8": "1"} | (settings or {})
    async with await anyio.open_process(command, env=environment, **streams) as process:
        try:
            with anyio.fail_after(30):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
