"""A body with media in it: what is sent is valid JSON, as long as announced, byte for byte, and anew each time."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest

from kimi_mcp.core.errors import PathRefused
from kimi_mcp.provider.endpoint import WINDOW, InlineMedium, StreamedBody, spliced

SIZES = [0, 1, 2, 3, 4, WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + 2, 2 * WINDOW, 3 * WINDOW - 2]


def inline(content: bytes, mime: str = "image/png", reads: list[tuple[int, int]] | None = None) -> InlineMedium:
    def read_at(offset: int, length: int) -> bytes:
        if reads is not None:
            reads.append((offset, length))
        return content[offset : offset + length]

    return InlineMedium(mime=mime, size=len(content), read_at=read_at)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def body(*media: InlineMedium, text: str = "What is it?") -> bytes:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": each.placeholder}} for each in media]
    body = {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}], "stream": True}
    return json.dumps(body, ensure_ascii=False).encode()


def sent(body: bytes, *media: InlineMedium) -> StreamedBody:
    made = spliced(body, {each.placeholder: each for each in media})
    assert isinstance(made, StreamedBody)
    return made


def urls(whole: bytes) -> list[str]:
    content = json.loads(whole)["messages"][-1]["content"]
    return [part["image_url"]["url"] for part in content if part["type"] == "image_url"]


@pytest.mark.parametrize("size", SIZES)
def test_a_medium_becomes_its_own_base64_whatever_its_size(size: int) -> None:
    content = noise(size)
    medium = inline(content)
    expected = b"data:image/png;base64," + base64.b64encode(content)
    assert b"".join(medium.pieces()) == expected
    assert medium.length == len(expected)


@pytest.mark.parametrize("number", [1, 2, 10])
def test_each_medium_stands_in_its_own_place_and_the_length_is_exact(number: int) -> None:
    contents = [noise(7 + 31 * place, place) for place in range(number)]
    media = [inline(content) for content in contents]
    made = sent(body(*media, text="你好 \u2028 <b>"), *media)
    whole = b"".join(made.pieces())
    assert len(whole) == made.length
    assert urls(whole) == [f"data:image/png;base64,{base64.b64encode(content).decode()}" for content in contents]
    assert json.loads(whole)["messages"][-1]["content"][-1]["text"] == "你好 \u2028 <b>"


def test_the_body_can_be_sent_again_and_is_the_same() -> None:
    medium = inline(noise(WINDOW * 2 + 5))
    made = sent(body(medium), medium)
    assert list(made.pieces()) == list(made.pieces())


def test_two_attempts_that_overlap_do_not_disturb_each_other() -> None:
    medium = inline(noise(WINDOW * 3))
    made = sent(body(medium), medium)
    one, two = made.pieces(), made.pieces()
    mixed = [(next(one), next(two)) for _ in range(4)]
    assert all(first == second for first, second in mixed)
    assert b"".join([*(first for first, _ in mixed), *one]) == b"".join(made.pieces())


def test_a_body_without_media_is_the_very_same_bytes() -> None:
    plain = body()
    assert spliced(plain, {}) is plain


def test_nothing_is_read_before_it_is_sent_and_never_more_than_a_window_at_once() -> None:
    reads: list[tuple[int, int]] = []
    medium = inline(noise(WINDOW * 2 + 1), reads=reads)
    made = sent(body(medium), medium)
    assert reads == []
    pieces = made.pieces()
    next(pieces)
    assert reads == []
    largest = max(len(piece) for piece in pieces)
    assert reads == [(0, WINDOW), (WINDOW, WINDOW), (2 * WINDOW, 1)]
    assert largest == WINDOW // 3 * 4


def test_a_placeholder_is_random_and_no_text_is_taken_for_one() -> None:
    first, second = inline(b"one"), inline(b"one")
    assert first.placeholder != second.placeholder
    assert len(first.placeholder) > 30
    text = "inline:0123456789abcdef and data:image/png;base64,"
    whole = b"".join(sent(body(first, text=text), first).pieces())
    assert json.loads(whole)["messages"][-1]["content"][-1]["text"] == text


def test_a_prompt_that_holds_another_bodys_placeholder_keeps_it() -> None:
    other, medium = inline(b"other"), inline(b"mine")
    whole = b"".join(sent(body(medium, text=other.placeholder), medium).pieces())
    assert json.loads(whole)["messages"][-1]["content"][-1]["text"] == other.placeholder


def test_what_goes_wrong_while_reading_is_raised_to_whoever_sends() -> None:
    def read_at(offset: int, length: int) -> bytes:
        del length
        if offset:
            raise PathRefused("`a.png` became shorter while it was read.", fix="Call again.")
        return bytes(WINDOW)

    medium = InlineMedium(mime="image/png", size=2 * WINDOW, read_at=read_at)
    pieces = sent(body(medium), medium).pieces()
    with pytest.raises(PathRefused, match="became shorter"):
        list(pieces)


def test_a_read_that_brings_too_little_never_passes_for_the_medium() -> None:
    medium = InlineMedium(mime="image/png", size=10, read_at=lambda offset, length: b"short")
    assert len(b"".join(medium.pieces())) != medium.length, "the length that was announced is not met: it fails"
