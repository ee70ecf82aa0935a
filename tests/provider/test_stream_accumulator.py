"""Folding: whatever a provider streams becomes the same completion, and nothing that arrived is lost or doubled."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from kimi_mcp.core.types import Completion, ToolCall, Usage
from kimi_mcp.provider.decoding import ErrorEvent, StreamAccumulator
from kimi_mcp.provider.error_mapping import ProviderError
from kimi_mcp.provider.failures import Unreadable
from tests.provider.events import ONE, STOP, accumulated, call, calling, chunk, fed

# ── reasoning and answer ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_read_under_every_known_name(name: str) -> None:
    found = accumulated(chunk({name: "Let "}), chunk({name: "me."}), chunk({"content": "Hi"}), STOP)
    assert (found.reasoning, found.reasoning_field, found.answer) == ("Let me.", name, "Hi")
    assert found.finish_reason == "stop"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_and_answer_may_come_in_one_chunk_and_in_any_order(name: str) -> None:
    pieces = [{name: "a", "content": "A"}, {"content": "B"}, {name: "b"}, {"content": "C", name: ""}]
    for order in itertools.permutations(pieces):
        found = accumulated(*map(chunk, order))
        assert found.reasoning == "".join(piece.get(name, "") for piece in order)
        assert found.answer == "".join(piece.get("content", "") for piece in order)


def test_the_same_piece_under_two_names_counts_once() -> None:
    both = [chunk({"reasoning": piece, "reasoning_content": piece}) for piece in ("Let ", "me ", "see.")]
    assert accumulated(*both).reasoning == "Let me see."


@pytest.mark.parametrize(("first", "then"), [("reasoning", "reasoning_content"), ("reasoning_content", "reasoning")])
def test_a_name_that_changes_on_the_way_loses_nothing(first: str, then: str) -> None:
    found = accumulated(chunk({first: "a"}), chunk({then: "b"}), chunk({first: "c", then: "c"}))
    assert (found.reasoning, found.reasoning_field) == ("abc", first)


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_piece_under_the_first_name_hides_nothing(empty: str | None) -> None:
    found = accumulated(chunk({"reasoning_content": empty, "reasoning": "real"}))
    assert (found.reasoning, found.reasoning_field) == ("real", "reasoning")


def test_an_empty_reasoning_is_not_an_absent_one() -> None:
    assert accumulated(chunk({"content": "Hi"})).reasoning is None
    assert accumulated(chunk({"content": "Hi", "reasoning": None})).reasoning is None
    assert accumulated(chunk({"reasoning_content": ""}), chunk({"content": "Hi"})).reasoning == ""


def test_a_content_of_parts_is_its_text() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "image_url"}, "odd", {"type": "text", "text": "lo"}, {"text": 5}]
    assert accumulated(chunk({"content": parts}), chunk({"content": " there"})).answer == "Hello there"


@pytest.mark.parametrize(
    "delta",
    [{}, {"content": ""}, {"content": None}, {"role": "assistant"}, {"reasoning": ""}, {"content": []}, None, [], "x"],
    ids=str,
)
def test_an_empty_delta_carries_nothing(delta: Any) -> None:
    accumulator = StreamAccumulator()
    assert accumulator.feed(json.dumps(chunk(delta)).encode()) is False
    assert (accumulator.answer, accumulator.pieces, accumulator.has_answer) == ("", 0, False)


def test_pieces_are_counted_and_the_first_is_announced_once() -> None:
    announced: list[int] = []
    accumulator = StreamAccumulator(on_first=lambda: announced.append(1))
    for event in (chunk({"role": "assistant"}), chunk({"reasoning": "a"}), chunk({"content": "b"}), STOP):
        accumulator.feed(json.dumps(event).encode())
    assert (accumulator.pieces, announced) == (2, [1])


def test_what_has_arrived_can_be_read_while_it_grows() -> None:
    accumulator = StreamAccumulator()
    for number in range(5):
        accumulator.feed(json.dumps(chunk({"reasoning": str(number), "content": f"<{number}>"})).encode())
        assert accumulator.reasoning == "".join(map(str, range(number + 1)))
        assert accumulator.answer == "".join(f"<{one}>" for one in range(number + 1))
        assert accumulator.completion().answer == accumulator.answer
        assert not accumulator.finished


def test_a_reset_forgets_everything() -> None:
    accumulator = fed(chunk({"reasoning": "a", "content": "b"}, model="m", usage={"prompt_tokens": 1}), STOP)
    accumulator.reset()
    assert accumulator.completion() == Completion()
    assert (accumulator.finished, accumulator.pieces, accumulator.has_answer, accumulator.reasoning) == (
        False,
        0,
        False,
        None,
    )


# ── choices, models, ends ─────────────────────────────────────────────────────────────────────────────────────────


def test_choices_that_nobody_asked_for_are_passed_over() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]}
    both = {"choices": [{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": "B"}}]}
    found = accumulated(chunk({"content": "A"}), other, both, STOP)
    assert (found.answer, found.finish_reason) == ("AB", "stop")


def test_a_choice_without_an_index_is_the_first() -> None:
    assert accumulated({"choices": [{"delta": {"content": "A"}}]}).answer == "A"


@pytest.mark.parametrize("choices", [None, [], {}, "x", [None], [5], [[]], 0])
def test_odd_choices_carry_nothing(choices: Any) -> None:
    assert accumulated({"choices": choices}) == Completion()


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "tool_calls"),
        ("max_tokens", "length"),
        ("eos", "stop"),
        ("function_call", "tool_calls"),
    ],
)
def test_known_words_for_the_end_are_ends(word: str, meaning: str) -> None:
    accumulator = fed({"choices": [{"index": 0, "delta": {}, "finish_reason": word}]})
    assert accumulator.finished
    assert accumulator.completion().finish_reason == meaning


@pytest.mark.parametrize("word", ["error", "abort", "", None, 5, "STOPPED", [], "insufficient_system_resource"])
def test_any_other_word_is_no_end(word: Any) -> None:
    accumulator = fed(chunk({"content": "A"}), {"choices": [{"index": 0, "delta": {}, "finish_reason": word}]})
    assert not accumulator.finished
    assert accumulator.completion().finish_reason is None


def test_null_fields_hurt_nothing() -> None:
    null = {"id": None, "model": None, "usage": None, "error": None, "object": None}
    found = accumulated(
        {**chunk({"content": "A", "tool_calls": None, "reasoning": None, "function_call": None}), **null}
    )
    assert found == Completion(answer="A")


def test_the_first_model_that_is_named_is_the_one_that_answered() -> None:
    found = accumulated(chunk({}, model=""), chunk({}, model=5), chunk({}, model="kimi-k3"), chunk({}, model="other"))
    assert found.model == "kimi-k3"


# ── usage ─────────────────────────────────────────────────────────────────────────────────────────────────────────

COUNTS = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}


def test_usage_may_stand_at_top_level_or_in_the_first_choice_or_come_late_without_choices() -> None:
    in_choice = {"choices": [{"index": 0, "delta": {}, "usage": COUNTS}]}
    for event in ({**STOP, "usage": COUNTS}, in_choice, {"choices": [], "usage": COUNTS}, {"usage": COUNTS}):
        assert accumulated(STOP, event).usage == Usage(prompt_tokens=10, completion_tokens=20, total_tokens=30)


@pytest.mark.parametrize("place", [{"cached_tokens": 7}, {"prompt_tokens_details": {"cached_tokens": 7}}], ids=str)
def test_cached_tokens_are_found_where_they_may_stand(place: dict[str, Any]) -> None:
    usage = accumulated({"usage": {**COUNTS, **place}}).usage
    assert usage is not None
    assert usage.cached_tokens == 7


def test_reasoning_tokens_are_unknown_unless_they_are_reported() -> None:
    reported = accumulated({"usage": {**COUNTS, "completion_tokens_details": {"reasoning_tokens": 0}}}).usage
    missing = accumulated(chunk({"reasoning": "a b c"}), {"usage": {**COUNTS, "completion_tokens_details": None}}).usage
    assert reported is not None
    assert missing is not None
    assert (reported.reasoning_tokens, missing.reasoning_tokens) == (0, None)


def test_the_last_word_on_usage_counts_and_a_total_is_worked_out() -> None:
    found = accumulated({"usage": {"prompt_tokens": 10, "completion_tokens": 1}}, {"usage": {"completion_tokens": 5}})
    assert found.usage == Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15)


@pytest.mark.parametrize("usage", [{}, None, [], "x", 5, {"prompt_tokens": "10"}, {"prompt_tokens": True},
                                   {"prompt_tokens": -1}, {"prompt_tokens": None}], ids=str)  # fmt: skip
def test_odd_usage_is_no_usage(usage: Any) -> None:
    assert accumulated({"usage": usage}).usage is None


# ── errors and bytes ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("payload", "kind", "message", "status"),
    [
        ({"error": {"type": "engine_overloaded_error", "message": "busy"}}, "engine_overloaded_error", "busy", None),
        ({"error": {"message": "busy", "code": 429}}, "", "busy", 429),
        ({"error": {"message": "no", "code": "rate_limit"}}, "rate_limit", "no", None),
        ({"error": {"type": None, "message": None, "code": None}}, "", "", None),
        ({"error": "plain words"}, "", "plain words", None),
        ({"error": {"code": 200}}, "", "", None),
        ({"error": {"code": True}}, "", "", None),
        ({"error": [1]}, "", "", None),
        ({"object": "error", "message": "gone", "type": "NotFoundError", "code": 404}, "notfounderror", "gone", 404),
        ({**STOP, "error": {"type": "server_error"}}, "server_error", "", None),
        ({"error": {"type": ["odd"], "message": {"odd": 1}}}, "", "", None),
    ],
    ids=str,
)
def test_an_error_inside_the_stream_is_raised_and_what_arrived_is_kept(
    payload: dict[str, Any], kind: str, message: str, status: int | None
) -> None:
    accumulator = fed(chunk({"content": "so far"}))
    with pytest.raises(ErrorEvent) as raised:
        accumulator.feed(json.dumps(payload).encode())
    assert raised.value.error == ProviderError(kind=kind, message=message, status=status)
    assert accumulator.answer == "so far"


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"<html>", b"[1]", b"null", b"5", b'"x"', b"\xff", b"{}{}", b"[" * 100_000, b'{"a":' * 5_000]
)
def test_what_is_no_event_is_a_bad_event(payload: bytes) -> None:
    accumulator = fed(chunk({"content": "so far"}))
    with pytest.raises(Unreadable, match="json"):
        accumulator.feed(payload)
    assert accumulator.answer == "so far"


def test_a_surrogate_pair_that_was_split_between_chunks_is_joined() -> None:
    first, second = rb'{"choices":[{"delta":{"content":"a\ud83e"}}]}', rb'{"choices":[{"delta":{"content":"\udd8ab"}}]}'
    accumulator = fed(first)
    assert accumulator.answer == "a\ufffd"
    accumulator.feed(second)
    assert accumulator.answer == "a🦊b"
    reasoning = fed(first.replace(b"content", b"reasoning"), second.replace(b"content", b"reasoning"))
    assert reasoning.reasoning == "a🦊b"


def test_half_a_surrogate_pair_and_bytes_that_are_no_utf8_cost_only_themselves() -> None:
    found = accumulated(
        rb'{"choices":[{"delta":{"content":"a\ud83e"}}]}', b'{"choices":[{"delta":{"content":"\xc3(b"}}]}', STOP
    )
    assert found.answer == "a\ufffd\ufffd(b"
    assert found.finish_reason == "stop"
    assert accumulated(rb'{"choices":[{"delta":{"content":"\udd8a\ud83e"}}]}').answer == "\ufffd\ufffd"


def test_nothing_that_is_handed_on_holds_half_a_surrogate_pair() -> None:
    odd = rb'{"model":"m\ud83e","choices":[{"delta":{"content":"\ud83e","reasoning":"\ud83e","tool_calls":[%s]}}]}'
    piece = rb'{"index":0,"id":"i\ud83e","function":{"name":"n\ud83e","arguments":"{\"x\": \"\ud83e\"}"}}'
    found = accumulated(odd % piece)
    handed = [found.answer, found.reasoning or "", found.model or ""]
    handed += [text for one in found.tool_calls for text in (one.id, one.name, one.arguments)]
    for text in handed:
        text.encode()


def test_a_split_pair_inside_the_arguments_of_a_call_is_joined() -> None:
    event = rb'{"choices":[{"delta":{"tool_calls":[{"index":0,%s}]}}]}'
    first = event % rb'"id":"i","function":{"name":"n","arguments":"{\"x\": \"\ud83e"}'
    then = event % rb'"function":{"arguments":"\udd8a\"}"}'
    assert accumulated(first, then).tool_calls == (ToolCall(id="i", name="n", arguments='{"x": "🦊"}'),)


def test_a_whole_answer_folds_into_the_same_as_the_stream() -> None:
    whole = {
        "id": "x",
        "object": "chat.completion",
        "model": "kimi-k2.6",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "reasoning_content": "Let me see.",
                    "content": "Hello 🦊",
                    "tool_calls": [
                        {"id": ONE.id, "type": "function", "function": {"name": "a", "arguments": '{"x": 1}'}}
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {**COUNTS, "cached_tokens": 3},
    }
    streamed = [
        chunk({"role": "assistant", "content": ""}, model="kimi-k2.6"),
        chunk({"reasoning_content": "Let me "}),
        chunk({"reasoning_content": "see."}),
        chunk({"content": "Hello "}),
        chunk({"content": "🦊"}),
        calling(call("a", '{"x"', index=0, id=ONE.id)),
        calling(call(None, ": 1}", index=0)),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {**COUNTS, "cached_tokens": 3}},
    ]
    assert accumulated(whole) == accumulated(*streamed)
    assert accumulated(whole).reasoning_field == "reasoning_content"


def test_a_very_long_answer_of_tiny_pieces_is_read_again_and_again_without_growing_slow() -> None:
    accumulator = StreamAccumulator()
    payload = json.dumps(chunk({"content": "x"})).encode()
    for number in range(20_000):
        accumulator.feed(payload)
        if number % 100 == 0:
            assert len(accumulator.answer) == number + 1
    assert len(accumulator.completion().answer) == 20_000
