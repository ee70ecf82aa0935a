"""What every test of a swarm starts from: a simulator, no long waits."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from kimi_mcp.simulator import Simulator


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two attempts hardly any time passes."""
    monkeypatch.setattr("kimi_mcp.provider.retry.BASE_S", 0.01)
    monkeypatch.setattr("kimi_mcp.provider.calls.BASE_S", 0.01)


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """Serves the whole family in Moonshot's dialect, and wants no key."""
    with anyio.fail_after(120):
        async with Simulator(provider="simulator") as simulator:
            yield simulator
