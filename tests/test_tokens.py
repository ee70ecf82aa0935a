from __future__ import annotations

from kimi_mcp.tokens import least_tokens, likely_tokens
from kimi_mcp.types import Turn, system, user


def test_a_number_of_tokens_is_promised_only_where_it_is_certain() -> None:
    assert least_tokens((user(""),)) == 0
    assert least_tokens((user("a" * 1_600), Turn(role="user"))) == 100
    assert least_tokens((system("a" * 160), user("a" * 160))) == 20
    assert least_tokens((user(" " * 1_000_000),)) == 0


def test_a_text_is_taken_for_rather_more_tokens_than_it_has() -> None:
    assert likely_tokens((user("The quick brown fox jumps over the lazy dog."),)) >= 10
    assert likely_tokens((user("敏捷的棕色狐狸跳过了懒狗"),)) >= 12
    assert likely_tokens((system("a" * 300), user("b" * 300))) >= 200
