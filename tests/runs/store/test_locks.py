"""Who is alive: a server is as long as it holds its lock, and is known to be dead the moment it does not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout, _unix

from kimi_mcp.runs.store.locks import ServerLock, has_dead_servers, probe

HOLDS = """
import sys
from pathlib import Path
from kimi_mcp.runs.store.locks import ServerLock
lock = ServerLock(Path(sys.argv[1]))
lock.acquire()
print(lock.id, flush=True)
sys.stdin.read()
"""


def test_a_server_is_alive_until_it_leaves(tmp_path: Path) -> None:
    one, other = ServerLock(tmp_path), ServerLock(tmp_path)
    assert one.is_alive(one.id), "it knows itself"
    one.acquire()
    assert other.is_alive(one.id)
    one.release()
    assert not other.dead_servers()
    assert list((tmp_path / "servers").iterdir()) == [], "who leaves in good order leaves nothing"


def test_a_server_that_was_killed_is_dead_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server = process.stdout.readline().strip()
        looking = ServerLock(tmp_path)
        looking.acquire()
        assert looking.is_alive(server)
        assert looking.is_alive(server), "looking does not take it away"
        process.kill()
        process.wait()
        assert has_dead_servers(tmp_path)
        assert not looking.is_alive(server)
        looking.remove_files(looking.dead_servers())
        assert looking.is_alive(looking.id)
        assert not has_dead_servers(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open is never removed there")
def test_a_server_is_never_seen_without_its_lock_while_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, looking = ServerLock(tmp_path, locked_within_s=0), ServerLock(tmp_path)
    seen: list[object] = []
    take_lock = _unix.lock_fd_nonblocking

    def late(descriptor: int) -> bool:
        """The file is there and not locked yet: somebody looks at everything, and clears it away."""
        seen.append((looking.dead_servers(), has_dead_servers(tmp_path)))
        looking.remove_files({one.id})
        return take_lock(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(_unix, "lock_fd_nonblocking", late)
        with pytest.raises(Timeout):
            one.acquire()
        assert looking.dead_servers() == set()
    one.acquire()
    assert seen == [(set(), False)]
    assert looking.is_alive(one.id), "nothing is remembered of it"
    assert [file.name for file in (tmp_path / "servers").iterdir()] == [f"{one.id}.lock"]
    one.release()


def test_who_looks_at_the_dead_is_not_taken_for_them(tmp_path: Path) -> None:
    one, looking = ServerLock(tmp_path), ServerLock(tmp_path)
    one.acquire()
    one.release(unfinished=True)
    with probe(tmp_path / "servers" / f"{one.id}.lock") as held:
        assert not held
        assert not looking.is_alive(one.id)
        assert has_dead_servers(tmp_path)


def test_a_lock_that_can_not_be_looked_at_may_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, looking = ServerLock(tmp_path), ServerLock(tmp_path)
    one.acquire()

    def refused(*more: object) -> int:
        raise OSError(errno.EMFILE, "no descriptor is left")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refused)
        assert looking.is_alive(one.id)
        looking.remove_files({one.id})
    assert looking.is_alive(one.id)
    one.release()


def test_to_look_makes_no_file(tmp_path: Path) -> None:
    assert not ServerLock(tmp_path, missing_s=-1).is_alive("srv_gone")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_somebody_removed_is_taken_again(tmp_path: Path) -> None:
    one = ServerLock(tmp_path)
    one.acquire()
    (tmp_path / "servers" / f"{one.id}.lock").unlink()
    one.acquire()
    assert ServerLock(tmp_path).is_alive(one.id)
    one.release()


def test_a_file_that_is_missing_for_a_moment_is_no_proof_of_death(tmp_path: Path) -> None:
    now = 100.0
    one, looking = ServerLock(tmp_path), ServerLock(tmp_path, missing_s=2, clock=lambda: now)
    one.acquire()
    file = tmp_path / "servers" / f"{one.id}.lock"
    for missing_since in (100.0, 200.0):
        file.unlink()
        now = missing_since
        assert looking.is_alive(one.id)
        now = missing_since + 1.9
        assert looking.is_alive(one.id)
        one.acquire()
        assert looking.is_alive(one.id), "what was seen before is forgotten"
    file.unlink()
    now = 300.0
    assert looking.is_alive(one.id)
    now = 302.1
    assert not looking.is_alive(one.id), "its server would have made it again by now"
    one.release()


def test_without_a_folder_a_server_is_alone() -> None:
    one = ServerLock(None)
    one.acquire()
    assert one.is_alive(one.id)
    assert not one.is_alive("srv_other")
    one.release()
