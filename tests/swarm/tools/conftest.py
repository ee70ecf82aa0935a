"""A file of servers, and limits that keep a test short."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.swarm.tools import CallResult, ToolLimits
from tests.loop_time import LoopTime, others_wait

ODD_SERVER = Path(__file__).with_name("odd_server.py")

SHORT = ToolLimits(start_within_s=60, call_within_s=60, result_chars=2_000)

ServersFile = Callable[..., str]


def odd(*flags: str, **more: Any) -> dict[str, Any]:
    """The entry of an odd server."""
    return {"command": sys.executable, "args": [str(ODD_SERVER), *flags], **more}


async def given_up(call: Awaitable[CallResult], loop_time: LoopTime) -> CallResult:
    """The result of a call that nobody answers, its time having passed."""
    results: list[CallResult] = []

    async def wait() -> None:
        results.append(await call)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await others_wait()
        await loop_time.until(lambda: results)
    return results[0]


@pytest.fixture
def servers_file(tmp_path: Path) -> ServersFile:
    """Write a file of servers, each by its name; its path."""

    def write(**servers: Any) -> str:
        file = tmp_path / "mcp.json"
        file.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
        return str(file)

    return write
