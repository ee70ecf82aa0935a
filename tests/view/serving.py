"""The page's routes on a socket of this process, over a store that runs were made in. I/O: loopback, a store."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request

from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.view.web.routes import CANCEL_HEADER, Viewer, view_routes

EVERYBODY = Viewer(caller=None, may_cancel=True)


class Events:
    """A stream of events, as a browser reads it."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.last = ""
        """The id of the last one."""

    async def next(self, name: str | None = None) -> tuple[str, Any]:
        """The next event (of that name), with its data; at the end of the stream ``("", None)``."""
        found, data = "", None
        async for line in self._lines:
            key, _, value = line.partition(": ")
            if key == "event":
                found = value
            elif key == "id":
                self.last = value
            elif key == "data":
                data = json.loads(value)
            elif not line and found:
                if name in (None, found):
                    return found, data
                found = ""
        return "", None

    async def until(self, name: str, holds: Callable[[Any], object]) -> Any:
        """The data of the next event of that name of which something holds."""
        while True:
            found, data = await self.next(name)
            assert found, "the stream has ended"
            if holds(data):
                return data


@dataclass
class Page:
    """The page's data, as a browser gets it."""

    store: RunStore
    http: httpx2.AsyncClient
    viewer: Viewer = EVERYBODY
    """Who looks."""
    cancelled: list[str] = field(default_factory=list)
    """The runs whose cancellation was requested."""

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON of a path below ``/ui/api``."""
        answer = await self.http.get(f"/ui/api{path}", params=query)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.json()

    async def refused(self, path: str, **query: Any) -> tuple[int, dict[str, Any]]:
        """Status and error of a path."""
        answer = await self.http.get(f"/ui/api{path}", params=query)
        return answer.status_code, answer.json()["error"]

    @asynccontextmanager
    async def events(self, path: str, last: str = "", **query: Any) -> AsyncIterator[Events]:
        """The stream of events of a path."""
        headers = {"Last-Event-ID": last} if last else {}
        async with self.http.stream("GET", f"/ui/api{path}", params=query, headers=headers) as answer:
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            yield Events(answer.aiter_lines())

    async def ids(self, **filters: Any) -> list[str]:
        """The runs that are listed."""
        return [run["run_id"] for run in (await self.get("/runs", **filters))["runs"]]

    async def cancel(self, run_id: str, header: str = "1") -> httpx2.Response:
        """The response to a cancellation."""
        return await self.http.post(f"/ui/api/runs/{run_id}/cancel", json={}, headers={CANCEL_HEADER: header})


@asynccontextmanager
async def page(store: RunStore | None = None) -> AsyncIterator[Page]:
    """The routes over a store; None: this test's own, as another server has it."""
    kept = store or RunStore(Path(os.environ["KIMI_DATA_DIR"]))

    await kept.read(lambda _: None)  # it is open before anything happens

    async def open_store() -> RunStore:
        return kept

    async def viewer(request: Request) -> Viewer:
        return shown.viewer

    async def cancel(run_id: str, viewer: Viewer) -> None:
        shown.cancelled.append(run_id)
        await kept.request_cancel(run_id)

    app = Starlette(routes=view_routes(open_store, viewer, cancel))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
    listener = socket.create_server(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        async with (
            anyio.create_task_group() as tasks,
            httpx2.AsyncClient(base_url=base, timeout=30, verify=False) as http,
        ):
            shown = Page(kept, http)
            tasks.start_soon(server._serve, [listener])
            yield shown
            server.should_exit = True
    finally:
        listener.close()
        with anyio.CancelScope(shield=True):
            if store is None:
                await kept.aclose()
