"""A simulator for each test of this package, and the backend that these tests run on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kimi_mcp.simulator import Simulator
from tests.provider.requests import KEY, close_all


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator("moonshot", require_key=KEY) as simulator:
        yield simulator
        await close_all()
        assert [each.ignored for each in simulator.requests if each.ignored] == []
