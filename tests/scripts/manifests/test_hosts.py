"""What the manifests are for: a host installs from them, starts the server and speaks with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.manifests import FOLDER
from scripts.manifests.facts import ROOT
from tests.npm import CLAUDE, GEMINI, Program, run

pytestmark = pytest.mark.soak

MANIFESTS = ROOT / FOLDER
INSTALLING: dict[Program, tuple[tuple[str | Path, ...], ...]] = {
    CLAUDE: (
        ("plugin", "marketplace", "add", MANIFESTS / "claude-code"),
        ("plugin", "install", "kimi@kimi-mcp"),
    ),
    GEMINI: (("extensions", "install", MANIFESTS / "gemini-cli", "--consent", "--skip-settings"),),
}


@pytest.fixture(params=INSTALLING, ids=lambda host: host.name)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Program:
    """A host into which somebody with that home has installed us, without answering its questions."""
    for step in INSTALLING[request.param]:
        outcome = run(request.param, *step, home=tmp_path)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return request.param


def listed(host: Program, home: Path, path: Path | None = None) -> str:
    """What the host says of our server, with the ``kimi-mcp`` of this environment or else of that folder."""
    outcome = run(host, "mcp", "list", home=home, path=path)
    (line,) = [line for line in (outcome.stdout + outcome.stderr).splitlines() if "kimi-mcp" in line]
    return line


def test_an_installed_server_is_started_and_answers(host: Program, tmp_path: Path) -> None:
    assert " Connected" in listed(host, tmp_path)


def test_a_missing_server_is_reported(host: Program, tmp_path: Path) -> None:
    (empty := tmp_path / "empty").mkdir()
    assert " Connected" not in listed(host, tmp_path, empty)
