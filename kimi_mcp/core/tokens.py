"""Estimates of tokens, without a tokenizer: one estimate for all. The provider counts exactly. Pure, no I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kimi_mcp.core.types import TextPart, Turn

BYTES_A_TOKEN = 4
"""Bytes of UTF-8 a token: about what English has; other letters come to two characters a token, Chinese to four for
three tokens."""

MARGIN = 4 / 3
"""What the estimate is multiplied by where too few would be refused or overspent: code and JSON have some three bytes a
token."""

IMAGE_TOKENS = 1_024
"""Tokens of an image, whatever its size (MoonshotAI/kimi-help-center, estimate-token-count). For videos no figure is
known: they count nothing."""

CHARS_A_TOKEN_AT_MOST = 16
"""No text of any length was seen to average more characters other than blanks a token than this: a prompt that is too
long even so is certainly too long."""


def text_bytes(text: str) -> int:
    """The size of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def tokens_in(size: int) -> int:
    """About how many tokens so many bytes of text have."""
    return -(-size // BYTES_A_TOKEN)


def text_tokens(text: str) -> int:
    """About how many tokens a text has."""
    return tokens_in(text_bytes(text))


def estimated_tokens(turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]] = ()) -> int:
    """About how many tokens a request sends: texts, reasoning, tool calls, pictures, and definitions of tools."""
    size = sum(text_bytes(text) for turn in turns for text in _sent(turn))
    size += sum(text_bytes(json.dumps(tool, ensure_ascii=False)) for tool in tools)
    pictures = sum(part.kind == "image" for turn in turns for part in turn.media)
    return tokens_in(size) + IMAGE_TOKENS * pictures


def with_margin(tokens: int) -> int:
    """An estimate with its margin: rather too many tokens than too few."""
    return -int(-tokens * MARGIN // 1)


def chars_in(tokens: int) -> int:
    """Characters of a text that has so many tokens with its margin, most of it in Latin letters."""
    return int(tokens * BYTES_A_TOKEN / MARGIN)


def minimum_tokens(turns: Sequence[Turn]) -> int:
    """A number of tokens that the turns certainly have at least: no estimate, but what a refusal can rest on."""
    texts = (part.text for turn in turns for part in turn.parts if isinstance(part, TextPart))
    return sum(len(text) - text.count(" ") for text in texts) // CHARS_A_TOKEN_AT_MOST


def _sent(turn: Turn) -> Iterator[str]:
    yield from (part.text for part in turn.parts if isinstance(part, TextPart))
    yield turn.reasoning or ""
    for call in turn.tool_calls:
        yield call.name
        yield call.arguments
