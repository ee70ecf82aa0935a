"""Hosts, rows of the catalogue's ``hosts.toml``, and what is written for each: the command, its settings, its keys.

A key's value goes into a host's file only where the host has no better place for it, and then only when a person gave
it for that. Everywhere else the entry says where the host is to look.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from kimi_mcp import catalogue
from kimi_mcp.catalogue import credentials
from kimi_mcp.cli.install.documents import listed, mapping
from kimi_mcp.core.errors import InvalidArguments, KimiError
from kimi_mcp.core.profiles import Provider, SourcedRecord
from kimi_mcp.core.settings import read_settings

System = Literal["linux", "macos", "windows"]


class Keys(BaseModel, frozen=True, extra="forbid"):
    """How a key gets to the server that a host starts; the top of ``hosts.toml`` explains each way."""

    way: Literal["reference", "input", "named", "inherited", "plain"]
    hint: str
    form: str | None = None
    """With ``reference`` and ``input``: what is written in place of the key."""
    inputs: tuple[str, ...] = ()
    """With ``input``: the path to the host's questions."""
    input: Mapping[str, Any] | None = None
    """With ``input``: one question."""


class RemoteForm(SourcedRecord, strict=False):
    """How a host's file holds a server at a URL; the top of ``hosts.toml`` explains the fields."""

    entry: Mapping[str, Any]
    token: Mapping[str, Any]
    way: Literal["reference", "input", "named", "plain"]
    hint: str
    login: str

    @property
    def url_field(self) -> str:
        """The field of an entry that holds the URL."""
        return next(field for field, value in self.entry.items() if value == "{url}")


class HostRow(SourcedRecord, strict=False):
    """One host; the top of ``hosts.toml`` explains the fields."""

    id: str
    name: str
    kind: Literal["json", "jsonc", "toml", "yaml"]
    places: Mapping[System, tuple[str, ...]]
    servers: tuple[str, ...]
    entry: Mapping[str, Any]
    keys: Keys
    next: str
    moved_by: Mapping[Literal["variable", "file"], str] = {}
    always_load: str | None = None
    waits: str | None = None
    remote: RemoteForm | None = None
    no_remote: str | None = None

    def deferred(self) -> HostRow:
        """This host, its tools left to its tool search."""

        def without(form: Any) -> dict[str, Any]:
            return {"entry": {key: value for key, value in form.entry.items() if key != self.always_load}}

        remote = None if self.remote is None else self.remote.model_copy(update=without(self.remote))
        return self.model_copy(update={**without(self), "remote": remote})


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
    if (moved := host.moved_by) and (folder := environment.get(moved["variable"], "").strip()):
        return Path(folder).expanduser() / moved["file"]
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


# ── the entry ─────────────────────────────────────────────────────────────────────────────────────────────────────

PROGRAM = "kimi-mcp"
"""The command's name; an entry that starts it is ours."""

MODULE = "kimi_mcp"
"""The package's name, for ``python -m``."""

_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|DATABASE_URL)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchCommand:
    """A way to start the server."""

    command: str
    """The program, as an absolute path."""
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredEntry:
    """What a host's file is to hold."""

    entry: Mapping[str, Any]
    """The entry, its fields in order."""
    fields: Mapping[str, str]
    """Which field holds the ``command``, the ``args`` or both (``argv``), the settings (``env``), the names of
    ``keys``."""
    inputs: tuple[Mapping[str, Any], ...]
    """Questions that the host is to ask."""
    keys: tuple[str, ...]
    """The variables of the keys that the server may get."""
    in_clear: tuple[str, ...]
    """Those whose value is in the entry."""


def started_as(argv0: str, *, windows: bool | None = None) -> LaunchCommand:
    """How this program was started, so that a host can do the same from any folder.

    Raises ``InvalidArguments`` where a host could not: Python found the package only in the working directory.
    """
    windows = sys.platform == "win32" if windows is None else windows
    path = Path(argv0).absolute()
    if path.stem == PROGRAM:
        if windows and not path.suffix and (exe := path.with_suffix(".exe")).exists():
            path = exe  # the script that pip makes removes the ending of its own name
        if path.is_file():
            return LaunchCommand(command=str(path))
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution(PROGRAM)
    except PackageNotFoundError:
        raise InvalidArguments(
            "This Python finds kimi_mcp only in the working directory; a host would not find it.",
            fix="Run `make demo` once, then `.venv/bin/kimi-mcp install` from the checkout.",
        ) from None
    return LaunchCommand(command=str(Path(sys.executable).absolute()), args=("-m", MODULE))


def is_key(name: str) -> bool:
    """Whether a variable holds a provider's key."""
    return any(row.secret for row in credentials.variables(catalogue.load()) if row.name == name)


def is_secret(name: str) -> bool:
    """Whether a variable's value is a secret: a key, or what may hold a password."""
    return is_key(name) or bool(_SECRET.search(name))


def is_reference(value: str) -> bool:
    """Whether a value only refers to another one."""
    return value.startswith("${") and value.endswith("}")


def withheld(host: HostRow, env: Mapping[str, str]) -> list[str]:
    """The variables whose given value is not written: the host has a better place for it."""
    secret = [name for name, value in env.items() if is_secret(name) and value and not is_reference(value)]
    return [] if host.keys.way == "plain" else secret


