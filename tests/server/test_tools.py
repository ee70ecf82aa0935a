"""The tools' arguments: what hosts receive about them, and what becomes of whatever is sent instead."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.core.outcome import Outcome, structured
from kimi_mcp.policy.schema_dialect import problems
from kimi_mcp.server.tools import OUTPUT_SCHEMA, TOOLS, RunArguments, input_schema, parse_arguments
from kimi_mcp.simulator.schemas import schema_fault
from scripts.generate import ROOT, early_replies
from tests import contract

THINK, RUN = TOOLS["kimi_think"], TOOLS["kimi_run"]

REQUIRED = {"kimi_vision": ["prompt", "images"], "kimi_video": ["prompt", "video"], "kimi_run": []}


def read(tool: Any, **arguments: Any) -> Any:
    """The arguments, and for a tool that asks something the call that they make."""
    found: Any = parse_arguments(tool, arguments)
    return found if tool is RUN else found.call("thinking")


def refused(tool: Any, **arguments: Any) -> InvalidArguments:
    with pytest.raises(InvalidArguments) as raised:
        read(tool, **arguments)
    assert raised.value.message
    assert raised.value.fix
    (raised.value.message + raised.value.fix).encode()
    assert len(raised.value.message + raised.value.fix) < 1_000
    return raised.value


# ── what hosts receive ────────────────────────────────────────────────────────────────────────────────────────────


def test_each_input_schema_is_the_one_that_was_generated_and_read() -> None:
    for listed in json.loads((ROOT / early_replies.FILE).read_text("utf-8"))["tools/list"].values():
        accepted = {tool["name"]: tool["inputSchema"] for tool in json.loads(listed)["tools"]}
        found = {name: input_schema(tool.arguments) for name, tool in TOOLS.items()}
        assert found == accepted, "run python -m scripts.generate, and read the difference"


@pytest.mark.parametrize("name", TOOLS)
def test_a_tools_arguments_are_those_of_the_contract(name: str) -> None:
    schema = input_schema(TOOLS[name].arguments)
    known = {each for tool in TOOLS.values() for each in tool.arguments.model_fields}
    assert set(schema["properties"]) - {"prompt"} == contract.ARGUMENTS[name] & known
    assert schema["required"] == REQUIRED.get(name, ["prompt"])
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("name", TOOLS)
def test_a_tools_schema_keeps_to_moonshots_dialect(name: str) -> None:
    schema = input_schema(TOOLS[name].arguments)
    assert list(problems(schema)) == []
    assert schema_fault(schema) is None
    assert schema["type"] == "object"
    Draft202012Validator.check_schema(schema)
    for row in schema["properties"].values():
        assert isinstance(row["type"], str)
        assert row["description"]
        assert not {"anyOf", "$ref", "title"} & set(row)


def test_the_output_schema_names_the_fields_of_the_contract_and_requires_none() -> None:
    assert list(OUTPUT_SCHEMA["properties"]) == contract.RESULT
    assert list(structured(Outcome(status="completed"), reasoning_chars=0)) == contract.RESULT
    assert "required" not in json.dumps(OUTPUT_SCHEMA)
    Draft202012Validator.check_schema(OUTPUT_SCHEMA)


# ── what is sent ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_good_arguments_become_a_call_word_for_word() -> None:
    call = read(
        THINK,
        prompt="  why?\n",
        system="Be brief.",
        response_schema={"type": "object"},
        max_tokens=20_000,
        temperature=1,
        model="kimi-k2.5",
        provider="nim",
    )
    assert (call.prompt, call.system, call.mode) == ("  why?\n", "Be brief.", "thinking")
    assert (call.max_tokens, call.temperature, call.model, call.provider) == (20_000, 1, "kimi-k2.5", "nim")
    assert call.response_schema == {"type": "object"}


def test_an_explicit_null_counts_as_absent() -> None:
    nulls = dict.fromkeys(THINK.arguments.model_fields)
    assert parse_arguments(THINK, {**nulls, "prompt": "why?"}) == parse_arguments(THINK, {"prompt": "why?"})
    assert parse_arguments(RUN, dict.fromkeys(RUN.arguments.model_fields)) == parse_arguments(RUN, None)
    assert parse_arguments(THINK, {"prompt": "why?", "unknown": None}) == parse_arguments(THINK, {"prompt": "why?"})


def test_an_empty_optional_argument_counts_as_absent() -> None:
    texts = dict.fromkeys(("system", "conversation_id", "model", "provider"), "")
    empty = {**texts, "files": [], "response_schema": {}, "max_tokens": 0}
    assert parse_arguments(THINK, {**empty, "prompt": "why?"}) == parse_arguments(THINK, {"prompt": "why?"})
    numbers = dict.fromkeys(("max_agents", "max_steps", "max_agent_steps", "max_cost_usd"), 0)
    swarm = TOOLS["kimi_swarm"]
    assert parse_arguments(swarm, {**numbers, "items": [], "prompt": "x"}) == parse_arguments(swarm, {"prompt": "x"})
    assert parse_arguments(RUN, {"run_id": "", "action": ""}) == parse_arguments(RUN, None)


@pytest.mark.parametrize("name", TOOLS)
def test_a_schema_forbids_no_empty_value_that_counts_as_absent(name: str) -> None:
    schema = input_schema(TOOLS[name].arguments)
    optional = schema["properties"].keys() - set(schema["required"])
    assert not [each for each in optional if {"minLength", "minItems"} & schema["properties"][each].keys()]


def test_a_0_that_is_a_value_is_kept() -> None:
    assert read(THINK, prompt="why?", temperature=0).temperature == 0
    waits = parse_arguments(RUN, {"wait_s": 0})
    assert isinstance(waits, RunArguments)
    assert waits.wait_s == 0


def test_an_empty_required_list_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="`images` is empty"):
        parse_arguments(TOOLS["kimi_vision"], {"prompt": "what?", "images": []})


def test_a_list_or_an_object_that_arrives_as_json_text_is_read() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    call = read(THINK, prompt="[1]", response_schema=json.dumps(schema), files='["a.txt"]', model="[]")
    assert (call.prompt, call.response_schema, call.files, call.model) == ("[1]", schema, ("a.txt",), "[]")
    assert read(THINK, prompt="why?", files="[]").files == ()
    with pytest.raises(InvalidArguments, match="`files` must be a list"):
        read(THINK, prompt="why?", files=json.dumps(["a"] * 100_000))


@pytest.mark.parametrize("arguments", [None, {}, {"prompt": None}])
def test_a_missing_prompt_is_asked_for(arguments: dict[str, Any] | None) -> None:
    with pytest.raises(InvalidArguments) as raised:
        parse_arguments(THINK, arguments)
    assert raised.value.message == "kimi_think needs `prompt`."
    assert "`prompt`" in raised.value.fix


@pytest.mark.parametrize("prompt", ["", " ", "\n\t", "\u3000"])
def test_an_empty_prompt_is_none(prompt: str) -> None:
    assert "`prompt` is empty" in refused(THINK, prompt=prompt).message


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("promt", "prompt"), ("max_token", "max_tokens"), ("temperatur", "temperature"), ("models", "model")],
)
def test_an_unknown_argument_is_refused_with_the_nearest_and_all_that_exist(wrong: str, near: str) -> None:
    error = refused(THINK, prompt="why?", **{wrong: 1})
    assert f"no argument `{wrong}`" in error.message
    assert f"You may mean `{near}`" in error.message
    for name in THINK.arguments.model_fields:
        assert name in error.fix


def test_an_argument_unlike_any_other_is_refused_with_all_that_exist() -> None:
    error = refused(RUN, frobnicate=1)
    assert "You may mean" not in error.message
    assert "run_id, action, wait_s, offset" in error.fix


def test_a_misspelt_prompt_is_reported_as_misspelt_and_not_as_missing() -> None:
    assert "You may mean `prompt`" in refused(THINK, promt="why?").message


WRONG: list[tuple[str, Any]] = [
    *(("prompt", value) for value in (5, True, ["why?"], {"text": "why?"}, b"why?")),
    *(("system", value) for value in (5, False, ["x"])),
    *(("response_schema", value) for value in ("{", "[]", [1], 5, True, {"type": "objekt"}, {"description": "\ud83d"})),
    *(("max_tokens", value) for value in ("1", "20000", 1.5, True, -1, float("nan"), [1])),
    *(("temperature", value) for value in ("1", True, -0.1, 2.1, float("nan"), float("inf"), 10**400, [1])),
    *(("model", value) for value in (5, ["kimi-k2.5"], True)),
    *(("web", value) for value in ("yes", 1, 0, [True], {"search": True})),
    *(("effort", value) for value in ("medium", "LOW", 1, True, ["low"])),
    *(("provider", value) for value in (5, ["nim"], True)),
    *((name, "half a pair \ud83d") for name in ("prompt", "system", "model", "provider")),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda value: ascii(value)[:30])
def test_nothing_is_coerced_and_the_argument_is_named(name: str, value: Any) -> None:
    error = refused(THINK, **{"prompt": "why?", name: value})
    assert name in error.message
    assert name in error.fix


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run_id", 5), ("action", "stop"), ("action", 5), ("wait_s", "5"), ("wait_s", -1),
        ("wait_s", 601), ("wait_s", True),
        ("wait_s", float("nan")), ("offset", -1), ("offset", 1.5), ("offset", "0"), ("offset", True),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_look_at_a_run_is_named(name: str, value: Any) -> None:
    assert name in refused(RUN, **{name: value}).message


def test_the_actions_that_exist_are_named() -> None:
    fix = refused(RUN, action="stop").fix
    for action in ("wait", "status", "answer", "reasoning", "cancel"):
        assert action in fix


def test_a_whole_number_may_come_as_a_bound_of_any_size_and_the_policy_judges_it() -> None:
    assert read(THINK, prompt="why?", max_tokens=10**30).max_tokens == 10**30


@pytest.mark.parametrize("name", ["x" * 100_000, "a\nb", "\x1b[31m", "\u202e", "`; rm", "", "\ud83d"])
def test_an_odd_name_is_quoted_plainly_and_shortly(name: str) -> None:
    error = refused(THINK, prompt="why?", **{name: 1})
    assert len(error.message) < 200
    assert error.message.isprintable()


def test_no_value_is_repeated_in_the_error() -> None:
    for name in ("max_tokens", "temperature", "response_schema"):
        error = refused(THINK, prompt="why?", **{name: "sk-secret-value"})
        assert "sk-secret" not in error.message + error.fix


def test_a_long_prompt_is_no_fault() -> None:
    prompt = "why? " * 400_000
    assert read(THINK, prompt=prompt).prompt == prompt
