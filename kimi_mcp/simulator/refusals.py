"""Owns the shape of a refusal: status, type, message. Pure, no I/O."""

from __future__ import annotations

from typing import NoReturn

_ENGINE_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowed",
    410: "Gone",
    413: "RequestTooLarge",
    500: "InternalServerError",
}
"""What engines other than Moonshot call an error, by its status (vLLM OpenAI server)."""


class Refused(Exception):
    """A request that the upstream answers with an error."""

    def __init__(self, status: int, type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.message = message

    def body(self, *, moonshot: bool) -> dict[str, object]:
        """The JSON body of the answer (kimi-help-center error-codes for Moonshot; vLLM for others)."""
        if moonshot:
            return {"error": {"type": self.type, "message": self.message}}
        kind = _ENGINE_TYPES.get(self.status, self.type)
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.status}}


def invalid(message: str) -> NoReturn:
    """Refuse with 400 invalid_request_error."""
    raise Refused(400, "invalid_request_error", message)
