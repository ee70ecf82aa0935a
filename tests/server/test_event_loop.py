"""The event loop waits for no disk: a drive that hangs keeps nobody but who asked for its files."""

from __future__ import annotations

import builtins
import io
import os
import threading
import traceback
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.pipeline.attachments import MediaLimits
from kimi_mcp.simulator import Simulator
from tests.server.clients import ServerOptions, connect, wait_until
from tests.server.media import CLIP, picture, write
from tests.server.requests import chats
from tests.server.test_swarm_end_to_end import file_of_servers

CALLS = [*((os, name) for name in ("lstat", "stat", "open", "scandir", "listdir", "readlink", "mkdir", "access"))]
CALLS += [(builtins, "open"), (io, "open")]
"""What asks a disk."""


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets where this thread, which has the event loop, asks the disk for something below the test's folder."""
    found, loop_thread = list[str](), threading.current_thread()

    def watched(module: Any, name: str) -> None:
        asks = getattr(module, name)

        def ask(path: Any, *more: Any, **named: Any) -> Any:
            if threading.current_thread() is loop_thread and (
                named.get("dir_fd") is not None
                or (isinstance(path, str | Path) and Path(path).is_relative_to(tmp_path))
            ):
                found.append(f"{name}({path})\n" + "".join(traceback.format_stack(limit=8)))
            return asks(path, *more, **named)

        monkeypatch.setattr(module, name, ask)

    for module, name in CALLS:
        watched(module, name)
    return found


async def test_no_call_asks_a_disk_in_the_event_loop(sim: Simulator, tmp_path: Path, looks: list[str]) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    write(folder, a_txt="HELLO", b_md="# Hi", a_png=picture(1), b_heic=picture(2, "HEIF"), clip_mp4=CLIP)
    variables = {"KIMI_ROOTS": str(folder), "KIMI_SWARM_MCP": file_of_servers(tmp_path)}
    options = ServerOptions(media_limits=MediaLimits(inline=len(CLIP) - 1))
    looks.clear()
    async with connect(sim, options=options, **variables) as kimi:
        read = await kimi.think(files=["a.txt", "*.md"])
        seen = await kimi.call("kimi_vision", {"prompt": "What is it?", "images": ["a.png", str(folder / "b.heic")]})
        watched = await kimi.call("kimi_video", {"prompt": "What happens?", "video": "clip.mp4"})
        more = await kimi.think("And?", conversation_id=seen.structured["conversation_id"])
        swarm = await kimi.call("kimi_swarm", {"prompt": "Tell me about {{item}}.", "items": ["Rome", "Oslo"]})
        listed = await kimi.run()
        await kimi.run(read.run_id)
        await kimi.client.read_resource("kimi://runs")
    assert {each.status for each in (read, seen, watched, more, swarm, listed)} == {"completed"}
    assert looks == []


@pytest.mark.parametrize("leaves", ["is cancelled", "ends"])
async def test_a_drive_that_hangs_holds_up_neither_others_nor_whoever_leaves(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: str
) -> None:
    folder, hangs, go_on, lstat = tmp_path / "drive", threading.Event(), threading.Event(), os.lstat

    def slow(path: Any, **named: Any) -> os.stat_result:
        if Path(path) == folder:
            hangs.set()
            assert go_on.wait(60)
        return lstat(path, **named)

    monkeypatch.setattr(os, "lstat", slow)
    try:
        with anyio.fail_after(60):
            async with (
                connect(sim, KIMI_ROOTS=str(folder), KIMI_REPLY_WITHIN_S="0.2") as kimi,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(lambda: kimi.think(files=["a.txt"]))
                await wait_until(hangs.is_set)
                other = await kimi.instant("hi")
                assert (await kimi.run(other.run_id, "wait", wait_s=60)).status == "completed"
                started = await kimi.think("about it", files=["a.txt"])
                assert started.status == "running", "its host hears in time"
                if leaves == "is cancelled":
                    assert (await kimi.run(started.run_id, "cancel")).status == "cancelled"
                    tasks.cancel_scope.cancel()
    finally:
        go_on.set()
    assert len(chats(sim)) == 1
