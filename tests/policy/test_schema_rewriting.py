"""A schema rewritten for Moonshot's dialect is accepted by it, and accepts exactly what it accepted before."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from kimi_mcp.core import json_schema
from kimi_mcp.policy.schema_dialect import parameters_fault, problems
from kimi_mcp.policy.schema_rewriting import rewritten, rewritten_parameters
from kimi_mcp.simulator.instances import instance
from kimi_mcp.simulator.schemas import schema_fault
from tests.policy.schemas import NUMBER, STRING, VALUES, an_object, instances, values_for

VERDICTS = Path(__file__).with_name("moonshot_schema_verdicts.json")
REFUSED = [row["schema"] for row in json.loads(VERDICTS.read_text("utf-8"))["rows"] if not row["accepted"]]


# ── rewritten ─────────────────────────────────────────────────────────────────────────────────────────────────────

KNOWN = {
    *("type", "properties", "required", "additionalProperties", "items", "enum", "anyOf", "$ref", "$defs"),
    *("minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"),
}
"""What Moonshot's decoder knows (walle, docs/mfjs-spec.md)."""

REF = {"$defs": {"a": STRING, "o": {**an_object(x=NUMBER), "required": ["x"]}, "both": {"type": ["string", "number"]}}}

MANY_BRANCHES = "more branches than one anyOf may have"

