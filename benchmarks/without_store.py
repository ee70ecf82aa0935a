"""``kimi-mcp serve`` without any store: no record is ever begun, no database opened. Only to be measured beside ours.

``KIMI_JOURNAL=off`` is no such thing: it keeps a database in memory. Here nothing is recorded.
"""

from __future__ import annotations

from typing import Any

from kimi_mcp.runs import Runs
from kimi_mcp.runs.recorder import RunRecorder
from kimi_mcp.server.entry_point import serve


async def _nothing(self: Runs | RunRecorder, *arguments: Any, **named: Any) -> None:
    """No host gave up on a run; no run is recorded."""
    del self, arguments, named


RunRecorder.write = RunRecorder.write_end = Runs.rejoin = _nothing

if __name__ == "__main__":
    serve()
