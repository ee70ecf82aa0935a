"""Owns the simulator's tokenizer and its automatic prompt cache. Pure, no I/O.

The real tokenizer has a vocabulary of 160K (MoonshotAI/Kimi-K2.5 README); here one token is one CJK character or
up to four other characters, so that every count can be worked out by hand.
"""

from __future__ import annotations

import re

_CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_PIECE = re.compile(f"[{_CJK}]|[^{_CJK}]{{1,4}}")

MIN_CACHED_TOKENS = 8
"""Tokens: a common prefix shorter than this counts as no cache hit."""

MAX_PROMPTS = 32
"""Prompts kept for each cache key."""

MAX_KEYS = 256
"""Cache keys kept; the oldest goes first."""


def pieces(text: str) -> list[str]:
    """The tokens of the text."""
    return _PIECE.findall(text)


def count(text: str) -> int:
    """How many tokens the text has."""
    return len(_PIECE.findall(text))


def _common_prefix(left: str, right: str) -> int:
    """Length in characters of the common prefix, found by halving."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class PromptCache:
    """The automatic context cache: the longest common prefix with earlier prompts of the same key."""

    def __init__(self) -> None:
        self._prompts: dict[tuple[str, ...], list[str]] = {}

    def cached_tokens(self, key: tuple[str, ...], prompt: str) -> int:
        """Tokens of the prompt that an earlier prompt under the same key began with; remembers this one."""
        while len(self._prompts) >= MAX_KEYS and key not in self._prompts:
            del self._prompts[next(iter(self._prompts))]
        earlier = self._prompts.setdefault(key, [])
        longest = max((_common_prefix(prompt, one) for one in earlier), default=0)
        if prompt not in earlier:
            earlier.append(prompt)
            del earlier[:-MAX_PROMPTS]
        found = count(prompt[:longest])
        return found if found >= MIN_CACHED_TOKENS else 0
