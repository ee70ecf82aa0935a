"""The protocol's own conformance suite, from npm, against a server over HTTP: what needs no server of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from anyio import to_thread

from kimi_mcp.simulator import Simulator
from tests.npm import CONFORMANCE, run
from tests.server.http.served import served

pytestmark = pytest.mark.soak

NOT_OFFERED = {
    "logging": ("logging-set-level", "tools-call-with-logging"),
    "subscriptions to resources: ours change with every call": ("resources-subscribe", "resources-unsubscribe"),
    "streams that are taken up again: a run is fetched by its id": ("server-sse-polling",),
}
"""Scenarios that fail because of what we do not offer, and why."""

FIXTURES = {
    "a tool `test_…` that returns pictures, sounds and resources": (
        "tools-call-image",
        "tools-call-audio",
        "tools-call-embedded-resource",
        "tools-call-mixed-content",
        "tools-call-with-progress",
        "json-schema-2020-12",
    ),
    "a tool that asks the client's model or user": (
        "tools-call-sampling",
        "tools-call-elicitation",
        "elicitation-sep1034-defaults",
        "elicitation-sep1330-enums",
        "input-required-result-basic-elicitation",
        "input-required-result-basic-sampling",
        "input-required-result-basic-list-roots",
        "input-required-result-request-state",
        "input-required-result-multiple-input-requests",
        "input-required-result-multi-round",
        "input-required-result-non-tool-request",
        "input-required-result-result-type",
        "input-required-result-tampered-state",
        "input-required-result-capability-check",
        "input-required-result-missing-input-response",
        "input-required-result-validate-input",
    ),
    "a tool `test_missing_capability`": ("server-stateless",),
    "a tool with `x-mcp-header`": ("http-custom-header-server-validation",),
    "resources `test://…`": ("resources-read-text", "resources-read-binary", "resources-templates-read"),
    "prompts `test_…`": (
        "prompts-get-simple",
        "prompts-get-with-args",
        "prompts-get-embedded-resource",
        "prompts-get-with-image",
    ),
}
"""Scenarios that fail because they call what only the suite's own server has, and what that is."""

SKILLS = ("sep-2640-skills-directory", "sep-2640-skills-enumeration", "sep-2640-skills-manifest")


async def verdict(sim: Simulator, home: Path, *arguments: str) -> tuple[int, str]:
    """The exit status and the words of the suite, which fails for a scenario that should, too, if it passes."""
    expected = home / "expected.yml"
    names = [name for group in (NOT_OFFERED, FIXTURES) for each in group.values() for name in each]
    expected.write_text("server:\n" + "".join(f"  - {name}\n" for name in names))
    async with served(sim) as http:
        command = ["server", "--url", http.serving.local_url, "--expected-failures", str(expected), *arguments]
        ended = await to_thread.run_sync(partial(run, CONFORMANCE, *command, home=home, NO_PROXY="127.0.0.1"))
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25", "2026-07-28"])
async def test_every_scenario_of_a_version_passes_but_those_that_can_not(
    sim: Simulator, tmp_path: Path, version: str
) -> None:
    status, words = await verdict(sim, tmp_path, "--suite", "all", "--spec-version", version)
    assert status == 0, words


@pytest.mark.parametrize("scenario", SKILLS)
async def test_every_scenario_of_skills_passes(sim: Simulator, tmp_path: Path, scenario: str) -> None:
    status, words = await verdict(sim, tmp_path, "--scenario", scenario)
    assert status == 0, words
