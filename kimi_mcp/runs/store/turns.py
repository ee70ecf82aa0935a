"""``take_turn``: whose turn it is to add to a conversation, of all servers that share the store. I/O: the store's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.runs.store import changes, errors
from kimi_mcp.runs.store.retries import with_retries

if TYPE_CHECKING:
    from kimi_mcp.runs.store.store import RunStore

TRY_EVERY_S = 0.1
"""Seconds between two attempts to take a turn, where nobody is heard."""


async def take_turn(store: RunStore, conversation_id: str, run_id: str, is_live: Callable[[str], bool]) -> None:
    """See ``RunStore.take_turn``."""
    unwritten: dict[str, str] = {}

    def adds(writer: str, owner: str) -> bool:
        is_alive = is_live(writer) if owner == store.lock.id else store.lock.is_alive(owner)
        if not is_alive and store.pending.has(writer):
            unwritten[writer] = owner
        return is_alive or bool(unwritten)

    async def is_taken() -> bool:
        while not await store.write(changes.take_turn, conversation_id, run_id, store.lock.id, adds):
            if not unwritten:
                return False
            await store.write_pending(*unwritten.popitem())
        return True

    if await is_taken():
        return
    async with store.notifications.waiting("turn", conversation_id) as waiter:
        try:
            while not await with_retries(is_taken, faults=NotConfigured, within_s=store.limits.outage_s):
                await waiter.next(store.limits.look_every_s, deaf_s=TRY_EVERY_S)  # the other one may be elsewhere
        except NotConfigured:
            raise errors.turn_lost() from None
