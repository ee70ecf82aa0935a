"""The folders that tools may read from, and the resolution of a caller's path within them.

:func:`find_roots` resolves links once, at the start or when the host names other roots. :meth:`Roots.resolve` is pure:
it compares names, so that a path outside is refused without touching it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from kimi_mcp.core.errors import InvalidArguments, PathRefused

VARIABLE: Final = "KIMI_ROOTS"
"""The variable that names the folders."""

LONGEST_PATH: Final = 4096
"""Characters of a path; no system opens a longer one."""

WINDOWS: Final = sys.platform == "win32"

BY_DESCRIPTOR: Final = (
    os.open in os.supports_dir_fd
    and os.stat in os.supports_dir_fd
    and os.scandir in os.supports_fd
    and hasattr(os, "O_NOFOLLOW")
)
"""Whether names can be opened relative to a folder's descriptor, as on Linux and macOS."""

_REMOTE: Final = "over HTTP a path names a file of the server, not one of yours"
_REMOTE_FIX: Final = (
    "Send the content itself: text in `prompt`, media as a data URI or an https URL. The operator can also set "
    f"{VARIABLE} to folders of the server that callers may read from."
)

_BROAD: Final = re.compile(
    r"""
      (?!/usr/(?:local/)?src/.)  # where images of containers put the application (WORKDIR /usr/src/app)
      /(?:bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|run|sbin|sys|usr|System|Library|Applications|cores
         |private/etc|private/var/(?:db|root|run|log)|nix|snap|lost\+found)(?:/.*)?  # system folders, whole
    | /|/(?:home|Users|Volumes|media|mnt|net|opt|private|srv|tmp|var|var/[^/]+|private/tmp|private/var
         |private/var/[^/]+)  # shared folders; a folder in them may be a project
    | /root|/var/root|/private/var/root|/(?:home|Users)/[^/]+  # homes
    """,
    re.DOTALL | re.VERBOSE,
)
"""Folders that are no root unless the operator names them."""

