"""Which servers are alive: each holds a lock of the operating system for its life, and the dead let go at once. I/O."""

from __future__ import annotations

import secrets
from collections.abc import Container
from pathlib import Path
from threading import Lock

from filelock import FileLock, Timeout

FOLDER = "servers"
"""Where the locks lie, inside the data folder."""

LOOKED_AT_S = 2.0
"""Seconds for which others may hold a server's lock, who only look whether it is dead."""


class Presence:
    """This server among those that share a data folder; without one (None) it is alone."""

    def __init__(self, folder: Path | None) -> None:
        self.id = f"srv_{secrets.token_hex(8)}"
        """This server's name, new with each start."""
        self._folder = None if folder is None else folder / FOLDER
        self._lock: FileLock | None = None
        self._asking = Lock()
        self._dead: set[str] = set()

    def appear(self) -> None:
        """Take the lock. Blocking, for a worker thread; ``OSError`` where the folder can't be written.

        Others who look at the same moment whether we are dead may hold it for a moment, or clear it away; and whoever
        removed the folder removed it too.
        """
        if self._folder is None:
            return
        while self._lock is None or not (self._folder / f"{self.id}.lock").exists():
            if self._lock is not None:
                self._lock.release()
                self._lock = None
            self._folder.mkdir(mode=0o700, exist_ok=True)
            lock = _lock(self._folder, self.id)
            lock.acquire(timeout=LOOKED_AT_S)
            self._lock = lock

    def leave(self, *, unfinished: bool = False) -> None:
        """Let go of it. ``unfinished``: the file stays, so that the next server looks for what is to be taken up."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
            if not unfinished:
                self.forget(self.id)

    def alive(self, server: str) -> bool:
        """Whether that server still runs. Blocking, but never for long."""
        if server == self.id:
            return True
        if self._folder is None or server in self._dead:
            return False
        with self._asking:
            if (self._folder / f"{server}.lock").exists():
                lock = _lock(self._folder, server)
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    return True
                lock.release()
            self._dead.add(server)
        return False

    def forget(self, server: str) -> None:
        """A dead server has nothing left that was to be taken up."""
        if self._folder is not None:
            (self._folder / f"{server}.lock").unlink(missing_ok=True)

    def forget_all_but(self, unfinished: Container[str]) -> None:
        """No dead server but these has anything left."""
        for server in () if self._folder is None else _named(self._folder):
            if server not in unfinished and not self.alive(server):
                self.forget(server)


def _lock(folder: Path, server: str) -> FileLock:
    # The file outlives the lock: it tells that there was a server, until what it left has been looked at.
    return FileLock(folder / f"{server}.lock", thread_local=False, mode=0o600, preserve_lock_file=True)


def _named(folder: Path) -> list[str]:
    """Every server that has a lock, held or not."""
    try:
        return [file.stem for file in folder.iterdir() if file.suffix == ".lock"]
    except OSError:
        return []


def left_behind(folder: Path) -> bool:
    """Whether a server of that data folder ended without finishing its work; asks no database. Blocking."""
    presence = Presence(folder)
    return not all(presence.alive(name) for name in _named(folder / FOLDER))
