"""Runs: every call is one, and it belongs to the server, not to the request that asked for it. I/O: the store's.

A request handler asks for a run and waits for it; the run goes on in the server's task group when the handler is gone.
What has arrived can be read at any moment, here and in every other server of the same data folder.
"""

from kimi_mcp.runs.registry import Runs, RunView, open_runs
from kimi_mcp.runs.run import Run, RunFunction

__all__ = ["Run", "RunFunction", "RunView", "Runs", "open_runs"]
