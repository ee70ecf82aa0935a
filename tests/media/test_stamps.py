"""What files look like, by which a repeated call is recognised."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import pytest

from kimi_mcp.core.settings import read_settings
from kimi_mcp.media.loading import NOT_THERE, stamps
from kimi_mcp.media.roots import find_roots
from kimi_mcp.pipeline.pipeline import MOST_STAMPED, Pipeline


def test_what_cannot_be_read_has_a_stamp_that_says_so(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside.txt").write_text("out")
    (root / "link.txt").symlink_to(tmp_path / "outside.txt")
    roots = find_roots(str(root))
    assert stamps(["none.txt", "../outside.txt", "link.txt", ".", "", "a\0b"], (), roots) == (NOT_THERE,) * 6
    assert stamps(["a.txt"], [("image", "b.png")], find_roots(str(tmp_path / "gone"))) == (NOT_THERE,) * 2


def test_what_is_no_path_has_no_stamp(tmp_path: Path) -> None:
    sources = ["https://example.org/a.png", "HTTPS://example.org/a.png", "data:image/png;base64,AA==", "ms://file-1"]
    assert stamps((), [("image", source) for source in [*sources, "A" * 2_000]], find_roots(str(tmp_path))) == ()


def test_a_file_has_the_same_stamp_by_every_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    named = ["a.png", "./a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").as_uri()]
    found = stamps(["a.png"], [("image", source) for source in named], find_roots(str(tmp_path), working=str(tmp_path)))
    assert len(found) == 5
    assert len(set(found)) == 1
    assert NOT_THERE not in found


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
async def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with anyio.fail_after(60):
        assert stamps(["pipe"], (), find_roots(str(tmp_path), working=str(tmp_path))) == (NOT_THERE,)


async def test_a_call_that_names_very_many_files_is_not_looked_at_and_always_another_one(tmp_path: Path) -> None:
    pipeline = Pipeline(read_settings({"KIMI_PROVIDER": "simulator", "KIMI_ROOTS": str(tmp_path)}))
    many = ["none.txt"] * (MOST_STAMPED + 1)
    first, second = [await pipeline.file_stamps(many, (), None) for _ in range(2)]
    assert (len(first), first != second) == (1, True)
    assert await pipeline.file_stamps(many[1:], (), None) == (NOT_THERE,) * MOST_STAMPED
    await pipeline.aclose()
