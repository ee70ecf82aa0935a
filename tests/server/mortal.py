"""A real server that may kill itself right around a commit of its journal: ``python -m tests.server.mortal [WHEN N]``.

WHEN is ``before`` or ``after`` the N-th commit. Its swarms launch all agents at once; everything else is as in
``kimi-mcp serve``.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import anyio
from sqlalchemy import event
from sqlalchemy.engine import Engine

from kimi_mcp.server.entry_point import serve
from kimi_mcp.swarm.limits import LaunchSchedule, SwarmConcurrency


def die_at(when: str, number: int) -> None:
    """Let SIGKILL come right before or right after a commit is made."""
    left = number

    def look(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        nonlocal left
        left -= statement == "COMMIT"
        if statement == "COMMIT" and not left:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, f"{when}_cursor_execute", look)


if __name__ == "__main__":
    SwarmConcurrency.__init__.__defaults__ = (LaunchSchedule(interval_s=0), anyio.sleep, anyio.current_time)
    if sys.argv[1:]:
        die_at(sys.argv[1], int(sys.argv[2]))
    serve()
