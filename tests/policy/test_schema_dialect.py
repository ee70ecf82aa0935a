"""Moonshot's schema dialect: each breach is named, and a rewritten schema accepts exactly what it accepted before."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from kimi_mcp.policy.schema_dialect import problems, rewritten
from kimi_mcp.simulator.schemas import schema_fault

STRING, NUMBER = {"type": "string"}, {"type": "number"}


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


# ── breaches ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("schema", "place", "words"),
    [
        ({}, "#", "no type"),
        (an_object(a={}), "#/properties/a", "no type"),
        (an_object(a={"description": "x"}), "#/properties/a", "no type"),
        ({"type": "array", "items": {"enum": [1]}}, "#/items", "no type"),
        ({"type": "object", "additionalProperties": {"minimum": 1}}, "#/additionalProperties", "no type"),
        ({"type": "string", "anyOf": [STRING]}, "#", "type is beside anyOf"),
        (an_object(a={"anyOf": [STRING, {}]}), "#/properties/a/anyOf/1", "no type"),
        (
            {"$defs": {"a": STRING}, **an_object(b={"$ref": "#/$defs/a", "description": "x"})},
            "#/properties/b",
            "something is beside $ref",
        ),
        ({"$defs": {"a": {}}, "type": "object"}, "#/$defs/a", "no type"),
        ({**an_object(a=STRING), "required": ["a", "b"]}, "#", "required names what is not in properties (b)"),
        (an_object(a={"$ref": "#/properties/b"}, b=STRING), "#/properties/a", "$ref leads to nothing in $defs"),
        (an_object(a={"$ref": "#/$defs/none"}), "#/properties/a", "$ref leads to nothing in $defs"),
        (an_object(a={"$ref": 5}), "#/properties/a", "$ref leads to nothing in $defs"),
        (an_object(**{"$ref": STRING}), "#", "a property is called $ref"),
        (an_object(a=True), "#/properties/a", "not an object"),
    ],
    ids=str,
)
def test_a_breach_is_named_with_its_place(schema: dict[str, Any], place: str, words: str) -> None:
    assert f"{place}: {words}" in list(problems(schema))


FINE: list[dict[str, Any]] = [
    {"type": "object"},
    {**an_object(a=STRING, b={"type": ["string", "null"]}), "required": ["a"], "additionalProperties": False},
    an_object(a={"anyOf": [STRING, {"type": "null"}], "description": "x"}),
    {"type": "array", "items": an_object(a=NUMBER)},
    {"$defs": {"n": an_object(next={"$ref": "#/$defs/n"})}, "$ref": "#/$defs/n"},
    {"type": "object", "additionalProperties": True},
]


@pytest.mark.parametrize("schema", FINE, ids=str)
def test_what_keeps_to_the_dialect_is_left_as_it_is(schema: dict[str, Any]) -> None:
    assert list(problems(schema)) == []
    assert rewritten(schema) == schema
    assert schema_fault(schema) is None


# ── rewritten ─────────────────────────────────────────────────────────────────────────────────────────────────────

REF = {"$defs": {"a": STRING, "o": {**an_object(x=NUMBER), "required": ["x"]}, "both": {"type": ["string", "number"]}}}

REWRITABLE: dict[str, dict[str, Any]] = {
    "anything": {},
    "an untyped property": an_object(a={"description": "x"}),
    "a property that is true": an_object(a=True),
    "an enum of one type": an_object(a={"enum": ["x", "y"]}),
    "an enum of several": an_object(a={"enum": ["x", 1, None, True, [1], {"a": 1}]}),
    "a constant": an_object(a={"const": 1}),
    "a type beside anyOf": an_object(a={"type": "string", "anyOf": [{"minLength": 2}, {"const": ""}]}),
    "a branch that contradicts the type": an_object(a={"type": "string", "anyOf": [STRING, NUMBER]}),
    "a whole number among numbers": an_object(a={"type": "integer", "anyOf": [{"type": "number", "minimum": 3}]}),
    "numbers narrowed to whole ones": an_object(a={"type": "number", "anyOf": [{"type": "integer"}, STRING]}),
    "types beside anyOf": an_object(a={"type": ["string", "null"], "anyOf": [{"maxLength": 1}, {"type": "null"}]}),
    "a description beside a reference": {**REF, **an_object(a={"$ref": "#/$defs/a", "description": "x"})},
    "a bound beside a reference": {**REF, **an_object(a={"$ref": "#/$defs/a", "minLength": 2})},
    "the same type beside a reference": {**REF, **an_object(a={"$ref": "#/$defs/a", "type": "string"})},
    "a reference within anyOf": {**REF, **an_object(a={"type": "string", "anyOf": [{"$ref": "#/$defs/a"}]})},
    "required but not described": {**an_object(a=STRING), "required": ["a", "b"]},
    "an allOf of one": {**REF, **an_object(a={"allOf": [{"$ref": "#/$defs/o"}], "description": "x"})},
    "a oneOf of different types": an_object(a={"oneOf": [STRING, {"type": "null"}, {"type": "array"}]}),
    "a oneOf of one": an_object(a={"oneOf": [{"type": "integer"}]}),
    "untyped items": {"type": "array", "items": {}},
    "untyped further properties": {"type": "object", "additionalProperties": {"description": "x"}},
    "untyped definitions": {"$defs": {"a": {"enum": [1, 2]}}, **an_object(a={"$ref": "#/$defs/a"})},
    "a recursive one": {
        "$defs": {"n": {"type": "object", "properties": {"v": {}, "next": {"$ref": "#/$defs/n", "description": "x"}}}},
        "$ref": "#/$defs/n",
    },
    "definitions of an older draft": {"definitions": {"a": {"minLength": 1, "type": "string"}}, **an_object(
        a={"$ref": "#/definitions/a"}, b={"type": "string", "anyOf": [{"$ref": "#/definitions/a"}]})},
    "definitions of both drafts": {"definitions": {"a": STRING}, "$defs": {"b": {}}, **an_object(
        a={"$ref": "#/definitions/a", "title": "x"}, b={"$ref": "#/$defs/b"})},
    "a name to be escaped": {"$defs": {"a/b~c": STRING}, **an_object(a={"$ref": "#/$defs/a~1b~0c", "title": "x"})},
}  # fmt: skip

VALUES: list[Any] = [None, True, False, 0, 1, 2, 3, 3.0, 4, 1.5, -7, "", "x", "xy", "y", [], [1], ["x"], [[None]], {},
                     {"x": 1}, {"x": "1"}, {"a": 1}, {"v": 1, "next": {"v": None, "next": {"next": 5}}}]  # fmt: skip


def instances() -> list[Any]:
    """Values by themselves, under names, and as the members of arrays and objects."""
    made: list[Any] = [*VALUES, *([value] for value in VALUES), *([value, "x"] for value in VALUES)]
    for name in ("a", "b", "v", "next", "z"):
        made += [{name: value} for value in VALUES]
    made += [{"a": first, "b": second} for first, second in itertools.product(VALUES[::3], VALUES[::4])]
    return made


@pytest.mark.parametrize("schema", REWRITABLE.values(), ids=REWRITABLE)
def test_a_rewritten_schema_accepts_exactly_the_same(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    anew = rewritten(schema)
    assert anew is not None
    Draft202012Validator.check_schema(anew)
    before, after = Draft202012Validator(schema), Draft202012Validator(anew)
    verdicts = set()
    for instance in instances():
        assert before.is_valid(instance) == after.is_valid(instance), instance
        verdicts.add(before.is_valid(instance))
    assert True in verdicts


@pytest.mark.parametrize("schema", REWRITABLE.values(), ids=REWRITABLE)
def test_a_rewritten_schema_is_one_that_the_simulator_takes(schema: dict[str, Any]) -> None:
    anew = rewritten(schema)
    assert anew is not None
    assert next(problems(anew), None) is None
    assert schema_fault(anew) is None
    assert rewritten(anew) == anew


def test_saying_a_schema_anew_leaves_the_old_one_alone() -> None:
    for schema in REWRITABLE.values():
        text = repr(schema)
        rewritten(schema)
        assert repr(schema) == text


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"properties": {"a": STRING}}, "object"),
        ({"items": STRING}, "array"),
        ({"minLength": 2}, "string"),
        ({"minimum": 2, "multipleOf": 2}, "number"),
    ],
    ids=str,
)
def test_keywords_of_one_type_mean_that_type(schema: dict[str, Any], kind: str) -> None:
    anew = rewritten(schema)
    assert anew == {**schema, "type": kind}


ODD_BUT_IMPOSSIBLE: dict[str, Any] = {
    "nothing": an_object(a=False),
    "a reference elsewhere": an_object(a={"$ref": "https://schemas.example/x"}),
    "a reference to nothing": an_object(a={"$ref": "#/$defs/none", "description": "x"}),
    "a reference to the root": an_object(a={"$ref": "#"}),
    "definitions of both drafts under one name": {
        "definitions": {"a": STRING},
        "$defs": {"a": NUMBER},
        **an_object(a={"$ref": "#/definitions/a"}),
    },
    "a reference to an anchor": an_object(a={"$ref": "#somewhere"}),
    "a reference into properties": an_object(a={"$ref": "#/properties/b"}, b=STRING),
    "another type beside a reference": {**REF, **an_object(a={"$ref": "#/$defs/a", "type": "number"})},
    "a reference wider than the type beside it": {
        **REF,
        **an_object(a={"type": "string", "anyOf": [{"$ref": "#/$defs/both"}]}),
    },
    "a oneOf whose branches overlap": an_object(a={"oneOf": [{"type": "integer"}, {"type": "number"}]}),
    "a oneOf without types": an_object(a={"oneOf": [{"minimum": 1}, {"maximum": 5}]}),
    "an allOf of several": an_object(a={"allOf": [{"minimum": 1}, {"maximum": 5}]}),
    "keywords of two types": an_object(a={"minLength": 1, "minimum": 1}),
    "nothing but what it is not": an_object(a={"not": STRING}),
    "branches that all contradict the type": an_object(a={"type": "string", "anyOf": [NUMBER]}),
    "required where nothing more is allowed": {**an_object(), "required": ["a"], "additionalProperties": False},
    "an empty enum": an_object(a={"enum": []}),
    "a property called $ref": an_object(**{"$ref": {}}),
}


@pytest.mark.parametrize("schema", ODD_BUT_IMPOSSIBLE.values(), ids=ODD_BUT_IMPOSSIBLE)
def test_what_can_not_be_rewritten_without_loss_is_not_rewritten(schema: dict[str, Any]) -> None:
    assert next(problems(schema), None) is not None
    assert rewritten(schema) is None


def nested(depth: int, innermost: dict[str, Any]) -> dict[str, Any]:
    schema = innermost
    for _ in range(depth):
        schema = an_object(a=schema)
    return schema


def test_depth_has_an_end() -> None:
    assert rewritten(nested(20, {})) is not None
    for depth in (70, 500):
        assert "nested deeper" in next(problems(nested(depth, STRING)))
        assert rewritten(nested(depth, {})) is None


def test_a_reference_that_goes_round_in_a_circle_ends() -> None:
    for schema in (
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ):
        list(problems(schema))
        rewritten(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 5}, {"type": "object", "properties": [1]}, {"type": "object", "required": "a"},
        {"type": "object", "required": [5, None]}, {"anyOf": {}}, {"anyOf": []}, {"anyOf": [5]}, {"oneOf": 5},
        {"allOf": []}, {"enum": 5}, {"$ref": None}, {"items": [5]}, {"type": "string", "anyOf": 5}, {"$defs": 5},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_schema_raises_nothing(schema: dict[str, Any]) -> None:
    list(problems(schema))
    rewritten(schema)


def test_a_reference_that_only_leads_back_to_itself_is_refused() -> None:
    round_and_round = {"$defs": {"n": {"$ref": "#/$defs/m"}, "m": {"$ref": "#/$defs/n"}}, "$ref": "#/$defs/n"}
    assert any("$ref leads to nothing" in fault for fault in problems(round_and_round))
    assert rewritten(round_and_round) is None


def test_a_schema_that_holds_itself_by_way_of_a_value_is_fine() -> None:
    tree = {"$defs": {"n": an_object(next={"$ref": "#/$defs/n"})}, "$ref": "#/$defs/n"}
    assert list(problems(tree)) == []
