"""Phrases: found where each of them stands, however the search is narrowed down."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

from benchmarks.routing import packed
from kimi_mcp.skill import routing
from kimi_mcp.skill.routing import HEAD_CHARS, Phrases
from tests.skill.routing.scoring import sentences
from tests.skill.routing.test_signs import phrases


def texts() -> Iterator[str]:
    """Beginnings of labelled texts, of packed ones, and of both torn to pieces, as routing sees them."""
    dice = random.Random(25)
    read = [sentence.text.lower()[:HEAD_CHARS] for sentence in sentences()]
    made = [text.lower()[:HEAD_CHARS] for text in packed().values()]
    pieces = [piece for text in read + made for piece in re.findall(r"\W{0,4}\w{1,9}", text)]
    yield from dice.sample(read, 30)
    yield from made
    for _ in range(30):
        yield "".join(dice.choices(pieces, k=40))


def test_a_phrase_is_passed_over_only_where_its_pattern_finds_nothing() -> None:
    every = list(dict.fromkeys(phrases()))
    table = Phrases((phrase, phrase) for phrase in every)
    compiled = [re.compile(routing.pattern(each)) for each in every]
    found = 0
    for text in texts():
        one_by_one = {
            (*match.span(), phrase)
            for phrase, regex in zip(every, compiled, strict=True)
            for match in regex.finditer(text)
        }
        assert set(table.find(text)) == one_by_one, text
        found += len(one_by_one)
    assert found > 500


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("a *? *? c", "a one two c"),
        ("a *? *? b? c", "a one two c"),
        ("a *? *? .. c", "a one two and three c"),
        ("a *? *? *? c", "a internationale zusammenarbeit weltweiter c"),
        ("a *? *? # c", "a one two 25 c"),
        ("photo*|photograph", "photographs"),
        ("is|it|#|in", "25"),
        ("new_york|new", "new york"),
        ("kimi_run", "kimi_run"),
        ("一款|一", "一款"),
        (".png", "shot.png"),
        ("clip", "看clip里"),
    ],
)
def test_a_phrase_is_found_to_its_end(phrase: str, text: str) -> None:
    ((_, end, meaning),) = Phrases([(phrase, "meant")]).find(text)
    assert (end, meaning) == (text.rindex("里") if "里" in text else len(text), "meant")


@pytest.mark.parametrize(
    ("phrase", "text"), [("word|words", "wordy"), ("clip", "eclipse"), ("in #", "in 15.06"), ("a .. b", "a one. two b")]
)
def test_what_only_looks_like_a_phrase_is_not_found(phrase: str, text: str) -> None:
    assert Phrases([(phrase, "meant")]).find(text) == []
