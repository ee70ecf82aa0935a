"""Moonshot's schema dialect: the policy and the simulator judge as its own validator does, each by itself.

``moonshot_schema_verdicts.json`` has the verdicts of MoonshotAI/walle.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.policy.schema_dialect import MAX_BYTES, problems
from kimi_mcp.policy.schema_rewriting import rewritten
from kimi_mcp.simulator.schemas import schema_fault
from tests.policy.schemas import NUMBER, STRING, an_object

ROWS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("moonshot_schema_verdicts.json").read_text("utf-8"))[
    "rows"
]


# ── breaches ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("row", ROWS, ids=[f"row {at}" for at in range(len(ROWS))])
def test_the_policy_and_the_simulator_judge_as_moonshots_validator_does(row: dict[str, Any]) -> None:
    assert (next(problems(row["schema"]), None) is None) is row["accepted"], row.get("why")
    fault = schema_fault(row["schema"])
    assert (fault is None) is row["accepted"], row.get("why")
    if fault is not None and "parsing error" not in fault:
        assert fault.startswith(row["why"]), "walle's words, of which the row has the first 160"


@pytest.mark.parametrize(
    ("schema", "place", "words"),
    [
        ({"type": "array", "items": {"enum": [1]}}, "#/items", "enum has no type beside it"),
        ({"type": "string", "anyOf": [STRING]}, "#", "type is beside anyOf"),
        (
            {"$defs": {"a": STRING}, **an_object(b={"$ref": "#/$defs/a", "type": "string"})},
            "#/properties/b",
            "type is beside $ref",
        ),
        ({"$defs": {"a": {"enum": []}}, "type": "object"}, "#/$defs/a", "enum is no list of 1 to 1,000 values"),
        ({**an_object(a=STRING), "required": ["a", "b"]}, "#", "required names what is not in properties (b)"),
        (an_object(a={"$ref": "#/properties/b"}, b=STRING), "#/properties/a", "$ref does not begin with #/$defs/"),
        (an_object(a={"$ref": "#/$defs/none"}), "#/properties/a", "$ref leads to nothing in $defs"),
        (an_object(a={"$ref": 5}), "#/properties/a", "$ref does not begin with #/$defs/"),
        (an_object(**{"$ref": STRING}), "#", "a property is called $ref"),
        (an_object(a=True), "#", "the schema of a is no object"),
        (
            an_object(a={"type": ["string", "null"], "minLength": 1}),
            "#/properties/a",
            "minLength is beside several types",
        ),
        (
            an_object(a={"anyOf": [{"minLength": 1}], "minLength": 2}),
            "#/properties/a",
            "minLength is beside anyOf and in it",
        ),
        (
            {**an_object(a={"$ref": "#"}), "required": ["a"]},
            "#/properties/a",
            "what $ref leads to never comes to an end",
        ),
        (
            an_object(**{"{id}": {"type": "string", "enum": ["x"]}}),
            "#/properties/{id}",
            "enum is below a name with braces",
        ),
        ({"$id": [], "type": "object"}, "#", "a keyword is not text or absent"),
        ([], "#", "not an object"),
    ],
    ids=str,
)
def test_a_breach_is_named_with_its_place(schema: Any, place: str, words: str) -> None:
    assert f"{place}: {words}" in list(problems(schema))
    assert not isinstance(schema, dict) or schema_fault(schema) is not None


FINE: list[dict[str, Any]] = [
    {},
    {"type": "object"},
    {**an_object(a=STRING, b={"type": ["string", "null"]}), "required": ["a"], "additionalProperties": False},
    an_object(a={"anyOf": [STRING, {"type": "null"}], "description": "x"}),
    {"type": "array", "items": an_object(a=NUMBER)},
    {"$defs": {"n": an_object(next={"$ref": "#/$defs/n"})}, "$ref": "#/$defs/n"},
    {"type": "object", "additionalProperties": True},
    {"$defs": {"a": STRING}, **an_object(a={"$ref": "#/$defs/a", "description": "x", "minLength": 2})},
    an_object(a={}, b={"description": "x"}, c={"oneOf": [STRING, NUMBER]}, d={"const": 1}, e={"not": STRING}),
]


@pytest.mark.parametrize("schema", FINE, ids=str)
def test_what_keeps_to_the_dialect_is_left_as_it_is(schema: dict[str, Any]) -> None:
    assert list(problems(schema)) == []
    assert rewritten(schema) == schema
    assert schema_fault(schema) is None


def with_bytes(size: int) -> dict[str, Any]:
    """A schema of that many bytes as Go writes it."""
    schema = {"type": "string", "description": "<é"}
    fixed = len(json.dumps(schema, ensure_ascii=False, separators=(",", ":")).encode()) + 5
    return {**schema, "description": "<é" + "x" * (size - fixed)}


def nested(depth: int, innermost: dict[str, Any]) -> dict[str, Any]:
    schema = innermost
    for _ in range(depth):
        schema = an_object(a=schema)
    return schema


def behind_references(depth: int) -> dict[str, Any]:
    links = {f"d{at}": an_object(a={"$ref": f"#/$defs/d{at + 1}"}) for at in range(depth - 1)}
    return {"$defs": {**links, f"d{depth - 1}": an_object(a=STRING)}, "$ref": "#/$defs/d0"}


BOUNDS = {
    "bytes": (with_bytes(MAX_BYTES), with_bytes(MAX_BYTES + 1)),
    "objects within each other": (nested(30, STRING), nested(31, STRING)),
    "objects behind references": (behind_references(30), behind_references(31)),
    "properties": tuple(an_object(**{f"p{n}": {} for n in range(count)}) for count in (3_000, 3_001)),
}


@pytest.mark.parametrize(("within", "beyond"), BOUNDS.values(), ids=BOUNDS)
def test_a_bound_of_moonshots_is_a_bound_of_both_and_nothing_beyond_it_is_rewritten(within: Any, beyond: Any) -> None:
    assert next(problems(within), None) is None
    assert schema_fault(within) is None
    assert next(problems(beyond), None) is not None
    assert schema_fault(beyond) is not None
    assert rewritten(beyond) is None


def test_arrays_and_unions_within_each_other_have_no_bound_but_our_own() -> None:
    deep: dict[str, Any] = STRING
    for _ in range(60):
        deep = {"type": "array", "items": {"anyOf": [deep]}}
    assert next(problems(deep), None) is None
    assert schema_fault(deep) is None
    for _ in range(2_000):
        deep = {"items": deep}
    assert "too deeply" in next(problems(deep))
    assert schema_fault(deep) is not None
    assert rewritten(deep) is None


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
    assert any("never comes to an end" in fault for fault in problems(round_and_round))
    assert rewritten(round_and_round) is None


def test_a_schema_that_holds_itself_by_way_of_a_value_is_fine() -> None:
    tree = {"$defs": {"n": an_object(next={"$ref": "#/$defs/n"})}, "$ref": "#/$defs/n"}
    assert list(problems(tree)) == []
