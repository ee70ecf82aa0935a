"""What the tests of the commands start from: a simulator on a real socket, and commands as processes of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from kimi_mcp.simulator import Simulator


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    with anyio.fail_after(120):
        async with Simulator(provider="simulator") as simulator:
            yield simulator
            assert [each.ignored for each in simulator.requests if each.ignored] == []
