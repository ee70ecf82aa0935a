"""A real server that may kill itself right around a commit of its store: ``python -m tests.server.mortal [WHEN N]``.

WHEN is ``before`` or ``after`` the N-th commit. Its swarms launch all agents at once; otherwise it serves
as ``kimi-mcp serve`` does, but without its quick start.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import anyio
from sqlalchemy import Connection, Executable

from kimi_mcp.core import json_logs
from kimi_mcp.core.settings import read_settings
from kimi_mcp.runs.store import engine
from kimi_mcp.server.app import build_server
from kimi_mcp.server.stdio.connection import leave, serve_stdio
from kimi_mcp.swarm.limits import SwarmLimits


def die_at(when: str, number: int) -> None:
    """Let SIGKILL come right before or right after a commit is made."""
    left = number

    def counted(connection: Connection, statement: str | Executable, values: Mapping[str, Any] | None = None) -> Any:
        nonlocal left
        is_commit = isinstance(statement, str) and statement == "COMMIT"
        left -= is_commit
        is_the_one = is_commit and not left
        if is_the_one and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        executed = execute(connection, statement, values)
        if is_the_one:
            os.kill(os.getpid(), signal.SIGKILL)
        return executed

    execute, engine.execute = engine.execute, counted


async def serve() -> None:
    settings = read_settings(os.environ)
    json_logs.configure(settings.log_level)
    await serve_stdio(build_server(settings, swarm_limits=SwarmLimits(launch_interval_s=0)))
    leave(0)


if __name__ == "__main__":
    if sys.argv[1:]:
        die_at(sys.argv[1], int(sys.argv[2]))
    anyio.run(serve)
