"""``kimi-mcp install`` and ``uninstall``: an entry put into a host's own file, or taken out. I/O: that file.

What differs between hosts is a row of ``hosts.toml``. ``entry`` reads it and decides what is written, ``remote`` does
so for a server at a URL; ``host_file`` knows which entries are ours, ``documents`` changes a text of any format,
``files`` reads and writes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from kimi_mcp.cli.install import files
from kimi_mcp.cli.install.documents import FORMATS, changed, listed, mapping
from kimi_mcp.cli.install.entry import (
    DesiredEntry,
    HostRow,
    LaunchCommand,
    desired_entry,
    is_key,
    is_reference,
    is_secret,
    keys_in_use,
    load_hosts,
    place_of,
    started_as,
    this_system,
    withheld,
)
from kimi_mcp.cli.install.host_file import HostFile, at, entry_at
from kimi_mcp.cli.install.jsonc import KeyPath
from kimi_mcp.cli.install.remote import (
    RemoteServer,
    checked_token,
    checked_url,
    remote_entry,
    remote_updates,
    switched,
)

__all__ = [
    "HostRow",
    "InstallResult",
    "LaunchCommand",
    "RemoteServer",
    "checked_token",
    "checked_url",
    "install",
    "install_remote",
    "load_hosts",
    "place_of",
    "snippet",
    "started_as",
    "this_system",
    "uninstall",
    "withheld",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallResult:
    """What was done to a host's file."""

    action: Literal["written", "unchanged", "removed", "absent"]
    """``absent``: there was nothing to remove."""
    file: Path
    shown: str
    """The file's name for people."""
    new_file: bool = False
    backup: Path | None = None
    """The copy of what was there before."""
    keys: tuple[str, ...] = ()
    """Variables of keys that the server may get."""
    in_clear: tuple[str, ...] = ()
    """Those whose value is in the file; after a removal, in the backup."""
    kept: tuple[str, ...] = ()
    """The host's own fields for which the file has another value than ``install`` writes, which stays."""


def snippet(
    host: HostRow,
    name: str,
    started: LaunchCommand | RemoteServer,
    env: Mapping[str, str],
    environment: Mapping[str, str],
) -> str:
    """The host's file as it would be with this entry alone."""
    if isinstance(started, RemoteServer):
        want = remote_entry(host, name, started)
    else:
        want = desired_entry(host, name, started, env, keys_in_use(env, environment))
    return changed(FORMATS[host.kind], "", put=_puts(host, name, want, {}, env))


def install(
    host: HostRow,
    name: str,
    started: LaunchCommand,
    env: Mapping[str, str],
    *,
    environment: Mapping[str, str],
    file: Path,
    home: Path,
) -> InstallResult:
    """Put an entry in, or update the one of that name. Raises ``NotConfigured``; then nothing has changed.

    Of an existing entry, the command is renewed, ``env`` and the host's own fields are added; the rest stays, but for
    references to keys of providers that are no longer asked. The keys that calls would carry, by ``environment``, are
    provided in the host's own way. A host that is ``deferred`` leaves our tools to its search.
    """
    target = HostFile(host, file, home)
    now = target.value()
    existing = target.own_entry(now, name)
    path = (*host.servers, name)
    if existing is not None and target.url_of(existing) and host.remote is not None:
        want = desired_entry(host, name, started, env, keys_in_use(env, environment))
        puts, cuts = switched(path, existing, want.entry, {**host.remote.entry, **host.remote.token})
        return _written(target, name, want, [*puts, *_questions(host, want, now)], cuts)
    had: dict[str, str] = {}
    if existing is not None:  # its settings; a key that it only names counts as set
        names = listed(existing.get(target.fields["keys"])) if "keys" in target.fields else []
        had = {str(key): f"${{{key}}}" for key in names} | target.env_of(existing)
    # Only settings that choose or allow another provider bring other keys into an entry.
    moves = not env.keys().isdisjoint(("KIMI_PROVIDER", "KIMI_BASE_URL", "KIMI_ALLOWED_PROVIDERS"))
    keys = keys_in_use(had | dict(env), environment) if existing is None or moves else []
    want = desired_entry(host, name, started, env, [key for key in keys if key not in had])
    # A reference to the key of a provider that is no longer asked goes; a key itself is its person's to remove.
    stale = {key for key, value in had.items() if moves and is_key(key) and is_reference(value)} - {*keys, *env}
    env_path = (*path, target.fields["env"])
    cuts = [(*env_path, key) for key in stale if existing is not None and key in target.env_of(existing)]
    return _written(target, name, want, _puts(host, name, want, now, env, stale), cuts)


def install_remote(host: HostRow, name: str, server: RemoteServer, *, file: Path, home: Path) -> InstallResult:
    """Put in an entry with a URL, or make the one of that name such a one. Raises as ``install``."""
    target = HostFile(host, file, home)
    now = target.value()
    existing = target.own_entry(now, name, server.url)
    want, path = remote_entry(host, name, server), (*host.servers, name)
    if existing is None:
        puts, cuts = [(path, dict(want.entry))], list[KeyPath]()
    elif target.url_of(existing):
        puts, cuts = remote_updates(host, path, existing, want.entry)
    else:
        puts, cuts = switched(path, existing, want.entry, host.entry)
    return _written(target, name, want, [*puts, *_questions(host, want, now)], cuts, server.url)


