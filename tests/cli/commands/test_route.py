"""``kimi-mcp route``: the same as ``kimi_mcp.route``, for a shell."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner, Result

from kimi_mcp import route
from kimi_mcp.cli.commands import app
from tests.cli.commands.shell import kimi


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["route", *arguments], input=stdin)


def test_a_person_reads_the_tool_why_and_the_score() -> None:
    shown = run("Kimi, what is wrong on this screenshot?")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[0].strip() == "kimi_vision"
    assert "“this screenshot” (+6)" in shown.stdout
    assert "14 points" in shown.stdout


def test_a_sentence_that_does_not_name_the_skill_is_reported_as_one() -> None:
    assert "not named" in run("What is wrong on this screenshot?").stdout


async def test_a_program_reads_the_same_as_json() -> None:
    ended = await kimi("route", "use the agent swarm to research 50 companies", "--json")
    assert ended.status == 0
    assert ended.json == route("use the agent swarm to research 50 companies").as_json()
    assert {"tool", "score", "matched", "why"} <= set(ended.json)
    assert ended.json["score"] == 21


def test_what_is_attached_is_reported_by_options() -> None:
    assert "kimi_vision" in run("thoughts?", "--images", "2").stdout.splitlines()[0]
    assert "kimi_video" in run("thoughts?", "--videos", "1").stdout.splitlines()[0]


def test_a_text_comes_from_stdin_too() -> None:
    assert run("-", "--json", stdin="Watch demo.mp4.").stdout == run("Watch demo.mp4.", "--json").stdout


@pytest.mark.parametrize("arguments", [(), ("x", "--images", "-1"), ("x", "--videos", "many"), ("x", "y")])
def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
