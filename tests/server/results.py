"""A tool's result as a client receives it, checked against the contract before a test sees it. Pure.

Checked are its keys, their types, the listed output schema, and that the text of a failure is complete on its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jsonschema
from mcp_types import CallToolResult, ResourceLink, TextContent

from kimi_mcp.server.tools import OUTPUT_SCHEMA

RESULT_KEYS = {
    "status": str,
    "run_id": (str, type(None)),
    "conversation_id": (str, type(None)),
    "answer": str,
    "parsed": object,
    "reasoning": (dict, type(None)),
    "model": dict,
    "provider": (str, type(None)),
    "mode": (str, type(None)),
    "finish_reason": (str, type(None)),
    "usage": dict,
    "policy": list,
    "timing": dict,
    "error": (dict, type(None)),
    "swarm": (dict, type(None)),
    "sources": list,
    "next_step": (str, type(None)),
    "page": (dict, type(None)),
}
"""The contract's keys of a structured result, and what each of them may be."""

INNER_KEYS = {
    "reasoning": {"text", "chars", "truncated", "uri"},
    "model": {"asked", "sent", "answered"},
    "usage": {
        "prompt_tokens",
        "completion_tokens",
        "reasoning_tokens",
        "cached_tokens",
        "total_tokens",
        "cost_usd",
    },
    "timing": {"first_token_s", "total_s", "attempts"},
    "error": {"code", "message", "fix", "retryable", "rule"},
    "page": {"of", "text", "offset", "next_offset"},
}
"""The contract's keys inside those."""

OPTIONAL = {"retry_after_s"}
"""Keys that are there only where they say something."""

_VALIDATOR = jsonschema.Draft202012Validator(OUTPUT_SCHEMA)

ERROR_CODES = {
    *("invalid_arguments", "policy_refused", "not_configured", "auth_failed", "quota_exhausted", "rate_limited"),
    *("overloaded", "model_not_served", "context_too_long", "content_filtered", "answer_cut_off"),
    *("upstream_timeout", "upstream_broken", "upstream_unreachable", "media_rejected", "path_refused"),
    *("url_refused", "budget_exceeded", "run_not_found", "cancelled", "internal"),
}


@dataclass(frozen=True, slots=True)
class Result:
    """A tool's result, checked against the contract."""

    text: str
    is_error: bool
    structured: dict[str, Any]
    """The structured content."""
    link: ResourceLink | None = None
    """The link to the whole reasoning."""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What hosts alone read."""

    @property
    def status(self) -> str:
        return self.structured["status"]

    @property
    def answer(self) -> str:
        return self.structured["answer"]

    @property
    def run_id(self) -> str:
        assert self.structured["run_id"] is not None
        return self.structured["run_id"]

    @property
    def error(self) -> dict[str, Any]:
        """What went wrong; asserts that something did."""
        assert self.structured["error"] is not None, f"no error, but {self.text[:500]}"
        return self.structured["error"]

    @property
    def code(self) -> str | None:
        return self.structured["error"] and self.structured["error"]["code"]

    @property
    def rules(self) -> list[str]:
        return [entry["rule"] for entry in self.structured["policy"]]

    @property
    def reasoning(self) -> str:
        """The inline reasoning; empty where there is none."""
        return self.structured["reasoning"]["text"] if self.structured["reasoning"] else ""

    @property
    def attempts(self) -> int:
        return self.structured["timing"]["attempts"]


def checked(result: CallToolResult) -> Result:
    """The result, after it was checked against the contract."""
    block, *links = result.content
    assert isinstance(block, TextContent), "the text comes first"
    assert len(links) <= 1, "and then a single link at most"
    structured = result.structured_content
    assert structured is not None, f"no structured content beside {block.text[:500]}"
    assert list(structured) == list(RESULT_KEYS), "the keys of the contract, in its order"
    for name, kinds in RESULT_KEYS.items():
        assert isinstance(structured[name], kinds), f"{name} is {structured[name]!r}"
    for name, keys in INNER_KEYS.items():
        assert structured[name] is None or set(structured[name]) - OPTIONAL == keys, name
    _VALIDATOR.validate(structured)
    assert structured["status"] in ("completed", "running", "partial", "failed", "cancelled")
    assert result.is_error is (structured["status"] == "failed" and structured["page"] is None)
    for entry in structured["policy"]:
        assert set(entry) == {"rule", "action", "field", "asked", "sent", "why"}
        assert entry["action"] in ("adjusted", "warned")
    error, page = structured["error"], structured["page"]
    assert (error is None) == (structured["status"] in ("completed", "running")), (structured["status"], error)
    if error is not None:
        assert error["code"] in ERROR_CODES
        assert error["message"], "an error says what happened"
        assert error["fix"], "an error names the fix"
    if error is not None and structured["status"] == "failed" and page is None:
        for part in (error["message"], error["fix"], structured["answer"]):
            assert part in block.text, "the text of a failure stands on its own"
    elif page is None:
        assert block.text.startswith(structured["answer"]), "the text is the answer, then at most a closing line"
    if structured["status"] == "completed" and not structured["policy"] and page is None:
        assert block.text == structured["answer"], "with nothing to report the text is the answer"
    link = links[0] if links else None
    if link is not None:
        assert isinstance(link, ResourceLink)
        assert structured["reasoning"]["truncated"], "what is whole needs no link"
        assert link.uri == structured["reasoning"]["uri"]
    return Result(block.text, bool(result.is_error), structured, link, result.meta or {})
