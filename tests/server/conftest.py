"""What every test of a whole server starts from: a simulator and an era."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from kimi_mcp.simulator import Simulator
from tests.server.clients import ERAS


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=ERAS)
def mode(request: pytest.FixtureRequest) -> str:
    """A test that asks for it runs in both protocol eras."""
    return ERAS[request.param]


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """Serves the whole family in Moonshot's dialect, and wants no key."""
    with anyio.fail_after(120):
        async with Simulator(provider="simulator") as simulator:
            yield simulator
            assert [each.ignored for each in simulator.requests if each.ignored] == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder to serve as the only root."""
    made = tmp_path / "work"
    made.mkdir()
    return made
