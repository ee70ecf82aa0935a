"""What every test of a whole server starts from: a simulator, an era, the day of the facts, no long waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date

import anyio
import pytest

from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.simulator import Simulator
from tests.server.asking import ERAS


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=ERAS)
def mode(request: pytest.FixtureRequest) -> str:
    """A test that asks for it runs in both protocol eras."""
    return ERAS[request.param]


@pytest.fixture(autouse=True)
def day(monkeypatch: pytest.MonkeyPatch) -> date:
    """The server believes that it is the day of the simulator's facts, whenever the tests run."""
    facts_day = date(2026, 11, 23)
    monkeypatch.setattr(Pipeline.__init__, "__kwdefaults__", {"day": lambda: facts_day})
    return facts_day


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
