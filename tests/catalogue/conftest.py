"""A copy of the catalogue's own files in which a test may change a text."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import kimi_mcp.catalogue

PACKAGE = Path(kimi_mcp.catalogue.__file__).parent


@pytest.fixture
def edit(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """Makes the copy, replaces a text of one file, and says where the copy is."""
    folder = tmp_path / "catalogue"
    for kind in ("models", "providers"):
        shutil.copytree(PACKAGE / kind, folder / kind)

    def replace(file: str, old: str, new: str) -> Path:
        text = (folder / file).read_text(encoding="utf-8")
        assert old in text, f"{file} no longer says {old!r}"
        (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
        return folder

    return replace
