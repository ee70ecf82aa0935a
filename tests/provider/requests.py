"""What the tests of this package share: an endpoint, a body that every check lets pass, and a clock that only waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import httpcore2

from kimi_mcp.catalogue import load
from kimi_mcp.provider import Deadlines, Endpoint, Upstream
from kimi_mcp.provider.decoding import StreamAccumulator
from kimi_mcp.provider.endpoint import InlineMedium
from kimi_mcp.simulator import Simulator
from tests.loop_time import fail_after_real

KEY = "sk-Qx7pLm3Zr9Wv2Tn8Kd5Hs4Jf6Bg1Yc0Ea"
BODY: dict[str, Any] = {
    "model": "kimi-k2.6",
    "messages": [{"role": "user", "content": "Say hi."}],
    "stream": True,
    "max_completion_tokens": 16_000,
}
OPEN: list[Upstream] = []
"""What a test has opened and ``close_all`` closes after it."""
SHORT: dict[str, Any] = {"reasoning": "Hm.", "content": "Hi."}
"""Keys of a step whose answer is short."""


class Clock:
    """A monotonic clock that moves only when somebody sleeps on it, and remembers for how long they did."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        await anyio.lowlevel.checkpoint()


def endpoint(base_url: str, *, key: str | None = KEY, provider: str = "moonshot") -> Endpoint:
    return Endpoint(provider=load().providers[provider], base_url=base_url, key=key)


def upstream(
    clock: Clock | None = None,
    *,
    deadlines: Deadlines | None = None,
    max_concurrency: int = 16,
    draw: Callable[[], float] = lambda: 0.5,
    wall: Callable[[], float] = lambda: 0.0,
) -> Upstream:
    """One whose waits take no time; its deadlines within an attempt are real."""
    clock = clock or Clock()
    sleep: Callable[[float], Awaitable[None]] = clock.sleep
    up = Upstream(deadlines=deadlines, max_concurrency=max_concurrency, clock=clock, wall=wall, sleep=sleep, draw=draw)
    OPEN.append(up)
    return up


async def close_all() -> None:
    """Close what the test opened, before its server goes."""
    while OPEN:
        await OPEN.pop().aclose()


def connections(up: Upstream) -> list[httpcore2.AsyncConnectionInterface]:
    """The connections to the one host that was asked."""
    (client,) = up._clients.values()
    return client.transport.connections


class CallOutcome:
    """One call, as its caller sees it."""

    def __init__(self) -> None:
        self.accumulator = StreamAccumulator()
        self.attempts: list[int] = []
        self.waits: list[tuple[float, str]] = []
        self.sent = 0
        self.error: BaseException | None = None

    @property
    def code(self) -> str | None:
        return getattr(self.error, "code", None)


@asynccontextmanager
async def asking(up: Upstream, sim: Simulator | str, **how: Any) -> AsyncIterator[CallOutcome]:
    """Make one call beside the block, which is left once the call is over."""
    outcome = CallOutcome()
    with fail_after_real(120):
        async with anyio.create_task_group() as calls:
            calls.start_soon(partial(ask, up, sim, outcome=outcome, **how))
            yield outcome


async def ask(
    up: Upstream,
    sim: Simulator | str,
    *,
    prompt: str | None = None,
    key: str | None = KEY,
    provider: str = "moonshot",
    inline: InlineMedium | None = None,
    outcome: CallOutcome | None = None,
) -> CallOutcome:
    """Make one call, with a picture where one is given, and keep whatever comes of it."""
    outcome = outcome or CallOutcome()
    base_url = sim if isinstance(sim, str) else sim.base_url
    try:
        outcome.sent = await up.stream(
            endpoint(base_url, key=key, provider=provider),
            BODY if prompt is None else {**BODY, "messages": [{"role": "user", "content": prompt}]},
            outcome.accumulator,
            inlined={inline.placeholder: inline} if inline else None,
            on_attempt=outcome.attempts.append,
            on_wait=lambda seconds, why: outcome.waits.append((seconds, why)),
        )
    except Exception as error:  # noqa: BLE001 - whatever comes is looked at by the test
        outcome.error = error
    return outcome
