"""The file of ``KIMI_SWARM_MCP``: which MCP servers there are and which tools may run. I/O: reads that one file.

Its form is the ``mcpServers`` of hosts, whose other keys are ignored, with ``${VAR}`` or ``${VAR:-otherwise}`` for a
variable of the operator's environment; ``allow`` is ours. What is wrong raises ``NotConfigured`` with the key and the
fix; no value is ever repeated.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

_STDIO_TYPES = ("stdio", "local")
_HTTP_TYPES = ("http", "streamable-http", "streamable_http", "streamablehttp", "remote")
"""What hosts write under ``type`` or ``transport``, in small letters."""

_URL_KEYS = ("url", "httpUrl", "serverUrl")
_EXPANSION = re.compile(r"\$\{([^}]*)\}")
_NAMED = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?\Z", re.DOTALL)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")

_SECRETIVE = re.compile(
    r"key|token|secret|passw|pwd|passphrase|auth|cred|cookie|session|signature|private|bearer|dsn|webhook|(^|_)pa(ss|t)$",
    re.IGNORECASE,
)
"""Names of variables and arguments whose value is a secret, whatever it looks like."""

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
    entries = _parsed(path).get("mcpServers")
    if not isinstance(entries, dict):
        _refuse("has no object `mcpServers`", 'Make it {"mcpServers": {"NAME": {"command": "…", "args": []}}}.')
    listed = cast(dict[str, Any], entries).items()
    servers = tuple(filter(None, (_server(name, entry, environment) for name, entry in listed)))
    if len(servers) > MAX_SERVERS:
        _refuse(f"lists {len(servers)} servers", f'List at most {MAX_SERVERS}, or set "disabled": true in some.')
    return servers


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


def _parsed(path: str) -> dict[str, Any]:
    try:
        file = Path(path).expanduser()
        if not file.is_file():
            _refuse("names no file that is there", f"Set {VARIABLE} to the path of an `mcpServers` JSON file.")
        if file.stat().st_size > MAX_FILE_BYTES:
            _refuse("names a file of more than 1 MB", "Name the file that lists the MCP servers, and nothing else.")
        document = json.loads(file.read_bytes()[:MAX_FILE_BYTES].decode("utf-8-sig"), object_pairs_hook=_unique)
    except RecursionError:
        _refuse("names a file that is nested too deeply", "Keep to the form of `mcpServers`.")
    except (OSError, RuntimeError):
        _refuse("names a file that can't be read", f"Let this user read it, or set {VARIABLE} to another.")
    except json.JSONDecodeError as fault:
        _refuse(
            f"names a file that is no JSON: line {fault.lineno}, column {fault.colno}",
            "Fix it there; JSON has neither comments nor a comma before a closing bracket.",
        )
    except ValueError:
        _refuse("names a file that is not UTF-8 text", "Save it as UTF-8.")
    if not isinstance(document, dict):
        _refuse("names a file that holds no JSON object", 'Make it {"mcpServers": {…}}.')
    return cast(dict[str, Any], document)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        _refuse(
            f"names a file with two entries `{printable_name(twice)}` in one object", "Rename or remove one of them."
        )
    return found


def _refuse(what: str, fix: str) -> NoReturn:
    raise NotConfigured(f"{VARIABLE} {what}.", fix=fix)


_FORMS: Mapping[str, tuple[type, str, str]] = {
    **dict.fromkeys(("command", "cwd", *_URL_KEYS), (str, "text", "Put it in quotation marks.")),
    **dict.fromkeys(("args", "allow"), (list, "list", "Make it a list of texts.")),
    **dict.fromkeys(("env", "headers"), (dict, "object", "Make it an object of names and texts.")),
}
"""The keys that are read: their type, and the error and the fix where a value has another one."""


class _Entry:
    """One entry, with its variables expanded. It collects what must stay secret."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name, self._environment = name, environment
        self.secrets: list[str] = []
        self.values: dict[str, Any] = {}

    def read(self, values: Mapping[str, Any]) -> None:
        """Read the keys of ``_FORMS``; null is the same as absent."""
        for key, (kind, form, fix) in _FORMS.items():
            value: Any = values.get(key)
            if not isinstance(value, kind | None):
                raise self.fault(key, f"is no {form}", fix)
            if kind is list:
                self.values[key] = [self._expanded(f"{key}[{at}]", text) for at, text in enumerate(value or ())]
            elif kind is dict:
                texts = cast(dict[str, Any], value or {}).items()
                self.values[key] = {name: self._expanded(f"{key}.{printable_name(name)}", text) for name, text in texts}
            elif value is not None:
                self.values[key] = self._expanded(key, value)

    def fault(self, key: str, what: str, fix: str) -> NotConfigured:
        at = f"mcpServers.{printable_name(self.name)}{key and '.' + key}"
        return NotConfigured(f"In the file of {VARIABLE}, `{at}` {what}.", fix=fix)

    def hide(self, name: str, value: str) -> None:
        """Keep a value secret if its name or its looks ask for it."""
        if _SECRETIVE.search(name) or _looks_secret(value):
            # Of `Bearer …` what follows is secret by itself too.
            self.secrets += [value, *value.split()[1:], *_password(value)]

    def _expanded(self, key: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self.fault(key, "is no text", "Put it in quotation marks.")
        expanded = _EXPANSION.sub(lambda found: self._variable(key, found[1]), value)
        if "\0" in expanded:
            raise self.fault(key, "holds a NUL character", "Take it out.")
        return expanded

    def _variable(self, key: str, text: str) -> str:
        named = _NAMED.match(text)
        if named is None:
            fix = "Write ${VAR} for an environment variable."
            raise self.fault(key, "holds a `${…}` that only another host understands", fix)
        name, otherwise = named.groups()
        value = self._environment.get(name) or otherwise
        if value is None:
            fix = f"Set {name} where kimi-mcp is started, or write ${{{name}:-otherwise}}."
            raise self.fault(key, f"names the variable {name}, which is not set", fix)
        self.hide(name, value)
        return value


def _server(name: str, values: Any, environment: Mapping[str, str]) -> ServerConfig | None:
    """One server; None: it is disabled, and the rest of its entry is not even checked."""
    entry = _Entry(name, environment)
    if not isinstance(values, dict):
        raise entry.fault("", "is no object", 'Make it {"command": "…", "args": []} or {"url": "https://…"}.')
    given = cast(dict[str, Any], values)
    for key, off in (("disabled", True), ("enabled", False)):
        if key in given and not isinstance(given[key], bool):
            raise entry.fault(key, "is neither true nor false", f"Set `{key}` to true or false.")
        if given.get(key) is off:
            return None
    entry.read(given)
    if not name.strip() or len(name) > 128:
        raise entry.fault("", "has a name that is empty or too long", "Give it a short name.")
    url_key = next((key for key in _URL_KEYS if key in entry.values), None)
    if ("command" in entry.values) == (url_key is not None):
        both = "both `command` and `url`" if url_key else "neither `command` nor `url`"
        fix = "Give it a `command` to start, or the `url` of a streamable HTTP endpoint."
        raise entry.fault("", f"has {both}", fix)
    for key in ("type", "transport"):
        transport = given.get(key)
        if transport is not None and str(transport).lower() not in (_HTTP_TYPES if url_key else _STDIO_TYPES):
            fix = f'Set `{key}` to "stdio" or "http", or leave it out: stdio needs `command`, http needs `url`.'
            raise entry.fault(key, "is no transport for the rest of the entry (SSE is not supported)", fix)
    how = _process(entry) if url_key is None else _endpoint(entry, url_key)
    allow, secrets = tuple(entry.values["allow"]), tuple(dict.fromkeys(entry.secrets))
    return ServerConfig(name=name, allow=allow, secrets=secrets, **how)


def _process(entry: _Entry) -> dict[str, Any]:
    program, arguments = entry.values["command"], entry.values["args"]
    if not program.strip():
        raise entry.fault("command", "is empty", "Name the program to start; its arguments go into `args`.")
    environment = entry.values["env"]
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name:
            raise entry.fault("env", "has a name that no variable can have", "Rename it.")
        entry.hide(name, value)
    for before, argument in zip(("", *arguments), arguments, strict=False):
        name, _, value = argument.partition("=") if argument.startswith("-") else (before, "", argument)
        if value and (name.startswith("-") or _looks_secret(value)):
            entry.hide(name, value)
    folder = entry.values.get("cwd")
    folder = folder and os.path.expanduser(folder)  # noqa: PTH111 - Path's own raises where there is no home
    return {"command": (program, *arguments), "environment": environment, "folder": folder}


def _endpoint(entry: _Entry, key: str) -> dict[str, Any]:
    url: str = entry.values[key].strip()
    headers: dict[str, str] = entry.values["headers"]
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise entry.fault(key, "is no http or https URL", "Give the URL of the server's streamable HTTP endpoint.")
    for name, value in parse_qsl(urlsplit(url).query):
        entry.hide(name, value)
    entry.secrets += _password(url)
    for name, value in headers.items():
        if not _HEADER.match(name) or not value.isascii() or not value.isprintable():
            key = f"headers.{printable_name(name)}"
            raise entry.fault(key, "is no header", "Use printable ASCII without line ends.")
        if name.lower() not in _PLAIN_HEADERS:
            entry.hide("secret", value)
    return {"url": url, "headers": headers}


def _looks_secret(value: str) -> bool:
    """Whether some run of letters and digits in it is of the kind that only keys have, or it is a URL with a login."""
    runs = re.findall(r"[A-Za-z0-9]{10,}", value)
    return bool(_password(value)) or any(map(_is_random, runs))


def _is_random(run: str) -> bool:
    digits = sum(char.isdigit() for char in run)
    if digits in (0, len(run)):
        return len(run) >= 40
    mixed_case = run != run.lower() and run != run.upper()
    return len(run) >= 16 or (mixed_case and digits >= 2)


def _password(value: str) -> list[str]:
    """The password that a URL carries, as written and decoded."""
    if "://" not in value or "@" not in value:
        return []
    try:
        password = urlsplit(value).password
    except ValueError:
        return []
    return [password, unquote(password)] if password else []
