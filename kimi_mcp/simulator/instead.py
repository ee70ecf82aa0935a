"""Owns what a scenario's step sends instead of an answer: errors, HTML, bodies, Retry-After. Pure, no I/O."""

from __future__ import annotations

import time
from email.utils import formatdate

from kimi_mcp.simulator.faults import Step
from kimi_mcp.simulator.sse import encode

JSON = {"content-type": "application/json; charset=utf-8"}

_DEFAULTS = {  # HC error-codes
    400: ("invalid_request_error", "Invalid request: this one was refused by a scenario"),
    401: ("invalid_authentication_error", "Invalid Authentication"),
    403: ("permission_denied_error", "Permission denied"),
    404: ("resource_not_found_error", "The requested resource was not found"),
    429: ("engine_overloaded_error", "The engine is currently overloaded, please try again later"),
    499: ("client_closed_request", "Client closed request"),
    500: ("server_error", "Internal server error"),
    503: ("server_unavailable", "The server is temporarily unavailable"),
}
_PAGE = "<!DOCTYPE html><html><head><title>Simulator</title></head><body><h1>Not the API you asked</h1></body></html>"


def replaces_answer(step: Step) -> bool:
    """Whether the step sends something else than an answer."""
    return bool(step.html) or step.body is not None or (step.status or 200) >= 400


def body_instead(step: Step, key: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of such a response."""
    if step.html:
        page = step.html if isinstance(step.html, str) else _PAGE
        return step.status or 200, {"content-type": "text/html; charset=utf-8"}, page.encode()
    if isinstance(step.body, str):
        return step.status or 200, dict(JSON), step.body.encode("utf-8", "surrogatepass")
    if step.body is not None:
        return step.status or 200, dict(JSON), encode(step.body).encode()
    status = step.status or 400
    kind, message = _DEFAULTS.get(status, ("unexpected_output" if status >= 500 else "error", f"Status {status}"))
    message = step.error_message or message
    if step.echo_key:
        message = f"{message}: {key}"
    return (
        status,
        dict(JSON),
        encode({"error": {"type": step.error_type or kind, "message": message}}).encode(),
    )


def headers_on_top(step: Step) -> dict[str, str]:
    """Retry-After as the step wants it."""
    if step.retry_after_date is not None:
        return {"retry-after": formatdate(time.time() + step.retry_after_date, usegmt=True)}
    return {} if step.retry_after is None else {"retry-after": str(step.retry_after)}
