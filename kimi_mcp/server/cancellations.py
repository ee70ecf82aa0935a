"""Cancellations that clients of the handshake era send by a notification. I/O: in a cluster, the store's notifications.

Such a notification is a request of its own, which a balancer may pass to another replica than the one that answers the
call: that one then tells all of them, by a hash that says nothing of caller, session or call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.jsonrpc_dispatcher import cancelled_request_id_from_params

from kimi_mcp.core.background import start_contained
from kimi_mcp.server import client_quirks
from kimi_mcp.server.streams import RequestKey, request_key

if TYPE_CHECKING:
    from kimi_mcp.server.state import ServerState

LOOK_EVERY_S = 60.0
"""Seconds until whoever listens looks for himself: there is nothing to see."""

_FAILURE = "a cancellation could not be passed on"
_TIMED_OUT = "+"


async def handle_cancellation(ctx: Any, call_next: Any) -> Any:
    """A middleware: a user's cancellation cancels the run; a host's own timeout leaves it, to be fetched later."""
    if ctx.method == "notifications/cancelled":
        state: ServerState = ctx.lifespan_context
        params: Mapping[str, Any] = ctx.params or {}
        request_id = cancelled_request_id_from_params(params)
        key = None if request_id is None else request_key(ctx, coerce_request_id(request_id))
        host_timed_out = client_quirks.timed_out(params.get("reason"))
        if key is not None and not _cancel(state, key, host_timed_out) and state.settings.cluster == "on":
            start_contained(state.tasks, _FAILURE, _tell, state, key, host_timed_out)
    return await call_next(ctx)


async def hear_cancellations(state: ServerState) -> None:
    """Carry out what other replicas tell, until it is cancelled."""
    runs = await state.open_runs()
    async with runs.store.notifications.waiting("call") as waiter:
        while True:
            received = await waiter.next(LOOK_EVERY_S, deaf_s=LOOK_EVERY_S)
            if received:
                for key in (*state.waiting, *state.answered):
                    for host_timed_out in (False, True):
                        if _payload(key, host_timed_out) in received:
                            _cancel(state, key, host_timed_out)


def _cancel(state: ServerState, key: RequestKey, host_timed_out: bool) -> bool:
    """Carry it out; False where no call of this server is meant."""
    run = state.waiting.pop(key, None)
    run_id = run.id if run is not None else state.answered.pop(key, None)
    if run_id is None:
        return False
    state.calls.settle(key)
    state.calls.keep(run_id)
    if host_timed_out:
        start_contained(state.tasks, _FAILURE, state.abandon, run_id)
    elif run is not None:
        start_contained(state.tasks, _FAILURE, run.cancel)
    return True


async def _tell(state: ServerState, key: RequestKey, host_timed_out: bool) -> None:
    from kimi_mcp.runs.store.notifications import notify

    await (await state.open_runs()).store.write(notify, "call", _payload(key, host_timed_out))


def _payload(key: RequestKey, host_timed_out: bool) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()[:32] + (_TIMED_OUT if host_timed_out else "")
