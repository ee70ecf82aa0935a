"""``kimi-mcp policy check``: what the rules say of bodies that others wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from kimi_mcp.cli.commands import app

USER = {"role": "user", "content": "What is 17 * 23?"}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


def body(*turns: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "kimi-k2.6", "messages": list(turns) or [USER], "max_completion_tokens": 32_768, **more}


def part(kind: str, url: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": "Look."}, {"type": kind, kind: {"url": url}}]}


def check(tmp_path: Path, given: object, *options: str) -> Result:
    file = tmp_path / "body.json"
    file.write_text(given if isinstance(given, str) else json.dumps(given), encoding="utf-8")
    return CliRunner().invoke(app, ["policy", "check", str(file), *options])


def test_a_clean_body_passes(tmp_path: Path) -> None:
    shown = check(tmp_path, body())
    assert shown.exit_code == 0, shown.output
    assert "No rule objects." in shown.stdout
    assert "kimi-k2.6 at moonshot" in shown.stdout
    found = json.loads(check(tmp_path, body(), "--json").stdout)
    assert found["findings"] == []
    assert (found["provider"], found["model"], found["mode"]) == ("moonshot", "kimi-k2.6", "thinking")


CALLED = {"id": "functions.look_up:0", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
TOOL_LOOP = (
    USER,
    {"role": "assistant", "tool_calls": [CALLED]},
    {"role": "tool", "tool_call_id": "functions.look_up:0", "content": "391"},
)


@pytest.mark.parametrize(
    ("rule", "given", "options"),
    [
        ("temperature-fixed", body(temperature=0.7), ()),
        ("temperature-fixed", body(temperature=0.6), ()),
        ("top-p-fixed", body(top_p=1), ()),
        ("video-provider", body(part("video_url", "data:video/mp4;base64,AAAA")), ("--provider", "vllm")),
        ("reasoning-replayed", body(*TOOL_LOOP, tools=[TOOL]), ()),
        ("media-inline", body(part("image_url", "http://example.org/cat.png")), ()),
        ("tool-choice-thinking", body(tools=[TOOL], tool_choice="required"), ()),
        ("media-token", body({"role": "user", "content": "Look: <|media_start|>image"}), ()),
        ("model-served", body(model="kimi-k2.5"), ()),
    ],
    ids=["temperature", "of-instant", "top-p", "video", "no-reasoning", "http-url", "forced-tool", "token", "retired"],
)
def test_a_rule_objects(rule: str, given: dict[str, Any], options: tuple[str, ...], tmp_path: Path) -> None:
    shown = check(tmp_path, given, *options)
    assert shown.exit_code == 1, shown.output
    assert f"{rule}: " in shown.stdout
    assert shown.stderr == ""
    found = json.loads(check(tmp_path, given, *options, "--json").stdout)
    assert rule in [finding["rule"] for finding in found["findings"]]


def test_what_no_rule_reads_is_named_and_changes_nothing(tmp_path: Path) -> None:
    given = body(thinking="off", stop=["a", "b", "c", "d", "e", "f"])
    shown = check(tmp_path, given)
    assert shown.exit_code == 0, shown.output
    assert "No rule objects." in shown.stdout
    assert "Not judged: thinking, stop." in shown.stdout
    assert json.loads(check(tmp_path, given, "--json").stdout)["not_judged"] == ["thinking", "stop"]
    objected = check(tmp_path, {**given, "temperature": 0.7})
    assert objected.exit_code == 1
    assert "Not judged: thinking, stop." in objected.stdout


def test_a_body_that_is_judged_whole_gets_no_such_line(tmp_path: Path) -> None:
    assert "Not judged" not in check(tmp_path, body(stream=True, stream_options={"include_usage": True})).stdout
    assert json.loads(check(tmp_path, body(), "--json").stdout)["not_judged"] == []


def test_a_field_s_name_moves_no_cursor(tmp_path: Path) -> None:
    assert "\x1b" not in check(tmp_path, body(**{"\x1b[2Jgone": 1})).stdout


def test_a_right_temperature_in_instant_mode_passes(tmp_path: Path) -> None:
    shown = check(tmp_path, body(temperature=0.6, thinking={"type": "disabled"}))
    assert shown.exit_code == 0, shown.output


def test_stdin_is_read_for_a_dash() -> None:
    shown = CliRunner().invoke(app, ["policy", "check", "-"], input=json.dumps(body(temperature=0.7)))
    assert shown.exit_code == 1
    assert "temperature-fixed" in shown.stdout


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{", "no JSON"),
        ("[1, 2]", "no object"),
        ("[" * 100_000, "can't be read as JSON"),
        ('{"messages": []}', "names no model"),
        (json.dumps(body() | {"messages": []}), "no chat-completions body"),
        (json.dumps(body() | {"messages": [{"role": "wizard"}]}), "no chat-completions body"),
        (json.dumps(body() | {"model": "kimi-k2.66"}), "kimi-k2.6"),
    ],
    ids=["broken", "a list", "deep", "no model", "no messages", "odd role", "odd model"],
)
def test_what_is_no_body_is_reported_in_a_sentence(given: str, words: str, tmp_path: Path) -> None:
    shown = check(tmp_path, given)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert words in shown.stderr
    assert shown.stderr.startswith("kimi-mcp: ")


def test_a_file_that_is_not_there_is_reported_in_a_sentence(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["policy", "check", str(tmp_path / "none.json")])
    assert shown.exit_code == 2
    assert "none.json can't be read" in shown.stderr
    assert str(tmp_path) not in shown.stderr


def test_the_configured_provider_is_the_one_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIMI_PROVIDER", "vllm")
    found = json.loads(check(tmp_path, body(model="kimi-k2.5"), "--json").stdout)
    assert found["provider"] == "vllm"


def test_a_provider_s_own_id_finds_its_provider(tmp_path: Path) -> None:
    found = json.loads(check(tmp_path, body(model="accounts/fireworks/models/kimi-k2p6"), "--json").stdout)
    assert (found["provider"], found["model"]) == ("fireworks", "kimi-k2.6")


def test_the_model_that_is_reported_counts_instead_of_the_body_s(tmp_path: Path) -> None:
    found = json.loads(check(tmp_path, body(model="my-alias"), "--model", "kimi-k3", "--json").stdout)
    assert found["model"] == "kimi-k3"


def test_a_provider_that_there_is_not_is_answered_with_the_names(tmp_path: Path) -> None:
    shown = check(tmp_path, body(), "--provider", "moonshoot")
    assert shown.exit_code == 2
    assert "moonshot" in shown.stderr