REWRITABLE: dict[str, dict[str, Any]] = {
    "a property that is true": an_object(a=True),
    "an enum of one type": an_object(a={"enum": ["x", "y"]}),
    "an enum of several": an_object(a={"enum": ["x", 1, None, True, [1], {"a": 1}]}),
    "a type beside anyOf": an_object(a={"type": "string", "anyOf": [{"minLength": 2}, {"const": ""}]}),
    "a branch that contradicts the type": an_object(a={"type": "string", "anyOf": [STRING, NUMBER]}),
    "a whole number among numbers": an_object(a={"type": "integer", "anyOf": [{"type": "number", "minimum": 3}]}),
    "numbers narrowed to whole ones": an_object(a={"type": "number", "anyOf": [{"type": "integer"}, STRING]}),
    "types beside anyOf": an_object(a={"type": ["string", "null"], "anyOf": [{"maxLength": 1}, {"type": "null"}]}),
    "a bound beside a reference that has one": {
        "$defs": {"a": {**STRING, "minLength": 1}},
        **an_object(a={"$ref": "#/$defs/a", "minLength": 2}),
    },
    "a reference of another type than beside it": {**REF, **an_object(a={"$ref": "#/$defs/both", "type": "string"})},
    "a reference wider than the type beside it": {
        **REF,
        **an_object(a={"type": "string", "anyOf": [{"$ref": "#/$defs/both"}]}),
    },
    "the same type beside a reference": {**REF, **an_object(a={"$ref": "#/$defs/a", "type": "string"})},
    "a reference within anyOf": {**REF, **an_object(a={"type": "string", "anyOf": [{"$ref": "#/$defs/a"}]})},
    "required but not described": {**an_object(a=STRING), "required": ["a", "b"]},
    "untyped definitions": {"$defs": {"a": {"enum": [1, 2]}}, **an_object(a={"$ref": "#/$defs/a"})},
    "definitions of an older draft": {
        "definitions": {"a": {"minLength": 1, "type": "string"}},
        **an_object(a={"$ref": "#/definitions/a"}, b={"type": "string", "anyOf": [{"$ref": "#/definitions/a"}]}),
    },
    "definitions of both drafts": {
        "definitions": {"a": STRING},
        "$defs": {"b": {}},
        **an_object(a={"$ref": "#/definitions/a", "title": "x"}, b={"$ref": "#/$defs/b"}),
    },
    "definitions of both drafts under one name": {
        "definitions": {"a": STRING},
        "$defs": {"a": NUMBER},
        **an_object(a={"$ref": "#/definitions/a"}, b={"$ref": "#/$defs/a"}),
    },
    "a reference into properties": an_object(
        a={"$ref": "#/properties/b"}, b={"type": ["string", "null"], "maxLength": 1}
    ),
    "a reference into a branch": {
        "$defs": {"a": {"anyOf": [STRING, NUMBER]}},
        **an_object(a={"$ref": "#/$defs/a/anyOf/1"}),
    },
    "untyped and within itself": {"properties": {"a": {"$ref": "#"}, "b": STRING}},
    "untyped, required and within itself": {
        "$defs": {"n": {"properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"]}},
        **an_object(a={"$ref": "#/$defs/n"}),
        "required": ["a"],
    },
    "values that look like references": an_object(
        a={"type": "object", "default": {"$ref": "x"}}, b={"const": {"a": {"$ref": 1}}}, c={"x-from": {"$ref": "#/a"}}
    ),
    "references where the dialect does not look": {
        "definitions": {"a": STRING, "b": {"$ref": "#/definitions/a"}},
        **an_object(a={"oneOf": [{"$ref": "#/definitions/a"}, NUMBER]}, b={"not": {"$ref": "#/definitions/b"}}),
    },
    "a definition with a slash in a name": {
        "$defs": {
            "a": {**an_object(**{"x/y": STRING}), "required": ["x/y"]},
            "b": {"type": "array", "items": {"$ref": "#/$defs/a"}},
        },
        **an_object(a={"$ref": "#/$defs/a"}, b={"$ref": "#/$defs/b"}),
    },
    "a schema that is false": an_object(a=False, b={"type": "array", "items": False}),
    "types with keywords of their own": an_object(
        a={"type": ["string", "number", "null"], "minLength": 2, "minimum": 2}
    ),
    "types with a default": an_object(a={"type": ["string", "null"], "default": None}),
    "choices of several types": an_object(a={"type": ["string", "integer", "null"], "enum": ["x", 1, 1.5, None, True]}),
    "null after a number": an_object(a={"type": ["integer", "null"], "enum": [1, None]}),
    "choices of another type": an_object(a={"type": "string", "enum": ["x", 1]}),
    "choices without a type beside a union": an_object(a={"enum": ["x", 1], "anyOf": [STRING, {"type": "null"}]}),
    "more choices than one enum may have": an_object(a={"enum": ["x", *map(str, range(1_000))]}),
    MANY_BRANCHES: an_object(a={"anyOf": [{"const": n, "type": "number"} for n in range(501)]}),
    "properties beside a union of what is required": {
        **an_object(a=STRING, b=STRING),
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "properties beside a union of objects": {
        **an_object(a=STRING),
        "required": ["a"],
        "anyOf": [
            an_object(b=STRING),
            {**an_object(a={"maxLength": 1, "type": "string"}), "additionalProperties": False},
        ],
    },
    "the same keyword beside a union and in it": an_object(
        a={"minLength": 1, "anyOf": [{"type": "string", "minLength": 2}]}
    ),
    "a union of true and false": an_object(a={"type": "string", "anyOf": [False, {"minLength": 2}, {"const": ""}]}),
    "properties with names of keywords": {
        **an_object(required=STRING, anyOf=NUMBER, a=STRING),
        "required": ["required"],
        "additionalProperties": False,
    },
    "a name with braces": {**an_object(**{"{a}": {"type": "string", "enum": ["x"]}}), "required": ["{a}"]},
    "required by a pattern": {
        "type": "object",
        "patternProperties": {"^a": STRING},
        "additionalProperties": False,
        "required": ["a"],
    },
    "required and of the further ones": {"type": "object", "additionalProperties": NUMBER, "required": ["a"]},
    "required and unevaluated": {"type": "object", "required": ["a"], "unevaluatedProperties": NUMBER},
    "an array of itself": {
        "$defs": {"n": {**an_object(a={"type": "array", "items": {"$ref": "#/$defs/n"}}), "required": ["a"]}},
        **an_object(b={"$ref": "#/$defs/n"}),
        "required": ["b"],
    },
    "a name to be escaped": {"$defs": {"a/b~c": STRING}, **an_object(a={"$ref": "#/$defs/a~1b~0c", "title": "x"})},
}


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(schema, id=name, marks=[pytest.mark.soak] if name == MANY_BRANCHES else [])
        for name, schema in REWRITABLE.items()
    ],
)
def test_a_rewritten_schema_accepts_exactly_the_same(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    anew = rewritten(schema)
    assert anew is not None
    Draft202012Validator.check_schema(anew)
    before, after = Draft202012Validator(schema), Draft202012Validator(anew)
    verdicts = set()
    for value in [instance(anew, "x"), *instances(), *values_for(schema, 60)]:
        assert before.is_valid(value) == after.is_valid(value), value
        verdicts.add(before.is_valid(value))
    assert True in verdicts


@pytest.mark.parametrize("schema", REWRITABLE.values(), ids=REWRITABLE)
def test_a_rewritten_schema_is_one_that_the_simulator_takes(schema: dict[str, Any]) -> None:
    anew = rewritten(schema)
    assert anew is not None
    assert next(problems(schema), None) is not None
    assert schema_fault(schema) is not None
    assert next(problems(anew), None) is None
    assert schema_fault(anew) is None
    assert rewritten(anew) == anew


def test_saying_a_schema_anew_leaves_the_old_one_alone() -> None:
    for schema in REWRITABLE.values():
        text = repr(schema)
        rewritten(schema)
        assert repr(schema) == text


@pytest.mark.parametrize("schema", REFUSED, ids=[f"refused row {at}" for at in range(len(REFUSED))])
def test_what_moonshots_validator_refuses_is_rewritten_or_accepts_nothing_or_is_no_schema(
    schema: dict[str, Any],
) -> None:
    anew, why = rewritten(schema), str(schema_fault(schema))
    if json_schema.schema_fault(schema) is not None or "parsing" in why:
        return
    if anew is None:
        assert re.search(r"\$ref|reference|infinite recursion|enum", why), "it refers to nothing, or accepts nothing"
        return
    assert schema_fault(anew) is None
    before, after = Draft202012Validator(schema), Draft202012Validator(anew)
    for value in [instance(anew, "x"), *values_for(schema, 200)]:
        assert before.is_valid(value) == after.is_valid(value), value


def test_what_beside_a_reference_meant_nothing_in_an_older_draft_means_nothing_still() -> None:
    older = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **an_object(a={"$ref": "#/definitions/a", "minLength": 9, "description": "x"}),
        "definitions": {"a": STRING},
    }
    anew = rewritten(older)
    assert anew is not None
    assert anew["properties"]["a"] == {"$ref": "#/$defs/a", "description": "x"}


