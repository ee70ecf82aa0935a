"""Owns the simulator's tokenizer. Pure, no I/O.

The real tokenizer has a vocabulary of 160K (MoonshotAI/Kimi-K2.5 README); here one token is one CJK character or
up to four other characters, so that every count can be worked out by hand.
"""

from __future__ import annotations

import re

_CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_PIECE = re.compile(f"[{_CJK}]|[^{_CJK}]{{1,4}}")


def pieces(text: str) -> list[str]:
    """The tokens of the text."""
    return _PIECE.findall(text)


def count(text: str) -> int:
    """How many tokens the text has."""
    return len(_PIECE.findall(text))
