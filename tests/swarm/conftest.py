"""What every test of a swarm starts from: a simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from kimi_mcp.simulator import Simulator


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """Serves the whole family in Moonshot's dialect, and wants no key."""
    with anyio.fail_after(120):
        async with Simulator(provider="simulator") as simulator:
            yield simulator
            assert [each.ignored for each in simulator.requests if each.ignored] == []
