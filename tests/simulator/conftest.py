"""What every test of the simulator starts from: asyncio, and a Moonshot simulator on a real socket."""

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
    with anyio.fail_after(120):
        async with Simulator(provider="moonshot") as simulator:
            yield simulator
