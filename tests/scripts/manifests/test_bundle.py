"""The bundle: what is in it, and that it runs once it is unpacked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import anyio
import mcp
import pytest
from mcp.client.stdio import StdioServerParameters

from kimi_mcp.core.version import __version__
from kimi_mcp.skill.document import load_skill
from scripts.manifests import bundle
from scripts.manifests.facts import ROOT


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    packed = bundle.pack(tmp_path / "dist")
    assert packed.name == f"kimi-mcp-{__version__}.mcpb"
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "un packed")
    return tmp_path / "un packed"


async def test_it_runs_once_it_is_unpacked_from_any_folder(unpacked: Path, data_dir: Path) -> None:
    server = json.loads((unpacked / "manifest.json").read_text("utf-8"))["server"]
    assert (unpacked / server["entry_point"]).is_file()
    program = server["mcp_config"]["args"][-1].replace("${__dirname}", str(unpacked))
    skill = unpacked / "kimi_mcp" / "skill" / "skill.md"
    skill.write_text(skill.read_text("utf-8") + "\nOf the bundle.\n", "utf-8")
    # This environment's packages, as uv would have fetched them; a script's own folder comes before them.
    start = StdioServerParameters(
        command=sys.executable,
        args=[program],
        env={"KIMI_API_KEY": "${user_config.kimi_api_key}", "KIMI_PROVIDER": "", "KIMI_DATA_DIR": str(data_dir)},
        cwd=os.sep,
    )
    with anyio.fail_after(60):
        async with mcp.Client(start) as client:
            tools = await client.list_tools()
            resource = await client.read_resource("kimi://skill")
    assert [tool.name for tool in tools.tools] == [tool.name for tool in load_skill().tools]
    assert "Of the bundle." in str(resource.contents), "it reads its own files, not the checkout's"


def test_it_holds_our_code_and_data_and_nothing_of_a_machine(unpacked: Path) -> None:
    held = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "kimi_mcp").rglob("*")
        if path.suffix in {".py", ".toml"} or path.name == "py.typed"
    }
    assert ours <= held
    skills = {"kimi_mcp/skill/skill.md", "kimi_mcp/skill/agent-skill/kimi-k2-5/SKILL.md"}
    assert {"manifest.json", "pyproject.toml", "server.py", "LICENSE", *skills} <= held
    assert not [name for name in held if "__pycache__" in name or name.startswith(("tests", ".", "docs"))]


def test_uv_gets_the_versions_of_the_lock_and_builds_nothing(unpacked: Path) -> None:
    project_file = tomllib.loads((unpacked / "pyproject.toml").read_text("utf-8"))
    pins = {pin.split("==")[0]: pin for pin in project_file["tool"]["uv"]["constraint-dependencies"]}
    locked = re.findall(r"(?m)^([a-z0-9-]+)==", (ROOT / "requirements/runtime.txt").read_text("utf-8"))
    assert sorted(pins) == sorted(locked)
    assert "build-system" not in project_file
    assert project_file["tool"]["uv"]["package"] is False
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project_file["project"]["dependencies"] == project["dependencies"]


def test_the_same_checkout_packs_the_same_bytes(tmp_path: Path) -> None:
    assert bundle.pack(tmp_path / "a").read_bytes() == bundle.pack(tmp_path / "b").read_bytes()


def test_make_bundle_calls_it() -> None:
    outcome = subprocess.run(["make", "-n", "bundle"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "scripts.manifests.bundle" in outcome.stdout
