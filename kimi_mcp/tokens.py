"""How many tokens a text has, as near as can be told without a tokenizer. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kimi_mcp.types import TextPart, Turn

CHARS_A_TOKEN_AT_MOST = 16
"""No text of any length was seen to average more characters other than blanks a token than this: a prompt that is too
long even so is certainly too long."""

CHARS_A_TOKEN = 3
"""Latin letters a token, on the careful side: English runs above four."""


def least_tokens(turns: Sequence[Turn]) -> int:
    """A number of tokens that the turns certainly have at least."""
    return sum(len(text) - text.count(" ") for text in _texts(turns)) // CHARS_A_TOKEN_AT_MOST


def likely_tokens(turns: Sequence[Turn]) -> int:
    """About as many tokens as the turns have, rather too many than too few: what must be left free for them."""
    return sum(_likely(text) for text in _texts(turns))


def _likely(text: str) -> int:
    if text.isascii():
        return len(text) // CHARS_A_TOKEN + 1
    wide = sum(character > "\u2e7f" for character in text)
    return wide + (len(text) - wide) // CHARS_A_TOKEN + 1


def _texts(turns: Sequence[Turn]) -> Iterator[str]:
    return (part.text for turn in turns for part in turn.parts if isinstance(part, TextPart))