def _written(
    target: HostFile,
    name: str,
    want: DesiredEntry,
    puts: Sequence[tuple[KeyPath, Any]],
    cuts: Sequence[KeyPath],
    url: str | None = None,
) -> InstallResult:
    """Change the host's file, where that is needed; an entry with a URL is recorded as ours."""
    host, old, field = target.host, target.old, target.host.always_load
    entry = mapping(entry_at(target.value(), host, name))
    if field and field in entry and field not in want.entry:
        cuts = [*cuts, (*host.servers, name, field)]
    new = target.changed(old.text, put=puts, cut=cuts)
    if cuts and host.keys.inputs:
        new = target.without_unused_inputs(new, target.backup()[1])
    if url is not None:
        files.record_url(old.path, name, url)
    there = mapping(entry_at(FORMATS[host.kind].read(new), host, name))
    own = [field for field in want.entry if field not in want.fields.values()]
    kept = tuple(field for field in own if not _has(there.get(field), want.entry[field]))
    done = InstallResult(
        action="unchanged", file=old.path, shown=old.shown, keys=want.keys, in_clear=want.in_clear, kept=kept
    )
    if new != old.text:
        done = replace(done, action="written", new_file=old.state is None, backup=files.write(old, new))
    if url is None:
        files.record_url(old.path, name, None)
    return done


def _has(value: Any, wanted: Any) -> bool:
    """Whether a value is what is wanted; a mapping may hold more."""
    if isinstance(value, Mapping) and isinstance(wanted, Mapping):
        there = cast("Mapping[str, Any]", value)
        return all(_has(there.get(key), each) for key, each in cast("Mapping[str, Any]", wanted).items())
    return value == wanted


def uninstall(host: HostRow, name: str, *, file: Path, home: Path) -> InstallResult:
    """Take an entry out, with what was put in for it alone. Raises ``NotConfigured``; then nothing has changed."""
    target = HostFile(host, file, home)
    old, now = target.old, target.value()
    existing = target.own_entry(now, name)
    if existing is None:
        return InstallResult(action="absent", file=old.path, shown=old.shown)
    new = target.without(name, now)
    values = target.env_of(existing).items()
    in_clear = tuple(variable for variable, value in values if is_secret(variable) and not is_reference(value))
    if target.url_of(existing) and host.remote is not None and host.remote.way == "plain":
        in_clear = tuple(each for each in ("Authorization",) if each in mapping(existing.get("headers")))
    backup = files.write(old, new)
    files.record_url(old.path, name, None)
    return InstallResult(action="removed", file=old.path, shown=old.shown, backup=backup, in_clear=in_clear)


def _puts(
    host: HostRow, name: str, want: DesiredEntry, now: Any, given: Mapping[str, str], stale: Collection[str] = ()
) -> list[tuple[KeyPath, Any]]:
    """Every value that the file is to have, with its path."""
    path, existing = (*host.servers, name), entry_at(now, host, name)
    puts: list[tuple[KeyPath, Any]]
    puts = [(path, dict(want.entry))] if existing is None else _updates(path, existing, want, given, stale)
    return puts + _questions(host, want, now)


def _questions(host: HostRow, want: DesiredEntry, now: Any) -> list[tuple[KeyPath, Any]]:
    """The questions that the host does not ask yet."""
    questions = listed(at(now, host.keys.inputs)) if host.keys.inputs else []
    known = [mapping(each).get("id") for each in questions]
    new = [each for each in want.inputs if each["id"] not in known]
    return [((*host.keys.inputs, len(questions) + number), dict(each)) for number, each in enumerate(new)]


def _updates(
    path: tuple[str, ...],
    existing: Mapping[str, Any],
    want: DesiredEntry,
    given: Mapping[str, str],
    stale: Collection[str],
) -> list[tuple[KeyPath, Any]]:
    """What an existing entry lacks: the command as it is today, settings, names of keys, the host's own fields."""
    fields, entry = want.fields, want.entry
    started = [(field, entry.get(field, [])) for kind in ("command", "args", "argv") if (field := fields.get(kind))]
    puts: list[tuple[KeyPath, Any]]
    puts = [((*path, field), value) for field, value in started if value or existing.get(field)]
    own = [field for field in entry if field not in fields.values() and field not in existing]
    puts += [((*path, field), entry[field]) for field in own]
    if values := entry.get(fields["env"]):
        env, field = mapping(existing.get(fields["env"])), (*path, fields["env"])
        new = [((*field, key), value) for key, value in values.items() if key in given or key not in env]
        puts += new if env else [(field, values)]
    if field := fields.get("keys"):
        had, names = listed(existing.get(field)), entry.get(field, [])
        now = [*(each for each in had if each not in stale), *(each for each in names if each not in had)]
        if now != had:
            puts.append(((*path, field), now))
    return puts
