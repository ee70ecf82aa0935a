"""``kimi-mcp demo``: the server at work, as a host sees it, each step checked against what a simulator received.

I/O: listens on loopback, starts a server process for each act, reads ``examples/``, prints. No key, no network; no
setting of the environment reaches the server. ``scenes``, ``files``, ``swarms`` and ``money`` have what happens.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import anyio

from kimi_mcp.cli.console import Printer
from kimi_mcp.simulator import Simulator
from scripts.demo import files, money, scenes, swarms
from scripts.demo.scenes import SCENE_S
from scripts.demo.stage import Stage

if TYPE_CHECKING:
    from mcp import Client

Scene = Callable[[Stage], Awaitable[None]]
"""Its docstring is its heading."""


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
"""The picture, the clip and the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoAct:
    """Scenes with one host and one server."""

    scenes: tuple[Scene, ...]
    provider: str = "simulator"
    """Whose API the simulator imitates, and which provider it is for the server."""
    mode: str = "auto"
    """The protocol of the host: ``auto`` the newest, ``legacy`` the one with a handshake."""
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    """Variables of the server beside those of the provider."""
    reads: bool = False
    """Whether its scenes read files: the server's roots are then the examples and the demo's folder."""
    catalogue: bool = False
    """Whether a catalogue of the user's adds the provider of its settings."""
    tools: bool = False
    """Whether its sub-agents have the tools of the demo's library."""


ACTS = (
    DemoAct(
        scenes=(
            *(scenes.introduction, scenes.thinking, scenes.instant, scenes.adjusted, scenes.structured),
            *(scenes.effort, scenes.web),
            *(scenes.refused, scenes.cut_off, scenes.cut_answer, scenes.retried, scenes.impatient, scenes.cancelled),
            *(scenes.continued, scenes.server_killed),
        )
    ),
    DemoAct(tools=True, scenes=(swarms.parallel, swarms.resumed)),
    DemoAct(reads=True, scenes=(swarms.files,)),
    DemoAct(
        reads=True,
        scenes=(
            *(files.picture, files.clip, files.converted, files.files, files.document, files.outside),
            files.uploaded,
        ),
    ),
    DemoAct(
        provider="vllm",
        settings={"KIMI_ALLOWED_PROVIDERS": "simulator"},
        reads=True,
        scenes=(files.no_video, files.document_here),
    ),
    DemoAct(catalogue=True, settings=money.SETTINGS, scenes=(money.own_catalogue, money.dry_run, money.live_models)),
    DemoAct(settings={"KIMI_CACHE_TTL": "1h"}, scenes=(money.balance, money.cache_time)),
    DemoAct(mode="legacy", settings={"KIMI_POLICY": "strict"}, scenes=(scenes.strict,)),
)
"""The whole demo."""


async def play(acts: Sequence[DemoAct] = ACTS) -> bool:
    """Play every scene; returns whether every check held."""
    page, began = Printer(label=11, indent=3), time.monotonic()
    page.line("kimi-mcp demo", "name")
    page.line("A simulator, the server and a host, on this machine alone: no key, no network.", "quiet")
    page.line("The simulator makes the answers from what it received; all else is real.", "quiet")
    held, numbers, failed = 0, itertools.count(1), list[str]()
    with tempfile.TemporaryDirectory(prefix="kimi-mcp-demo-") as folder, tempfile.TemporaryFile("w+") as errors:
        files = _files_folder(folder)
        for act in acts:
            async with AsyncExitStack() as stack:
                sim = await stack.enter_async_context(Simulator(provider=act.provider))
                environment = _environment(act, sim, folder, files)
                with page.waiting("starting the server …"):
                    client = await stack.enter_async_context(_host(environment, act.mode, errors))
                stage = Stage(
                    sim=sim, client=client, page=page, folder=files, examples=EXAMPLES, environment=environment
                )
                for scene in act.scenes:
                    await _play_one(stage, scene, next(numbers))
                held, failed = held + stage.held, failed + stage.failed
        errors.seek(0)
        log = errors.read().splitlines()
    page.line()
    if failed:
        page.mark("bad", f"{len(failed)} of {held + len(failed)} steps did not hold:")
        for statement in failed:
            page.row("", statement)
        for line in log[-10:]:
            page.row("server", line, "quiet")
    else:
        page.mark("ok", f"All {held} steps held, in {time.monotonic() - began:.1f} s.", "ok")
        page.line("   Next: set a key, such as MOONSHOT_API_KEY, and run `kimi-mcp doctor`.", "quiet")
    return not failed


def _files_folder(folder: str) -> Path:
    files = Path(folder).resolve() / "files"
    files.mkdir()
    return files


def _heading(scene: Scene) -> str:
    return (scene.__doc__ or "").strip()


def _environment(act: DemoAct, sim: Simulator, folder: str, files: Path) -> dict[str, str]:
    """The server's whole environment: the act's settings, and where Python finds the package."""
    variables = {"KIMI_PROVIDER": act.provider, "KIMI_BASE_URL": sim.base_url, "KIMI_DATA_DIR": folder, **act.settings}
    if act.reads:
        variables["KIMI_ROOTS"] = os.pathsep.join((str(EXAMPLES), str(files)))
    if act.catalogue:
        variables["KIMI_CATALOGUE"] = money.write_catalogue(files, sim.base_url)
    if act.tools:
        variables["KIMI_SWARM_MCP"] = swarms.tool_servers(files)
    if path := os.environ.get("PYTHONPATH"):
        variables["PYTHONPATH"] = path
    return variables


async def _play_one(stage: Stage, scene: Scene, number: int) -> None:
    """Play one scene. Whatever goes wrong counts as a failed check, and the next scene plays."""
    stage.sim.reset()
    stage.page.line()
    stage.page.heading(f"{number:>2} {_heading(scene)}")
    try:
        with anyio.fail_after(SCENE_S):
            await scene(stage)
    except TimeoutError:
        stage.check("The scene was finished.", False, f"it took more than {SCENE_S:.0f} s")
    except Exception as fault:  # noqa: BLE001 - the other scenes are to be shown as well
        stage.check("The scene was finished.", False, f"{type(fault).__name__}: {fault}")


@asynccontextmanager
async def _host(environment: Mapping[str, str], mode: str, errors: IO[str]) -> AsyncGenerator[Client]:
    """A host that has started the server as hosts do: a child process, stdio, an environment of its own."""
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    server = StdioServerParameters(command=sys.executable, args=["-m", "kimi_mcp"], env=dict(environment))
    async with Client(stdio_client(server, errlog=cast("Any", errors)), mode=cast("Any", mode)) as client:
        yield client
