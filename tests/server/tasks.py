"""Clients of the newest era that take tasks. I/O: a server in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio

from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.server.state import Timings
from kimi_mcp.server.tasks import EXTENSION
from kimi_mcp.simulator import Simulator
from tests.server.clients import NewestClient, ServerOptions, connect_newest

HOLDS_OSLO = {"match": {"text": "Tell me about Oslo."}, "gate": "oslo"}


def options(**timings: Any) -> ServerOptions:
    """Of a server with such timings."""
    return ServerOptions(timings=Timings(warm_up_after_s=3600, store=StoreLimits(written_within_s=10), **timings))


AT_ONCE = options(task_after_s=0, progress_every_s=0.05)
"""Whatever may become a task does so as soon as it is recorded."""

client_of = partial(connect_newest, options=AT_ONCE)


@asynccontextmanager
async def tasks_of(sim: Simulator, **variables: str) -> AsyncIterator[NewestClient]:
    """A client that takes tasks."""
    async with client_of(sim, EXTENSION, **variables) as client:
        yield client


async def ended(client: NewestClient, task: Mapping[str, Any]) -> dict[str, Any]:
    """The task once it has ended."""
    with anyio.fail_after(60):
        while (task := await client.ask("tasks/get", taskId=task["taskId"]))["status"] == "working":
            await anyio.sleep(0.01)
    return dict(task)


def bare(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without what is about its message."""
    return {name: value for name, value in result.items() if name != "_meta"}


async def ended_after(sim: Simulator, client: NewestClient, task: Mapping[str, Any]) -> dict[str, Any]:
    """The task once it has ended, which the gate kept it from."""
    sim.open_gate("end")
    return await ended(client, task)
