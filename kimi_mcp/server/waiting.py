"""How long a call waits for its run, and what its host hears meanwhile. I/O: progress to the host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any

import anyio

from kimi_mcp.server import client_quirks, tasks
from kimi_mcp.server.raising import questions_shown

if TYPE_CHECKING:
    from kimi_mcp.runs import RunView
    from kimi_mcp.server.host_user import HostUser
    from kimi_mcp.server.tools import Tool


def deadline_of(context: Any, tool: Tool) -> float:
    """When a call that arrives now is answered at the latest, by anyio's clock.

    Never, where its host asked for progress and is known to wait as long as that comes.
    """
    now = anyio.current_time()
    if tool.becomes_task == "late" and tasks.declared(context):
        return now + min(context.lifespan_context.timings.task_after_s, patience_of(context))
    meta: Mapping[str, Any] = context.meta or {}
    requested = meta.get("progress_token") is not None
    if requested and client_quirks.has("waits_for_progress", client_quirks.host_of(context)):
        return inf
    return now + patience_of(context)


def patience_of(context: Any, wanted_s: float | None = None) -> float:
    """Seconds within which a call is answered: as it wants, else as it is set; less where its host gives it less."""
    settings, timings = context.lifespan_context.settings, context.lifespan_context.timings
    longest = settings.reply_within_s if wanted_s is None else wanted_s
    host = client_quirks.host_of(context)
    limit = None if "KIMI_REPLY_WITHIN_S" in settings.explicit else client_quirks.call_timeout_s(host)
    return longest if limit is None else min(longest, limit - timings.reply_earlier_s)


async def wait_for(
    context: Any, run: RunView, deadline: float, until: Callable[[], Awaitable[None]], user: HostUser | None, call: str
) -> None:
    """Wait ``until`` the run has ended or begun, or the deadline is over; report progress, and ask what it asks.

    ``deadline``: by anyio's clock, set when the call arrived; ``call``: the hash of the call. Raises ``InputRequired``.
    """
    async with questions_shown(user, run, call, deadline):
        await _wait(context, run, deadline, until)


async def _wait(context: Any, run: RunView, deadline: float, until: Callable[[], Awaitable[None]]) -> None:
    start = anyio.current_time()
    state = context.lifespan_context
    timings = state.timings
    report_at, ended = start + timings.first_progress_s, False
    sent, last = len(run.reports.lines), 0.0
    while True:
        with anyio.move_on_at(min(report_at, deadline, state.answer_by)) as wait, run.reports.waking(wait):
            state.waits.add(wait)
            try:
                if len(run.reports.lines) == sent:
                    await until()
                    ended = True
            finally:
                state.waits.discard(wait)
        now = anyio.current_time()
        is_over = ended or now >= min(deadline, state.answer_by)
        messages, sent = run.reports.lines[sent:], len(run.reports.lines)
        for message in messages or ([] if is_over else [run.phase()]):
            last = max(round(now - start, 1), last + 0.01)  # it must grow with each
            await context.session.report_progress(last, message=message)
        if is_over:
            return
        report_at = anyio.current_time() + timings.progress_every_s
