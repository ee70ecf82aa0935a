"""Each manifest before its real validator. One that can't be had here is skipped, with a word."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from scripts.manifests import FOLDER
from scripts.manifests.facts import ROOT
from tests.npm import CLAUDE, CODEX, GEMINI, MCPB, run

MANIFESTS = ROOT / FOLDER


def linted(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command of this environment, run to its end."""
    command = [Path(sys.executable).with_name(name), *arguments]
    environment = os.environ | {"NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


def broken(folder: str, file: str, home: Path, change: Any) -> Path:
    """A copy of a folder of the manifests, in which one file says something else."""
    copy = shutil.copytree(MANIFESTS / folder, home / "copy")
    value = json.loads((copy / file).read_text("utf-8"))
    (copy / file).write_text(json.dumps(change(value)), "utf-8")
    return copy


def without(name: str) -> Any:
    return lambda value: {key: inner for key, inner in value.items() if key != name}


# ------------------------------------------------------------------------------------------------- published schemas


def schema(*path: str) -> dict[str, object]:
    """A published schema, from the linter that carries it."""
    spec = find_spec("skillsaw")
    assert spec is not None
    assert spec.origin is not None
    return json.loads(Path(spec.origin).parent.joinpath("schemas", *path).read_text("utf-8"))


def test_the_mcp_registry_takes_its_entry() -> None:
    value = json.loads((MANIFESTS / "mcp-registry/server.json").read_text("utf-8"))
    published = schema("mcp_registry", "v2025_12_11", "server.schema.json")
    assert value["$schema"] == published["$id"]
    assert [error.message for error in Draft7Validator(published).iter_errors(value)] == []


@pytest.mark.parametrize(("file", "name"), [("plugin.json", "plugin"), ("mcp.json", "mcp")])
def test_agent_plugins_take_their_files(file: str, name: str) -> None:
    value = json.loads((MANIFESTS / "agent-plugins" / file).read_text("utf-8"))
    published = schema("agent_plugins", "v1_0_0", f"{name}.schema.json")
    assert value["$schema"] == published["$id"]
    assert [error.message for error in Draft202012Validator(published).iter_errors(value)] == []


def test_the_published_schemas_refuse_what_is_wrong() -> None:
    server = json.loads((MANIFESTS / "mcp-registry/server.json").read_text("utf-8"))
    registry = Draft7Validator(schema("mcp_registry", "v2025_12_11", "server.schema.json"))
    assert not registry.is_valid(without("name")(server))
    assert not registry.is_valid(server | {"description": "x" * 101})
    for name in ("plugin", "mcp"):
        value = json.loads((MANIFESTS / f"agent-plugins/{name}.json").read_text("utf-8"))
        published = Draft202012Validator(schema("agent_plugins", "v1_0_0", f"{name}.schema.json"))
        assert not published.is_valid(value | {"$schema": "https://example.com/"})


# ------------------------------------------------------------------------------------------------- linters


@pytest.mark.soak
@pytest.mark.parametrize("folder", ["", "agent-plugins", "claude-code", "gemini-cli", "mcp-registry", "skills"])
def test_skillsaw_finds_nothing(folder: str) -> None:
    outcome = linted("skillsaw", "lint", MANIFESTS / folder)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    # The skill is one document, and longer than this linter likes; the specification's own bound stands below.
    warned = [line for line in outcome.stdout.splitlines() if "WARNING" in line and "(context-budget)" not in line]
    assert warned == []


def test_skillsaw_finds_what_is_wrong(tmp_path: Path) -> None:
    copy = broken("agent-plugins", "mcp.json", tmp_path, lambda value: value | {"mcpServers": 3})
    assert linted("skillsaw", "lint", copy).returncode != 0


def test_the_skill_is_no_longer_than_its_specification_advises() -> None:
    assert len((MANIFESTS / "skills/kimi-k2-5/SKILL.md").read_text("utf-8").splitlines()) < 500


def test_agent_skills_take_the_skill() -> None:
    for skill in sorted(MANIFESTS.rglob("SKILL.md")):
        outcome = linted("agentskills", "validate", skill.parent)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_agent_skills_refuse_what_is_wrong(tmp_path: Path) -> None:
    copy = shutil.copytree(MANIFESTS / "skills/kimi-k2-5", tmp_path / "another-name")
    outcome = linted("agentskills", "validate", copy)
    assert outcome.returncode != 0
    assert "another-name" in outcome.stdout + outcome.stderr


# ------------------------------------------------------------------------------------------------- hosts' own


@pytest.mark.soak
def test_the_bundle_s_manifest_is_valid(tmp_path: Path) -> None:
    outcome = run(MCPB, "validate", MANIFESTS / "mcpb/manifest.json", home=tmp_path)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.soak
def test_the_bundle_s_validator_refuses_what_is_wrong(tmp_path: Path) -> None:
    copy = broken("mcpb", "manifest.json", tmp_path, lambda value: value | {"nonsense": 1})
    outcome = run(MCPB, "validate", copy / "manifest.json", home=tmp_path)
    assert outcome.returncode != 0
    assert "nonsense" in outcome.stdout + outcome.stderr


@pytest.mark.soak
@pytest.mark.parametrize("folder", ["claude-code", "claude-code/kimi"])
def test_claude_code_takes_the_plugin_and_the_marketplace(folder: str, tmp_path: Path) -> None:
    outcome = run(CLAUDE, "plugin", "validate", "--strict", MANIFESTS / folder, home=tmp_path)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "Advice" not in outcome.stdout, outcome.stdout


@pytest.mark.soak
@pytest.mark.parametrize(
    ("folder", "file", "change"),
    [
        ("claude-code", "marketplace.json", without("owner")),
        ("claude-code", "marketplace.json", without("description")),
        ("claude-code/kimi", "plugin.json", without("name")),
        ("claude-code/kimi", "plugin.json", lambda value: value | {"nonsense": 1}),
    ],
    ids=["no-owner", "no-description", "no-name", "nonsense"],
)
def test_claude_code_refuses_what_is_wrong(folder: str, file: str, change: Any, tmp_path: Path) -> None:
    copy = broken(folder, f".claude-plugin/{file}", tmp_path, change)
    outcome = run(CLAUDE, "plugin", "validate", "--strict", copy, home=tmp_path)
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr


@pytest.mark.soak
def test_gemini_cli_takes_the_extension(tmp_path: Path) -> None:
    outcome = run(GEMINI, "extensions", "validate", MANIFESTS / "gemini-cli", home=tmp_path)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "warning" not in (outcome.stdout + outcome.stderr).lower()


@pytest.mark.soak
def test_gemini_cli_refuses_what_is_wrong(tmp_path: Path) -> None:
    copy = broken("gemini-cli", "gemini-extension.json", tmp_path, without("version"))
    outcome = run(GEMINI, "extensions", "validate", copy, home=tmp_path)
    assert outcome.returncode != 0
    assert "version" in outcome.stdout + outcome.stderr


@pytest.mark.soak
def test_codex_takes_its_settings(tmp_path: Path) -> None:
    shutil.copy(MANIFESTS / "codex/config.toml", tmp_path)
    outcome = run(CODEX, "mcp", "get", "kimi", "--json", home=tmp_path, CODEX_HOME=str(tmp_path))
    assert outcome.returncode == 0, outcome.stderr
    read = json.loads(outcome.stdout)
    assert (read["enabled"], read["transport"]["command"]) == (True, "kimi-mcp")
    assert read["transport"]["env_vars"] == ["MOONSHOT_API_KEY"]


@pytest.mark.soak
def test_codex_refuses_what_is_wrong(tmp_path: Path) -> None:
    config = (MANIFESTS / "codex/config.toml").read_text("utf-8")
    (tmp_path / "config.toml").write_text(config.replace('"kimi-mcp"', "3"), "utf-8")
    outcome = run(CODEX, "mcp", "list", home=tmp_path, CODEX_HOME=str(tmp_path))
    assert outcome.returncode != 0
    assert "mcp_servers.kimi" in outcome.stderr
