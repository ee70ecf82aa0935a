"""Reads and writes a host's file so that nothing of it can be lost. I/O: that file, and its backups beside it."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kimi_mcp.cli.install.documents import mapping
from kimi_mcp.core.errors import NotConfigured

BACKUP = ".before-kimi-mcp"
"""Ending of the backup's name: the file before we first wrote to it."""

LATEST = f"{BACKUP}-2"
"""Ending of the other backup's name: the file before we last wrote to it."""

RECORD = ".kimi-mcp"
"""Ending of the name of the record: which entries with a URL are ours. The URL of a server does not say it."""

_BOM = "\ufeff"
_LARGEST = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FileText:
    """A file as it was read."""

    path: Path
    """Links resolved."""
    shown: str
    """Its name for people."""
    text: str
    """Without a byte order mark."""
    bom: bool
    """Whether it had a byte order mark."""
    state: os.stat_result | None
    """None: it did not exist."""


def shown(path: Path, home: Path) -> str:
    """A path for people: the home as ``~``."""
    try:
        return str(Path("~") / path.relative_to(home))
    except ValueError:
        return str(path)


def backup_of(path: Path) -> Path:
    """The path of the first backup."""
    return path.with_name(path.name + BACKUP)


def read(path: Path, home: Path) -> FileText:
    """A host's file; one that does not exist is empty. Raises ``NotConfigured``."""
    name = shown(path, home)
    try:
        real = path.resolve()
        if not real.exists():
            return FileText(path=real, shown=name, text="", bom=False, state=None)
        if not real.is_file() or real.stat().st_size > _LARGEST:
            raise NotConfigured(f"{name} is no file that a host would read.", fix="Move it away, then try again.")
        state, raw = real.stat(), real.read_bytes()
    except (OSError, RuntimeError) as fault:
        raise _barred(name, "read", fault) from None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise NotConfigured(
            f"{name} is no UTF-8 text; it was left as it is.", fix="Save it as UTF-8, then try again."
        ) from None
    return FileText(path=real, shown=name, text=text.removeprefix(_BOM), bom=text.startswith(_BOM), state=state)


def write(old: FileText, new: str) -> Path | None:
    """Put ``new`` in the place of what was read, at once or not at all; the backup, where there was a file.

    The first backup is never overwritten: it is the original. Later ones take each other's place beside it.

    Permissions and owner stay; a new file is its owner's alone. Raises ``NotConfigured``; then nothing was changed.
    """
    if old.state is not None and not old.state.st_mode & stat.S_IWUSR:
        raise NotConfigured(
            f"{old.shown} is read-only; it was left as it is.",
            fix="Make it writable, or put in by hand what --print shows.",
        )
    raw = ((_BOM if old.bom else "") + new).encode("utf-8")
    try:
        old.path.parent.mkdir(parents=True, exist_ok=True)
        backup = None
        if old.state is not None:
            before, backup = old.path.read_bytes(), backup_of(old.path)
            if backup.exists() and backup.read_bytes() != before:
                backup = old.path.with_name(old.path.name + LATEST)
            _replace(backup, before, old.state)
        _replace(old.path, raw, old.state, unless_changed=old)
    except OSError as fault:
        raise _barred(old.shown, "written", fault) from None
    return backup


def recorded_urls(path: Path) -> dict[str, str]:
    """The record of a host's file: the URLs of entries by their names; none where it can't be read."""
    try:
        found: object = json.loads(_record_of(path).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(url) for name, url in mapping(found).items()}


def record_url(path: Path, name: str, url: str | None) -> None:
    """Change the record: the URL of the entry of that name, or None for no entry. Raises ``NotConfigured``."""
    record, old = _record_of(path), recorded_urls(path)
    new = {key: value for key, value in {**old, name: url}.items() if value is not None}
    if new == old:
        return
    try:
        if new:
            record.parent.mkdir(parents=True, exist_ok=True)
            _replace(record, (json.dumps(new) + "\n").encode(), None)
        else:
            record.unlink(missing_ok=True)
    except OSError as fault:
        raise _barred(record.name, "written", fault) from None


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + RECORD)


def _replace(path: Path, raw: bytes, like: os.stat_result | None, *, unless_changed: FileText | None = None) -> None:
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    fresh = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        if like is not None:
            fresh.chmod(stat.S_IMODE(like.st_mode))
            _same_owner(fresh, like)
        if unless_changed is not None and _changed(unless_changed):
            raise NotConfigured(
                f"{unless_changed.shown} was changed by something else just now; it was left as it is.",
                fix="Try again, best while the host is closed.",
            )
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _same_owner(path: Path, like: os.stat_result) -> None:
    own = path.stat()
    if hasattr(os, "chown") and (own.st_uid, own.st_gid) != (like.st_uid, like.st_gid):
        try:
            os.chown(path, like.st_uid, like.st_gid)
        except PermissionError:
            pass  # then it belongs to whoever writes


def _changed(old: FileText) -> bool:
    try:
        now = old.path.stat()
    except FileNotFoundError:
        return old.state is not None
    return old.state is None or (now.st_mtime_ns, now.st_size) != (old.state.st_mtime_ns, old.state.st_size)


def _barred(name: str, done: str, fault: Exception) -> NotConfigured:
    reason = getattr(fault, "strerror", None) or "links lead in a circle"
    return NotConfigured(
        f"{name} can't be {done}: {reason}.", fix="Look at its permissions, or put in by hand what --print shows."
    )
