"""Hosts with what ``install`` writes, against the simulator and a scripted model: what their models are offered.

And what they get. One run of each: its model calls every tool, makes a mistake, and ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from anyio import to_thread

from kimi_mcp.server.tools import TOOLS
from kimi_mcp.simulator import Simulator
from scripts.manifests.facts import ROOT
from tests.hosts.scripted_model import Script, Turn, Use, scripted_model
from tests.npm import CLAUDE, CLINE, CODEX, COPILOT, GEMINI, KILO, KIMI, OPENCODE, QWEN, Program, run

pytestmark = pytest.mark.soak

EXAMPLES = ROOT / "examples"
PROMPT = "Go on."
CALLS: tuple[tuple[str, Mapping[str, object], str], ...] = (
    ("kimi_think", {"prompt": "Think."}, "was asked: Think."),
    ("kimi_instant", {"prompt": "Translate."}, "was asked: Translate."),
    ("kimi_vision", {"prompt": "Look.", "images": [str(EXAMPLES / "shot.png")]}, "Media: image png"),
    ("kimi_video", {"prompt": "Watch.", "video": str(EXAMPLES / "clip.mp4")}, "Media: video mp4"),
    ("kimi_swarm", {"prompt": "Compare {{item}}.", "items": ["one", "two"]}, "[simulator]"),
    ("kimi_run", {}, "completed"),
    ("kimi_think", {"prompt": "Think.", "model": "gpt-7"}, "Leave `model` out"),
)
"""What the model calls, with what arguments, and what it must see of the result; last a mistake and its fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host, and how it is configured to use the scripted model and to ask nobody."""

    id: str
    """Its name for ``kimi-mcp install``."""
    program: Program
    arguments: tuple[str, ...]
    """Of one run to its end, before the prompt."""
    environment: Callable[[str], Mapping[str, str]] = lambda url: {}
    """Variables, from the model's address."""
    files: Callable[[str], Mapping[str, str]] = lambda url: {}
    """Files in its home, from the model's address: what somebody has there before installing."""


def codex_config(url: str) -> Mapping[str, str]:
    provider = f'[model_providers.scripted]\nname = "scripted"\nbase_url = "{url}/v1"\nwire_api = "responses"\n'
    return {".codex/config.toml": f'model = "scripted"\nmodel_provider = "scripted"\n{provider}'}


def gemini_settings(url: str) -> Mapping[str, str]:
    return {".gemini/settings.json": json.dumps({"security": {"auth": {"selectedType": "gemini-api-key"}}})}


def opencode_config(url: str) -> Mapping[str, str]:
    options = {"baseURL": f"{url}/v1", "apiKey": "a-key"}
    provider = {"npm": "@ai-sdk/openai-compatible", "options": options, "models": {"scripted": {"tool_call": True}}}
    config = json.dumps({"provider": {"scripted": provider}})
    return {".config/opencode/opencode.json": config, ".config/kilo/kilo.json": config}


def cline_settings(url: str) -> Mapping[str, str]:
    settings = {"provider": "openai-compatible", "apiKey": "a-key", "model": "scripted", "baseUrl": f"{url}/v1"}
    provider = {"settings": settings, "updatedAt": "2026-11-29T00:00:00.000Z", "tokenSource": "manual"}
    known = {"version": 1, "lastUsedProvider": "openai-compatible", "providers": {"openai-compatible": provider}}
    return {".cline/data/settings/providers.json": json.dumps(known)}


def kimi_config(url: str) -> Mapping[str, str]:
    models = '[models.moon]\nprovider = "moon"\nmodel = "kimi-k2.5"\nmax_context_size = 100000\n'
    moon = f'[providers.moon]\ntype = "kimi"\nbase_url = "{url}/v1"\napi_key = "a-key"\n'
    return {".kimi-code/config.toml": f'default_model = "moon"\n{moon}{models}'}


