"""Skills (``io.modelcontextprotocol/skills``, SEP-2640): how to use this server, as an Agent Skill. Reads that file.

Its text is a resource; ``skills/list`` and ``skills/get`` give its frontmatter, and the digest by which a host checks
what it read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, PaginatedRequestParams, RequestParams

from kimi_mcp.skill.document import AGENT_SKILL, load_agent_skill

EXTENSION = "io.modelcontextprotocol/skills"
"""The extension's identifier."""

URI = f"skill://{AGENT_SKILL}/SKILL.md"
"""Where the skill's one file is read."""

FRESH = {"ttlMs": 3_600_000, "cacheScope": "public"}
"""For how long an answer may be kept: it changes with the version of this server alone."""


class SkillParams(RequestParams):
    """Parameters of ``skills/get``."""

    uri: str


async def _list(context: Any, params: PaginatedRequestParams) -> dict[str, Any]:
    return {"skills": [_entry()], **FRESH}


async def _get(context: Any, params: SkillParams) -> dict[str, Any]:
    if params.uri != URI:
        raise MCPError(INVALID_PARAMS, f"There is no such skill; there is {URI}.", {"uri": params.uri})
    return {"skill": _entry(), **FRESH}


def _entry() -> dict[str, Any]:
    skill = load_agent_skill()
    raw = skill.text.encode()
    file = {"uri": URI, "digest": f"sha256:{sha256(raw).hexdigest()}", "size": len(raw)}
    return {"uri": URI, "frontmatter": dict(skill.head), "resources": [file]}


METHODS: Mapping[str, tuple[type[RequestParams], Callable[..., Awaitable[dict[str, Any]]]]] = {
    "skills/list": (PaginatedRequestParams, _list),
    "skills/get": (SkillParams, _get),
}
"""The extension's requests: what each takes, and who answers it."""
