"""The file of the server's own tokens: names, hashes, scopes. I/O: reads and writes that file.

A token has 256 random bits, so a plain SHA-256 of it can't be turned back, and the file holds nothing to call with.
Writers replace it whole, one at a time; whoever reads it sees one state or the next.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints, ValidationError

from kimi_mcp.core.errors import InvalidArguments, NotConfigured
from kimi_mcp.core.settings import Settings
from kimi_mcp.server.http.auth.scopes import Scope

VARIABLE: Final = "KIMI_HTTP_TOKENS"

PREFIX: Final = "kimi_"
"""How each token begins: scanners for leaked secrets find it, and no other issuer is asked about it."""

NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}"
"""What a token may be called; it is the subject of its principal."""

MAX_BYTES: Final = 16 * 1024 * 1024

_LOCK_S: Final = 10.0
"""Seconds that a writer waits for another one."""


class StoredToken(BaseModel):
    """A token as the file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
    """Whose it is; no two have the same."""
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    """Of the whole token, prefix included, in hex."""
    scopes: tuple[Scope, ...]
    created: AwareDatetime
    expires: AwareDatetime | None = None
    """From when on it is refused; None: never."""

    def has_expired(self, now: datetime) -> bool:
        """Whether it is refused by then."""
        return self.expires is not None and self.expires <= now


class _TokenList(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    tokens: tuple[StoredToken, ...] = ()


def digest(token: str) -> str:
    """What the file has of a token."""
    return sha256(token.encode()).hexdigest()


class TokenFile:
    """The file that the setting names."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of(cls, settings: Settings) -> TokenFile:
        """Raises ``NotConfigured`` where the setting names none."""
        if settings.http_tokens is None:
            raise NotConfigured(
                f"{VARIABLE} is not set: there is no file for the tokens.",
                fix=f"Set {VARIABLE} to the path of a file, here and for the server; `tokens add` makes it.",
            )
        try:
            return cls(Path(settings.http_tokens).expanduser().absolute())
        except RuntimeError:
            raise NotConfigured(
                f"{VARIABLE} is in the home of a user who is not known here.", fix="Begin it with / or with ~/."
            ) from None

    def state(self) -> tuple[int, ...] | None:
        """Differs once the file has changed; None where it can't be looked at."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def read(self) -> tuple[StoredToken, ...]:
        """Every token. Raises ``NotConfigured`` for a file that is missing, or none of ours."""
        fix = f"`kimi-mcp tokens add NAME` makes that file, and its first token; or correct {VARIABLE}."
        try:
            # Before it is opened: a pipe would be waited for.
            if not stat.S_ISREG(self._path.stat().st_mode):
                raise NotConfigured(f"{VARIABLE} names something else than a file.", fix=f"Correct {VARIABLE}.")
            with self._path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise NotConfigured(f"{VARIABLE} names a file that does not exist.", fix=fix) from None
        except (OSError, ValueError):
            message = f"The file of {VARIABLE} can't be read."
            raise NotConfigured(message, fix="Let the user of the server read it.") from None
        return _parsed(content)

    def add(
        self, name: str, scopes: Sequence[Scope], *, now: datetime, days: int | None = None
    ) -> tuple[StoredToken, str]:
        """Make a token; returns it as stored, and itself, which nobody can find out again.

        Raises ``InvalidArguments`` for a name that is taken, ``NotConfigured`` for a file that can't be written.
        """
        token = PREFIX + token_urlsafe(32)
        try:
            expires = None if days is None else now + timedelta(days=days)
            entry = StoredToken(name=name, sha256=digest(token), scopes=tuple(scopes), created=now, expires=expires)
        except OverflowError:
            raise InvalidArguments("That is too many days.", fix="Leave --days out: it never expires.") from None
        except ValidationError:
            raise InvalidArguments(
                "A token's name has 1 to 64 letters, digits and . _ @ + -, and begins with a letter or a digit.",
                fix="Name whoever will use it, such as alice or ci-runner.",
            ) from None

        def with_it(tokens: tuple[StoredToken, ...]) -> tuple[StoredToken, ...]:
            if any(each.name == name for each in tokens):
                raise InvalidArguments(
                    f"{name} has a token already.", fix=f"Revoke it (`kimi-mcp tokens revoke {name}`), or name another."
                )
            return (*tokens, entry)

        self._change(with_it)
        return entry, token

    def revoke(self, name: str) -> StoredToken:
        """Take a token away; returns it. Raises ``InvalidArguments`` where there is none of that name."""
        gone: list[StoredToken] = []

        def without_it(tokens: tuple[StoredToken, ...]) -> tuple[StoredToken, ...]:
            gone.extend(each for each in tokens if each.name == name)
            if not gone:
                raise InvalidArguments("There is no token of that name.", fix="`kimi-mcp tokens list` shows them.")
            return tuple(each for each in tokens if each.name != name)

        self._change(without_it)
        return gone[0]

    def _change(self, change: Callable[[tuple[StoredToken, ...]], tuple[StoredToken, ...]]) -> None:
        from filelock import FileLock, Timeout

        path = Path(os.path.realpath(self._path))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock", mode=0o600, timeout=_LOCK_S):
                like = path.stat() if path.exists() else None
                tokens = change(() if like is None else self.read())
                _replace(path, _TokenList(tokens=tokens).model_dump_json(indent=2).encode() + b"\n", like)
        except (OSError, Timeout):
            message = f"The file of {VARIABLE} can't be written."
            raise NotConfigured(message, fix="Name a file in a folder that you may write to.") from None


def _parsed(content: bytes) -> tuple[StoredToken, ...]:
    if not content.strip():
        return ()
    try:
        tokens = _TokenList.model_validate_json(content).tokens if len(content) <= MAX_BYTES else None
    except ValidationError:
        tokens = None
    if tokens is None or any(len({getattr(each, key) for each in tokens}) < len(tokens) for key in ("name", "sha256")):
        raise NotConfigured(
            f"The file of {VARIABLE} is damaged: it is no list of tokens as `kimi-mcp tokens add` writes it.",
            fix="Put a copy of it back; or remove it, and give out new tokens.",
        )
    return tokens


def _replace(path: Path, content: bytes, like: os.stat_result | None) -> None:
    """Write a file whole, for its owner alone: that of the file before it, where there was one."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    fresh = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if like is not None and hasattr(os, "chown"):
            with suppress(PermissionError):
                os.chown(fresh, like.st_uid, like.st_gid)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def utc_now() -> datetime:
    """The time, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)