HOSTS = (
    Host(
        id="claude-code",
        program=CLAUDE,
        arguments=("--allowedTools", ",".join(f"mcp__kimi__{name}" for name in TOOLS), "-p"),
        environment=lambda url: {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "sk-ant-scripted"},
    ),
    Host(
        id="codex",
        program=CODEX,
        arguments=("exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
        files=codex_config,
    ),
    Host(
        id="gemini",
        program=GEMINI,
        arguments=("--model", "gemini-2.5-flash", "--yolo", "-p"),
        environment=lambda url: {"GOOGLE_GEMINI_BASE_URL": url, "GEMINI_API_KEY": "a-key"},
        files=gemini_settings,
    ),
    Host(id="kimi-code", program=KIMI, arguments=("-p",), files=kimi_config),
    Host(
        id="opencode",
        program=OPENCODE,
        arguments=("run", "--model", "scripted/scripted"),
        files=opencode_config,
    ),
    Host(
        id="qwen-code",
        program=QWEN,
        arguments=("--auth-type", "openai", "--yolo", "-p"),
        environment=lambda url: {
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_KEY": "a-key",
            "OPENAI_MODEL": "scripted",
        },
    ),
    Host(
        id="copilot",
        program=COPILOT,
        arguments=("--allow-all-tools", "-p"),
        environment=lambda url: {
            "COPILOT_OFFLINE": "true",
            "COPILOT_PROVIDER_BASE_URL": f"{url}/v1",
            "COPILOT_PROVIDER_API_KEY": "a-key",
            "COPILOT_MODEL": "scripted",
        },
    ),
    Host(
        id="cline",
        program=CLINE,
        arguments=("--auto-approve", "true"),
        environment=lambda url: {"CLINE_SESSION_BACKEND_MODE": "local"},  # else a process of it outlives the run
        files=cline_settings,
    ),
    Host(id="kilo", program=KILO, arguments=("run", "--auto", "--model", "scripted/scripted"), files=opencode_config),
)


def script(turn: Turn) -> str | Use:
    """Every call, one after the other, and then the end."""
    done = len(turn.results)
    return turn.use(CALLS[done][0], **CALLS[done][1]) if done < len(CALLS) else "That is all."


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.id)
async def test_a_host_s_model_is_offered_every_tool_and_gets_every_answer_and_error(
    host: Host, sim: Simulator, tmp_path: Path
) -> None:
    turns, printed = await run_host(host, script, tmp_path, *options(sim))
    check(turns)
    assert "That is all." in printed


def check(turns: list[Turn]) -> None:
    """The first request offered every tool, and the last one has what each call must return."""
    missing = [name for name in TOOLS if not any(each.endswith(name) for each in turns[0].offered)]
    assert missing == [], turns[0].offered
    for (tool, _, expected), result in zip(CALLS, turns[-1].results, strict=True):
        assert expected in result, tool


async def run_host(
    host: Host, script: Script, folder: Path, *installed: str, **variables: str
) -> tuple[list[Turn], str]:
    """Install, with these options, and run the host once, with these variables.

    Returns what its model was sent, and what was printed.
    """
    home = folder / "home"
    with scripted_model(script) as model:
        for name, text in host.files(model.url).items():
            (file := home / name).parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        install(host.id, home, *installed)
        environment = {"NO_PROXY": "127.0.0.1", **host.environment(model.url), **variables}
        ended = await to_thread.run_sync(partial(run, host.program, *host.arguments, PROMPT, home=home, **environment))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return model.turns, ended.stdout


def settings(sim: Simulator) -> dict[str, str]:
    """What the server needs for the calls."""
    return {"KIMI_PROVIDER": "simulator", "KIMI_BASE_URL": sim.base_url, "KIMI_ROOTS": str(EXAMPLES)}


def options(sim: Simulator) -> list[str]:
    """The same, for ``install``."""
    return [word for name, value in settings(sim).items() for word in ("--env", f"{name}={value}")]


def install(host: str, home: Path, *arguments: str) -> None:
    """As a person would."""
    home.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [Path(sys.executable).with_name("kimi-mcp"), "install", host, *arguments],
        env={"HOME": str(home)},
        check=True,
        capture_output=True,
    )
