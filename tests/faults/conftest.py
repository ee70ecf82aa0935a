"""The server's own starting points serve here too."""

from __future__ import annotations

from tests.server.conftest import anyio_backend, mode, sim

__all__ = ["anyio_backend", "mode", "sim"]
