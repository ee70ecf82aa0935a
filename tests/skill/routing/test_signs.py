"""signs.toml: phrases that the grammar can read, and patterns that can't run away."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kimi_mcp.skill import routing
from kimi_mcp.skill.document import load_skill

ROWS: dict[str, Any] = tomllib.loads((Path(routing.__file__).with_name("signs.toml")).read_text("utf-8"))


def phrases() -> Iterator[str]:
    for tool in ROWS["tools"].values():
        for words in tool["signs"].values():
            yield from (phrase.removeprefix("^") for phrase in words)
    yield from ROWS["denials"]["none"]
    yield from ROWS["denials"]["polite"]
    for row in ROWS["denials"]["rows"]:
        yield from row["words"]


def test_every_phrase_begins_with_a_word_and_has_no_empty_one() -> None:
    for phrase in phrases():
        slots = phrase.split()
        assert slots, "an empty phrase"
        assert slots[0] != "..", phrase
        assert not slots[0].endswith("?"), phrase
        words = [word for slot in slots for word in slot.removesuffix("?").split("|")]
        assert all(word.strip("*") or word == "*" for word in words), phrase


def test_every_phrase_is_in_lower_case_and_no_two_words_stand_where_one_is_looked_up() -> None:
    for phrase in phrases():
        assert phrase == phrase.lower(), phrase


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


def test_no_pattern_repeats_without_a_bound() -> None:
    for phrase in phrases():
        pattern = routing.pattern(phrase)
        assert not re.search(r"(?<!\\)[*+]", pattern), (phrase, pattern)
        re.compile(pattern)