_BROAD_ON_WINDOWS: Final = re.compile(
    r"[a-z]:/?|[a-z]:/(?:windows|program files|program files \(x86\)|programdata|\$recycle\.bin"
    r"|system volume information)(?:/.*)?|[a-z]:/users(?:/[^/]+)?",
    re.DOTALL,
)
"""The same on Windows, in lower case and with slashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A folder that tools may read from."""

    path: str
    """Absolute, with every link resolved by :func:`find_roots`; no link is followed later."""
    names: tuple[str, ...]
    """Absolute spellings that callers may use: ``path``, and the folder as it was named."""
    by_descriptor: bool = BY_DESCRIPTOR
    """How names below it are opened: see ``files``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPath:
    """A caller's path within a root."""

    root: Root
    """The innermost root that contains it."""
    parts: tuple[str, ...]
    """The names from the root down, without ``.`` and ``..``; empty for the root itself."""

    @property
    def name(self) -> str:
        """The path relative to its root, with slashes; ``.`` for the root itself."""
        return "/".join(self.parts) or "."

    @property
    def full(self) -> PurePath:
        """The absolute path."""
        return PurePath(self.root.path, *self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """The folders that tools may read from."""

    folders: tuple[Root, ...]
    """In the order named; empty: nothing may be read."""
    source: Literal["KIMI_ROOTS", "host", "working directory"]
    """Where they come from."""
    working: str | None
    """The working directory, absolute; None: it was removed."""
    home: str | None
    """The home folder, for a leading ``~/``."""
    why_none: str = ""
    """Why ``folders`` is empty, where it is: a clause without a path."""
    fix_none: str = f"Set {VARIABLE} to the folders that tools may read from, separated as in PATH."
    """What to do about that."""

    def resolve(self, path: str) -> ResolvedPath:
        """Resolve ``path`` by name, without opening anything.

        A relative path counts from the working directory if that is within the roots, else from the first root. A
        leading ``~/`` is the home folder (hosts don't expand it), ``~name`` an ordinary name. ``..`` is resolved by
        name, which is exact because no link is ever followed. Raises ``InvalidArguments`` for an empty path,
        ``PathRefused`` for one outside, with NUL or too long; neither repeats the path.
        """
        if not path:
            raise InvalidArguments("The path is empty.", fix="Name a file within the roots.")
        try:
            is_name = len(path) <= LONGEST_PATH and b"\0" not in os.fsencode(path)
        except ValueError:
            is_name = False
        if not is_name:
            raise PathRefused(
                "The path is no file name: it is too long, or holds NUL or half a character.",
                fix="Name a file within the roots.",
            )
        if not self.folders:
            raise PathRefused(
                f"No folder may be read: {self.why_none}.",
                fix=self.fix_none,
            )
        path = os.path.join(self._base, _home_expanded(path, self.home))  # noqa: PTH118  pathlib keeps `..`
        found = _inside(_normal(path), self.folders)
        if found is None:
            advice = {
                "KIMI_ROOTS": f"add its folder to {VARIABLE}",
                "host": f"offer its folder as a root in the host, or set {VARIABLE}",
                "working directory": f"set {VARIABLE} to the folders that tools may read from",
            }[self.source]
            raise PathRefused(
                "The path is outside the folders that tools may read from.",
                fix=f"Name a file within the roots; the operator can also {advice}.",
            )
        return found

    def spelled(self, path: ResolvedPath) -> str:
        """How a caller names a path that was found here: as short as can be."""
        with suppress(ValueError):
            return path.full.relative_to(_resolved(self._base)).as_posix()
        return str(path.full)

    @property
    def _base(self) -> str:
        """The folder from which relative paths count."""
        if self.working is not None and _inside(_normal(self.working), self.folders):
            return self.working
        return self.folders[0].path


def find_roots(
    named: str | None,
    offered: Sequence[str] | None = None,
    *,
    working: str | None = None,
    environment: Mapping[str, str] | None = None,
    remote: bool = False,
) -> Roots:
    """The roots for a setting and a host, their links resolved. Never raises.

    ``named`` is the text of ``KIMI_ROOTS``, ``offered`` the host's roots as ``file://`` URIs; ``working`` and
    ``environment`` are the process's own unless given. The operator may name anything; of what is offered or found,
    ``/``, a home or a system folder is left out. ``remote``: the caller may be on another machine, so nothing counts
    but what the operator names.
    """
    environment = os.environ if environment is None else environment
    home = _absolute_or_none(environment.get("USERPROFILE" if WINDOWS else "HOME"))
    if working is None:
        with suppress(OSError):
            working = os.getcwd()  # noqa: PTH109  a plain string, like everything here
    folders: list[Root] = []
    if named is not None and named.strip():
        source, why_none = "KIMI_ROOTS", f"{VARIABLE} names none"
        texts = (_home_expanded(text.strip(), home) for text in named.split(os.pathsep) if text.strip())
        folders = [_root(os.path.join(working or os.sep, text)) for text in texts]  # noqa: PTH118  as in `resolve`
    elif remote:
        return Roots(
            folders=(), source="KIMI_ROOTS", working=working, home=home, why_none=_REMOTE, fix_none=_REMOTE_FIX
        )
    elif offered:
        paths = [path for uri in offered if (path := path_of_uri(uri))]
        folders = [root for path in paths if not _broad((root := _root(path)).path, home)]
        what = "what the host offers as roots is `/`, a home folder or a system folder"
        what = what if paths else "the host offers roots that are no local folders"
        source, why_none = "host", f"{VARIABLE} is not set, and {what}"
    elif working is None:
        source, why_none = "working directory", f"{VARIABLE} is not set, and there is no working directory"
    else:
        folders = [root for root in (_root(working, environment.get("PWD")),) if not _broad(root.path, home)]
        what = "the host offers no roots, and the working directory is `/`, a home or a system folder"
        source, why_none = "working directory", f"{VARIABLE} is not set, {what}"
    distinct: dict[str, Root] = {}
    for root in folders:
        distinct.setdefault(os.path.normcase(root.path), root)
    return Roots(folders=tuple(distinct.values()), source=source, working=working, home=home, why_none=why_none)


def path_of_uri(uri: str) -> str | None:
    """The absolute local path of a ``file://`` URI; None for any other URI or machine."""
    try:
        split = urlsplit(uri)
    except ValueError:
        return None
    path = unquote(split.path, errors="surrogateescape")
    if split.scheme != "file" or split.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        return None
    if WINDOWS:
        if path.startswith("//"):
            return None
        path = path[1:].replace("/", "\\")
    return path if PurePath(path).is_absolute() else None


def _root(named: str, also: str | None = None) -> Root:
    """The root of a folder; ``also`` is another spelling, kept if it resolves to the same folder."""
    real = _normal(_resolved(named))
    names = [real, _normal(named)]
    if also and PurePath(also).is_absolute() and _normal(_resolved(also)) == real:
        names.append(_normal(also))
    return Root(path=real, names=tuple(dict.fromkeys(names)))


def _resolved(path: str) -> str:
    with suppress(OSError, ValueError):
        return os.path.realpath(path)  # a missing folder keeps its name
    return path


def _absolute_or_none(path: str | None) -> str | None:
    return path if path and PurePath(path).is_absolute() else None


def _normal(path: str) -> str:
    """The path without ``.``, ``..`` and doubled slashes, by name alone."""
    path = os.path.normpath(path)
    # POSIX lets systems define two leading slashes; ours take them as one.
    return path[1:] if not WINDOWS and path.startswith("//") else path


def _home_expanded(path: str, home: str | None) -> str:
    if home is not None and (path == "~" or path.startswith(("~/", "~" + os.sep))):
        return home + os.sep + path[2:]
    return path


def _inside(path: str, folders: Sequence[Root]) -> ResolvedPath | None:
    """The normal, absolute ``path`` in its innermost root; whole names are compared, never a prefix."""
    parts = PurePath(path).parts
    compared = tuple(map(os.path.normcase, parts))
    best: ResolvedPath | None = None
    for root in folders:
        for name in root.names:
            above = PurePath(name).parts
            if compared[: len(above)] == tuple(map(os.path.normcase, above)):
                found = ResolvedPath(root=root, parts=parts[len(above) :])
                if best is None or len(found.parts) < len(best.parts):
                    best = found
    return best


def _broad(path: str, home: str | None) -> bool:
    """Whether a resolved folder is ``/``, a home, a system folder, or contains a home."""
    homes = [_normal(_resolved(folder)) for folder in (home, _home_by_account()) if folder]
    if any(PurePath(own).is_relative_to(path) for own in homes):
        return True
    if WINDOWS:
        return bool(_BROAD_ON_WINDOWS.fullmatch(path.replace("\\", "/").lower()))
    return bool(_BROAD.fullmatch(path))


def _home_by_account() -> str | None:
    """The home folder in the account database, whatever ``HOME`` is."""
    if sys.platform == "win32":
        return None
    import pwd  # only on POSIX

    with suppress(KeyError, OSError):
        return _absolute_or_none(pwd.getpwuid(os.getuid()).pw_dir)
    return None
