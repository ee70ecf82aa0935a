"""Both ways down from a root: by descriptors of folders, and by path, for systems without them."""

from __future__ import annotations

from dataclasses import replace

from kimi_mcp.media.roots import Roots

WAYS = ["by descriptor", "by path"]


def opened(roots: Roots, way: str) -> Roots:
    """The roots, with files opened in that way."""
    folders = (replace(root, by_descriptor=way == "by descriptor") for root in roots.folders)
    return replace(roots, folders=tuple(folders))
