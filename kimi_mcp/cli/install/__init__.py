"""``kimi-mcp install`` and ``uninstall``: an entry put into a host's own file, or taken out. I/O: that file.

What differs between hosts is a row of ``hosts.toml``. ``entry`` reads it and decides what is written, ``documents``
changes a text of any format, ``files`` reads and writes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kimi_mcp.cli.install import files
from kimi_mcp.cli.install.documents import FORMATS, MISSING, InvalidJson, changed, listed, mapping, value_at
from kimi_mcp.cli.install.entry import (
    DesiredEntry,
    HostRow,
    LaunchCommand,
    desired_entry,
    input_id,
    is_key,
    is_ours,
    is_reference,
    is_secret,
    keys_in_use,
    load_hosts,
    place_of,
    started_as,
    this_system,
    withheld,
)
from kimi_mcp.cli.install.jsonc import KeyPath
from kimi_mcp.core.errors import NotConfigured

__all__ = [
    "HostRow",
    "InstallResult",
    "LaunchCommand",
    "install",
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


def snippet(
    host: HostRow, name: str, started: LaunchCommand, env: Mapping[str, str], environment: Mapping[str, str]
) -> str:
    """The host's file as it would be with this entry alone."""
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
    target = _HostFile(host, files.read(file, home))
    now = target.value()
    existing = target.own_entry(now, name)
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
    old = target.old
    field = host.always_load
    cut = [(*host.servers, name, field)] if field and field not in host.entry and field in (existing or {}) else []
    env_path = (*host.servers, name, target.fields["env"])
    cut += [(*env_path, key) for key in stale if existing is not None and key in target.env_of(existing)]
    new = target.changed(old.text, put=_puts(host, name, want, now, env, stale), cut=cut)
    if stale and host.keys.inputs:
        new = _without_unused_inputs(target, new, _backup(target, home)[1])
    done = InstallResult(action="unchanged", file=old.path, shown=old.shown, keys=want.keys, in_clear=want.in_clear)
    if new == old.text:
        return done
    return replace(done, action="written", new_file=old.state is None, backup=files.write(old, new))


def uninstall(host: HostRow, name: str, *, file: Path, home: Path) -> InstallResult:
    """Take an entry out, with what was put in for it alone. Raises ``NotConfigured``; then nothing has changed."""
    target = _HostFile(host, files.read(file, home))
    old, now = target.old, target.value()
    existing = target.own_entry(now, name)
    if existing is None:
        return InstallResult(action="absent", file=old.path, shown=old.shown)
    text, before = _backup(target, home)
    new = _restored(target, name, now, text, before)
    if new is None:
        new = target.changed(old.text, cut=[(*host.servers, name)])
        if host.keys.inputs:
            new = _without_unused_inputs(target, new, before)
        if FORMATS[host.kind].edit().is_bare(new, host.servers) and _made_for_us(target, new, before):
            new = _taken_out(target, new, host.servers, before)
    values = target.env_of(existing).items()
    in_clear = tuple(variable for variable, value in values if is_secret(variable) and not is_reference(value))
    return InstallResult(
        action="removed", file=old.path, shown=old.shown, backup=files.write(old, new), in_clear=in_clear
    )


class _HostFile:
    """A host's file as it was read; what is wrong with it is a ``NotConfigured``."""

    def __init__(self, host: HostRow, old: files.FileText) -> None:
        self.host, self.old = host, old
        self.fields = desired_entry(host, "", LaunchCommand(command=""), {}, []).fields

    def value(self) -> Any:
        try:
            return FORMATS[self.host.kind].read(self.old.text)
        except InvalidJson as fault:
            raise self._invalid(fault) from None

    def changed(self, text: str, *, put: Sequence[tuple[KeyPath, Any]] = (), cut: Sequence[KeyPath] = ()) -> str:
        try:
            return changed(FORMATS[self.host.kind], text, put=put, cut=cut)
        except InvalidJson as fault:
            raise self._invalid(fault) from None

    def own_entry(self, value: Any, name: str) -> Mapping[str, Any] | None:
        """The entry of that name; None where there is none. Raises where it starts another server."""
        entry = _entry_at(value, self.host, name)
        if entry is not None and not is_ours(entry, self.fields):
            raise NotConfigured(
                f"{name} is already the name of another server in {self.old.shown}; it was left as it is.",
                fix=f"Give another name with --name, or remove that server from {self.host.name} first.",
            )
        return entry

    def env_of(self, entry: Mapping[str, Any]) -> dict[str, str]:
        return {name: str(value) for name, value in mapping(entry.get(self.fields["env"])).items()}

    def _invalid(self, fault: InvalidJson) -> NotConfigured:
        return NotConfigured(
            f"{self.old.shown} is not the {FORMATS[self.host.kind].name} that {self.host.name} reads: {fault}. "
            "It was left as it is.",
            fix="Fix that place, then try again; or put in by hand what --print shows.",
        )


