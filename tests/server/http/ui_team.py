"""A server with tokens, who has one, and every request for its live page. I/O: loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kimi_mcp.server.http.auth.scopes import ADMIN, USE
from kimi_mcp.server.http.auth.token_file import TokenFile
from kimi_mcp.simulator import Simulator
from tests.server.http.served import Served, served
from tests.view.visiting import Request, every_request

NOBODYS = "run_" + 24 * "0"
"""A run that nobody has."""


@dataclass(frozen=True, slots=True)
class Team:
    """A server with tokens, and who has one."""

    http: Served
    file: TokenFile
    tokens: dict[str, str]

    def cookie(self, name: str) -> dict[str, str]:
        """The header of who has signed in."""
        return {"Cookie": f"kimi-ui={self.tokens[name]}"}

    async def requests(self, run_id: str = NOBODYS) -> list[Request]:
        """A request to each path of the page, about that run."""
        return await requests_of(self.http, run_id)

    async def run(self, name: str, prompt: str) -> str:
        """The id of a run of theirs."""
        async with self.http.client(token=self.tokens[name]) as kimi:
            return (await kimi.instant(prompt)).run_id or ""


async def requests_of(http: Served, run_id: str = NOBODYS) -> list[Request]:
    await http.raw.get("/ui/assets/view.css")  # the first request makes the page
    page = http.serving.app.ui
    assert page is not None
    found = every_request(page.routes, run_id)
    assert len(found) >= 9
    return found


@asynccontextmanager
async def team(sim: Simulator | None, folder: Path, **more: Any) -> AsyncIterator[Team]:
    file = TokenFile(folder / "tokens.json")
    scopes = {"alice": USE, "bob": USE, "operator": (*USE, ADMIN), "prometheus": (ADMIN,)}
    tokens = {name: file.add(name, each, now=datetime.now(UTC))[1] for name, each in scopes.items()}
    async with served(sim, KIMI_HTTP_TOKENS=str(folder / "tokens.json"), **more) as http:
        yield Team(http, file, tokens)
