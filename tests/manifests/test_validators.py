"""Each manifest before its real validator. One that can't be had here is skipped, with a word."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from kimi_mcp.manifests import FOLDER
from kimi_mcp.manifests.facts import ROOT

MANIFESTS = ROOT / FOLDER
MCPB = "@anthropic-ai/mcpb@2.1.2"


def run(*command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NO_COLOR": "1"} | more
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180, env=environment)


def schema(*path: str) -> dict[str, object]:
    """A published schema, from the linter that carries it."""
    spec = find_spec("skillsaw")
    assert spec is not None
    assert spec.origin is not None
    return json.loads(Path(spec.origin).parent.joinpath("schemas", *path).read_text("utf-8"))


def program(name: str) -> Path:
    """A command of this environment."""
    return Path(sys.executable).with_name(name)


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


@pytest.mark.parametrize("folder", ["", "agent-plugins", "claude-code", "gemini-cli", "mcp-registry", "skills"])
def test_skillsaw_finds_nothing(folder: str) -> None:
    outcome = run(program("skillsaw"), "lint", MANIFESTS / folder)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    # The skill is one document, and longer than this linter likes; the specification's own bound stands below.
    warned = [line for line in outcome.stdout.splitlines() if "WARNING" in line and "(context-budget)" not in line]
    assert warned == []


def test_the_skill_is_no_longer_than_its_specification_advises() -> None:
    assert len((MANIFESTS / "skills/kimi-k2-5/SKILL.md").read_text("utf-8").splitlines()) < 500


def test_agent_skills_take_the_skill() -> None:
    for skill in sorted(MANIFESTS.rglob("SKILL.md")):
        outcome = run(program("agentskills"), "validate", skill.parent)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.fixture(scope="session")
def mcpb(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the bundles' validator: the installed one, else the one that npm has."""
    if (installed := shutil.which("mcpb")) is not None:
        return [installed]
    npx = shutil.which("npx")
    if npx is None:
        pytest.skip("mcpb validate needs Node: there is no npx here")
    command = [npx, "--yes", "--prefer-offline", MCPB]
    try:
        outcome = run(*command, "--version")
    except subprocess.TimeoutExpired:
        pytest.skip("mcpb could not be fetched from npm in time")
    if outcome.returncode != 0:
        pytest.skip("mcpb could not be fetched from npm")
    return command


def test_the_bundle_s_manifest_is_valid(mcpb: list[str]) -> None:
    outcome = run(*mcpb, "validate", MANIFESTS / "mcpb/manifest.json")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_the_bundle_s_validator_refuses_what_is_wrong(mcpb: list[str], tmp_path: Path) -> None:
    value = json.loads((MANIFESTS / "mcpb/manifest.json").read_text("utf-8"))
    (tmp_path / "manifest.json").write_text(json.dumps(value | {"nonsense": 1}), "utf-8")
    assert run(*mcpb, "validate", tmp_path / "manifest.json").returncode != 0


@pytest.mark.parametrize("folder", ["claude-code", "claude-code/kimi"])
def test_claude_code_takes_the_plugin_and_the_marketplace(folder: str, tmp_path: Path) -> None:
    if (claude := shutil.which("claude")) is None:
        pytest.skip("claude plugin validate needs Claude Code: it is not installed here")
    outcome = run(claude, "plugin", "validate", "--strict", MANIFESTS / folder, HOME=str(tmp_path))
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_gemini_cli_takes_the_extension(tmp_path: Path) -> None:
    if (gemini := shutil.which("gemini")) is None:
        pytest.skip("gemini extensions validate needs Gemini CLI: it is not installed here")
    outcome = run(gemini, "extensions", "validate", MANIFESTS / "gemini-cli", HOME=str(tmp_path))
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
