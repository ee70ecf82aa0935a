"""Files that change while they are read, sent or uploaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from kimi_mcp.media.files import OpenFile
from kimi_mcp.simulator import Simulator
from tests.server.media import contents, hashes, hashes_in, look, padded_clip, picture, watch, write
from tests.server.requests import chats
from tests.server.uploading import INLINING, connect, names

# ── a file that changes as it is read ─────────────────────────────────────────────────────────────────────────────────


def _on_read(monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[], object]) -> None:
    """Do something once, just before the first read behind an offset that comes after that many bytes were read."""
    whole, read = OpenFile.read_at, [0]

    def counted(self: OpenFile, offset: int, count: int) -> bytes:
        if 0 <= read[0] < at and read[0] + count >= at:
            read[0] = -1
            act()
        elif read[0] >= 0:
            read[0] += count
        return whole(self, offset, count)

    monkeypatch.setattr(OpenFile, "read_at", counted)


async def test_a_file_that_shrinks_while_it_is_inlined_is_refused_as_a_path(
    sim: Simulator, mode: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = padded_clip(1_000_000)
    write(folder, a_mp4=clip)
    _on_read(monkeypatch, 500_000, lambda: (folder / "a.mp4").write_bytes(clip[:400_000]))
    async with connect(sim, mode, options=INLINING, KIMI_ROOTS=str(folder)) as kimi:
        with anyio.fail_after(60):
            result = await watch(kimi, "a.mp4")
        assert result.code == "path_refused", result.text
        assert "`a.mp4`" in result.error["message"]
        assert "shorter" in result.error["message"]
        assert [one for one in chats(sim) if one.status == 200] == []
        monkeypatch.undo()
        write(folder, b_png=picture(1))
        assert (await look(kimi, "b.png")).status == "completed", "the next call works"


@pytest.mark.parametrize("at", [1_200_000, 2_500_000], ids=["while it is sent", "near its end"])
async def test_a_file_that_shrinks_while_it_is_uploaded_is_refused_as_a_path(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    clip = padded_clip(1_500_000)
    write(folder, a_mp4=clip)
    _on_read(monkeypatch, at, lambda: (folder / "a.mp4").write_bytes(clip[:400_000]))
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        with anyio.fail_after(60):
            result = await watch(kimi, "a.mp4")
        assert result.code == "path_refused", result.text
        assert "`a.mp4`" in result.error["message"]
    assert chats(sim) == []
    assert names(sim) == []


async def test_a_file_that_is_rewritten_while_it_is_uploaded_is_never_taken_for_what_it_was(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = padded_clip(1_500_000)
    other = clip[:-100] + b"x" * 100
    write(folder, a_mp4=clip, kept_mp4=clip)
    with monkeypatch.context() as patched:
        _on_read(patched, 2_000_000, lambda: (folder / "a.mp4").write_bytes(other))
        async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
            with anyio.fail_after(60):
                await watch(kimi, "a.mp4")
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        kept = await watch(kimi, "kept.mp4")
    assert kept.status == "completed", kept.text
    assert hashes_in(kept.answer) == hashes([clip]), "its name tells its content"
    for file in sim.files.all():
        assert file.filename == f"kimi-mcp-{file.medium.sha256}.mp4"


async def test_a_file_that_grows_is_sent_as_it_was_when_it_was_judged(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = padded_clip(1_000_000)
    write(folder, a_mp4=clip)
    _on_read(monkeypatch, 500_000, lambda: (folder / "a.mp4").write_bytes(clip + b"more"))
    async with connect(sim, options=INLINING, KIMI_ROOTS=str(folder)) as kimi:
        with anyio.fail_after(60):
            result = await watch(kimi, "a.mp4")
    assert result.status == "completed", result.text
    assert contents(sim) == [clip]
