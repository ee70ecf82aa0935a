"""The hosts that kimi-mcp installs itself into: the rows of the catalogue's ``hosts.toml``. Reads that one file."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from kimi_mcp import catalogue
from kimi_mcp.core.profiles import SourcedRecord

System = Literal["linux", "macos", "windows"]


class Keys(BaseModel, frozen=True, extra="forbid"):
    """How a key gets to the server that a host starts; the top of ``hosts.toml`` explains the ways."""

    way: Literal["reference", "input", "named", "inherited", "plain"]
    hint: str
    """What a person does for it; ``NAME`` stands for the variable."""
    form: str | None = None
    """With ``reference`` and ``input``: what is written in place of the key."""
    inputs: tuple[str, ...] = ()
    """With ``input``: the path to the host's questions."""
    input: Mapping[str, Any] | None = None
    """With ``input``: one question."""


class MovedFolder(BaseModel, frozen=True, extra="forbid"):
    """A variable that names another folder, and the file within it."""

    variable: str
    file: str


class HostRow(SourcedRecord, strict=False):
    """One host."""

    id: str
    """Its name on the command line."""
    name: str
    """Its name for people."""
    kind: Literal["json", "jsonc", "toml", "yaml"]
    """The format of its file."""
    places: Mapping[System, tuple[str, ...]]
    """Where its file may be."""
    servers: tuple[str, ...]
    """The path to the entries within the file."""
    entry: Mapping[str, Any]
    """What is written, with fields to fill in."""
    keys: Keys
    next: str
    """What a person does after installing."""
    moved_by: MovedFolder | None = None
    always_load: str | None = None
    """The field of the entry that shows every tool to the host's model, instead of leaving them to a tool search."""

    def deferred(self) -> HostRow:
        """This host, its tools left to its tool search."""
        return self.model_copy(update={"entry": {k: v for k, v in self.entry.items() if k != self.always_load}})


@cache
def load_hosts() -> Mapping[str, HostRow]:
    """Every host by its id, in the order of the file."""
    rows = tomllib.loads(Path(catalogue.__file__).with_name("hosts.toml").read_text("utf-8"))["hosts"]
    return {row["id"]: HostRow(**row) for row in rows}


def this_system() -> System:
    """The system that this runs on; any other counts as Linux."""
    return "macos" if sys.platform == "darwin" else "windows" if sys.platform == "win32" else "linux"


def place_of(host: HostRow, system: System, home: Path, environment: Mapping[str, str]) -> Path:
    """Where the host's file is, or would be: of several places the first that exists."""
    if (moved := host.moved_by) and (folder := environment.get(moved.variable, "").strip()):
        return Path(folder).expanduser() / moved.file
    config = environment.get("XDG_CONFIG_HOME", "")  # a relative one is to be ignored, as its specification says
    filled = {
        "home": str(home),
        "config": config if Path(config).is_absolute() else str(home / ".config"),
        "appdata": environment.get("APPDATA") or str(home / "AppData" / "Roaming"),
        "localappdata": environment.get("LOCALAPPDATA") or str(home / "AppData" / "Local"),
    }
    places = [Path(place.format_map(filled)) for place in host.places[system]]
    existing = [place for place in places if place.exists()]
    near = [place for place in places if place.parent.is_dir()]
    return (existing or near or places)[0]
