"""``python -m tests.view [RUNS] [PORT]``: the live page on this machine, of a store full of varied runs, to work on it.

Every few seconds a run begins and another one ends. Without authentication: for developers alone.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kimi_mcp.runs.store import changes
from kimi_mcp.runs.store.records import RunEnd
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.view import documents
from kimi_mcp.view.web.routes import Viewer, view_routes
from tests.view import varied


async def main(number: int, port: int) -> None:
    """Serve until Ctrl-C."""
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder))
        store.lock.acquire()
        ids = await varied.fill(store, number)

        async def opened() -> RunStore:
            return store

        async def viewer(request: Request) -> Viewer:
            return Viewer(caller=None, may_cancel=True)

        async def cancel(run_id: str, viewer: Viewer) -> None:
            await _end(store, run_id, "cancelled")

        def page(request: Request) -> Response:
            documents._assets.cache_clear()  # what was changed since then is seen by a reload
            return Response(documents.live_document(), media_type="text/html")

        def asset(request: Request) -> Response:
            content, content_type = documents.asset(request.path_params["name"])
            return Response(content, media_type=content_type)

        pages = [Route("/ui", page), Route("/ui/assets/{name}", asset)]
        app = Starlette(routes=[*pages, *view_routes(opened, viewer, cancel)])
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=1))
        print(f"http://127.0.0.1:{port}/ui", flush=True)
        moving = asyncio.create_task(_move(store, ids[:5]) if ids else asyncio.sleep(0))
        try:
            await server.serve()
        finally:
            moving.cancel()
            await store.aclose(unfinished=True)


async def _move(store: RunStore, running: list[str]) -> None:
    """Begin a run and end the oldest, every few seconds."""
    for number in itertools.count(1):
        await asyncio.sleep(4)
        record = await store.find(running[-1], None)
        if record is not None:
            fresh = replace(record, id=f"run_f{number:023x}", started_at=store.now())
            entry = {name: getattr(fresh, name) for name in varied.RunEntry.__dataclass_fields__}
            await store.record(varied.RunEntry(**entry), counted_usd=0.0, is_new=True)
            await _end(store, running.pop(), "completed")
            running.insert(0, fresh.id)


async def _end(store: RunStore, run_id: str, status: str) -> None:
    record = await store.find(run_id, None)
    if record is not None and record.running:
        timing = replace(record.outcome.timing, total_s=store.now() - record.started_at)
        outcome = replace(record.outcome, status=status, timing=timing)
        await store.write(changes.end, RunEnd(run_id=run_id, outcome=outcome, ended_at=store.now()), record.owner)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else 500, int(sys.argv[2]) if sys.argv[2:] else 8765))
