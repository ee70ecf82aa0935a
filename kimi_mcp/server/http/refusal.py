"""``Refusal``: an HTTP request that never reaches the SDK, and the response to it. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mcp_types import INVALID_REQUEST, RequestId
from starlette.responses import Response


class Refusal(Exception):
    """A request is refused; answered as a JSON-RPC error with an HTTP status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: int = INVALID_REQUEST,
        request_id: RequestId | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """``message``: what is wrong and what to send instead; it quotes nothing of the request."""
        super().__init__(message)
        self.status = status
        """The HTTP status."""
        self._error = {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}
        self._headers = headers

    def response(self) -> Response:
        """The answer for the wire."""
        body = json.dumps(self._error, ensure_ascii=False)
        return Response(body, self.status, self._headers, media_type="application/json")
