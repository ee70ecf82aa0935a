"""Stdout belongs to the protocol: whatever prints or warns inside the process ends up on stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from kimi_mcp.simulator import Simulator
from tests.server.processes import process_environment
from tests.server.stdio.peer import Peer

NOISY = """
import logging, os, subprocess, sys, warnings
from kimi_mcp.pipeline import pipeline

quiet = pipeline.Pipeline.run

async def noisy(self, call, run):
    print("a print in the middle of a call")
    sys.stdout.write("and half a line\\n")
    sys.stdout.flush()
    os.write(1, b"straight to the descriptor\\n")
    warnings.warn("a warning \\x1b[31m\\r\\nof two lines")
    logging.getLogger("some.library").error("an error\\nof two lines")
    subprocess.run([sys.executable, "-c", "print('a noisy child')"])
    return await quiet(self, call, run)

pipeline.Pipeline.run = noisy
from kimi_mcp.server.entry_point import serve
serve()
"""


async def test_nothing_but_messages_reaches_the_wire(sim: Simulator, tmp_path: Path) -> None:
    log = tmp_path / "stderr"
    with log.open("wb") as stderr:
        environment = process_environment(sim)
        started = await anyio.open_process([sys.executable, "-c", NOISY], env=environment, stderr=stderr)
    try:
        peer = Peer(started)
        await peer.initialize()
        with anyio.fail_after(60):
            for number in range(3):
                await peer.call("kimi_think", number, prompt="hi")
                reply = await peer.receive()
                assert reply["id"] == number
                assert reply["result"]["structuredContent"]["status"] == "completed"
        await peer.close_stdin()
        assert await peer.remaining() == []
        assert await peer.exit_status() == 0
    finally:
        if started.returncode is None:
            started.kill()
        await started.aclose()
    text = log.read_text(encoding="utf-8")
    assert "straight to the descriptor" in text
    assert "a print in the middle of a call" in text
    foreign = ("a print in the middle of a call", "and half a line", "straight to the descriptor", "a noisy child")
    lines = [line for line in text.split("\n") if line and line not in foreign]
    for line in lines:
        assert isinstance(json.loads(line), dict), "what is logged is one JSON object a line"
    assert "\x1b" not in text


@pytest.mark.soak
async def test_a_host_that_stops_reading_stderr_stops_no_call(sim: Simulator) -> None:
    read, write = os.pipe()
    environment = process_environment(sim, KIMI_LOG_LEVEL="DEBUG")
    started = await anyio.open_process(
        [sys.executable, "-m", "kimi_mcp"], env=environment, stderr=write, stdout=subprocess.PIPE
    )
    os.close(write)
    try:
        peer = Peer(started)
        await peer.initialize()
        with anyio.fail_after(60):
            await peer.send(*(b"{" for _ in range(1_000)))
            await peer.call("kimi_think", 1, prompt="hi")
            while (reply := await peer.receive())["id"] != 1:
                pass
        assert reply["result"]["structuredContent"]["status"] == "completed"
        await peer.close_stdin()
        assert await peer.exit_status() == 0
    finally:
        os.close(read)
        if started.returncode is None:
            started.kill()
        await started.aclose()
