"""A host's file in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "host.file"


@pytest.fixture(autouse=True)
def writable_again(tmp_path: Path) -> Iterator[None]:
    """A read-only file would keep pytest from clearing up."""
    yield
    for path in tmp_path.iterdir():
        if not path.is_symlink():
            path.chmod(0o700)
