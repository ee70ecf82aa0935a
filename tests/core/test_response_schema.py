"""Answers that must fit a schema: what is one, what fits, and what nobody guesses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.core.json_schema import Undecided, check_schema, read_answer

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
}


@pytest.mark.parametrize(
    "schema", [PERSON, {}, {"type": "array"}, {"anyOf": [{"type": "null"}]}, {"$ref": "#"}], ids=str
)
def test_a_schema_passes(schema: dict[str, Any]) -> None:
    check_schema(schema)


def deep(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "objekt"}, "type"),
        ({"type": "object", "properties": []}, "properties"),
        ({"type": "object", "properties": {"a": {"type": 5}}}, "properties/a/type"),
        ({"type": "object", "required": "name"}, "required"),
        ({"type": "string", "pattern": "("}, "pattern"),
        ({"type": "string", "description": "\ud800"}, ""),
        ({"type": "number", "minimum": float("nan")}, ""),
        (deep(2_000), ""),
    ],
    ids=["type", "properties", "inner", "required", "pattern", "surrogate", "nan", "deep"],
)
def test_what_is_no_schema_is_refused_with_its_place(schema: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidArguments) as raised:
        check_schema(schema)
    assert "`response_schema`" in raised.value.message
    assert place in raised.value.message
    assert "`response_schema`" in raised.value.fix


@pytest.mark.parametrize(
    "answer",
    [
        '{"name": "Ada", "age": 36}',
        ' \n{"name": "Ada", "age": 36}\n',
        '```json\n{"name": "Ada", "age": 36}\n```',
        '```\n{"name": "Ada", "age": 36}\n```\n',
        '  ```json\n\n{"name": "Ada",\n "age": 36}\n\n```  ',
    ],
)
def test_an_answer_that_fits_is_read_fence_or_no_fence(answer: str) -> None:
    assert read_answer(answer, PERSON) == ({"name": "Ada", "age": 36}, None)


@pytest.mark.parametrize(
    "answer",
    ["", "Ada", 'Here it is: {"name": "Ada"}', '{"name": "Ada"', '{"name": "Ada"} Bye!', "[" * 100_000, '{"a":' * 9_999,
     '```json\n{"name": "Ada"}\n``` and more', "{'name': 'Ada'}"],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_nothing_is_guessed_of_what_is_no_json(answer: str) -> None:
    value, fault = read_answer(answer, PERSON)
    assert value is None
    assert fault == "it is not JSON"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("{}", "the whole breaks the rule `required`"),
        ('{"name": 5}', "name breaks the rule `type`"),
        ('{"name": "Ada", "age": 1.5}', "age breaks the rule `type`"),
        ("[]", "the whole breaks the rule `type`"),
        ("null", "the whole breaks the rule `type`"),
    ],
)
def test_an_answer_that_does_not_fit_is_reported_with_the_place(answer: str, fault: str) -> None:
    assert read_answer(answer, PERSON) == (None, fault)


def test_falsy_values_are_values() -> None:
    for answer, value in (("0", 0), ("false", False), ('""', ""), ("[]", []), ("null", None)):
        assert read_answer(answer, {}) == (value, None)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", '{"name": NaN}'])
def test_words_that_json_does_not_have_are_no_json(word: str) -> None:
    assert read_answer(word, {}) == (None, "it is not JSON")


@pytest.mark.parametrize(
    "schema", [{"$ref": "#/$defs/none"}, {"$ref": "https://schemas.example/x"}, {"$ref": "#"}], ids=str
)
def test_against_a_schema_that_refers_to_nothing_no_answer_can_be_held(schema: dict[str, Any]) -> None:
    with pytest.raises(Undecided, match="reference") as raised:
        read_answer('{"name": "Ada"}', schema)
    assert "`$ref`" in raised.value.as_error().fix


def test_half_a_surrogate_pair_is_no_value_that_a_result_could_hold() -> None:
    for answer in (r'{"name": "\ud83e"}', r'{"\udd8a": 1}'):
        value, fault = read_answer(answer, {})
        assert value is None
        assert fault == "it holds half a surrogate pair"
    assert read_answer(r'"\ud83e\udd8a"', {}) == ("🦊", None)


def test_an_answer_of_blank_lines_is_soon_found_to_be_no_json() -> None:
    for answer in ("```json\n" + "\n" * 200_000, "```json" + " " * 200_000, "```\n" + "``` \n" * 50_000):
        assert read_answer(answer, PERSON) == (None, "it is not JSON")


def test_numbers_beyond_all_bounds_are_no_crash() -> None:
    for answer in ("9" * 5_000, "1e999", "-" + "9" * 400):
        read_answer(answer, {"type": "number", "multipleOf": 0.1})


@pytest.mark.parametrize("pattern", [r"(\w+)\1+$", r"^(?=.*\d)a", r"(?:(?:a|b){99}){999}"])
def test_against_a_pattern_that_might_take_for_ever_no_answer_can_be_held(pattern: str) -> None:
    with pytest.raises(Undecided, match="pattern") as raised:
        read_answer(json.dumps("a" * 60 + "!"), {"type": "string", "pattern": pattern})
    assert "`pattern`" in raised.value.as_error().fix
    assert read_answer("7", {"type": "string", "pattern": pattern})[1] == "the whole breaks the rule `type`"


def test_an_ordinary_pattern_is_held_against_the_answer() -> None:
    day = {"type": "object", "properties": {"day": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}}}
    assert read_answer('{"day": "2026-11-23"}', day) == ({"day": "2026-11-23"}, None)
    assert read_answer('{"day": "tomorrow"}', day)[1] == "day breaks the rule `pattern`"