def test_the_values_that_fit_are_all_allowed_by_what_moonshot_decodes_by() -> None:
    """Its decoder knows the dialect's keywords alone: what is in ``allOf`` must not be needed to save space."""
    for schema in REWRITABLE.values():
        decoded = Draft202012Validator(known_alone(rewritten(schema)))
        before = Draft202012Validator(schema)
        for value in [*VALUES, *values_for(schema, 40)]:
            assert decoded.is_valid(value) or not before.is_valid(value), (schema, value)


def known_alone(schema: Any) -> Any:
    """A schema without the keywords that Moonshot's decoder does not know."""
    new = {key: schema[key] for key in schema if key in KNOWN}
    for keyword in {"properties", "$defs"} & new.keys():
        new[keyword] = {name: known_alone(inner) for name, inner in new[keyword].items()}
    for keyword in ("items", "additionalProperties"):
        if isinstance(new.get(keyword), dict):
            new[keyword] = known_alone(new[keyword])
    if "anyOf" in new:
        new["anyOf"] = [known_alone(inner) for inner in new["anyOf"]]
    return new


ODD_BUT_IMPOSSIBLE: dict[str, Any] = {
    "a reference elsewhere": an_object(a={"$ref": "https://schemas.example/x"}),
    "a reference to nothing": an_object(a={"$ref": "#/$defs/none", "description": "x"}),
    "a reference to an anchor": an_object(a={"$ref": "#somewhere"}),
    "what never ends": {**an_object(a={"$ref": "#"}), "required": ["a"]},
    "branches that all contradict the type": an_object(a={"type": "string", "anyOf": [NUMBER]}),
    "required where nothing more is allowed": {**an_object(), "required": ["a"], "additionalProperties": False},
    "an empty enum": an_object(a={"enum": []}),
    "choices that are all of another type": an_object(a={"type": "string", "enum": [1]}),
}


@pytest.mark.parametrize("schema", ODD_BUT_IMPOSSIBLE.values(), ids=ODD_BUT_IMPOSSIBLE)
def test_what_can_not_be_rewritten_without_loss_is_not_rewritten(schema: dict[str, Any]) -> None:
    assert next(problems(schema), None) is not None
    assert rewritten(schema) is None


def test_a_reference_that_goes_round_in_a_circle_ends() -> None:
    for schema in (
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ):
        list(problems(schema))
        rewritten(schema)


# ── a tool's parameters ───────────────────────────────────────────────────────────────────────────────────────────


EITHER = {**an_object(a=STRING, b=STRING), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
PARAMETERS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no type": {"properties": {"a": STRING}},
    "types": {"type": ["object", "null"], "properties": {"a": STRING}},
    "a union beside the type": EITHER,
    "a union alone": {"anyOf": [{**an_object(a=STRING), "required": ["a"]}, an_object(b=STRING)]},
    "a reference": {"$ref": "#/definitions/t", "definitions": {"t": {**an_object(a=STRING), "required": ["a"]}}},
    "a reference to itself": {"$ref": "#/$defs/t", "$defs": {"t": an_object(a={"$ref": "#/$defs/t"}, b=STRING)}},
    "a reference beside the type": {"type": "object", "$ref": "#/$defs/t", "$defs": {"t": an_object(a=STRING)}},
    "a reference to all of it, which may be no object": {"properties": {"a": {"$ref": "#"}, "b": STRING}},
    "a reference to all of it beside a union": {
        "type": ["object", "string"],
        "additionalProperties": {"$ref": "#"},
        "anyOf": [{"minLength": 2}, {"required": ["a"]}],
    },
    "a reference that hides what is beside it": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$ref": "#/definitions/t",
        "required": ["b"],
        "definitions": {"t": an_object(a=STRING)},
    },
}


@pytest.mark.parametrize("schema", PARAMETERS.values(), ids=PARAMETERS)
def test_a_tools_parameters_become_those_of_an_object_and_take_the_same_objects(schema: dict[str, Any]) -> None:
    anew = rewritten_parameters(schema)
    assert anew is not None
    assert anew["type"] == "object"
    assert parameters_fault(anew) is None
    assert schema_fault(anew) is None
    before, after = (validator_for(each, default=Draft202012Validator)(each) for each in (schema, anew))
    for value in instances():
        if isinstance(value, dict):
            assert before.is_valid(value) == after.is_valid(value), value


def test_parameters_that_are_no_objects_have_no_equal() -> None:
    assert rewritten_parameters({"type": "string"}) is None
    assert rewritten_parameters([1]) is None
