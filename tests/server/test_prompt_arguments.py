"""The prompts: each makes a call that its tool takes, and what was left out leaves no trace."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.server.prompts import MAX_VALUES, Prompt, completions, matches, prompts
from kimi_mcp.server.resources import RESOURCES
from kimi_mcp.server.tools import TOOLS, parse_arguments
from kimi_mcp.skill.document import Skill, SkillTool, load_skill


def skill_with_swarm() -> Skill:
    skill = load_skill()
    swarm = SkillTool(
        name="kimi_swarm", title="T", summary="S.", when="w", when_not="n", triggers=("swarm",), mode="thinking"
    )
    return skill.model_copy(update={"tools": (*(tool for tool in skill.tools if tool.name != swarm.name), swarm)})


EVERY = prompts(skill_with_swarm())
BUILT = [prompt for prompt in EVERY.values() if prompt.tool in TOOLS]


def given(prompt: Prompt, *, all_of_them: bool) -> dict[str, str]:
    fitting_values = {"mode": "instant", "model": "kimi-k2.5", "labels": "a, b", "files": "src/*.py, docs/a.md"}
    return {
        each.name: fitting_values.get(each.name, f"some {each.name}")
        for each in prompt.arguments
        if each.required or all_of_them
    }


def test_there_is_a_prompt_for_each_job_and_each_names_its_tool() -> None:
    assert {name: prompt.tool for name, prompt in EVERY.items()} == {
        "code-from-screenshot": "kimi_vision",
        "explain-clip": "kimi_video",
        "second-opinion": "kimi_think",
        "deep-research": "kimi_swarm",
        "classify": "kimi_instant",
    }


def test_a_prompt_whose_tool_is_not_listed_is_not_offered() -> None:
    skill = load_skill()
    without = skill.model_copy(update={"tools": tuple(tool for tool in skill.tools if tool.name != "kimi_vision")})
    assert "code-from-screenshot" not in prompts(without)
    assert set(prompts(skill)) == {
        name for name, prompt in EVERY.items() if prompt.tool in {tool.name for tool in skill.tools}
    }


@pytest.mark.parametrize("all_of_them", [False, True], ids=["required", "all"])
@pytest.mark.parametrize("prompt", BUILT, ids=lambda prompt: prompt.name)
def test_the_call_of_a_prompt_is_one_that_its_tool_takes(prompt: Prompt, all_of_them: bool) -> None:
    call = prompt.tool_arguments(given(prompt, all_of_them=all_of_them))
    parse_arguments(TOOLS[prompt.tool], call)
    assert not re.search(r"\{\w+(\[\])?\}", json.dumps(call)), "no place is left unfilled"


@pytest.mark.parametrize("prompt", EVERY.values(), ids=lambda prompt: prompt.name)
def test_every_place_stands_for_an_argument_and_every_argument_has_a_place(prompt: Prompt) -> None:
    places = set(re.findall(r"\{(\w+)(?:\[\])?\}", json.dumps(prompt.call)))
    assert places == {argument.name for argument in prompt.arguments}
    assert all(argument.description.endswith(".") for argument in prompt.arguments)


def test_what_was_left_out_leaves_no_trace_and_a_default_stands_in() -> None:
    call = EVERY["code-from-screenshot"].tool_arguments({"image": "a.png", "notes": "  "})
    assert set(call) == {"prompt", "images"}
    assert call["images"] == ["a.png"]
    assert "one HTML file" in call["prompt"]
    assert "Keep to this" not in call["prompt"]


def test_a_list_is_parted_at_commas_and_lines() -> None:
    call = EVERY["deep-research"].tool_arguments({"question": "Who leads it?", "items": "Acme, Bolt\nCrux；Duo"})
    assert call["items"] == ["Acme", "Bolt", "Crux", "Duo"]
    assert "items" not in EVERY["deep-research"].tool_arguments({"question": "?", "items": " , "})


def test_the_text_tells_the_tool_its_arguments_and_what_to_do_then() -> None:
    prompt = EVERY["classify"]
    text = prompt.text({"text": 'He wrote "no".\n{labels}', "labels": "yes, no"})
    (call,) = re.findall(r"```json\n(.+?)\n```", text, re.DOTALL)
    assert prompt.tool in text
    assert text.endswith(prompt.then)
    made: dict[str, Any] = json.loads(call)
    assert made["prompt"].endswith('He wrote "no".\n{labels}'), "what an argument holds is no place"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({}, "`text`"), ({"text": "x"}, "`labels`"), ({"text": "x", "labels": "y", "tone": "z"}, "`tone`")],
)
def test_what_is_missing_or_unknown_is_named(arguments: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidArguments) as raised:
        EVERY["classify"].tool_arguments(arguments)
    assert named in raised.value.message


# ── completion ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_begins_so_comes_before_what_only_holds_it() -> None:
    assert matches(["kimi-k3", "not kimi", "KIMI-k2.5", "other"], "Kimi") == ["kimi-k3", "KIMI-k2.5", "not kimi"]
    assert matches(["b", "a"], "") == ["b", "a"]


def test_every_argument_that_completes_has_values() -> None:
    table = completions(EVERY)
    assert {name for name, _ in table if name not in EVERY} <= set(RESOURCES)
    for prompt in EVERY.values():
        with_values = {argument for name, argument in table if name == prompt.name and table[name, argument]}
        assert with_values == {each.name for each in prompt.arguments if each.completes}
        assert callable(table[prompt.name, "model"])


def test_listed_values_are_offered_as_they_are() -> None:
    table = completions(EVERY)
    focus, labels = table["second-opinion", "focus"], table["classify", "labels"]
    assert not callable(focus)
    assert not callable(labels)
    assert "risks" in focus
    assert len(labels) <= MAX_VALUES