def keys_in_use(settings: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
    """The variables of the keys that calls would carry: the chosen provider's, then those of others that are allowed.

    ``settings`` are those of the entry, keys among them; ``environment`` has the others that are set. A key of the
    chosen provider is named even where none is set; of another, only where it is. Raises ``InvalidArguments`` where an
    unknown provider is named.
    """
    named = read_settings(settings)
    facts = catalogue.load_for(named)
    places = set(settings), {name for name, value in environment.items() if value.strip()}
    by_key = credentials.key_variables(facts)
    order = list(by_key)
    try:
        if named.provider is None and named.base_url is None:
            # Then the first key chooses: one that comes before it must stay out, or calls would go elsewhere.
            key: str | None = _first((*order, "KIMI_API_KEY"), *places) or order[0]
            chosen = facts.providers[by_key.get(key, "moonshot")]
            barred = order[: order.index(key)] if key in order else order
        else:
            chosen, barred = credentials.chosen_provider(named, facts), []
            key = _key_of(chosen, *places, borrows=named.provider is not None)
        allowed = [facts.providers[id] for id in credentials.allowed_providers(named, facts, chosen) if id != chosen.id]
    except KimiError as error:
        raise InvalidArguments(error.message, fix=error.fix) from None
    others = [_first(provider.key_variables, *places) for provider in allowed]
    return list(dict.fromkeys(name for name in (key, *others) if name and name not in barred))


def _key_of(chosen: Provider, *places: Collection[str], borrows: bool) -> str | None:
    """The variable of the chosen provider's key; None: it needs none."""
    if not chosen.needs_key or not chosen.key_variables:
        return None
    names = ("KIMI_API_KEY", *chosen.key_variables, *(chosen.borrowed_key_variables if borrows else ()))
    return _first(names, *places) or chosen.key_variables[0]


def _first(names: Sequence[str], *places: Collection[str]) -> str | None:
    """The first of the names in the first place that has any."""
    return next((name for place in places for name in names if name in place), None)


def desired_entry(
    host: HostRow, name: str, started: LaunchCommand, env: Mapping[str, str], keys: Sequence[str]
) -> DesiredEntry:
    """The entry for a host: ``env`` as it was given, and ``keys``, variables that the server may get besides.

    Raises ``InvalidArguments`` where a text is no UTF-8.
    """
    for what, text in (("The command's path", started.command), *((f"The value of {key}", env[key]) for key in env)):
        try:
            text.encode("utf-8")  # of bytes that are no UTF-8, Python makes surrogates
        except UnicodeEncodeError:
            raise InvalidArguments(
                f"{what} is no UTF-8, and a host's file holds nothing else.",
                fix="Rename the folder or file, or link to it.",
            ) from None
    values, named, inputs, in_clear = dict[str, str](), list[str](), list[Mapping[str, Any]](), list[str]()
    for variable in dict.fromkeys((*env, *keys)):
        given = env.get(variable)
        if not is_secret(variable) or (given and is_reference(given)):
            values[variable] = given or ""
            continue
        named.append(variable)
        if host.keys.form is not None:
            values[variable] = named_in(host.keys.form, variable)
        if host.keys.input is not None:
            inputs.append(question(host, variable))
        if host.keys.way == "plain" and given:
            values[variable] = given
            in_clear.append(variable)
    known = {
        "name": name,
        "command": started.command,
        "args": list(started.args),
        "argv": [started.command, *started.args],
        "env": values,
        "keys": named if host.keys.way == "named" else [],
    }
    entry: dict[str, Any] = {}
    fields: dict[str, str] = {}
    for field, template in host.entry.items():
        place = re.fullmatch(r"\{(\w+)(\?)?\}", template) if isinstance(template, str) else None
        if place is None:
            entry[field] = template
            continue
        fields[place[1]] = field
        if known[place[1]] or not place[2]:
            entry[field] = known[place[1]]
    return DesiredEntry(entry=entry, fields=fields, inputs=tuple(inputs), keys=tuple(named), in_clear=tuple(in_clear))


def question(host: HostRow, variable: str) -> Mapping[str, Any]:
    """What the host is to ask for a secret."""
    return {key: named_in(text, variable) for key, text in (host.keys.input or {}).items()}


def named_in(text: Any, variable: str) -> Any:
    """A text of ``hosts.toml`` for a variable: its name, and the id of the question for it, are filled in."""
    if not isinstance(text, str):
        return text
    filled = {"NAME": variable, "ID": input_id(variable)}
    # Both at once: a variable's name may contain ID.
    return re.sub(r"\b(NAME|ID)\b", lambda found: filled[found[0]], text)


def input_id(variable: str) -> str:
    """The id of the question for a key."""
    return f"{PROGRAM}-{variable.lower().replace('_', '-')}"


def is_ours(entry: Any, fields: Mapping[str, str]) -> bool:
    """Whether an entry of a host's file starts kimi-mcp."""
    found = mapping(entry)
    if "argv" in fields:
        command, *args = listed(found.get(fields["argv"])) or [""]
    else:
        command, args = found.get(fields["command"]), listed(found.get(fields["args"]))
    stem = re.split(r"[/\\]", command)[-1].removesuffix(".exe") if isinstance(command, str) else ""
    return stem == PROGRAM or any(word in (PROGRAM, MODULE) for word in args)
