"""Who is alive: a server is as long as it holds its lock, and is known to be dead the moment it does not."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from kimi_mcp.journal.presence import Presence, left_behind

HOLDS = """
import sys
from pathlib import Path
from kimi_mcp.journal.presence import Presence
presence = Presence(Path(sys.argv[1]))
presence.appear()
print(presence.id, flush=True)
sys.stdin.read()
"""


def test_a_server_is_alive_until_it_leaves(tmp_path: Path) -> None:
    one, other = Presence(tmp_path), Presence(tmp_path)
    assert one.alive(one.id), "it knows itself"
    one.appear()
    assert other.alive(one.id)
    one.leave()
    assert not other.alive(one.id)
    assert not other.alive("srv_nobody")
    assert list((tmp_path / "servers").iterdir()) == [], "who leaves in good order leaves nothing"


def test_a_server_that_was_killed_is_dead_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server = process.stdout.readline().strip()
        looking = Presence(tmp_path)
        looking.appear()
        assert looking.alive(server)
        assert looking.alive(server), "looking does not take it away"
        process.kill()
        process.wait()
        assert left_behind(tmp_path)
        assert not looking.alive(server)
        looking.forget_all_but(())
        assert looking.alive(looking.id)
        assert not left_behind(tmp_path)


@pytest.mark.parametrize("then", ["lets go", "clears it away"])
def test_a_server_that_is_looked_at_as_it_starts_still_starts(tmp_path: Path, then: str) -> None:
    one = Presence(tmp_path)
    file = tmp_path / "servers" / f"{one.id}.lock"
    file.parent.mkdir()
    looks = FileLock(file, thread_local=False, preserve_lock_file=True)
    looks.acquire()

    def done() -> None:
        if then == "clears it away":
            file.unlink()
        looks.release()

    timer = threading.Timer(0.1, done)
    timer.start()
    one.appear()
    timer.join()
    assert Presence(tmp_path).alive(one.id)
    one.leave()


def test_a_lock_that_somebody_removed_is_taken_again(tmp_path: Path) -> None:
    one = Presence(tmp_path)
    one.appear()
    (tmp_path / "servers" / f"{one.id}.lock").unlink()
    one.appear()
    assert Presence(tmp_path).alive(one.id)
    one.leave()


def test_without_a_folder_a_server_is_alone() -> None:
    one = Presence(None)
    one.appear()
    assert one.alive(one.id)
    assert not one.alive("srv_other")
    one.leave()
