"""Runs: every call is one, and it belongs to the server, not to the request that started it. I/O: the store's."""

from kimi_mcp.runs.registry import Runs, RunView, open_runs
from kimi_mcp.runs.run import Run, RunFunction

__all__ = ["Run", "RunFunction", "RunView", "Runs", "open_runs"]
