"""``JsonClient``: requests whose response is one JSON document. Does I/O."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from kimi_mcp.core import bounds
from kimi_mcp.core.errors import KimiError
from kimi_mcp.provider.attempt import failure_of
from kimi_mcp.provider.endpoint import Endpoint
from kimi_mcp.provider.failures import FailureKind, failure
from kimi_mcp.provider.inline_media import StreamedBody

if TYPE_CHECKING:
    from kimi_mcp.provider.clients import Client, Method


class JsonClient:
    """Single attempts at one endpoint; every failure is raised as a leaf of ``KimiError``."""

    def __init__(self, client: Client, endpoint: Endpoint, wall: Callable[[], float]) -> None:
        self._client, self._endpoint, self._wall = client, endpoint, wall

    async def request(
        self,
        method: Method,
        path: str,
        content: bytes | StreamedBody | None = None,
        content_type: str = "application/json",
        on_sent: Callable[[int], None] | None = None,
    ) -> dict[str, Any]:
        """The JSON object that the provider responds with, bounded."""
        body = bytearray()
        failed: KimiError | None = None
        try:
            response = await self._client.send(method, path, content, content_type, on_sent)
            try:
                async for piece in response.pieces():
                    body += piece
                    if response.compressed:
                        raise self.failed("compressed")
                    if len(body) > bounds.LARGEST_DOCUMENT:
                        raise bounds.OutOfBounds(f"a document of more than {bounds.LARGEST_DOCUMENT:,} bytes")
            finally:
                await response.aclose()
            bounds.check_values(body)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever the libraries raise becomes ours here
            failed = failure_of(error, self._endpoint, self._wall).error
        if failed is not None:
            raise failed  # here, so that the foreign error is not its context
        try:
            parsed: Any = json.loads(body)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise self.failed("markup" if body.lstrip().startswith(b"<") else "json")
        return cast(dict[str, Any], parsed)

    def failed(self, kind: FailureKind) -> KimiError:
        """The error of that kind, of this endpoint."""
        return failure(kind, self._endpoint).error
