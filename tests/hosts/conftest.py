"""A simulator for the tests of hosts. As a fixture: what a test skips within a task group would count as a failure."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kimi_mcp.simulator import Simulator


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(provider="simulator") as simulator:
        yield simulator
