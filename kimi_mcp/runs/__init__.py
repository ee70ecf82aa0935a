"""Runs: every call is one, and it belongs to the server, not to the request that asked for it. I/O: the journal's.

A handler asks for a run and waits for it; the run goes on in the server's own task group when the handler is gone, and
what has arrived can be read at any moment, here and in every other server of the same data folder. ``run.py`` is one
run, ``running.py`` those of a process, ``writing.py`` what is written down of them, ``limits.py`` what they may cost.
"""

from kimi_mcp.runs.registry import ListedRun, Runs, open_runs
from kimi_mcp.runs.run import Run, RunFunction, RunProgress, RunView
from kimi_mcp.runs.stored_run import RecordedRun

__all__ = ["ListedRun", "RecordedRun", "Run", "RunFunction", "RunProgress", "RunView", "Runs", "open_runs"]
