"""Servers that start and leave while others look at them all the time: no living one is ever taken for dead.

``SOAK_ROUNDS`` is how many starts there are in all (20,000 unless it is set, about half a minute).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.soak

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "20000"))
"""Starts in all."""

PROCESSES = 2
"""Processes that start servers, and as many that look at them."""

WITHIN_S = 60 + ROUNDS / 50
"""Seconds after which something hangs."""

STARTS = """
import json, sys, time
from pathlib import Path
from kimi_mcp.runs.store.locks import ServerLock
folder, rounds, others = Path(sys.argv[1]), int(sys.argv[2]), ServerLock(Path(sys.argv[1]))
for number in range(rounds):
    presence = ServerLock(folder)
    presence.acquire()
    seen = others.is_alive(presence.id)
    time.sleep(0)
    seen = seen and others.is_alive(presence.id)
    print(json.dumps([presence.id, seen, time.monotonic()]))
    presence.release(unfinished=number % 4 == 0)
"""
"""Says of each server whether it was seen to live, and when it began to leave."""

LOOKS = """
import json, sys, threading, time
from pathlib import Path
from kimi_mcp.runs.store.locks import ServerLock
presence, over = ServerLock(Path(sys.argv[1])), threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
looks, told = 0, set()
while not over.is_set():
    dead = presence.dead_servers()
    now, looks = time.monotonic(), looks + 1
    for name in dead - told:
        print(json.dumps([name, now]))
    told |= dead
    presence.remove_files(dead)
print(json.dumps(looks))
"""
"""Says of each server that it took for dead when that was."""


def test_no_living_server_is_taken_for_dead(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "servers").mkdir(parents=True)
    outputs: list[Path] = []

    def started(code: str, *arguments: object) -> subprocess.Popen[bytes]:
        outputs.append(tmp_path / f"{len(outputs)}.jsonl")
        command = [sys.executable, "-c", code, str(folder), *map(str, arguments)]
        with outputs[-1].open("wb") as output:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output)

    looking = [started(LOOKS) for _ in range(PROCESSES)]
    starting = [started(STARTS, ROUNDS // PROCESSES) for _ in range(PROCESSES)]
    processes = [*starting, *looking]
    try:
        for each in processes:
            each.communicate(timeout=WITHIN_S)
    finally:
        for each in processes:
            each.kill()
            each.wait()
    looks, starts = outputs[:PROCESSES], outputs[PROCESSES:]
    lives = [json.loads(line) for output in starts for line in output.read_text().splitlines()]
    said = [output.read_text().splitlines() for output in looks]
    assert [each.returncode for each in processes] == [0] * len(processes)
    left_at = {name: at for name, _, at in lives}
    verdicts = [json.loads(line) for lines in said for line in lines[:-1]]
    wrong = [name for name, at in verdicts if at < left_at[name]]
    print(f"{len(lives)} starts, {sum(int(lines[-1]) for lines in said)} looks, {len(verdicts)} found dead")
    assert len(lives) == ROUNDS // PROCESSES * PROCESSES
    assert all(seen for _, seen, _ in lives), "a server that has its lock is alive to everybody"
    assert verdicts, "they met"
    assert wrong == []