def _at(value: Any, path: KeyPath) -> Any:
    found = value_at(value, path)
    return None if found is MISSING else found


def _entry_at(value: Any, host: HostRow, name: str) -> Any:
    return _at(value, (*host.servers, name))


def _puts(
    host: HostRow, name: str, want: DesiredEntry, now: Any, given: Mapping[str, str], stale: Collection[str] = ()
) -> list[tuple[KeyPath, Any]]:
    """Every value that the file is to have, with its path."""
    path, existing = (*host.servers, name), _entry_at(now, host, name)
    puts: list[tuple[KeyPath, Any]]
    puts = [(path, dict(want.entry))] if existing is None else _updates(path, existing, want, given, stale)
    asked = listed(_at(now, host.keys.inputs)) if host.keys.inputs else []
    known = [mapping(each).get("id") for each in asked]
    new = [each for each in want.inputs if each["id"] not in known]
    return puts + [((*host.keys.inputs, len(asked) + number), dict(each)) for number, each in enumerate(new)]


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


def _backup(target: _HostFile, home: Path) -> tuple[str, Any]:
    """The text of the first backup and its value; None is the value where there is none that can be read."""
    try:
        before = files.read(files.backup_of(target.old.path), home)
        return before.text, None if before.state is None else FORMATS[target.host.kind].read(before.text)
    except (NotConfigured, InvalidJson):
        return "", None


def _restored(target: _HostFile, name: str, now: Any, text: str, before: Any) -> str | None:
    """The text of the first backup, where nothing but this entry was added since; None elsewhere."""
    host = target.host
    if before is None or _entry_at(before, host, name) is not None:
        return None
    puts: list[tuple[KeyPath, Any]] = [((*host.servers, name), _entry_at(now, host, name))]
    if host.keys.inputs:
        asked, had = listed(_at(now, host.keys.inputs)), len(listed(_at(before, host.keys.inputs)))
        puts += [((*host.keys.inputs, had + number), each) for number, each in enumerate(asked[had:])]
    with suppress(InvalidJson):
        if changed(FORMATS[host.kind], text, put=puts) == target.old.text:
            return text
    return None


def _made_for_us(target: _HostFile, text: str, before: Any) -> bool:
    """Whether the mapping of servers, empty now, did not exist before we came.

    It is removed only where the backup has none, or where without a backup nothing else is in the file: whoever put it
    there, or wrote a comment to it, will look for it.
    """
    servers = target.host.servers
    if before is None:
        return set(mapping(FORMATS[target.host.kind].read(text))) == {servers[0]}
    return _at(before, servers) is None


def _taken_out(target: _HostFile, text: str, path: KeyPath, before: Any) -> str:
    """The text without what is at a path; null where it was that before we came."""
    if value_at(before, path) is None:
        return target.changed(text, put=[(path, None)])
    return target.changed(text, cut=[path])


def _without_unused_inputs(target: _HostFile, text: str, before: Any) -> str:
    """Without our questions that no entry refers to any more; and without their list, if it was not there before."""
    path = target.host.keys.inputs
    asked = listed(_at(FORMATS[target.host.kind].read(text), path))
    ids = [str(mapping(each).get("id", "")) for each in asked]
    unused = [at for at, id in enumerate(ids) if id.startswith(input_id("")) and f"${{input:{id}}}" not in text]
    if unused and len(unused) == len(asked) and _at(before, path) is None:
        return _taken_out(target, text, path, before)
    return target.changed(text, cut=[(*path, at) for at in reversed(unused)])
