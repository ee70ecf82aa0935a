"""The requests that a simulator received. Pure."""

from __future__ import annotations

from typing import Any

from kimi_mcp.simulator import ReceivedRequest, Simulator

HELD_STEP = {"gate": "end", "gate_at": "finish", "reasoning": "Hm, let me see.", "content": "It is 391."}
"""A scenario's step: everything is sent but the finish reason, which waits for the gate ``end``."""


def chats(sim: Simulator) -> list[ReceivedRequest]:
    """The chat requests that arrived."""
    return [request for request in sim.requests if request.path.endswith("/chat/completions")]


def body_of(request: ReceivedRequest) -> dict[str, Any]:
    """The request's body, which must be a JSON object."""
    assert request.body is not None
    return dict(request.body)


def messages(sim: Simulator, at: int = -1) -> list[dict[str, Any]]:
    """The messages of a chat request, by default the last one."""
    return body_of(chats(sim)[at])["messages"]


def message(role: str, content: str, **more: Any) -> dict[str, Any]:
    """A message as it is sent."""
    return {"role": role, "content": content, **more}
