"""``kimi-mcp models``, ``policy`` and the frame around all commands."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kimi_mcp import catalogue
from kimi_mcp.cli import console
from kimi_mcp.cli.commands import app
from kimi_mcp.core.version import __version__
from kimi_mcp.pipeline.route import today
from kimi_mcp.policy import load_rules
from tests.cli.commands.shell import started

COMMANDS = (
    *("serve", "demo", "ask", "ui", "simulator", "doctor", "models", "route", "files"),
    *("install", "uninstall", "selfhost", "policy", "runs", "tokens", "cluster"),
)
RUNS = [("runs", name) for name in ("list", "show", "resume", "cancel", "costs", "prune")]
TOKENS = [("tokens", name) for name in ("add", "list", "revoke")]


def kimi(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def test_the_version_is_reported() -> None:
    assert kimi("--version").stdout == f"kimi-mcp {__version__}\n"


@pytest.mark.parametrize(
    "command", [(), *((name,) for name in COMMANDS), ("policy", "check"), ("cluster", "drain"), *RUNS, *TOKENS]
)
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    shown = kimi(*command, "--help")
    assert shown.exit_code == 0
    assert "Usage: " in shown.stdout
    assert "…" not in shown.stdout.partition("Options")[0]


def test_the_help_lists_every_command_with_a_whole_sentence() -> None:
    listed = kimi("--help").stdout.partition("Commands:")[2].strip().splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


def test_a_pipe_gets_one_aligned_line_for_each_row_of_the_catalogue() -> None:
    head, *lines = kimi("models").stdout.splitlines()
    rows = catalogue.load().rows(today())
    assert len(lines) == len(rows)
    for name, values in (
        ("MODEL", [row.model for row in rows]),
        ("STATE", [row.state for row in rows]),
        ("DATE", [row.checked.isoformat() for row in rows]),
        ("SOURCE", [row.source for row in rows]),
    ):
        assert all(line[head.index(name) :].startswith(value) for line, value in zip(lines, values, strict=True)), name


def test_the_catalogue_as_json_has_every_row() -> None:
    assert json.loads(kimi("models", "--json").stdout) == [row.as_json() for row in catalogue.load().rows(today())]


def test_the_catalogue_is_narrowed_by_provider_and_model() -> None:
    rows = json.loads(kimi("models", "--json", "--provider", "moonshot", "--model", "kimi-k2.6").stdout)
    assert [(row["provider"], row["model"]) for row in rows] == [("moonshot", "kimi-k2.6")]


@pytest.mark.parametrize(
    ("arguments", "near"),
    [(("--provider", "moonshoot"), "moonshot"), (("--model", "kimi-k2.55"), "kimi-k2.5")],
)
def test_a_name_that_the_catalogue_does_not_know_is_answered_with_the_nearest(
    arguments: tuple[str, str], near: str
) -> None:
    shown = kimi("models", *arguments)
    assert shown.exit_code == 2
    assert near in shown.stderr.replace(arguments[1], "")


def test_nothing_heavy_is_imported_to_read_a_command_line() -> None:
    program = "import sys; from kimi_mcp.cli.commands import app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    heavy = {"anyio", "mcp", "openai", "pydantic", "rich.console", "kimi_mcp.pipeline.pipeline", "kimi_mcp.simulator"}
    assert not heavy & set(done.stdout.split())


async def test_a_pipe_that_nobody_reads_any_more_is_no_fault() -> None:
    async with started("models") as process:
        assert process.stdout is not None
        await process.stdout.aclose()
        assert process.stderr is not None
        printed = b"".join([piece async for piece in process.stderr])
    assert b"Traceback" not in printed
    assert b"bug of" not in printed


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [80, 120])
def test_what_a_person_sees_fits_the_width(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from kimi_mcp.cli.commands.models import models

    screen = Screen()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(console.sys, "stdout", screen)
    models(sources=True)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()
    assert max(map(len, lines)) <= columns
    assert any("kimi-k2.7-code-highspeed" in line for line in lines)


def test_every_rule_is_shown_with_its_reason_and_its_source() -> None:
    shown = kimi("policy").stdout
    for rule in load_rules().values():
        assert f"\n{rule.id}\n" in f"\n{shown}"
        assert rule.guards in shown
        assert f"{rule.source} ({rule.date.isoformat()})" in shown
    assert "{" not in shown


def test_the_rules_as_json_are_the_rows() -> None:
    assert json.loads(kimi("policy", "--json").stdout) == [rule.as_json() for rule in load_rules().values()]
    assert all(date.fromisoformat(rule["date"]) for rule in json.loads(kimi("policy", "--json").stdout))


def test_what_the_users_catalogue_changes_is_shown_as_theirs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "right/providers").mkdir(parents=True)
    (tmp_path / "right/providers/novita.toml").write_text('[[models]]\nmodel = "kimi-k2.5"\nuntil = 2026-01-01\n')
    monkeypatch.setenv("KIMI_CATALOGUE", str(tmp_path / "right"))
    head, *lines = kimi("models", "--provider", "novita").stdout.splitlines()
    assert head.endswith("YOURS")
    assert [line.endswith("providers/novita.toml") for line in lines] == [True, False, False, False, False]
    assert "ended 2026-01-01" in lines[0]
    found = json.loads(kimi("doctor", "--json").stdout)
    assert found["user_files"] == [{"file": "providers/novita.toml", "adds": False}]
    (tmp_path / "wrong/providers").mkdir(parents=True)
    (tmp_path / "wrong/providers/novita.toml").write_text("[abuot]\n")
    monkeypatch.setenv("KIMI_CATALOGUE", str(tmp_path / "wrong"))
    wrong = kimi("models")
    assert (wrong.exit_code, "providers/novita.toml: abuot is not a key here" in wrong.stderr) == (1, True)
