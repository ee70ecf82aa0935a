"""Claude Code in a terminal, where it takes tasks (its one-shot mode does not): what its model gets of a swarm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from kimi_mcp.simulator import Simulator
from tests.hosts.scripted_model import ScriptedModel, Turn, Use, scripted_model
from tests.hosts.test_hosts import install
from tests.npm import CLAUDE, NPM, environment_of
from tests.server.clients import wait_until
from tests.server.test_swarm import TELL

if sys.platform != "win32":
    import pty

pytestmark = [pytest.mark.soak, pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")]

SWARM = "mcp__kimi__kimi_swarm"
KEY = "sk-ant-scripted-0123456789"
WITHIN_S = 100.0


@contextmanager
def in_terminal(home: Path, model: ScriptedModel) -> Iterator[None]:
    """Claude Code as a user starts it, who has answered its first questions before."""
    settings = home / ".claude.json"
    answered = {
        "hasCompletedOnboarding": True,
        "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
        "projects": {str(home): {"hasTrustDialogAccepted": True}},
    }
    settings.write_text(json.dumps(json.loads(settings.read_text("utf-8")) | answered), "utf-8")
    screen, terminal = pty.openpty()
    variables = {"ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": KEY, "NO_PROXY": "127.0.0.1", "TERM": "xterm"}
    host = subprocess.Popen(
        [NPM.path_of(CLAUDE), "Compare the cities.", "--allowedTools", SWARM],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        cwd=home,
        env=environment_of(home) | variables,
    )
    os.close(terminal)

    def drain() -> None:
        with suppress(OSError):
            while os.read(screen, 65_536):
                pass

    reading = threading.Thread(target=drain, daemon=True)
    reading.start()
    try:
        yield
    finally:
        host.kill()
        host.wait()
        reading.join(10)
        os.close(screen)


async def test_its_model_goes_on_while_a_swarm_runs_and_gets_the_whole_result(sim: Simulator, tmp_path: Path) -> None:
    def script(turn: Turn) -> str | Use:
        return "I wait." if turn.results else Use(tool=SWARM, arguments=TELL)

    sim.play({"match": {"text": "Tell me about Oslo."}, "gate": "oslo"})
    install("claude-code", tmp_path, sim)
    with scripted_model(script) as model, in_terminal(tmp_path, model):
        await wait_until(lambda: len(model.turns) >= 2, WITHIN_S)
        (begun,) = model.turns[1].results
        assert "task run_" in begun, begun
        await sim.until(lambda: sim.waiting_at("oslo") == 1)
        sim.open_gate("oslo")
        await wait_until(lambda: "task-notification" in json.dumps(model.turns[-1].body["messages"]), WITHIN_S)
        told = json.dumps(model.turns[-1].body["messages"])
    for expected in ("critical_steps", *TELL["items"]):
        assert expected in told
