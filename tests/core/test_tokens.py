from __future__ import annotations

import json

import pytest

from kimi_mcp.core.tokens import (
    chars_in,
    estimated_tokens,
    minimum_tokens,
    text_bytes,
    text_tokens,
    tokens_in,
    with_margin,
)
from kimi_mcp.core.types import MediaPart, TextPart, ToolCall, Turn, system, user
from kimi_mcp.provider.decoding import StreamAccumulator


def test_a_number_of_tokens_is_promised_only_where_it_is_certain() -> None:
    assert minimum_tokens((user(""),)) == 0
    assert minimum_tokens((user("a" * 1_600), Turn(role="user"))) == 100
    assert minimum_tokens((system("a" * 160), user("a" * 160))) == 20
    assert minimum_tokens((user(" " * 1_000_000),)) == 0


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("word" * 1_000, 1_000), ("ü" * 6, 3), ("敏捷的棕色狐狸跳过了懒狗", 9), ("🦊" * 5, 5), ("\ud83e", 1)],
    ids=["nothing", "latin", "accents", "chinese", "pictures", "half a pair"],
)
def test_a_text_has_a_token_for_each_four_bytes_of_it_wherever_it_stands(text: str, tokens: int) -> None:
    call = ToolCall(id="c", name="", arguments=text)
    assert text_tokens(text) == tokens_in(text_bytes(text)) == tokens
    for turn in (user(text), Turn(role="assistant", reasoning=text), Turn(role="assistant", tool_calls=(call,))):
        assert estimated_tokens((turn,)) == tokens
    if text.isprintable() and text:
        accumulator = StreamAccumulator()
        accumulator.feed(json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=False).encode())
        assert accumulator.tokens == tokens


def test_a_request_is_the_sum_of_all_that_is_sent() -> None:
    picture = MediaPart(kind="image", url="data:image/png;base64," + "A" * 100_000)
    clip = MediaPart(kind="video", url="ms://clip")
    requested = Turn(role="user", parts=(picture, picture, clip, TextPart(text="a" * 400)))
    tool = {"name": "search", "description": "d" * 400}
    assert estimated_tokens((system("b" * 400), requested)) == 2 * 1_024 + 200
    assert estimated_tokens((user("a" * 400),), (tool,)) == 100 + tokens_in(len(json.dumps(tool)))


def test_a_margin_makes_it_rather_too_many() -> None:
    assert [with_margin(tokens) for tokens in (0, 1, 3, 300)] == [0, 2, 4, 400]
    text = 'if (a[i] != b[i]) { return {"x": 1}; }'
    assert with_margin(text_tokens(text)) >= 13
    for tokens in (1, 100, 262_144):
        assert with_margin(text_tokens("a" * chars_in(tokens))) <= tokens + 1
