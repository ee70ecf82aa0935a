"""Users of hosts, who answer what they are asked. No I/O."""

from __future__ import annotations

from typing import Any

import anyio
from mcp_types import INTERNAL_ERROR, ElicitRequestFormParams, ElicitResult, ErrorData


class User:
    """A user who gives the same answer to every question: an action and what is filled in."""

    def __init__(self, action: str = "accept", **content: Any) -> None:
        self.questions = list[ElicitRequestFormParams]()
        self.requested = anyio.Event()
        """Set with the first question."""
        self.action, self.content = action, content

    async def __call__(self, context: Any, params: Any) -> ElicitResult | ErrorData:
        """The answer to a question; none ever where the action is ``never``, an error where it is ``error``."""
        self.questions.append(params)
        self.requested.set()
        if self.action == "never":
            await anyio.sleep_forever()
        if self.action == "error":
            return ErrorData(code=INTERNAL_ERROR, message="no window")
        fields: Any = {"action": self.action, "content": self.content or None}
        return ElicitResult.model_validate(fields)
