"""The store's faults as a caller sees them: refused before anything is paid for, and an answer is never the price."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.core.redaction import HIDDEN
from kimi_mcp.runs.store.config import FILE
from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import everything, opened
from tests.runs.store.test_storage import fill
from tests.server.clients import KimiClient, connect, store_limits, wait_until
from tests.server.keys import KEY, encoded_forms
from tests.server.processes import raw_server_process
from tests.server.requests import HELD_STEP, chats


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A folder on a small disk of its own."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _file(data: Path) -> None:
    data.write_text("mine")


def _folder(data: Path) -> None:
    (data / FILE).mkdir(parents=True)


def _foreign(data: Path) -> None:
    data.mkdir()
    with opened(data) as file:
        file.execute("CREATE TABLE runs (mine TEXT)")


def _newer(data: Path) -> None:
    data.mkdir()
    with opened(data) as file:
        file.executescript("CREATE TABLE about (name TEXT, value TEXT); INSERT INTO about VALUES ('version', '99')")


def _damaged(data: Path) -> None:
    data.mkdir()
    (data / FILE).write_bytes(b"Dear diary, " * 1000)


@pytest.mark.parametrize("spoil", [_file, _folder, _foreign, _newer, _damaged])
async def test_a_journal_that_can_not_be_used_refuses_the_call_before_it_is_paid_for(
    sim: Simulator, mode: str, data_dir: Path, spoil: Any
) -> None:
    spoil(data_dir)
    before = everything(data_dir) if data_dir.is_dir() else data_dir.read_bytes()
    async with connect(sim, mode) as kimi:
        refused = await kimi.think()
        assert refused.code == "not_configured"
        assert refused.structured["run_id"] is None
        assert "KIMI_DATA_DIR" in refused.error["fix"] or "Call again" in refused.error["fix"]
        assert str(data_dir) not in refused.text
        assert chats(sim) == []
        again = await kimi.think()
    if spoil is _damaged:
        assert again.status == "completed", "a new one is begun"
        (aside,) = data_dir.glob("*.damaged-*")
        assert aside.read_bytes() == before
    else:
        assert again.code == "not_configured"
        assert "KIMI_JOURNAL=off" in again.error["fix"]
        found = everything(data_dir) if data_dir.is_dir() else data_dir.read_bytes()
        assert before in found or found == before, "nothing is deleted"
        async with connect(sim, mode, KIMI_JOURNAL="off") as kimi:
            assert (await kimi.think()).status == "completed"


async def test_a_full_disk_refuses_the_call_and_the_next_one_works_once_there_is_room(
    sim: Simulator, tiny: Path
) -> None:
    async with connect(sim, KIMI_DATA_DIR=str(tiny / "data")) as kimi:
        assert (await kimi.think()).status == "completed"
        ballast = fill(tiny)
        refused = await kimi.think("long " * 200_000)
        assert refused.code == "not_configured"
        assert "full" in refused.error["message"]
        assert len(chats(sim)) == 1
        ballast.unlink()
        assert (await kimi.think()).status == "completed"


async def test_a_disk_that_fills_in_mid_stream_costs_the_record_and_not_the_answer(
    sim: Simulator, tiny: Path, mode: str
) -> None:
    answer = "".join(f"{number} 你好🌍\n" for number in range(60_000))
    sim.play({"content": answer, "event_tokens": 500, "tokens_per_second": 400_000, "gate": "on", "gate_at": 40})
    folder = tiny / "data"
    async with connect(sim, mode, KIMI_DATA_DIR=str(folder), KIMI_REPLY_WITHIN_S="0.3") as kimi:
        started = await kimi.instant(max_tokens=262_000)
        await sim.until(lambda: sim.waiting_at("on") == 1)
        fill(tiny)
        sim.open_gate("on")
        with anyio.fail_after(60):
            result = await kimi.run(started.run_id, wait_s=20)
        assert result.status in ("completed", "partial")
        read = await kimi.full_text(started.run_id)
        assert answer.startswith(read)
        assert result.status == "partial" or read == answer
        (tiny / "ballast").unlink()
        assert (await kimi.instant("hi")).status in ("completed", "running"), "the next call works"


async def test_what_could_not_be_written_for_a_while_leaves_no_hole(sim: Simulator, data_dir: Path) -> None:
    options = store_limits(locked_s=1)
    sim.play({"content": "one two three four five.", "event_tokens": 1, "gate": "a", "gate_at": 3})
    async with connect(sim, options=options, KIMI_REPLY_WITHIN_S="0.2") as kimi, connect(sim, options=options) as other:
        started = await kimi.instant("hi")
        await sim.until(lambda: sim.waiting_at("a") == 1)
        await _seen(other, started.run_id, lambda text: bool(text))
        sim.play()
        with opened(data_dir) as file:
            file.execute("BEGIN IMMEDIATE")
            sim.open_gate("a")
            await wait_until(lambda: kimi.runs.recorder.failure_logged or not kimi.runs.live)
            file.execute("ROLLBACK")
        await kimi.run(started.run_id, wait_s=10)
        assert (await kimi.instant("another")).status == "completed"
        assert await _seen(other, started.run_id, lambda text: text.endswith("five.")) == "one two three four five."


@pytest.mark.soak
@pytest.mark.parametrize("how", ["eof", "SIGTERM"])
async def test_a_server_that_ends_while_the_journal_is_locked_says_whose_end_was_not_written(
    sim: Simulator, data_dir: Path, how: str
) -> None:
    sim.play({"content": "one two three four five.", "event_tokens": 1, "gate": "a", "gate_at": 3})
    async with (
        raw_server_process(sim, stderr=subprocess.PIPE, KIMI_REPLY_WITHIN_S="0.2") as peer,
        connect(sim) as other,
    ):
        await peer.initialize()
        await peer.call("kimi_instant", prompt="hi")
        run_id = (await peer.receive())["result"]["structuredContent"]["run_id"]
        early = await _seen(other, run_id, lambda text: bool(text))
        with opened(data_dir) as file:
            file.execute("BEGIN IMMEDIATE")
            if how == "eof":
                await peer.close_stdin()
            else:
                peer.signal(signal.SIGTERM)
            with anyio.fail_after(60):  # 1.5 promised; the machine may be busy
                assert await peer.exit_status() == 0
            file.execute("ROLLBACK")
        (line,) = await peer.log_lines()
        assert line["level"] == "WARNING"
        assert run_id in line["message"]
        assert "store" in line["message"]
        assert (await other.run(run_id)).status == "failed"
        assert (await other.run(run_id)).answer == early, "what was written down before is there"


async def _seen(other: KimiClient, run_id: str, wanted: Any) -> str:
    with anyio.fail_after(60):
        while not wanted(text := (await other.run(run_id, "status")).answer):
            await anyio.sleep(0.05)
    return text


@pytest.mark.soak
async def test_nothing_is_written_anywhere_without_a_journal(
    sim: Simulator, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(home))
    environment = {**os.environ, "KIMI_BASE_URL": sim.base_url, "KIMI_PROVIDER": "simulator", "KIMI_JOURNAL": "off"}
    command = [sys.executable, "-m", "kimi_mcp", "ask", "What is 17 * 23?"]
    done = await anyio.run_process(command, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    async with connect(sim, KIMI_JOURNAL="off") as kimi:
        first = await kimi.think("one")
        assert (await kimi.think("two", conversation_id=first.structured["conversation_id"])).status == "completed"
    assert not data_dir.exists()
    assert list(home.rglob("*")) == []


async def test_keys_are_never_written_down(sim: Simulator, data_dir: Path) -> None:
    """A user pastes it, a model repeats it, a tool's schema carries it: the file never holds it."""
    echoes = [f"Your key is {form}." for form in encoded_forms(KEY)]
    sim.play(
        {"content": " ".join(echoes), "reasoning": f"It says {KEY}.", "gate": "end", "gate_at": "finish"},
        {"content": f"Again {KEY}", "event_tokens": 1},
        {"status": 401, "echo_key": True},
    )
    async with connect(sim, KIMI_API_KEY=KEY, KIMI_REPLY_WITHIN_S="0.3") as kimi:
        started = await kimi.think(f"My key is {KEY}, what is it?", system=f"Never say {KEY}.")
        await sim.until(lambda: sim.waiting_at("end") == 1)
        await _seen(kimi, started.run_id, lambda text: text.count(HIDDEN) >= len(echoes) - 1)
        await anyio.sleep(1)  # what arrives is written meanwhile
        content = everything(data_dir)
        assert not [form for form in encoded_forms(KEY) if form.encode() in content]
        sim.open_gate("end")
        first = await kimi.run(started.run_id, wait_s=10)
        assert first.status == "completed"
        await kimi.think(f"And {KEY}?", conversation_id=first.structured["conversation_id"])
        await kimi.think(f"And once more {KEY}?", temperature=0.5)
    content = everything(data_dir)
    assert not [form for form in encoded_forms(KEY) if form.encode() in content]
    sent = [message["content"] for message in chats(sim)[0].body["messages"]]  # type: ignore[index]
    assert sent == [f"Never say {KEY}.", f"My key is {KEY}, what is it?"], "the prompt goes verbatim all the same"


