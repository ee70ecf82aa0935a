"""Answers to the requests of an unsettled connection that belong to no era of the protocol. No I/O.

A client may ask with ``server/discover`` what a server speaks and then begin with ``initialize``, the handshake of the
older era, above all where the answer is that its own version is not served. The SDK takes the first request of any kind
for the beginning of an era; hence these never reach it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mcp.shared.inbound import InboundLadderRejection, classify_inbound_request
from mcp_types import INVALID_PARAMS, METHOD_NOT_FOUND, ErrorData, JSONRPCError, JSONRPCRequest, JSONRPCResponse
from mcp_types.methods import validate_client_request
from pydantic import ValidationError

from kimi_mcp.server.stdio.early import has_envelope

_PROBE = "server/discover"


def reply_without_era(
    request: JSONRPCRequest, discovery: Callable[[str], str]
) -> JSONRPCResponse | JSONRPCError | None:
    """What the SDK would answer to a probe, or to a request whose envelope it refuses; None where an era begins.

    ``discovery``: the result of ``server/discover`` in a version, as JSON.
    """
    method, params = request.method, request.params
    if method == "initialize" or not (method == _PROBE or has_envelope(params)):
        return None
    if not has_envelope(params):
        return _error(request, METHOD_NOT_FOUND, "Method not found", method)
    route = classify_inbound_request({"method": method, "params": params})
    if isinstance(route, InboundLadderRejection):
        return _error(request, route.code, route.message, route.data)
    if method != _PROBE:
        return None
    try:
        validate_client_request(method, route.protocol_version, params)
    except ValidationError:
        return _error(request, INVALID_PARAMS, "Invalid request parameters", "")
    return JSONRPCResponse(jsonrpc="2.0", id=request.id, result=json.loads(discovery(route.protocol_version)))


def _error(request: JSONRPCRequest, code: int, message: str, data: Any) -> JSONRPCError:
    error = ErrorData(code=code, message=message)
    if data is not None:  # a field that was never set is not written
        error.data = data
    return JSONRPCError(jsonrpc="2.0", id=request.id, error=error)
