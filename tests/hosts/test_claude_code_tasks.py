"""Claude Code in a terminal, where it takes tasks and asks its user (its one-shot mode does neither)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pyte
import pytest

from kimi_mcp.simulator import Simulator
from tests.hosts.scripted_model import ScriptedModel, Turn, Use, scripted_model
from tests.hosts.test_hosts import install, options
from tests.npm import CLAUDE, NPM, environment_of
from tests.server.clients import wait_until
from tests.server.requests import chats
from tests.server.test_swarm import TELL

if sys.platform != "win32":
    import fcntl
    import pty
    import struct
    import termios

pytestmark = [pytest.mark.soak, pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")]

SWARM = "mcp__kimi__kimi_swarm"
KEY = "sk-ant-scripted-0123456789"
WITHIN_S = 100.0

COLUMNS, LINES = 120, 40
ENTER, ESCAPE = b"\r", b"\x1b"
AGAIN_AFTER_S = 5.0


class Terminal:
    """The screen of a program, and the keys that its user presses."""

    def __init__(self, file: int) -> None:
        self._file, self._lock = file, threading.Lock()
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._fault: Exception | None = None

    def draw(self) -> None:
        """Draw what the program writes until it ends."""
        with suppress(OSError):
            while written := os.read(self._file, 65_536):
                with self._lock:
                    self._feed(written)

    def _feed(self, written: bytes) -> None:
        try:
            self._stream.feed(written)
        except Exception as fault:  # noqa: BLE001 - raised where the screen is read; the host must not wait meanwhile
            self._fault = self._fault or fault
            self._stream = pyte.ByteStream(self._screen)

    def shows(self, text: str) -> bool:
        """Whether a text is on the screen now, however its lines are broken."""
        with self._lock:
            if self._fault is not None:
                raise AssertionError("the terminal does not know what the host wrote") from self._fault
            return "".join(text.split()) in "".join("".join(self._screen.display).split())

    async def press(self, key: bytes, until: Callable[[], object]) -> None:
        """Press a key, again where it came too early to have an effect."""
        with anyio.fail_after(WITHIN_S):
            while not until():
                os.write(self._file, key)
                with anyio.move_on_after(AGAIN_AFTER_S):
                    await wait_until(until)


@contextmanager
def in_terminal(home: Path, model: ScriptedModel) -> Iterator[Terminal]:
    """Claude Code as a user starts it, who has answered its first questions before."""
    settings = home / ".claude.json"
    answered = {
        "hasCompletedOnboarding": True,
        "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
        "projects": {str(home): {"hasTrustDialogAccepted": True}},
    }
    settings.write_text(json.dumps(json.loads(settings.read_text("utf-8")) | answered), "utf-8")
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
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
    seen = Terminal(screen)
    reading = threading.Thread(target=seen.draw, daemon=True)
    reading.start()
    try:
        yield seen
    finally:
        host.kill()
        host.wait()
        reading.join(10)
        os.close(screen)


async def test_its_model_goes_on_while_a_swarm_runs_and_gets_the_whole_result(sim: Simulator, tmp_path: Path) -> None:
    def script(turn: Turn) -> str | Use:
        return "I wait." if turn.results else Use(tool=SWARM, arguments=TELL)

    sim.play({"match": {"text": "Tell me about Oslo."}, "gate": "oslo"})
    install("claude-code", tmp_path, *options(sim))
    with scripted_model(script) as model, in_terminal(tmp_path, model):
        await wait_until(lambda: len(model.turns) >= 2, WITHIN_S)
        (begun,) = model.turns[1].results
        assert "task run_" in begun, begun
        await sim.until(lambda: sim.waiting_at("oslo") == 1)
        sim.open_gate("oslo")
        await wait_until(lambda: "task-notification" in json.dumps(model.turns[-1].body["messages"]), WITHIN_S)
        reported = json.dumps(model.turns[-1].body["messages"])
    for expected in ("critical_steps", *TELL["items"]):
        assert expected in reported


@pytest.mark.parametrize("wanted", [True, False])
async def test_its_user_is_asked_before_a_swarm_begins(sim: Simulator, tmp_path: Path, wanted: bool) -> None:
    def script(turn: Turn) -> str | Use:
        return "I wait." if turn.results else Use(tool=SWARM, arguments=TELL)

    install("claude-code", tmp_path, *options(sim), "--env", "KIMI_CONFIRM_ABOVE_USD=0.5")
    with scripted_model(script) as model, in_terminal(tmp_path, model) as terminal:
        await wait_until(lambda: terminal.shows("a swarm that may cost up to 2.00 USD"), WITHIN_S)
        await wait_until(lambda: terminal.shows("Decline"), WITHIN_S)
        assert chats(sim) == []
        await terminal.press(ENTER if wanted else ESCAPE, until=lambda: len(model.turns) >= 2)
        (begun,) = model.turns[1].results
    assert ("task run_" if wanted else "budget_exceeded: The user dismissed the question") in begun
    assert wanted or chats(sim) == []


async def test_its_user_is_asked_for_more_by_a_task_that_runs(sim: Simulator, tmp_path: Path) -> None:
    def script(turn: Turn) -> str | Use:
        arguments = {**TELL, "tools": ["none"], "max_cost_usd": 0.1}
        return "I wait." if turn.results else Use(tool=SWARM, arguments=arguments)

    install("claude-code", tmp_path, *options(sim))
    with scripted_model(script) as model, in_terminal(tmp_path, model) as terminal:
        await wait_until(lambda: terminal.shows("US dollars more: 0.1"), WITHIN_S)
    assert chats(sim) == []
