"""signs.toml: phrases that mean what they say, and that can't run away; and how a phrase is found."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.skill import routing
from kimi_mcp.skill.document import load_skill
from kimi_mcp.skill.routing import phrase_pattern

ROWS: dict[str, Any] = tomllib.loads((Path(routing.__file__).with_name("signs.toml")).read_text("utf-8"))


def phrases() -> Iterator[str]:
    for tool in ROWS["tools"].values():
        for words in tool["signs"].values():
            yield from (phrase.removeprefix("^") for phrase in words)
    yield from ROWS["denials"]["none"]
    yield from ROWS["denials"]["polite"]
    for row in ROWS["denials"]["rows"]:
        yield from row["words"]


def test_every_phrase_is_in_lower_case_and_matches_no_empty_text() -> None:
    for phrase in phrases():
        assert re.sub(r"\\[A-Z]", "", phrase) == re.sub(r"\\[A-Z]", "", phrase).lower(), phrase
        assert not phrase_pattern(phrase).match(""), phrase


def test_no_phrase_stands_twice_for_one_tool_in_one_row() -> None:
    for name, tool in ROWS["tools"].items():
        for points, words in tool["signs"].items():
            assert len(words) == len(set(words)), (name, points, sorted(p for p in words if words.count(p) > 1))


def test_every_tool_that_the_skill_lists_has_signs() -> None:
    assert {tool.name for tool in load_skill().tools} <= set(ROWS["tools"])


def test_the_lengths_end_with_one_that_has_no_bound() -> None:
    bounds = [row.get("up_to", float("inf")) for row in ROWS["lengths"]]
    assert bounds == sorted(bounds)
    assert bounds[-1] == float("inf")


def test_no_phrase_repeats_more_than_the_letters_of_a_word() -> None:
    for phrase in phrases():
        written = phrase.replace(r"\w*", "").replace(r"\w+", "").replace(".*", "")
        assert not re.search(r"(?<!\\)[*+{]", written), phrase


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("watch (video|clip)", "watch, video"),
        (r"a( \w+)?( \w+)? c", "a one two c"),
        (r"a( \w+)? #c", "a one 25-c"),
        (r"(photo\w*|photograph)", "photographs"),
        ("timed out.*answer", "timed out, and the answer"),
        ("#", "25"),
        ("kimi_run", "kimi_run"),
        ("(一|一款)视频", "一款视频"),
        (r"\w+\.png", "shot.png"),
        ("이전 ?실행", "이전실행"),
    ],
)
def test_a_phrase_is_found_to_its_end(phrase: str, text: str) -> None:
    found = phrase_pattern(phrase).search(text)
    assert found is not None
    assert found.span() == (0, len(text))


@pytest.mark.parametrize(
    ("phrase", "text"),
    [("(word|words)", "wordy"), ("clip", "eclipse"), ("in #", "in 15.06"), ("a.*b", "a one. two b"), ("a.*b", "an b")],
)
def test_what_only_looks_like_a_phrase_is_not_found(phrase: str, text: str) -> None:
    assert not phrase_pattern(phrase).search(text)


def test_a_word_is_found_among_letters_that_stand_without_spaces() -> None:
    assert routing.route("看clip里的猫,它什么时候跳起来?").points["kimi_video"] >= 1
