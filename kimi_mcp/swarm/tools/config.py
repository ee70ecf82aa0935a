"""The file behind ``KIMI_SWARM_MCP``: which MCP servers there are and what they may do. I/O: reads that one file.

Its form is the one that hosts use, so that a host's own file can be named: ``mcpServers``, with ``command``, ``args``,
``env`` and ``cwd`` for a process, ``url`` and ``headers`` for streamable HTTP, ``type`` or ``transport`` where somebody
says which, ``disabled``, and ``${VAR}`` or ``${VAR:-otherwise}`` for a variable of the operator's environment. One key
is ours: ``allow``, patterns of the tools that may run though nothing marks them as read-only. Keys that we don't know
are other hosts'. What is wrong raises ``NotConfigured`` with the key and the mend; no value is ever repeated.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from kimi_mcp.core.errors import NotConfigured

VARIABLE = "KIMI_SWARM_MCP"
"""The variable that names the file."""

MAX_FILE_BYTES = 1024 * 1024
"""Bytes of the file."""

MAX_SERVERS = 64
"""Servers that are not disabled."""

_PROCESS, _HTTP, _OLD = "process", "http", "old"
_KINDS: Mapping[str, str] = {
    "stdio": _PROCESS,
    "local": _PROCESS,
    "http": _HTTP,
    "streamable-http": _HTTP,
    "streamable_http": _HTTP,
    "streamablehttp": _HTTP,
    "remote": _HTTP,
    "sse": _OLD,
}
"""What hosts write under ``type`` or ``transport``, in small letters."""

_URL_KEYS = ("url", "httpUrl", "serverUrl")
_EXPANSION = re.compile(r"\$\{([^}]*)\}")
_NAMED = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?\Z", re.DOTALL)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")

_SECRETIVE = re.compile(
    r"key|token|secret|passw|pwd|passphrase|auth|cred|cookie|session|signature|private|bearer|dsn|webhook|(^|_)pa(ss|t)$",
    re.IGNORECASE,
)
"""Names of variables and arguments whose value is a secret, however it looks."""

_PLAIN_HEADERS = frozenset({"accept", "accept-language", "content-type", "user-agent", "mcp-protocol-version"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """One MCP server of the file."""

    name: str
    """Its key in ``mcpServers``."""
    command: tuple[str, ...] = field(default=(), repr=False)
    """Program and arguments; empty: it is reached by ``url``."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """What its process gets beside the few variables that every process needs."""
    folder: str | None = None
    """The working directory of its process; None: ours."""
    url: str | None = field(default=None, repr=False)
    """Its streamable HTTP endpoint."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """What each request to it carries."""
    allow: tuple[str, ...] = ()
    """Patterns of tools that may run though they are not marked as read-only."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values of this entry that nobody else may read."""


def read_servers(path: str, environment: Mapping[str, str]) -> tuple[ServerConfig, ...]:
    """The servers that the file lists and does not disable, in its order. Raises ``NotConfigured``."""
    document = _parsed(_text(path))
    entries = document.get("mcpServers")
    if not isinstance(entries, dict):
        _refuse("has no object `mcpServers`", 'Make it {"mcpServers": {"NAME": {"command": "…", "args": []}}}.')
    servers = [
        _server(name, cast(Any, entry), environment)
        for name, entry in cast(dict[str, object], entries).items()
        if not _disabled(name, entry)
    ]
    if len(servers) > MAX_SERVERS:
        _refuse(f"lists {len(servers)} servers", f'List at most {MAX_SERVERS}, or set "disabled": true in some.')
    return tuple(servers)


def check_servers(path: str | None, environment: Mapping[str, str], needed: Sequence[str]) -> None:
    """Raise ``NotConfigured`` where the file (None: there is none) can't be used, or does not list a server."""
    listed = {server.name for server in read_servers(path, environment)} if path is not None else set[str]()
    missing = [f"`{printable_name(name)}`" for name in needed if name not in listed]
    if missing:
        raise NotConfigured(
            f"The swarm began with tools of {', '.join(missing)}, which no file of {VARIABLE} lists here.",
            fix=f"Set {VARIABLE} to the file that it began with; or end it with `kimi-mcp runs cancel` and call again.",
        )


def printable_name(name: str) -> str:
    """A name as our own sentences can hold it: what is not plain in it is replaced, what is long is cut."""
    plain = re.sub(r"[^A-Za-z0-9_.:/@*?\[\]!-]", "_", name)
    return plain if len(plain) <= 64 else plain[:63] + "…"


# ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _text(path: str) -> str:
    try:
        file = Path(path).expanduser()
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            _refuse("is not a file", f"Set {VARIABLE} to the path of an `mcpServers` JSON file.")
        if found.st_size > MAX_FILE_BYTES:
            _refuse("names a file of more than 1 MB", "Name the file that lists the MCP servers, and nothing else.")
        return file.read_bytes()[:MAX_FILE_BYTES].decode("utf-8-sig")
    except FileNotFoundError:
        _refuse("names a file that is not there", f"Set {VARIABLE} to the path of an `mcpServers` JSON file.")
    except (OSError, RuntimeError):
        _refuse("names a file that can't be read", f"Let this user read it, or set {VARIABLE} to another.")
    except (UnicodeDecodeError, ValueError):
        _refuse("names a file that is not UTF-8 text", "Save it as UTF-8.")


def _parsed(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as fault:
        _refuse(
            f"names a file that is no JSON: line {fault.lineno}, column {fault.colno}",
            "Mend it there; JSON has neither comments nor a comma before a closing bracket.",
        )
    except RecursionError:
        _refuse("names a file that is nested too deeply", "Keep to the form of `mcpServers`.")
    if not isinstance(document, dict):
        _refuse("names a file that holds no JSON object", 'Make it {"mcpServers": {…}}.')
    return cast(dict[str, Any], document)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            _refuse(
                f"names a file with two entries `{printable_name(key)}` in one object", "Rename or remove one of them."
            )
        found[key] = value
    return found


def _refuse(what: str, fix: str) -> NoReturn:
    raise NotConfigured(f"{VARIABLE} {what}.", fix=fix)


# ── one entry ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Entry:
    """The reader of one entry: it knows the key that it is at, and collects what must stay secret."""

    def __init__(self, name: str, entry: dict[str, Any], environment: Mapping[str, str]) -> None:
        self._at = f"mcpServers.{printable_name(name)}"
        self._entry = entry
        self._environment = environment
        self.secrets: list[str] = []

    def wrong(self, key: str, what: str, fix: str) -> NoReturn:
        raise NotConfigured(f"In the file of {VARIABLE}, `{self._at}{key and '.' + key}` {what}.", fix=fix)

    def has(self, key: str) -> bool:
        return self._entry.get(key) is not None

    def text(self, key: str) -> str | None:
        value = self._entry.get(key)
        return None if value is None else self._expanded(key, value)

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._entry.get(key)
        if values is None:
            return ()
        if not isinstance(values, list):
            self.wrong(key, "is not a list", f"Make `{key}` a list of texts.")
        return tuple(self._expanded(f"{key}[{at}]", one) for at, one in enumerate(cast(list[Any], values)))

    def mapping(self, key: str) -> dict[str, str]:
        values = self._entry.get(key)
        if values is None:
            return {}
        if not isinstance(values, dict):
            self.wrong(key, "is not an object", f"Make `{key}` an object of names and texts.")
        found = cast(dict[str, Any], values)
        return {name: self._expanded(f"{key}.{printable_name(name)}", value) for name, value in found.items()}

    def hide(self, name: str, value: str) -> None:
        """Remember a value that must stay secret, by its name or its looks."""
        if _SECRETIVE.search(name) or _looks_secret(value):
            self.secrets += [value, *value.split()[1:]]  # `Bearer …`: what follows is secret by itself too
            self.secrets += _password(value)

    def _expanded(self, key: str, value: Any) -> str:
        if not isinstance(value, str):
            self.wrong(key, "is not a text", "Put it in quotation marks.")
        expanded = _EXPANSION.sub(lambda found: self._variable(key, found[1]), value)
        if "\0" in expanded:
            self.wrong(key, "holds a NUL character", "Take it out.")
        return expanded

    def _variable(self, key: str, said: str) -> str:
        named = _NAMED.match(said)
        if named is None:
            self.wrong(
                key, "holds a `${…}` that only another host understands", "Write ${VAR} for an environment variable."
            )
        value = self._environment.get(named[1]) or named[2]
        if value is None:
            self.wrong(
                key,
                f"names the variable {named[1]}, which is not set",
                f"Set {named[1]} where kimi-mcp is started, or write ${{{named[1]}:-otherwise}}.",
            )
        self.hide(named[1], value)
        return value


def _disabled(name: str, entry: Any) -> bool:
    reader = _Entry(name, {}, {})
    if not isinstance(entry, dict):
        reader.wrong("", "is not an object", 'Make it {"command": "…", "args": []} or {"url": "https://…"}.')
    found = cast(dict[str, Any], entry)
    for key, off in (("disabled", True), ("enabled", False)):
        if key in found and not isinstance(found[key], bool):
            reader.wrong(key, "is neither true nor false", f"Set `{key}` to true or false.")
        if found.get(key) is off:
            return True
    return False


def _server(name: str, entry: dict[str, Any], environment: Mapping[str, str]) -> ServerConfig:
    reader = _Entry(name, entry, environment)
    if not name.strip() or len(name) > 128:
        reader.wrong("", "has a name that is empty or too long", "Give it a short name.")
    url_key = next((key for key in _URL_KEYS if reader.has(key)), None)
    if reader.has("command") == (url_key is not None):
        both = "both `command` and `url`" if url_key else "neither `command` nor `url`"
        reader.wrong("", f"has {both}", "Give it a `command` to start, or the `url` of a streamable HTTP endpoint.")
    _check_kind(reader, entry, process=url_key is None)
    way = _process(reader) if url_key is None else _http(reader, url_key)
    found = ServerConfig(name=name, allow=reader.texts("allow"), **way)
    return replace(found, secrets=tuple(dict.fromkeys(reader.secrets)))  # last: all of the entry has been read


def _check_kind(reader: _Entry, entry: dict[str, Any], *, process: bool) -> None:
    for key in ("type", "transport"):
        said = entry.get(key)
        if said is None:
            continue
        kind = _KINDS.get(said.lower()) if isinstance(said, str) else None
        if kind is None:
            reader.wrong(key, "is no transport that is known", f'Set `{key}` to "stdio" or "http", or leave it out.')
        if kind == _OLD:
            reader.wrong(
                key,
                "asks for the SSE transport, which MCP has replaced",
                f'Give the URL of its streamable HTTP endpoint and set `{key}` to "http", or set "disabled": true.',
            )
        if (kind == _PROCESS) != process:
            reader.wrong(
                key, "does not go with the rest of the entry", "stdio needs `command`, http needs `url`: mend either."
            )


def _process(reader: _Entry) -> dict[str, Any]:
    program = reader.text("command")
    if not program or not program.strip():
        reader.wrong("command", "is empty", "Name the program to start; its arguments go into `args`.")
    arguments = reader.texts("args")
    environment = reader.mapping("env")
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name:
            reader.wrong("env", "has a name that no variable can have", "Rename it.")
        reader.hide(name, value)
    for before, argument in zip(("", *arguments), arguments, strict=False):
        name, _, value = argument.partition("=") if argument.startswith("-") else (before, "", argument)
        if value and (name.startswith("-") or _looks_secret(value)):
            reader.hide(name, value)
    folder = reader.text("cwd")
    if folder is not None:
        folder = os.path.expanduser(folder)  # noqa: PTH111 - Path's own raises where there is no home
    return {"command": (program, *arguments), "environment": environment, "folder": folder}


def _http(reader: _Entry, key: str) -> dict[str, Any]:
    url = (reader.text(key) or "").strip()
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:
        usable = False
    if not usable or " " in url:
        reader.wrong(key, "is no http or https URL", "Give the URL of the server's streamable HTTP endpoint.")
    for name, value in parse_qsl(urlsplit(url).query):
        reader.hide(name, value)
    reader.secrets += _password(url)
    headers = reader.mapping("headers")
    for name, value in headers.items():
        if not _HEADER.match(name) or not value.isascii() or not value.isprintable():
            reader.wrong(f"headers.{printable_name(name)}", "is no header", "Use printable ASCII without line ends.")
        if name.lower() not in _PLAIN_HEADERS:
            reader.hide("secret", value)
    return {"url": url, "headers": headers}


def _looks_secret(value: str) -> bool:
    """Whether some run of letters and digits in it is of the kind that only keys have, or it is a URL with a login."""
    runs = re.findall(r"[A-Za-z0-9]{10,}", value)
    return bool(_password(value)) or any(_is_random(run) for run in runs)


def _is_random(run: str) -> bool:
    digits = sum(char.isdigit() for char in run)
    if digits in (0, len(run)):
        return len(run) >= 40
    mixed_case = run != run.lower() and run != run.upper()
    return len(run) >= 16 or (mixed_case and digits >= 2)


def _password(value: str) -> list[str]:
    """The password that a URL carries, as it stands and as it is meant."""
    if "://" not in value or "@" not in value:
        return []
    try:
        password = urlsplit(value).password
    except ValueError:
        return []
    return [password, unquote(password)] if password else []
