"""The labelled sentences: how many go where a careful reader would send them, and where the policy warns of them."""

from __future__ import annotations

import io
import re
from collections import Counter
from contextlib import redirect_stdout

import pytest

from kimi_mcp.skill.document import load_skill
from tests.skill.routing.__main__ import main
from tests.skill.routing.scoring import FOLDER, GROUPS, Sentence, false_alarms, noticed, right, sentences, share

SENTENCES = sentences()


def those(group: str, name: str) -> list[Sentence]:
    return [sentence for sentence in SENTENCES if GROUPS[group](sentence) == name]


def test_there_are_more_than_a_thousand_and_none_of_them_twice() -> None:
    written = [line for path in FOLDER.glob("*.jsonl") for line in path.read_text("utf-8").splitlines()]
    assert len(written) > 1_000
    requested = Counter((sentence.text, sentence.images, sentence.videos) for sentence in SENTENCES)
    assert [each for each, times in requested.items() if times > 1] == []


def test_every_tool_every_language_and_every_kind_is_there() -> None:
    assert {sentence.tool for sentence in SENTENCES} == {tool.name for tool in load_skill().tools}
    languages = Counter(sentence.lang for sentence in SENTENCES)
    assert set(languages) == {"en", "zh", "ja", "ko", "de", "fr", "es", "ru"}
    assert min(languages.values()) >= 30
    assert {sentence.kind for sentence in SENTENCES} == {"plain", "mixed", "negated", "indirect", "attached", "long"}
    assert any(len(sentence.text) > 4_000 for sentence in SENTENCES)
    blind = [sentence for sentence in SENTENCES if sentence.file.startswith("blind")]
    assert len(blind) > 300, "a part was written without sight of the triggers"


def test_at_least_95_in_a_hundred_go_to_the_tool_that_a_careful_reader_would_choose() -> None:
    assert share(SENTENCES) >= 0.95, [sentence.text[:80] for sentence in SENTENCES if not right(sentence)]


@pytest.mark.parametrize("group", ["tool", "language", "kind"])
def test_no_part_of_them_is_left_behind(group: str) -> None:
    for name in sorted({GROUPS[group](sentence) for sentence in SENTENCES}):
        assert share(those(group, name)) >= 0.85, name


def test_at_most_two_in_a_hundred_for_instant_mode_raise_a_false_alarm() -> None:
    alarms, instant = false_alarms(SENTENCES)
    assert instant > 250
    assert len(alarms) <= 0.02 * instant, [sentence.text[:80] for sentence in alarms]


def test_the_warning_still_notices_what_wants_several_steps() -> None:
    seen, hard = noticed(SENTENCES)
    assert seen >= 0.25 * hard


def test_the_command_prints_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tests.skill.routing"])
    with redirect_stdout(io.StringIO()) as printed:
        main()
    assert re.search(rf"all {len(SENTENCES)}: \d+\.\d% go to the tool", printed.getvalue())
    assert "blind_held_out" in printed.getvalue()
