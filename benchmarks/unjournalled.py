"""``kimi-mcp serve`` without any journal: no record is ever begun, no database opened. Only to be measured beside ours.

``KIMI_JOURNAL=off`` is no such thing: it keeps a database in memory. Here whatever would be written down is not.
"""

from __future__ import annotations

from typing import Any

from kimi_mcp.runs import Runs
from kimi_mcp.runs.recorder import RunRecorder
from kimi_mcp.server.entry_point import serve


async def _nothing(self: Runs | RunRecorder, *arguments: Any, **named: Any) -> None:
    """Nobody had given up on any run; nothing is written down of one."""
    del self, arguments, named


RunRecorder.write = RunRecorder.write_end = Runs.rejoin = _nothing

if __name__ == "__main__":
    serve()
