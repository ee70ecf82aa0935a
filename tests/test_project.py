"""The repository: lock files, reasons, levels, the wheel, and the messages of the set-up where something is missing."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kimi_mcp.view import documents

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = [
    ROOT / "requirements" / f"{name}.txt"
    for name in ("runtime", "dev", "server", "build", "docs", "agents", "agents-adk", "agents-sdk1", "deploy")
]

PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+)( ; .+?)?( --hash=sha256:[0-9a-f]{64})+")
PACKAGES = ("__init__", "cli", "core", "pipeline", "policy", "provider", "runs", "server", "simulator")


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )


def pins(lock: Path) -> dict[str, str]:
    """The lock's packages and versions; every line of it must be a pin with its hashes."""
    kept = [line for line in lock.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, str] = {}
    for line in "\n".join(kept).replace(" \\\n", " ").splitlines():
        pin = PIN.fullmatch(re.sub(r"\s+", " ", line.strip()))
        assert pin, f"{lock.name}: not a pin with hashes: {line[:120]}"
        found[pin["name"]] = pin["version"]
    return found


def name_of(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def direct_dependencies() -> list[str]:
    groups = [*PYPROJECT["project"]["optional-dependencies"].values(), *PYPROJECT["dependency-groups"].values()]
    named = [*PYPROJECT["project"]["dependencies"], *(entry for group in groups for entry in group)]
    return sorted({name_of(entry) for entry in named if isinstance(entry, str)})


# --------------------------------------------------------------------------------------------------- locks


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_pins_every_package_with_hashes(lock: Path) -> None:
    assert pins(lock)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_names_no_address_and_no_option(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"(?m)^\s*-", text.replace("    --hash=sha256:", "")), "an option to pip stands in the lock"
    assert not re.search(r"file:|\s@\s|/(home|tmp|usr)/", text)


def test_dev_holds_all_that_is_installed_elsewhere_in_the_same_versions() -> None:
    runtime, dev, server, build, *_ = (pins(lock) for lock in LOCKS)
    for other in (runtime, server, build):
        assert other.items() <= dev.items()


def test_what_pyproject_asks_for_is_locked() -> None:
    runtime, dev, *others = (pins(lock) for lock in LOCKS)
    needed = {name_of(entry) for entry in PYPROJECT["project"]["dependencies"]}
    extras = {name_of(entry) for extra in PYPROJECT["project"]["optional-dependencies"].values() for entry in extra}
    assert needed <= runtime.keys()
    assert needed | extras <= pins(ROOT / "requirements" / "server.txt").keys()
    assert {name_of(entry) for entry in PYPROJECT["dependency-groups"]["build"]} <= runtime.keys()
    assert set(direct_dependencies()) <= set(dev).union(*others)


# --------------------------------------------------------------------------------------------------- reasons


def test_every_dependency_has_its_reason() -> None:
    rows = re.findall(r"(?m)^\| (`.+?`) \| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    reasons = {name_of(name): reason for names, reason in rows for name in re.findall(r"`([^`]+)`", names)}
    missing = [name for name in direct_dependencies() if len(reasons.get(name, "")) < 20]
    assert not missing, "rows for the table of dependencies in CONTRIBUTING.md"


def test_decisions_are_numbered_without_gaps_and_listed() -> None:
    pages = sorted(page.name for page in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [int(page[:4]) for page in pages] == list(range(1, len(pages) + 1))
    index = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\d{4}-[^)]+)\)", index) == pages


# ------------------------------------------------------------------------------------------------ packages


def lint_imports(cwd: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    return run(sys.executable, "-c", program, "--no-cache", cwd=cwd, PYTHONPATH=str(cwd))


def test_imports_go_downward_only() -> None:
    outcome = lint_imports(ROOT)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.parametrize(
    ("package", "line", "contract"),
    [
        ("policy", "from kimi_mcp import pipeline", "Imports go downward only"),
        ("core", "def f(): import kimi_mcp.runs", "Imports go downward only"),
        ("simulator", "from kimi_mcp import core", "Imports go downward only"),
        ("pipeline", "from kimi_mcp import simulator", "The simulator stands apart"),
        ("pipeline", "def f(): import openai", "Only the provider package speaks to a provider"),
        ("attic", "", "Imports go downward only"),
    ],
    ids=[
        "up",
        "up-inside-a-function",
        "simulator-uses-ours",
        "ours-uses-simulator",
        "openai-elsewhere",
        "no-level",
    ],
)
def test_a_wrong_import_breaks_its_contract(package: str, line: str, contract: str, tmp_path: Path) -> None:
    folder = tmp_path / "kimi_mcp"
    folder.mkdir()
    for name in PACKAGES:
        (folder / f"{name}.py").touch()
    (folder / f"{package}.py").write_text(line + "\n", encoding="utf-8")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    outcome = lint_imports(tmp_path)

    broken = re.findall(r"(?m)^(.+?)\s+BROKEN$", outcome.stdout)
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    assert any(name.startswith(contract) for name in broken), outcome.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("kimi_mcp/server/tools.py", "from mcp.server import Server"),
        ("kimi_mcp/pipeline/pipeline.py", "import mcp.server.lowlevel"),
        ("kimi_mcp/pipeline/pipeline.py", "def f():\n    from mcp import stdio_server\n"),
        ("kimi_mcp/pipeline/other.py", "from openai import AsyncOpenAI"),
        ("kimi_mcp/media/fetch.py", "import httpx"),
    ],
)
def test_a_banned_import_is_seen(file: str, line: str) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select=TID251", "--output-format=json", "--stdin-filename", file],
        cwd=ROOT,
        input=line,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert [found["code"] for found in json.loads(outcome.stdout)] == ["TID251"]


def types_of(module: ast.Module) -> Iterator[str]:
    """The names of its classes, and of its aliases."""
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            yield node.name
    for node in module.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (each.id for each in targets if isinstance(each, ast.Name) and re.match("_?[A-Z].*[a-z]", each.id))


def test_no_two_types_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path in (ROOT / "kimi_mcp").rglob("*.py"):
        for name in types_of(ast.parse(path.read_text("utf-8"))):
            places.setdefault(name.lstrip("_"), []).append(path.relative_to(ROOT).as_posix())
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


# --------------------------------------------------------------------------------------------------- wheel


@pytest.mark.parametrize("entry", documents.ENTRIES)
def test_the_modules_of_the_page_can_be_joined(entry: str) -> None:
    assert documents.joined(entry)


def test_the_wheel_holds_the_types_the_data_and_the_skill(tmp_path: Path) -> None:
    outcome = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr

    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    data = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "kimi_mcp").rglob("*")
        if path.suffix in {".py", ".toml", ".json", ".js", ".css", ".html", ".LICENSE"} or path.name == "py.typed"
    }
    assert data | {"kimi_mcp/skill/skill.md", "kimi_mcp/skill/agent-skill/kimi-k2-5/SKILL.md"} <= held
    assert not {name for name in held if name.startswith(("tests/", "docs/", "scripts/", "requirements/"))}


# --------------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize("wrong", [(), ("lint",), ("test",), ("soak",), ("lint", "test")], ids=str)
def test_every_part_runs_whatever_the_one_before_says_and_any_failure_is_one(
    wrong: tuple[str, ...], tmp_path: Path
) -> None:
    make = tmp_path / "make"
    fails = f'case "$1" in {"|".join(wrong) or "none"}) exit 2;; esac'
    make.write_text(f'#!/bin/sh\necho "$@"\n{fails}\n', encoding="utf-8")
    make.chmod(0o755)
    outcome = run(ROOT / ".ci" / "run", PATH=os.pathsep.join((str(tmp_path), os.environ["PATH"])))
    assert outcome.stdout.split() == ["lint", "test", "soak"]
    assert (outcome.returncode != 0) == bool(wrong)


def test_each_test_is_run_by_one_of_the_two_targets() -> None:
    for target, which in (("test", '"not soak"'), ("soak", "soak")):
        (line,) = [line for line in run("make", "-n", target).stdout.splitlines() if "pytest" in line]
        assert f" -m {which} " in f"{line} "


# --------------------------------------------------------------------------------------------------- set-up


def make_with(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """`make demo` in a fresh folder whose only Python is `script`."""
    python = tmp_path / "a python"
    python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    python.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "requirements"):
        (tmp_path / name).symlink_to(ROOT / name)
    return run("make", "demo", f'PYTHON="{python}"', cwd=tmp_path, MAKEFLAGS="", MFLAGS="")


def test_a_python_without_venv_names_the_package_to_install(tmp_path: Path) -> None:
    outcome = make_with(tmp_path, 'case "$*" in *ensurepip*) exit 1;; --version) echo Python 3.12.0;; esac')
    assert outcome.returncode != 0
    assert "Python 3.12.0" in outcome.stderr
    assert "apt install python3-venv" in outcome.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_python_that_is_too_old_is_reported(tmp_path: Path) -> None:
    outcome = make_with(tmp_path, "exit 1")
    assert outcome.returncode != 0
    assert "needs Python 3.11 or later" in outcome.stderr
    assert "make PYTHON=" in outcome.stderr
