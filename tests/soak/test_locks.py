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
    lock = ServerLock(folder)
    lock.acquire()
    seen = others.is_alive(lock.id)
    time.sleep(0)
    seen = seen and others.is_alive(lock.id)
    print(json.dumps([lock.id, seen, time.monotonic()]))
    lock.release(unfinished=number % 4 == 0)
"""
"""Prints for each server whether others found it alive, and when it began to end."""

LOOKS = """
import json, sys, threading, time
from pathlib import Path
from kimi_mcp.runs.store.locks import ServerLock
lock, over = ServerLock(Path(sys.argv[1])), threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
looks, reported = 0, set()
while not over.is_set():
    dead = lock.dead_servers()
    now, looks = time.monotonic(), looks + 1
    for name in dead - reported:
        print(json.dumps([name, now]))
    reported |= dead
    lock.remove_files(dead)
print(json.dumps(looks))
"""
"""Prints each server that it found dead, and when."""


def test_no_living_server_is_taken_for_dead(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "servers").mkdir(parents=True)
    outputs: list[Path] = []

    def start(code: str, *arguments: object) -> subprocess.Popen[bytes]:
        outputs.append(tmp_path / f"{len(outputs)}.jsonl")
        command = [sys.executable, "-c", code, str(folder), *map(str, arguments)]
        with outputs[-1].open("wb") as output:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output)

    looking = [start(LOOKS) for _ in range(PROCESSES)]
    starting = [start(STARTS, ROUNDS // PROCESSES) for _ in range(PROCESSES)]
    processes = [*starting, *looking]
    try:
        for each in processes:
            each.communicate(timeout=WITHIN_S)
    finally:
        for each in processes:
            each.kill()
            each.wait()
    looks, starts = outputs[:PROCESSES], outputs[PROCESSES:]
    started = [json.loads(line) for output in starts for line in output.read_text().splitlines()]
    checks = [output.read_text().splitlines() for output in looks]
    assert [each.returncode for each in processes] == [0] * len(processes)
    left_at = {name: at for name, _, at in started}
    verdicts = [json.loads(line) for lines in checks for line in lines[:-1]]
    wrong = [name for name, at in verdicts if at < left_at[name]]
    print(f"{len(started)} starts, {sum(int(lines[-1]) for lines in checks)} looks, {len(verdicts)} found dead")
    assert len(started) == ROUNDS // PROCESSES * PROCESSES
    assert all(seen for _, seen, _ in started), "a server that has its lock is alive to everybody"
    assert verdicts, "they met"
    assert wrong == []
