"""The server's disk is nobody's: without KIMI_ROOTS no caller over HTTP reads of it, whatever its client says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp_types import ListRootsResult, Root
from pydantic import FileUrl

from kimi_mcp.simulator import Simulator
from tests.server.http.served import served
from tests.server.requests import chats
from tests.server.results import checked


async def test_roots_that_a_remote_client_offers_are_not_even_asked_for(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "notes.txt").write_text("the notes")
    monkeypatch.chdir(folder)
    requested: list[Any] = []

    async def roots(context: Any) -> ListRootsResult:
        requested.append(context)
        return ListRootsResult(roots=[Root(uri=FileUrl(folder.as_uri()))])

    async with (
        served(sim) as http,
        Client(http.serving.local_url, mode="legacy", list_roots_callback=roots) as client,
    ):
        for tool, arguments in (
            ("kimi_think", {"prompt": "x", "files": ["notes.txt"]}),
            ("kimi_swarm", {"prompt": "Sum up: {{item}}", "items": ["*.txt"]}),
        ):
            refused = checked(await client.call_tool(tool, arguments))
            assert refused.code == "path_refused"
            assert "KIMI_ROOTS" in refused.error["fix"]
            assert "data URI" in refused.error["fix"]
            assert "https URL" in refused.error["fix"]
    assert (requested, chats(sim)) == ([], [])


@pytest.mark.parametrize("roots", [False, True])
async def test_sub_agents_read_files_where_the_operator_named_folders_alone(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch, roots: bool
) -> None:
    (folder / "notes.txt").write_text("the notes")
    monkeypatch.chdir(folder)
    reads = {"name": "files__read", "arguments": {"path": "notes.txt"}}
    sim.play({"match": {"text": "Tell me about Oslo.", "turns": 0}, "tool_calls": [reads]})
    async with served(sim, KIMI_ROOTS=str(folder) if roots else "") as http, http.client() as kimi:
        result = await kimi.call("kimi_swarm", {"prompt": "Tell me about {{item}}.", "items": ["Rome", "Oslo"]})
    assert result.status == "completed", result.text
    assert ("the notes" in str([request.body for request in chats(sim)])) is roots
    assert ("no folder may be read" in str(result.structured["policy"])) is not roots
