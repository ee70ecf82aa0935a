"""Servers that upload what is above 200 bytes, and what the provider then has."""

from __future__ import annotations

from functools import partial

from kimi_mcp.pipeline.attachments import MediaLimits
from kimi_mcp.simulator import ReceivedRequest, Simulator
from tests.server import clients
from tests.server.clients import ServerOptions

UPLOADING = ServerOptions(media_limits=MediaLimits(inline=200))
"""Everything above 200 bytes is uploaded."""

INLINING = ServerOptions(media_limits=MediaLimits(inline=1 << 30))

connect, connect_messages = (
    partial(clients.connect, options=UPLOADING),
    partial(clients.connect_messages, options=UPLOADING),
)


def requested(sim: Simulator, method: str, path: str = "/v1/files") -> list[ReceivedRequest]:
    return [one for one in sim.requests if one.method == method and one.path.startswith(path)]


def names(sim: Simulator) -> list[tuple[str, str]]:
    """Name and purpose of each file at the provider."""
    return [(file.filename, file.purpose) for file in sim.files.all()]
