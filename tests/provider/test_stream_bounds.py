"""Answers beyond any bound: each ends with an error that names it, and keeps what had come."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_mcp.core import bounds
from kimi_mcp.core.types import Completion, Usage
from kimi_mcp.provider.decoding import StreamAccumulator
from kimi_mcp.provider.failures import Unreadable


def chunk(delta: Any, finish: str | None = None, **more: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}).encode()


def call(index: int, identity: str | None = "", name: str | None = "", arguments: str = "") -> bytes:
    function = {"name": name or f"tool_{index}", "arguments": arguments}
    return chunk({"tool_calls": [{"index": index, "id": identity or f"call-{index}", "function": function}]})


def fed(*events: bytes) -> StreamAccumulator:
    accumulator = StreamAccumulator()
    for event in events:
        accumulator.feed(event)
    return accumulator


LONG = "x" * (bounds.LONGEST_NAME + 1)


@pytest.mark.parametrize(
    ("event", "what"),
    [
        (chunk({"content": "b"}, model=LONG), "a model's name"),
        (call(0, identity=LONG), "a tool call's id"),
        (call(0, name=LONG), "a tool's name"),
        (b'{"choices": [' + b"{}," * bounds.MOST_CHOICES + b"{}]}", "choices"),
        (b'{"choices": [' + b"[]," * bounds.MOST_VALUES + b"[]]}", "values"),
        (chunk({"content": "x" * bounds.LARGEST_TEXT}), "bytes"),
        (chunk({"reasoning": "x" * bounds.LARGEST_TEXT}), "bytes"),
        (call(0, arguments="x" * (bounds.LARGEST_ARGUMENTS + 1)), "tool arguments"),
    ],
    ids=["model", "id", "tool", "choices", "values", "answer", "reasoning", "arguments"],
)
def test_whatever_is_beyond_a_bound_ends_the_answer_and_what_had_come_is_kept(event: bytes, what: str) -> None:
    accumulator = fed(chunk({"reasoning": "r", "content": "a"}))
    with pytest.raises(bounds.OutOfBounds, match=what):
        accumulator.feed(event)
    found = accumulator.completion()
    assert (found.answer, found.reasoning, found.finish_reason) == ("a", "r", None)


def test_a_name_that_grows_for_ever_is_cut_off() -> None:
    with pytest.raises(bounds.OutOfBounds):
        fed(*(call(0, name=str(number)) for number in range(bounds.LONGEST_NAME)))


def test_text_is_counted_over_all_of_its_pieces() -> None:
    moons = "月" * (bounds.LARGEST_TEXT // 6)
    rest = "a" * (bounds.LARGEST_TEXT - 2 * len(moons.encode()))
    accumulator = fed(
        chunk({"content": moons}), chunk({"reasoning": moons}), call(0, arguments="xxx"), chunk({"content": rest})
    )
    with pytest.raises(bounds.OutOfBounds):
        accumulator.feed(chunk({"content": "b"}))
    assert (accumulator.answer, accumulator.reasoning) == (moons + rest, moons)


def test_pieces_are_bounded() -> None:
    accumulator = fed(chunk({"content": "a"}))
    accumulator.pieces = bounds.MOST_PIECES
    accumulator.settle()
    accumulator.feed(chunk({"content": "a"}))
    with pytest.raises(bounds.OutOfBounds, match=f"{bounds.MOST_PIECES:,} pieces"):
        accumulator.settle()


def feed_calls(accumulator: StreamAccumulator, same_index: bool) -> None:
    for number in range(100_000):
        accumulator.feed(call(0 if same_index else number, identity=f"call-{number}"))


@pytest.mark.parametrize("same_index", [False, True])
def test_only_so_many_tool_calls_are_taken(same_index: bool) -> None:
    accumulator = StreamAccumulator()
    with pytest.raises(bounds.OutOfBounds, match="tool calls"):
        feed_calls(accumulator, same_index)
    assert len(accumulator.completion().tool_calls) == bounds.MOST_CALLS


def test_pieces_of_many_calls_find_their_own_by_index_and_by_id() -> None:
    by_index = [call(number, arguments="{" if half else "}") for half in (1, 0) for number in range(50)]
    by_id = [call(0, f"c{number}", "t", "{" if half else "}") for half in (1, 0) for number in range(50)]
    for events in (by_index, by_id):
        calls = fed(*events).completion().tool_calls
        assert len(calls) == 50
        assert {one.arguments for one in calls} == {"{}"}


def test_a_text_of_many_pieces_is_the_same_whenever_it_is_read() -> None:
    accumulator, expected = StreamAccumulator(), ""
    for number in range(5_000):
        accumulator.feed(chunk({"content": f"{number} ", "reasoning": f"<{number}>"}))
        expected += f"{number} "
        if number % 777 == 0:
            assert accumulator.answer == expected
        if number % 1_500 == 0:
            accumulator.settle()
    assert accumulator.answer == accumulator.answer == expected


AFTER = [
    chunk({"content": "more"}),
    chunk({"reasoning": "more"}),
    call(0, arguments="{}"),
    chunk({"content": "more"}, "length"),
    json.dumps({"choices": [{"message": {"content": "more"}}]}).encode(),
]


@pytest.mark.parametrize("after", AFTER, ids=range(len(AFTER)))
def test_nothing_is_added_after_the_finish_reason(after: bytes) -> None:
    accumulator = fed(chunk({"reasoning": "r"}), chunk({"content": "a"}, "stop"))
    before = accumulator.completion()
    assert accumulator.feed(after) is False
    assert accumulator.completion() == before == Completion(
        answer="a", reasoning="r", reasoning_field="reasoning", finish_reason="stop"
    )  # fmt: skip


def test_usage_still_counts_after_the_finish_reason() -> None:
    late = json.dumps({"choices": [{"index": 0, "delta": {"content": "b"}, "usage": {"prompt_tokens": 3}}]}).encode()
    found = fed(chunk({"content": "a"}, "stop"), late).completion()
    assert (found.answer, found.usage) == ("a", Usage(prompt_tokens=3))


def test_a_word_for_the_end_that_nobody_knows_does_not_keep_the_end_away() -> None:
    found = fed(chunk({"content": "a"}, "wondering"), chunk({"content": "b"}, "stop")).completion()
    assert (found.answer, found.finish_reason) == ("ab", "stop")


NO_COUNTS = [
    "9" * 400,
    "9" * 5_000,
    "-1",
    "1.0",
    "1e3",
    "true",
    "NaN",
    "Infinity",
    "null",
    '"7"',
    "[7]",
    "{}",
    "1" * 10,
]


@pytest.mark.parametrize("number", NO_COUNTS, ids=lambda text: f"{text[:12]}-{len(text)}")
def test_a_number_of_tokens_that_is_none_is_unknown_and_the_answer_stays(number: str) -> None:
    usage = f'{{"prompt_tokens": {number}, "completion_tokens": 7, "total_tokens": {number}}}'
    choice = '{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}'
    found = fed(f'{{"choices": [{choice}], "usage": {usage}}}'.encode()).completion()
    assert (found.answer, found.finish_reason) == ("a", "stop")
    assert found.usage == Usage(completion_tokens=7)


def test_json_that_is_nested_for_ever_is_no_event() -> None:
    for event in (b"[" * 500_000, b'{"a":' * 100_000, b'{"error":' * 100_000):
        with pytest.raises(Unreadable, match="json"):
            StreamAccumulator().feed(event)
