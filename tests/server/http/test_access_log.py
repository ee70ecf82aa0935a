"""The log lines of HTTP requests: their ids, and what no line may have."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.core import json_logs
from kimi_mcp.server.http.auth.scopes import CALL as CALL_SCOPE
from kimi_mcp.server.http.auth.token_file import TokenFile, utc_now
from kimi_mcp.simulator import Simulator
from tests.server.clients import wait_until
from tests.server.http.served import bearer, message, newest, newest_headers, served

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
CALL = {"name": "kimi_instant", "arguments": {"prompt": "a secret prompt"}}


@pytest.fixture
def lines() -> io.StringIO:
    """What the server logs, at every level."""
    stream = io.StringIO()
    json_logs.configure("DEBUG", stream=stream)
    return stream


def events(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


@pytest.mark.parametrize("era", ["2025-11-25", "2026-07-28"])
async def test_every_line_of_a_call_has_its_ids(sim: Simulator, lines: io.StringIO, era: str) -> None:
    ids = {"X-Request-Id": "proxy-17", "traceparent": TRACEPARENT}
    async with served(sim) as http:
        if era == "2026-07-28":
            body, headers = newest("tools/call", CALL), newest_headers("tools/call", "kimi_instant")
        else:
            body, headers = message("tools/call", CALL), await http.session()
        answer = await http.post(body, {**headers, **ids})
        assert answer.headers["x-request-id"] == "proxy-17"
    named = [event for event in events(lines) if event.get("request_id") == "proxy-17"]
    of_the_run = [event for event in named if event["logger"] == "kimi_mcp.pipeline.pipeline"]
    assert len(of_the_run) >= 2, "it begins, and it has ended"
    for event in of_the_run:
        assert event["run_id"].startswith("run_")
        assert (event["trace_id"], event["principal"], event["tool"]) == (TRACE, "local", "kimi_instant")
    (access,) = [event for event in named if event["logger"].endswith("access_log")]
    assert (access["method"], access["path"], access["status"], access["principal"]) == ("POST", "/mcp", 200, "local")
    assert access["ms"] > 0


async def test_no_line_has_a_token_a_query_a_body_or_a_path_that_is_not_ours(lines: io.StringIO) -> None:
    async with served(None) as http:
        headers = {"Authorization": "Bearer token-0815", "X-Request-Id": "not an id 0815"}
        await http.raw.get("/token-0815?key=token-0815", headers=headers)
        await http.raw.post("/mcp?key=token-0815", content=b'{"token": "0815"}', headers=headers)
        unnamed = await http.raw.get("/healthz")
    access = [event for event in events(lines) if event["logger"].endswith("access_log")]
    assert [(event["path"], event["status"]) for event in access] == [
        ("(another)", 404),
        ("/mcp", 415),
        ("/healthz", 200),
    ]
    assert "0815" not in lines.getvalue()
    assert access[-1]["request_id"] == unnamed.headers["x-request-id"]
    assert len({event["request_id"] for event in access}) == 3


async def test_who_shows_no_valid_token_is_nobody(lines: io.StringIO, tmp_path: Path) -> None:
    _, alice = TokenFile(tmp_path / "tokens.json").add("alice", (CALL_SCOPE,), now=utc_now())
    async with served(None, KIMI_HTTP_TOKENS=str(tmp_path / "tokens.json")) as http:
        for token in (alice, "kimi_wrong"):
            await http.raw.get("/mcp", headers=bearer(token))
    principals = [event["principal"] for event in events(lines) if event["logger"].endswith("access_log")]
    assert principals == ["kimi-mcp#alice", None]


async def test_a_request_whose_client_leaves_has_its_line_too(sim: Simulator, lines: io.StringIO) -> None:
    sim.play({"gate": "never"})
    async with served(sim, KIMI_DRAIN_S="0") as http:
        body, headers = newest("tools/call", CALL), newest_headers("tools/call", "kimi_instant")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(http.post, body, headers)
            await sim.until(lambda: sim.waiting_at("never") == 1)
            tasks.cancel_scope.cancel()
        await wait_until(lambda: '"status": 499' in lines.getvalue())
