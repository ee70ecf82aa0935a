"""Owns the folders that tools may read from, and where a caller's path lies within them.

:func:`find_roots` looks at the file system once, at the start or when the host names other roots. :meth:`Roots.place`
is pure: it compares names and opens nothing, so that a path outside is refused without anybody having touched it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from kimi_mcp.core.errors import InvalidArguments, PathRefused

VARIABLE: Final = "KIMI_ROOTS"
"""The variable by which the operator names the folders."""

LONGEST_PATH: Final = 4096
"""Characters of a path; no system opens a longer one by name."""

WINDOWS: Final = sys.platform == "win32"

_WITHIN_SYSTEM: Final = re.compile(
    r"/(?:bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|run|sbin|sys|usr|System|Library|Applications|cores"
    r"|private/etc|private/var/(?:db|root|run|log)|nix|snap|lost\+found)(?:/.*)?",
    re.DOTALL,
)
"""System folders, whole."""

_SOURCES: Final = re.compile(r"/usr/(?:local/)?src/.+", re.DOTALL)
"""Where images of containers put the application (``WORKDIR /usr/src/app``)."""

_ITSELF_BROAD: Final = re.compile(
    r"/|/(?:home|Users|Volumes|media|mnt|net|opt|private|srv|tmp|var|var/[^/]+|private/tmp|private/var"
    r"|private/var/[^/]+)",
)
"""Folders that hold everybody's things; one of theirs may be a project."""

_A_HOME: Final = re.compile(r"/root|/var/root|/private/var/root|/(?:home|Users)/[^/]+")
"""Somebody's home, by its place."""

_BROAD_ON_WINDOWS: Final = re.compile(
    r"[a-z]:/?|[a-z]:/(?:windows|program files|program files \(x86\)|programdata|\$recycle\.bin"
    r"|system volume information)(?:/.*)?|[a-z]:/users(?:/[^/]+)?",
    re.DOTALL,
)
"""The same, in lower case and with slashes."""

RootsSource = Literal["KIMI_ROOTS", "host", "working directory", "nobody"]
"""Who named the roots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A folder that tools may read from."""

    path: str
    """Absolute, every link resolved once by :func:`find_roots`: from here on no link is followed on the way to it."""
    names: tuple[str, ...]
    """Absolute spellings by which callers may know it: ``path``, and the folder as it was named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPath:
    """Where a caller's path lies."""

    root: Root
    """The innermost root that holds it."""
    parts: tuple[str, ...]
    """The names from the root down, without ``.`` and ``..``; empty for the root itself."""

    @property
    def name(self) -> str:
        """The path relative to its root, with slashes; ``.`` for the root itself."""
        return "/".join(self.parts) or "."


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """The folders that tools may read from."""

    folders: tuple[Root, ...]
    """In the order in which they were named; empty: nothing may be read."""
    source: RootsSource
    """Who named them."""
    working: str | None
    """The working directory, absolute; None where there is none (it was removed)."""
    home: str | None
    """What a leading ``~/`` stands for; None: it stands for itself."""
    why_none: str = ""
    """Where ``folders`` is empty: the reason, a clause without a path."""

    def place(self, path: str) -> ResolvedPath:
        """Where ``path`` lies; compares names and opens nothing.

        A relative path counts from the working directory where that lies within the roots, else from the first root.
        A leading ``~/`` is the home folder (hosts don't expand it), ``~name`` is an ordinary name. ``..`` is taken out
        by name, which is exact because no link is ever followed. Raises ``InvalidArguments`` for an empty path,
        ``PathRefused`` for one that lies outside, holds NUL or is too long; neither repeats the path.
        """
        if not path:
            raise InvalidArguments("The path is empty.", fix="Name a file within the roots.")
        if "\0" in path or len(path) > LONGEST_PATH or not _can_be_encoded(path):
            raise PathRefused(
                "The path is no file name: it is too long, or holds NUL or half a character.",
                fix="Name a file within the roots.",
            )
        if not self.folders:
            raise PathRefused(
                f"No folder may be read: {self.why_none}.",
                fix=f"Set {VARIABLE} to the folders that tools may read from, separated as in PATH.",
            )
        path = _home_expanded(path, self.home)
        found = _inside(_normal(os.path.join(self._base(), path)), self.folders)  # noqa: PTH118  pathlib keeps `..`
        if found is None:
            raise PathRefused("The path lies outside the folders that tools may read from.", fix=self._fix())
        return found

    def _base(self) -> str:
        """The folder from which relative paths count."""
        if self.working is not None and _inside(_normal(self.working), self.folders):
            return self.working
        return self.folders[0].path

    def _fix(self) -> str:
        advice = {
            "KIMI_ROOTS": f"add its folder to {VARIABLE}",
            "host": f"offer its folder as a root in the host, or set {VARIABLE}",
        }.get(self.source, f"set {VARIABLE} to the folders that tools may read from")
        return f"Name a file within the roots; whoever runs the server can also {advice}."


