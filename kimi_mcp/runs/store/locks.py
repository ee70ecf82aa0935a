"""Which servers are alive: each holds a lock of the operating system, which ends with its process. I/O.

The rules that keep a living server from ever looking dead:

- A lock file gets its name (``<id>.lock``) once it is locked, so that nobody finds it free while its server starts.
- Who looks takes a shared lock, so that two who look at the same moment don't take each other for the server.
- A file is removed only under a lock of it.
- A file that can't be looked at may well be held. One that is missing may have been removed by somebody: its server,
  which makes it again, is dead only once it stays missing. Nothing else that was seen is remembered.

Windows renames and removes no file that is open: there it is locked under its name, and who looks takes the lock.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FOLDER = "servers"
"""Where the locks are, inside the data folder."""

_LOCK = ".lock"
_STARTING = ".starting"
"""How the file ends until it is locked."""


class ServerLock:
    """This server among those that share a data folder; without one (None) it is alone.

    ``missing_s``: seconds for which a lock file is missing until its server counts as dead; a living one makes it again
    before. ``locked_within_s``: seconds for which others may hold the lock of a server that starts: they only look.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        missing_s: float = 2.0,
        locked_within_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = f"srv_{secrets.token_hex(8)}"
        """This server's name, new with each start."""
        self._folder = None if folder is None else folder / FOLDER
        self._lock: FileLock | None = None
        self._acquiring = threading.Lock()
        self.missing_s = missing_s
        """Seconds for which a lock file is missing until its server counts as dead."""
        self.doubts = 0
        """How often a server passed for a living one though its file was missing."""
        self._locked_within_s, self._clock = locked_within_s, clock
        self._missing_since: dict[str, float] = {}

    def acquire(self) -> None:
        """Take the lock; again where somebody removed its file. Blocking. ``OSError``: the folder can't be written."""
        with self._acquiring:
            while self._folder is not None and (self._lock is None or not self._file(self.id).exists()):
                lock = self._locked()
                if self._lock is not None:
                    self._lock.release()
                self._lock = lock

    def _locked(self) -> FileLock:
        assert self._folder is not None
        self._folder.mkdir(mode=0o700, exist_ok=True)
        file = self._file(self.id)
        starting = file if fcntl is None else file.with_suffix(_STARTING)
        lock = _lock(starting)
        lock.acquire(timeout=self._locked_within_s)
        try:
            if starting != file:
                starting.replace(file)
        except FileNotFoundError:  # the folder was removed meanwhile: the caller sees that, and tries again
            pass
        except BaseException:
            lock.release()
            raise
        return lock

    def release(self, *, unfinished: bool = False) -> None:
        """Let go of it. ``unfinished``: the file stays, so that the next server looks for what is to be taken up."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        if fcntl is None:  # Windows removes no file that is open
            lock.release()
        if not unfinished:
            _remove(self._file(self.id))
        lock.release()

    def is_alive(self, server: str) -> bool:
        """Whether that server still runs. Blocking, but never for long."""
        if server == self.id:
            return True
        if self._folder is None:
            return False
        with probe(self._file(server)) as held:
            if held is None:
                now = self._clock()
                doubtful = now - self._missing_since.setdefault(server, now) <= self.missing_s
                self.doubts += doubtful
                return doubtful
            self._missing_since.pop(server, None)
            return held

    @property
    def living(self) -> int:
        """How many servers share limits, this one included: a server without a lease counts by itself."""
        return 1

    def holds_lock(self, server: str) -> bool:
        """Whether its file is there and may be held; for those whom it does no harm to take a living one for dead."""
        if self._folder is None:
            return server == self.id
        with probe(self._file(server)) as held:
            return bool(held)

    def dead_servers(self) -> set[str]:
        """Every server that ended and left its file: nobody has made sure yet that it left no work."""
        names = () if self._folder is None else (file.stem for file in _files(self._folder, _LOCK))
        return {name for name in names if not self.is_alive(name)}

    def remove_files(self, servers: Iterable[str]) -> None:
        """Remove the files of servers that are dead and left no work, and of those that died as they started."""
        if self._folder is None:
            return
        for file in (*map(self._file, servers), *_files(self._folder, _STARTING)):
            with probe(file) as held:
                if not held and fcntl is not None:
                    _remove(file)
            if not held and fcntl is None:
                _remove(file)

    def _file(self, server: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{server}{_LOCK}"


def has_dead_servers(folder: Path) -> bool:
    """Whether a server of that data folder ended without finishing its work. Blocking."""
    return bool(ServerLock(folder).dead_servers())


@contextmanager
def probe(file: Path) -> Generator[bool | None]:
    """Whether a lock file is held by its server (None: it is not there); meanwhile nobody else can take a free one."""
    if fcntl is None:
        with _probe_on_windows(file) as held:
            yield held
        return
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as fault:
        is_missing = isinstance(fault, FileNotFoundError)
        yield None if is_missing else True  # another user's, or no descriptor is left: who knows?
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            held = False
        except OSError:
            held = True
        yield held
    finally:
        os.close(descriptor)


@contextmanager
def _probe_on_windows(file: Path) -> Generator[bool | None]:
    if not file.exists():
        yield None
        return
    lock = _lock(file)
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):
        yield True
        return
    try:
        yield False
    finally:
        lock.release()


def _lock(file: Path) -> FileLock:
    # The file outlives the lock: it records that there was a server, until what it left is settled.
    return FileLock(file, thread_local=False, mode=0o600, preserve_lock_file=True)


def _files(folder: Path, suffix: str) -> list[Path]:
    try:
        return [file for file in folder.iterdir() if file.suffix == suffix]
    except OSError:
        return []


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError:  # Windows, while somebody looks at it; or a folder that is read-only: another time, then
        pass
