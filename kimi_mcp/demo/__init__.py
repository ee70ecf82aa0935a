"""``kimi-mcp demo``: the server at work, as a host sees it, each step held against what a simulator received.

I/O: listens on loopback, starts the server twice as a child process, prints. No key, no network; of the environment's
settings nothing reaches the server. ``scenes`` has what happens, ``stage`` where it happens.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

import anyio

from kimi_mcp.demo import scenes
from kimi_mcp.demo.scenes import SCENE_S
from kimi_mcp.demo.stage import Stage
from kimi_mcp.simulator import Simulator
from kimi_mcp.terminal import Page

if TYPE_CHECKING:
    from mcp import Client

Scene = Callable[[Stage], Awaitable[None]]
"""One step of the demo; its docstring is its heading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Scenes that play with one host at one server."""

    mode: str
    """Which protocol the host speaks: ``auto`` the newest, ``legacy`` the one with a handshake."""
    settings: Mapping[str, str]
    """What the server's environment says beside the upstream."""
    scenes: tuple[Scene, ...]
    """What happens."""


ACTS = (
    Act(
        mode="auto",
        settings={},
        scenes=(
            scenes.introduction,
            scenes.thinking,
            scenes.instant,
            scenes.adjusted,
            scenes.structured,
            scenes.refused,
            scenes.cut_off,
            scenes.retried,
            scenes.impatient,
            scenes.cancelled,
        ),
    ),
    Act(mode="legacy", settings={"KIMI_POLICY": "strict"}, scenes=(scenes.strict,)),
)
"""The whole demo."""


async def play() -> bool:
    """Play every scene; whether every step held."""
    page, began = Page(label=11, indent=3), time.monotonic()
    page.line("kimi-mcp demo", "name")
    page.line("A simulator, the server and a host, on this machine alone: no key, no network.", "quiet")
    page.line("The answers are the simulator's, made of what it received; all else is real.", "quiet")
    stages: list[Stage] = []
    with tempfile.TemporaryDirectory(prefix="kimi-mcp-demo-") as folder, tempfile.TemporaryFile("w+") as errors:
        async with Simulator(provider="simulator") as sim:
            numbers = itertools.count(1)
            for act in ACTS:
                settings = {"KIMI_BASE_URL": sim.base_url, "KIMI_DATA_DIR": folder, **act.settings}
                async with AsyncExitStack() as stack:
                    with page.waiting("starting the server …"):
                        client = await stack.enter_async_context(_host(settings, act.mode, errors))
                    stages.append(Stage(sim=sim, client=client, page=page))
                    for scene in act.scenes:
                        await _play_one(stages[-1], scene, next(numbers))
        said = _said_by_server(errors)
    held, failed = sum(stage.held for stage in stages), [one for stage in stages for one in stage.failed]
    _close(page, held, failed, said, time.monotonic() - began)
    return not failed


async def _play_one(stage: Stage, scene: Scene, number: int) -> None:
    """One scene; whatever goes wrong in it is a step that did not hold, and the next one plays."""
    stage.sim.reset()
    stage.page.line()
    stage.page.heading(f"{number:>2} {(scene.__doc__ or '').strip()}")
    try:
        with anyio.fail_after(SCENE_S):
            await scene(stage)
    except TimeoutError:
        stage.holds("The scene came to its end.", False, f"it took more than {SCENE_S:.0f} s")
    except Exception as fault:  # noqa: BLE001 - a demo that breaks off would show less than one that says what broke
        stage.holds("The scene came to its end.", False, f"{type(fault).__name__}: {fault}")


@asynccontextmanager
async def _host(settings: Mapping[str, str], mode: str, errors: IO[str]) -> AsyncGenerator[Client]:
    """A host that has started the server as hosts do: a child process, stdio, an environment of its own."""
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    environment = {"KIMI_PROVIDER": "simulator", **settings}
    if path := os.environ.get("PYTHONPATH"):
        environment["PYTHONPATH"] = path
    server = StdioServerParameters(command=sys.executable, args=["-m", "kimi_mcp"], env=environment)
    async with Client(stdio_client(server, errlog=cast("Any", errors)), mode=cast("Any", mode)) as client:
        yield client


def _said_by_server(errors: IO[str]) -> list[str]:
    errors.seek(0)
    return errors.read().splitlines()


def _close(page: Page, held: int, failed: list[str], said: list[str], seconds: float) -> None:
    page.line()
    if not failed:
        page.mark("ok", f"All {held} steps held, in {seconds:.1f} s.", "ok")
        page.line("   Next: set a key, such as MOONSHOT_API_KEY, and run `kimi-mcp doctor`.", "quiet")
        return
    page.mark("bad", f"{len(failed)} of {held + len(failed)} steps did not hold:")
    for sentence in failed:
        page.row("", sentence)
    for line in said[-10:]:
        page.row("server", line, "quiet")
