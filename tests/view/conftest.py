"""What every test of the page starts from: a simulator, through which runs are made."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from kimi_mcp.simulator import Simulator


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """Serves the whole family in Moonshot's dialect, and wants no key."""
    with anyio.fail_after(120):
        async with Simulator(provider="simulator") as simulator:
            yield simulator
