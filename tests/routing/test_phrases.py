"""Phrases: what spares a text the search for them never loses one."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from benchmarks.routing import packed
from kimi_mcp.routing import HEAD_CHARS, phrases
from kimi_mcp.routing.vocabulary import read_vocabulary
from tests.routing.scoring import sentences

compiled = cache(re.compile)


def texts() -> Iterator[str]:
    """Beginnings of labelled texts, of packed ones, and of both torn to pieces, as routing sees them."""
    dice = random.Random(25)
    read = [sentence.text.lower()[:HEAD_CHARS] for sentence in sentences()]
    made = [text.lower()[:HEAD_CHARS] for text in packed().values()]
    pieces = [piece for text in read + made for piece in re.findall(r"\W{0,4}\w{1,9}", text)]
    yield from dice.sample(read, 150)
    yield from made
    for _ in range(150):
        yield "".join(dice.choices(pieces, k=40))


def said(branch: Any, text: str, end: int) -> tuple[object, int] | None:
    """What one phrase after the other says."""
    for row in branch._rows:
        if end > phrases.OPENING_CHARS and getattr(row.meaning, "opening", False):
            continue
        if found := compiled(phrases.pattern(row.rest, after_number=row.after_number)).match(text, end):
            return row.meaning, found.end()
    return None if branch._alone is None else (branch._alone, end)


def test_a_branch_finds_what_its_phrases_find_one_by_one() -> None:
    vocabulary, held = read_vocabulary(), 0
    for text in texts():
        begun, landmarks = vocabulary.begun(text)
        text += phrases.STOP
        for start, stop, (entries, _) in begun:
            for letters, signs, denials, entry in entries:
                end = start + letters if letters else entry.ends(text, start, stop)
                for branch in (signs, denials):
                    if end and branch:
                        held += 1
                        assert branch.at(text, end, landmarks) == said(branch, text, end), (text, entry.word, end)
    assert held > 5_000


def test_what_begins_is_found_alike_whatever_else_a_text_is_made_of() -> None:
    vocabulary = read_vocabulary()
    words = "watch the clip, and why does it fail in 25 places?"
    begun = [(start, stop) for start, stop, _ in vocabulary.begun(words)[0]]
    assert len(begun) > 5
    for beside in ("—", "é", "ж", "的", " 该"):
        found = [(start, stop) for start, stop, _ in vocabulary.begun(words + " " + beside)[0]]
        assert [each for each in found if each[1] <= len(words)] == begun, beside


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("*? *? c", "one two c"),
        ("*? *? b? c", "one two c"),
        ("*? *? .. c", "one two and three c"),
        ("*? *? *? c", "internationale zusammenarbeit weltweiter c"),
        ("*? *? # c", "one two 25 c"),
    ],
)
def test_whatever_words_of_any_kind_lead_to_is_found(rest: str, said: str) -> None:
    branch = phrases.Branch("a", [(rest, "meant")], phrases.Landmarks())
    assert branch.at(f"a {said}{phrases.STOP}", 1, -1) == ("meant", 2 + len(said))


@pytest.mark.parametrize(
    ("phrase", "text", "found"),
    [
        ("一|一款", "一款", "一"),
        ("一款|一", "一款", "一款"),
        ("a|an|and|the", "an", "an"),
        ("photo*|photograph", "photographs", "photographs"),
        ("is|it|#|in", "25", "25"),
        ("new_york|new", "new york", "new york"),
        ("word|words", "wordy", None),
        ("l'|la", "la", "la"),
    ],
)
def test_of_words_that_begin_alike_the_first_is_taken(phrase: str, text: str, found: str | None) -> None:
    match = re.match(phrases.pattern(phrase, first=True), text)
    assert (match and match[0]) == found
