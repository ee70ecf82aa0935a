"""The hosts that kimi-mcp installs itself into, read from the rows of ``hosts.toml``. Reads that one file."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

from kimi_mcp import catalogue

System = Literal["linux", "macos", "windows"]
"""A system that hosts keep their files apart for."""

KeyWay = Literal["reference", "input", "named", "inherited", "plain"]
"""How a key gets to the server; what each means stands at the top of ``hosts.toml``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """How a key gets to the server that a host starts."""

    way: KeyWay
    """Which of the ways."""
    hint: str
    """What a person does for it; ``NAME`` stands for the variable."""
    form: str | None = None
    """With ``reference`` and ``input``: what stands in place of the key."""
    inputs: tuple[str, ...] = ()
    """With ``input``: the way to the host's questions."""
    input: Mapping[str, Any] | None = None
    """With ``input``: one question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRow:
    """One host."""

    id: str
    """Its name on the command line."""
    name: str
    """Its name for people."""
    kind: str
    """The kind of its file: a key of ``documents.KINDS``."""
    places: Mapping[System, tuple[str, ...]]
    """Where its file may lie, by system."""
    servers: tuple[str, ...]
    """The way to the entries within the file."""
    entry: Mapping[str, Any]
    """What is written, with places to fill in."""
    keys: Keys
    """How a key gets there."""
    next: str
    """What a person does after installing."""
    source: str
    """Where these facts come from."""
    date: date
    """The day of these facts."""
    moved_by: tuple[str, str] | None = None
    """A variable that names another folder, and the file within it."""


@cache
def load_hosts() -> Mapping[str, HostRow]:
    """Every host, in the order of the file."""
    rows = tomllib.loads(Path(catalogue.__file__).with_name("hosts.toml").read_text("utf-8"))["hosts"]
    return {row["id"]: _host(row) for row in rows}


def _host(row: dict[str, Any]) -> HostRow:
    keys, moved = dict(row.pop("keys")), row.pop("moved_by", None)
    return HostRow(
        keys=Keys(inputs=tuple(keys.pop("inputs", ())), **keys),
        servers=tuple(row.pop("servers")),
        places={system: tuple(places) for system, places in row.pop("places").items()},
        moved_by=(moved["variable"], moved["file"]) if moved else None,
        **row,
    )


def this_system() -> System:
    """The system that this runs on; whatever is neither macOS nor Windows keeps its files as Linux does."""
    return "macos" if sys.platform == "darwin" else "windows" if sys.platform == "win32" else "linux"


def place_of(host: HostRow, system: System, home: Path, environment: Mapping[str, str]) -> Path:
    """Where the host's file lies, or would lie. Looks which of several places is there."""
    if host.moved_by and (folder := environment.get(host.moved_by[0], "").strip()):
        return Path(folder).expanduser() / host.moved_by[1]
    filled = {
        "home": str(home),
        "config": _absolute(environment.get("XDG_CONFIG_HOME", "")) or str(home / ".config"),
        "appdata": environment.get("APPDATA") or str(home / "AppData" / "Roaming"),
        "localappdata": environment.get("LOCALAPPDATA") or str(home / "AppData" / "Local"),
    }
    places = [Path(place.format_map(filled)) for place in host.places[system]]
    there = [place for place in places if place.exists()]
    near = [place for place in places if place.parent.is_dir()]
    return (there or near or places)[0]


def _absolute(folder: str) -> str | None:
    """A relative XDG folder is to be ignored, as its specification says."""
    return folder if folder and Path(folder).is_absolute() else None
