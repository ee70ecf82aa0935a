"""``kimi-mcp demo``: the server at work, as a host sees it, each step held against what a simulator received.

I/O: listens on loopback, starts the server as a child process, once an act, reads ``examples/``, prints. No key, no
network; of the environment's settings nothing reaches the server. ``scenes`` and ``media`` have what happens, ``stage``
where.
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
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import anyio

from kimi_mcp.cli.console import Printer
from kimi_mcp.cli.demo import media, scenes, survival, swarms
from kimi_mcp.cli.demo.scenes import SCENE_S
from kimi_mcp.cli.demo.stage import Stage
from kimi_mcp.simulator import Simulator

if TYPE_CHECKING:
    from mcp import Client

Scene = Callable[[Stage], Awaitable[None]]
"""One step of the demo; its docstring is its heading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoAct:
    """Scenes that play with one host at one server."""

    provider: str = "simulator"
    """Whose dialect the upstream speaks, and who it is for the server."""
    mode: str
    """Which protocol the host speaks: ``auto`` the newest, ``legacy`` the one with a handshake."""
    settings: Mapping[str, str]
    """What the server's environment says beside the upstream."""
    reads: bool = False
    """Whether its scenes read files: the server's roots are the examples and the demo folder then."""
    tools: bool = False
    """Whether its sub-agents have the tools of the demo's library."""
    scenes: tuple[Scene, ...]
    """What happens."""


ACTS = (
    DemoAct(
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
            survival.continued,
            survival.survives,
        ),
    ),
    DemoAct(mode="auto", settings={}, tools=True, scenes=(swarms.led, swarms.goes_on)),
    DemoAct(
        mode="auto",
        settings={},
        reads=True,
        scenes=(
            media.picture,
            media.clip,
            media.converted,
            media.files,
            media.outside,
            media.uploaded,
        ),
    ),
    DemoAct(
        provider="vllm",
        mode="auto",
        settings={"KIMI_ALLOWED_PROVIDERS": "simulator"},
        reads=True,
        scenes=(media.no_video,),
    ),
    DemoAct(mode="legacy", settings={"KIMI_POLICY": "strict"}, scenes=(scenes.strict,)),
)
"""The whole demo."""


async def play() -> bool:
    """Play every scene; whether every step held."""
    page, began = Printer(label=11, indent=3), time.monotonic()
    page.line("kimi-mcp demo", "name")
    page.line("A simulator, the server and a host, on this machine alone: no key, no network.", "quiet")
    page.line("The answers are the simulator's, made of what it received; all else is real.", "quiet")
    stages: list[Stage] = []
    with tempfile.TemporaryDirectory(prefix="kimi-mcp-demo-") as folder, tempfile.TemporaryFile("w+") as errors:
        files = _files_folder(folder)
        numbers = itertools.count(1)
        for act in ACTS:
            if act.reads and media.missing():
                continue
            async with AsyncExitStack() as stack:
                sim = await stack.enter_async_context(Simulator(provider=act.provider))
                upstream = {"KIMI_PROVIDER": act.provider, "KIMI_BASE_URL": sim.base_url}
                settings = {**upstream, "KIMI_DATA_DIR": folder, **act.settings}
                if act.reads:
                    settings["KIMI_ROOTS"] = os.pathsep.join((str(media.EXAMPLES), str(files)))
                if act.tools:
                    settings["KIMI_SWARM_MCP"] = swarms.servers(files)
                environment = _environment(settings)
                with page.waiting("starting the server …"):
                    client = await stack.enter_async_context(_host(environment, act.mode, errors))
                stages.append(Stage(sim=sim, client=client, page=page, folder=files, environment=environment))
                for scene in act.scenes:
                    await _play_one(stages[-1], scene, next(numbers))
        log = _server_log(errors)
    held, failed = sum(stage.held for stage in stages), [one for stage in stages for one in stage.failed]
    failed += _unplayed(page)
    _close(page, held, failed, log, time.monotonic() - began)
    return not failed


def _files_folder(folder: str) -> Path:
    files = Path(folder).resolve() / "files"
    files.mkdir()
    return files


def _unplayed(page: Printer) -> list[str]:
    """The scenes that could not play because their picture or clip is not there; printed, and counted as failed."""
    absent = media.missing()
    if not absent:
        return []
    page.line()
    page.mark(
        "bad",
        f"There is no examples/{' and no examples/'.join(absent)} beside the package: no picture and no clip is shown.",
        fix="Run the demo from a checkout of the repository: `make demo`.",
    )
    return [(scene.__doc__ or "").strip() for act in ACTS if act.reads for scene in act.scenes]


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


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings alone, and where the package lies."""
    path = os.environ.get("PYTHONPATH")
    return dict(settings) | ({"PYTHONPATH": path} if path else {})


@asynccontextmanager
async def _host(environment: Mapping[str, str], mode: str, errors: IO[str]) -> AsyncGenerator[Client]:
    """A host that has started the server as hosts do: a child process, stdio, an environment of its own."""
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    server = StdioServerParameters(command=sys.executable, args=["-m", "kimi_mcp"], env=dict(environment))
    async with Client(stdio_client(server, errlog=cast("Any", errors)), mode=cast("Any", mode)) as client:
        yield client


def _server_log(errors: IO[str]) -> list[str]:
    errors.seek(0)
    return errors.read().splitlines()


def _close(page: Printer, held: int, failed: list[str], log: list[str], seconds: float) -> None:
    page.line()
    if not failed:
        page.mark("ok", f"All {held} steps held, in {seconds:.1f} s.", "ok")
        page.line("   Next: set a key, such as MOONSHOT_API_KEY, and run `kimi-mcp doctor`.", "quiet")
        return
    page.mark("bad", f"{len(failed)} of {held + len(failed)} steps did not hold:")
    for sentence in failed:
        page.row("", sentence)
    for line in log[-10:]:
        page.row("server", line, "quiet")