async def test_a_key_that_comes_in_pieces_is_never_written_down_in_pieces(sim: Simulator, data_dir: Path) -> None:
    text = f"It is {KEY}."
    sim.play({"content": text, "reasoning": "Hm.", "event_tokens": 1, "gate": "on", "gate_at": 6})
    async with connect(sim, KIMI_API_KEY=KEY, KIMI_REPLY_WITHIN_S="0.2") as kimi, connect(sim) as other:
        started = await kimi.think()
        await sim.until(lambda: sim.waiting_at("on") == 1)
        arrived = (await kimi.run(started.run_id, "status")).answer
        assert arrived.rstrip() == "It is", "it stops in the midst of the key, and half of that is not shown"
        written = await _seen(other, started.run_id, lambda text: bool(text))
        assert "It is".startswith(written.rstrip())
        sim.open_gate("on")
        assert (await kimi.run(started.run_id, wait_s=10)).status == "completed"
        assert (await other.run(started.run_id)).answer == "It is [hidden]."
    content = everything(data_dir)
    assert not [KEY[at : at + 6] for at in range(len(KEY) - 5) if KEY[at : at + 6].encode() in content]


PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


async def test_the_content_of_a_data_uri_is_never_written_down(sim: Simulator, data_dir: Path) -> None:
    encoded = base64.b64encode(PIXEL).decode()
    sim.play({**HELD_STEP, "times": 1})
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.5") as kimi:
        started = await kimi.call(
            "kimi_vision", {"prompt": "What is it?", "images": [f"data:image/png;base64,{encoded}"]}
        )
        await sim.until(lambda: sim.waiting_at("end") == 1)
        assert encoded[:60].encode() not in everything(data_dir)
        sim.open_gate("end")
        assert (await kimi.run(started.run_id, wait_s=10)).status == "completed"
        broken = base64.b64encode(PIXEL[:40]).decode()
        await kimi.call("kimi_vision", {"prompt": "And?", "images": [f"data:image/png;base64,{broken}"]})
        content = everything(data_dir)
    assert encoded[:40].encode() not in content
    assert PIXEL not in content
    with opened(data_dir) as file:
        (request,) = file.execute("SELECT request FROM runs WHERE id = ?", [started.run_id]).fetchone()
    assert f'"size":{len(PIXEL)}' in request, "media are kept by hash and size"
    assert '"sha256":"' in request
