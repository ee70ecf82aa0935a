"""A result's two faces: the structure has the contract's keys, the text stands on its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_mcp.core.errors import AnswerCutOff, Cancelled, InvalidArguments, PolicyRefused, RateLimited
from kimi_mcp.core.outcome import Outcome, ResultPage, cut_answer, shortened, structured, text
from kimi_mcp.core.types import Adjustment, Source, Timing, Usage

KEYS = [
    "status", "run_id", "conversation_id", "answer", "parsed", "reasoning", "model", "provider", "mode",
    "finish_reason", "usage", "policy", "timing", "error", "swarm", "sources", "next_step", "page",
]  # fmt: skip
USAGE_KEYS = {
    "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens", "total_tokens", "cost_usd",
}  # fmt: skip
CUT = AnswerCutOff("It ended early.", fix="Raise `max_tokens` to 32000.")
ADJUSTED = Adjustment(
    rule="temperature-fixed", action="adjusted", field="temperature", asked=0.2, sent=1.0, why="It takes 1 alone."
)
WARNED = Adjustment(
    rule="reasoning-returned", action="warned", field="reasoning", asked=None, sent=None, why="None came back."
)

OUTCOMES: dict[str, Outcome] = {
    "completed": Outcome(
        status="completed",
        run_id="run_1",
        answer="42",
        reasoning="6 × 7",
        model_asked="auto",
        model_sent="kimi-k2.6",
        model_answered="kimi-k2.6",
        provider="moonshot",
        mode="thinking",
        finish_reason="stop",
        usage=Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3),
        policy=(ADJUSTED,),
        timing=Timing(first_token_s=0.12345, total_s=1.23456, attempts=1),
    ),
    "running": Outcome(status="running", run_id="run_1", answer="4", timing=Timing(total_s=45.2)),
    "partial": Outcome(status="partial", run_id="run_1", answer="4", finish_reason="length", error=CUT),
    "failed": Outcome(status="failed", run_id="run_1", answer="4", error=CUT),
    "refused": Outcome(status="failed", error=PolicyRefused("No.", fix="Leave `n` out.", rule="sampling-fixed")),
    "cancelled": Outcome(
        status="cancelled", run_id="run_1", answer="4", error=Cancelled("Stopped.", fix="Call again.")
    ),
    "paged": Outcome(
        status="completed", run_id="run_1", page=ResultPage(of="answer", text="b", offset=1, next_offset=2)
    ),
}


def face(outcome: Outcome, chars: int = 2_000) -> dict[str, Any]:
    return structured(outcome, reasoning_chars=chars)


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)
def test_the_keys_are_the_contracts_whatever_became_of_the_call(outcome: Outcome) -> None:
    found = face(outcome)
    assert list(found) == KEYS
    assert set(found["model"]) == {"asked", "sent", "answered"}
    assert set(found["usage"]) == USAGE_KEYS
    assert set(found["timing"]) == {"first_token_s", "total_s", "attempts"}
    assert found["status"] == outcome.status
    assert found["answer"] == outcome.answer
    if found["error"] is not None:
        assert set(found["error"]) == {"code", "message", "fix", "retryable", "rule"}
    if found["page"] is not None:
        assert found["page"] == {"of": "answer", "text": "b", "offset": 1, "next_offset": 2}
    for entry in found["policy"]:
        assert set(entry) == {"rule", "action", "field", "asked", "sent", "why"}
    json.dumps(found, allow_nan=False)


def test_a_whole_result_says_everything() -> None:
    found = face(OUTCOMES["completed"])
    assert found["model"] == {"asked": "auto", "sent": "kimi-k2.6", "answered": "kimi-k2.6"}
    assert (found["provider"], found["mode"], found["finish_reason"]) == ("moonshot", "thinking", "stop")
    assert found["usage"]["total_tokens"] == 3
    assert (found["usage"]["reasoning_tokens"], found["usage"]["cost_usd"]) == (None, None)
    assert found["policy"][0] == {
        "rule": "temperature-fixed",
        "action": "adjusted",
        "field": "temperature",
        "asked": 0.2,
        "sent": 1.0,
        "why": "It takes 1 alone.",
    }
    assert found["error"] is None
    assert found["reasoning"]["text"] == "6 × 7"


def test_what_was_refused_before_anything_ran_has_no_run() -> None:
    found = face(OUTCOMES["refused"])
    assert (found["run_id"], found["conversation_id"], found["reasoning"]) == (None, None, None)
    assert found["error"] == {
        "code": "policy_refused",
        "message": "No.",
        "fix": "Leave `n` out.",
        "retryable": False,
        "rule": "sampling-fixed",
    }
    assert face(Outcome(status="failed", error=RateLimited("x", fix="y")))["error"]["retryable"] is True


# ── reasoning ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [0, 1, 20, 50, 100, 999, 1_000, 1_001, 5_000])
def test_reasoning_is_carried_head_and_tail_and_counted_whole(limit: int) -> None:
    whole = "".join(chr(0x1F300 + number % 400) for number in range(1_000))
    found = face(Outcome(status="completed", run_id="run_1", reasoning=whole), limit)["reasoning"]
    assert found["chars"] == 1_000
    assert found["truncated"] is (limit < 1_000)
    assert len(found["text"]) == min(limit, 1_000)
    if limit >= 1_000:
        assert found["text"] == whole
    elif limit >= 100:
        assert found["text"].startswith(whole[:20])
        assert found["text"].endswith(whole[-10:])
        assert "1000 characters" in found["text"]


@pytest.mark.parametrize("whole", ["", "a", "ab" * 600, "\n" * 1_200])
def test_a_shortened_text_never_passes_its_limit(whole: str) -> None:
    for limit in range(0, 1_300, 7):
        short = shortened(whole, limit)
        assert len(short) <= max(limit, 0)
        assert short == whole or len(short) == limit


def test_no_reasoning_is_null() -> None:
    assert face(Outcome(status="completed"))["reasoning"] is None
    assert face(Outcome(status="completed", reasoning=""))["reasoning"] is None


# ── text ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("answer", ["42", "  spaces  \n", "[brackets]", "line\n\nline\n"])
def test_the_text_of_a_whole_answer_is_the_answer(answer: str) -> None:
    assert text(Outcome(status="completed", answer=answer, reasoning="because")) == answer


def test_sources_are_in_the_structure_and_in_the_text_where_a_model_sees_that_alone() -> None:
    sources = (Source(title="Prices\x1b[1m", url="https://a.example/p"),)
    outcome = Outcome(status="completed", run_id="run_1", answer="42", sources=sources)
    assert face(outcome)["sources"] == [{"title": "Prices\ufffd[1m", "url": "https://a.example/p"}]
    assert text(outcome) == "42"
    assert text(outcome, names_run=True) == "42\n\nSources:\n- Prices\ufffd[1m: https://a.example/p\n\n[run run_1]"


def test_a_changed_request_has_a_short_closing_line() -> None:
    rendered = text(OUTCOMES["completed"])
    answer, closing = rendered.split("\n\n")
    assert answer == "42"
    assert closing == "[temperature-fixed: temperature 0.2 → 1. It takes 1 alone.]"
    rendered = text(Outcome(status="completed", answer="42", policy=(WARNED,)))
    assert rendered == "42\n\n[reasoning-returned: None came back.]"


def test_an_answer_that_is_not_whole_says_so_and_how_to_get_more() -> None:
    rendered = text(OUTCOMES["partial"])
    assert rendered.startswith("4\n\n[")
    assert "It ended early." in rendered
    assert "Raise `max_tokens` to 32000." in rendered


def test_a_running_call_names_the_call_that_fetches_it() -> None:
    rendered = text(OUTCOMES["running"])
    assert rendered.startswith("4\n\n")
    assert 'kimi_run(run_id="run_1"' in rendered
    assert "45 s" in rendered


def test_a_failure_carries_message_fix_and_what_had_arrived() -> None:
    rendered = text(OUTCOMES["failed"])
    assert "answer_cut_off" in rendered
    assert "It ended early." in rendered
    assert "Raise `max_tokens` to 32000." in rendered
    assert rendered.endswith("\n4")


def test_a_failure_inside_the_reasoning_says_where_that_is() -> None:
    rendered = text(Outcome(status="failed", run_id="run_1", reasoning="x" * 77, error=CUT))
    assert "77" in rendered
    assert 'kimi_run(run_id="run_1", action="reasoning")' in rendered


def test_a_refusal_is_message_and_fix_alone() -> None:
    rendered = text(Outcome(status="failed", error=InvalidArguments("`n` is wrong.", fix="Leave it out.")))
    assert rendered == "invalid_arguments: `n` is wrong.\nLeave it out."


def test_a_cancelled_call_keeps_what_had_arrived() -> None:
    rendered = text(OUTCOMES["cancelled"])
    assert rendered.startswith("4\n\n[cancelled")
    assert text(Outcome(status="cancelled")).startswith("[cancelled")


def test_a_page_says_where_the_next_one_begins() -> None:
    assert text(OUTCOMES["paged"]) == "b\n\n[more: call kimi_run again with offset=2]"
    last = Outcome(status="completed", page=ResultPage(of="answer", text="c", offset=2, next_offset=None))
    assert text(last) == "c"


def test_an_answer_beyond_what_hosts_take_is_cut_visibly_and_says_how_to_read_on() -> None:
    long = cut_answer(Outcome(status="completed", run_id="run_1", answer="abcdef"), 4)
    assert long.answer.startswith("abcd\n\n[cut here, of 6 characters in all: ")
    assert 'kimi_run(run_id="run_1", action="answer", offset=4)' in long.answer
    whole = Outcome(status="completed", run_id="run_1", answer="abcd")
    assert cut_answer(whole, 4) is whole


def test_a_page_of_a_failed_run_says_that_it_failed() -> None:
    page = ResultPage(of="reasoning", text="I thought", offset=0, next_offset=None)
    rendered = text(Outcome(status="failed", run_id="run_1", error=CUT, page=page))
    assert rendered.startswith("I thought\n\n")
    assert CUT.message in rendered
    assert CUT.fix in rendered


def test_a_page_of_a_running_run_says_that_more_will_come() -> None:
    page = ResultPage(of="answer", text="It is", offset=0, next_offset=5)
    rendered = text(Outcome(status="running", run_id="run_1", page=page))
    assert rendered == "It is\n\n[still running, more will come: call kimi_run again with offset=5]"
