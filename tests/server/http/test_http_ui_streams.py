"""Streams of events of the HTTP server's live page: whose they are, how many, and when they end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import httpx2
import pytest

from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.view.web import access
from tests.server.http.ui_team import team
from tests.view.visiting import checked, error_code


async def events_of(raw: httpx2.AsyncClient, path: str, headers: dict[str, str]) -> AsyncGenerator[str]:
    """The names of the events of a stream, to its end."""
    async with raw.stream("GET", path, headers=headers) as stream:
        assert stream.status_code == 200
        yield "opened"
        async for line in stream.aiter_lines():
            if line.startswith("event:"):
                yield line


async def test_a_server_that_ends_ends_streams_at_once_and_opens_none(tmp_path: Path) -> None:
    async with team(None, tmp_path) as them:
        gate, page = them.http.serving.app.gate, them.http.serving.app
        events = events_of(them.http.raw, "/ui/api/events", them.cookie("alice"))
        assert await anext(events) == "opened"
        gate.drain()
        with anyio.fail_after(60):
            assert [each async for each in events if each == "opened"] == []
        assert page.ui is not None
        assert page.ui.streams == 0
        refused = checked(await them.http.raw.get("/ui/api/events", headers=them.cookie("alice")))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await them.http.raw.get("/ui/api/runs", headers=them.cookie("alice"))).status_code == 200


async def test_a_stream_ends_once_its_token_is_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "CHECK_EVERY_S", 0.01)
    async with team(None, tmp_path) as them:
        events = events_of(them.http.raw, "/ui/api/events", them.cookie("alice"))
        assert await anext(events) == "opened"
        them.file.revoke("alice")
        with anyio.fail_after(60):
            assert [each async for each in events if each == "opened"] == []


async def test_a_principal_has_so_many_streams_open_and_leaves_the_others_theirs(tmp_path: Path) -> None:
    async with team(None, tmp_path, limits=HttpLimits(max_principal_streams=1)) as them:
        first = events_of(them.http.raw, "/ui/api/events", them.cookie("alice"))
        assert await anext(first) == "opened"
        refused = checked(await them.http.raw.get("/ui/api/events", headers=them.cookie("alice")))
        assert (refused.status_code, error_code(refused)) == (429, "busy")
        other = events_of(them.http.raw, "/ui/api/events", them.cookie("bob"))
        assert await anext(other) == "opened"
        await other.aclose()
        await first.aclose()