def find_roots(
    named: str | None,
    offered: Sequence[str] | None = None,
    *,
    working: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Roots:
    """The roots for a setting and a host; resolves the links on the way to each, and opens nothing.

    ``named`` is the text of ``KIMI_ROOTS``, ``offered`` the host's own roots as ``file://`` URIs; ``working`` and
    ``environment`` are the process's own unless given. What the operator names is taken as it is, ``/`` and a home
    included. What is offered or found is not: ``/``, a home or a system folder is left out. Never raises.
    """
    environment = os.environ if environment is None else environment
    home = _absolute_or_none(environment.get("USERPROFILE" if WINDOWS else "HOME"))
    if working is None:
        working = _working_directory()
    if named is not None and named.strip():
        texts = (_home_expanded(text.strip(), home) for text in named.split(os.pathsep) if text.strip())
        folders = [_root(os.path.join(working or os.sep, text)) for text in texts]  # noqa: PTH118  as in `place`
        return _roots(folders, "KIMI_ROOTS", working, home, f"{VARIABLE} names none")
    if offered:
        paths = [path for uri in offered if (path := path_of_uri(uri))]
        folders = [root for path in paths if not _broad((root := _root(path)).path, home)]
        why = f"{VARIABLE} is not set, and what the host offers as roots is `/`, a home folder or a system folder"
        if not paths:
            why = f"{VARIABLE} is not set, and the host offers roots that are no local folders"
        return _roots(folders, "host", working, home, why)
    if working is None:
        return _roots([], "nobody", None, home, f"{VARIABLE} is not set, and there is no working directory")
    root = _root(working, environment.get("PWD"))
    folders = [] if _broad(root.path, home) else [root]
    why = (
        f"{VARIABLE} is not set, the host offers no roots, and the working directory is `/`, a home or a system folder"
    )
    return _roots(folders, "working directory", working, home, why)


def path_of_uri(uri: str) -> str | None:
    """The absolute local path of a ``file://`` URI; None for any other URI, and for one of another machine."""
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


def _roots(folders: Sequence[Root], source: RootsSource, working: str | None, home: str | None, why_none: str) -> Roots:
    distinct = {os.path.normcase(root.path): root for root in reversed(folders)}
    kept = tuple(root for root in folders if distinct.get(os.path.normcase(root.path)) is root)
    return Roots(
        folders=kept,
        source=source if kept else "nobody",
        working=working,
        home=home,
        why_none="" if kept else why_none,
    )


def _root(named: str, also: str | None = None) -> Root:
    """The root of a folder; ``also`` is another spelling that is kept where it leads to the same place."""
    real = _normal(_resolved(named))
    names = [real, _normal(named)]
    if also and PurePath(also).is_absolute() and _normal(_resolved(also)) == real:
        names.append(_normal(also))
    return Root(path=real, names=tuple(dict.fromkeys(names)))


def _resolved(path: str) -> str:
    try:
        return os.path.realpath(path)  # what is not there yet stays as it is named
    except (OSError, ValueError):
        return path


def _working_directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  a plain string, like everything here
    except OSError:
        return None


def _absolute_or_none(path: str | None) -> str | None:
    return path if path and PurePath(path).is_absolute() else None


def _normal(path: str) -> str:
    """The path without ``.``, ``..`` and doubled slashes, by name alone."""
    path = os.path.normpath(path)
    # POSIX leaves two leading slashes to the system's own meaning, which on ours is that of one.
    return path[1:] if not WINDOWS and path.startswith("//") else path


def _home_expanded(path: str, home: str | None) -> str:
    if home is not None and (path == "~" or path.startswith(("~/", "~" + os.sep))):
        return home + os.sep + path[2:]
    return path


def _can_be_encoded(path: str) -> bool:
    try:
        os.fsencode(path)
    except ValueError:
        return False
    return True


def _inside(path: str, folders: Sequence[Root]) -> ResolvedPath | None:
    """The innermost root that holds the normal, absolute ``path``; whole names are compared, never a prefix."""
    parts = PurePath(path).parts
    compared = tuple(map(os.path.normcase, parts))
    best: ResolvedPath | None = None
    for root in folders:
        for name in root.names:
            above = PurePath(name).parts
            if compared[: len(above)] == tuple(map(os.path.normcase, above)):
                place = ResolvedPath(root=root, parts=parts[len(above) :])
                if best is None or len(place.parts) < len(best.parts):
                    best = place
    return best


def _broad(path: str, home: str | None) -> bool:
    """Whether a resolved folder is ``/``, a home, a system folder, or holds a home."""
    homes = [_normal(_resolved(folder)) for folder in (home, _home_by_account()) if folder]
    if any(PurePath(own).is_relative_to(path) for own in homes):
        return True
    if WINDOWS:
        return bool(_BROAD_ON_WINDOWS.fullmatch(path.replace("\\", "/").lower()))
    if _A_HOME.fullmatch(path) or _ITSELF_BROAD.fullmatch(path):
        return True
    return bool(_WITHIN_SYSTEM.fullmatch(path)) and not _SOURCES.fullmatch(path)


def _home_by_account() -> str | None:
    """The home folder that the account database names, whatever ``HOME`` says."""
    if sys.platform == "win32":
        return None
    import pwd  # POSIX alone has it

    try:
        return _absolute_or_none(pwd.getpwuid(os.getuid()).pw_dir)
    except (KeyError, OSError):
        return None
