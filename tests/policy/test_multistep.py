"""instant-multistep against labelled sentences: few false alarms, most real cases, and no prompt that stops it."""

from __future__ import annotations

import json

import pytest

from kimi_mcp.cli.console import in_a_shell
from kimi_mcp.core.types import user
from kimi_mcp.policy.findings import signs
from tests.policy.requests import planned, profile, request_of
from tests.policy.sentences import INSTANT, LATER_INSTANT, LATER_MULTISTEP, MULTISTEP
from tests.skill.routing.scoring import FOLDER, sentences

K25 = profile("simulator", "kimi-k2.5")

BLIND = [json.loads(line) for line in (FOLDER / "multistep" / "blind.jsonl").read_text("utf-8").splitlines()]
"""Written by somebody who had not seen a sign: what is for instant mode, and what wants several steps."""


def warned(prompt: str, mode: str = "instant") -> bool:
    entries = planned(request_of(mode=mode, turns=(user(prompt),)), K25).adjustments
    assert all((entry.rule, entry.action) == ("instant-multistep", "warned") for entry in entries)
    return bool(entries)


def test_at_most_two_in_a_hundred_instant_prompts_raise_a_false_alarm() -> None:
    innocent = INSTANT + LATER_INSTANT
    assert len(innocent) >= 100
    alarmed = [prompt for prompt in innocent if warned(prompt)]
    assert len(alarmed) <= 0.02 * len(innocent), alarmed


def test_most_prompts_that_need_several_steps_are_noticed() -> None:
    hard = MULTISTEP + LATER_MULTISTEP
    assert len(hard) >= 100
    missed = [prompt for prompt in hard if not warned(prompt)]
    assert len(missed) <= 0.2 * len(hard), missed


def test_of_prompts_written_without_sight_of_the_signs_few_raise_a_false_alarm_and_some_are_noticed() -> None:
    innocent = [row["text"] for row in BLIND if not row["multistep"]]
    hard = [row["text"] for row in BLIND if row["multistep"]]
    assert (len(innocent), len(hard)) == (140, 60)
    alarmed = [prompt for prompt in innocent if warned(prompt)]
    assert len(alarmed) <= 0.02 * len(innocent), alarmed
    assert sum(map(warned, hard)) >= 0.2 * len(hard)


def test_at_most_two_in_a_hundred_of_all_labelled_sentences_for_instant_mode_raise_a_false_alarm() -> None:
    routed = [sentence.text for sentence in sentences() if sentence.tool == "kimi_instant"]
    innocent = [*INSTANT, *LATER_INSTANT, *routed, *(row["text"] for row in BLIND if not row["multistep"])]
    assert len(innocent) > 600
    assert sum(map(warned, innocent)) <= 0.02 * len(innocent)


def test_thinking_mode_is_never_warned() -> None:
    assert not any(warned(prompt, "thinking") for prompt in MULTISTEP)


def test_the_warning_quotes_the_sign_and_names_the_tool() -> None:
    (entry,) = planned(request_of(mode="instant", turns=(user("Please think step by step: 2 + 2?"),)), K25).adjustments
    assert "step by step" in entry.asked
    assert "step by step" in entry.why
    assert "kimi_think" in entry.why
    assert "--tool think" in in_a_shell(entry.why)


def test_a_wish_at_the_end_of_a_long_document_is_seen() -> None:
    assert warned("Lorem ipsum dolor. " * 5_000 + "\nProve that the argument above is valid.")


def test_what_is_only_quoted_is_not_asked_for() -> None:
    assert not warned('What is the tone of "Prove that you love me" in the song?')
    assert not warned("“证明：勾股定理”是哪一章的标题？")
    assert warned("Prove that Rosie's claim isn't Tom's.")


@pytest.mark.parametrize("end", ["head", "tail"])
@pytest.mark.parametrize(
    "piece",
    ["think ", "think, ", "first find ", "first then ", "step by step ", "show me all ", "solve the a ", "break a ",
     "prove ", "!", " ", "a", "compare ", "首先分析然后", "设计一", "请把", "'", "“", '"', "<|", "<|a", "plan a-"],
)  # fmt: skip
def test_no_prompt_makes_the_search_explode(piece: str, end: str) -> None:
    text = (piece * 100_000)[:100_000]
    warned_text = text + "." if end == "head" else "." + text
    planned(request_of(mode="instant", turns=(user(warned_text),)), K25)


def test_no_sign_repeats_without_a_bound() -> None:
    for rule, option in (("instant-multistep", "signs"), ("instant-multistep", "unless"), ("media-token", "signs")):
        for sign in signs(rule, option):
            assert not any(mark in sign.pattern for mark in ("*", "+")), sign.pattern
