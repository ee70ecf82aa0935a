"""``kimi-mcp install`` and ``uninstall``: an entry put into a host's own file, or taken out. I/O: that file.

What differs between hosts is a row of ``hosts.toml`` (``rows``); ``entry`` says what is to stand there, ``documents``
changes a text of one kind or another, ``files`` reads and writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kimi_mcp.cli.install import files
from kimi_mcp.cli.install.documents import KINDS, InvalidJson, changed, listed, mapping
from kimi_mcp.cli.install.documents import KeyPath as Way
from kimi_mcp.cli.install.entry import (
    DesiredEntry,
    LaunchCommand,
    input_id,
    is_ours,
    is_reference,
    is_secret,
    kept_out,
    keys_in_use,
    started_as,
    wanted,
)
from kimi_mcp.cli.install.rows import HostRow, load_hosts, place_of, this_system
from kimi_mcp.core.errors import InvalidArguments

__all__ = [
    "HostRow",
    "InstallResult",
    "LaunchCommand",
    "install",
    "kept_out",
    "load_hosts",
    "place_of",
    "snippet",
    "started_as",
    "this_system",
    "uninstall",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallResult:
    """What was done to a host's file."""

    action: Literal["written", "unchanged", "removed", "absent"]
    """What: put in or changed, already so, taken out, not there to be taken out."""
    file: Path
    """The host's file."""
    shown: str
    """Its name for people."""
    new_file: bool = False
    """Whether it was not there before."""
    backup: Path | None = None
    """How it was before."""
    keys: tuple[str, ...] = ()
    """Variables of keys that the server may get."""
    in_clear: tuple[str, ...] = ()
    """Those whose value stands in the file; after a removal, in the backup."""


def snippet(
    host: HostRow, name: str, started: LaunchCommand, env: Mapping[str, str], environment: Mapping[str, str]
) -> str:
    """The host's file as it would be with this entry alone."""
    want = wanted(host, name, started, env, keys_in_use(env, environment))
    return changed(KINDS[host.kind], "", put=_puts(host, name, want, {}, env))


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
    """Put an entry in, or bring the one of that name up to date. Raises ``InvalidArguments``; then nothing changed.

    Of an entry that is there, the command is renewed and ``env`` is put in; what else stands in it stays. The keys that
    calls would carry are provided for, by ``environment``, in the host's own way.
    """
    old = files.read(file, home)
    now = _value(host, old)
    there = _entry_of(now, host, name)
    fields = wanted(host, name, started, {}, []).fields
    if there is not None and not is_ours(there, fields):
        raise _taken(host, name, old)
    had = {} if there is None else _had(there, fields)
    keys = keys_in_use(had | dict(env), environment) if there is None or _moves(env) else []
    keys = [key for key in keys if key not in had]
    want = wanted(host, name, started, env, keys)
    new = _changed(host, old, put=_puts(host, name, want, now, env))
    done = InstallResult(action="unchanged", file=old.path, shown=old.shown, keys=want.keys, in_clear=want.in_clear)
    if new == old.text:
        return done
    return replace(done, action="written", new_file=old.state is None, backup=files.write(old, new))


def uninstall(host: HostRow, name: str, *, file: Path, home: Path) -> InstallResult:
    """Take an entry out, and what was put in for it alone. Raises ``InvalidArguments``; then nothing changed."""
    old = files.read(file, home)
    there = _entry_of(_value(host, old), host, name)
    if there is None:
        return InstallResult(action="absent", file=old.path, shown=old.shown)
    fields = wanted(host, name, LaunchCommand(command=""), {}, []).fields
    if not is_ours(there, fields):
        raise _taken(host, name, old)
    new = _changed(host, old, cut=[(*host.servers, name)])
    before = _before(host, old, home)
    if host.keys.inputs:
        new = _without_unused_inputs(host, old, new, before)
    if KINDS[host.kind].is_bare(new, host.servers) and _made_for_us(host, old, new, before):
        new = _changed(host, old, cut=[host.servers], text=new)
    original = _original(host, name, old, home)
    new = new if original is None else original
    values = _env_of(there, fields).items()
    in_clear = tuple(variable for variable, value in values if is_secret(variable) and not is_reference(value))
    return InstallResult(
        action="removed", file=old.path, shown=old.shown, backup=files.write(old, new), in_clear=in_clear
    )


def _value(host: HostRow, old: files.FileText) -> Any:
    try:
        return KINDS[host.kind].read(old.text)
    except InvalidJson as fault:
        raise _broken(host, old, fault) from None


def _changed(
    host: HostRow,
    old: files.FileText,
    *,
    put: Sequence[tuple[Way, Any]] = (),
    cut: Sequence[Way] = (),
    text: str | None = None,
) -> str:
    try:
        return changed(KINDS[host.kind], old.text if text is None else text, put=put, cut=cut)
    except InvalidJson as fault:
        raise _broken(host, old, fault) from None


def _broken(host: HostRow, old: files.FileText, fault: InvalidJson) -> InvalidArguments:
    return InvalidArguments(
        f"{old.shown} is not the {KINDS[host.kind].name} that {host.name} reads: {fault}. It was left as it is.",
        fix="Fix that place, then try again; or put in by hand what --print shows.",
    )


def _entry_of(value: Any, host: HostRow, name: str) -> Any:
    return _at(value, (*host.servers, name))  # anything else on the way is reported when it is to be changed


def _taken(host: HostRow, name: str, old: files.FileText) -> InvalidArguments:
    return InvalidArguments(
        f"{name} is already the name of another server in {old.shown}; it was left as it is.",
        fix=f"Give another name with --name, or remove that server from {host.name} first.",
    )


def _moves(env: Mapping[str, str]) -> bool:
    """Whether settings choose or allow another provider, and so another key."""
    return not env.keys().isdisjoint(("KIMI_PROVIDER", "KIMI_BASE_URL", "KIMI_ALLOWED_PROVIDERS"))


def _had(there: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, str]:
    """The settings of an entry that is there; a key that it only names counts as set."""
    names = listed(there.get(fields["keys"])) if "keys" in fields else []
    return {str(name): f"${{{name}}}" for name in names} | _env_of(there, fields)


def _env_of(there: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, str]:
    return {name: str(value) for name, value in mapping(there.get(fields["env"])).items()}


def _puts(host: HostRow, name: str, want: DesiredEntry, now: Any, given: Mapping[str, str]) -> list[tuple[Way, Any]]:
    """Every value that is to stand in the file, with its way."""
    way, there = (*host.servers, name), _entry_of(now, host, name)
    puts: list[tuple[Way, Any]] = []
    if there is None:
        puts.append((way, dict(want.entry)))
    else:
        puts += _renewed(way, there, want, given)
    asked = listed(_at(now, host.keys.inputs)) if host.keys.inputs else []
    known = [mapping(each).get("id") for each in asked]
    new = [each for each in want.inputs if each["id"] not in known]
    return puts + [((*host.keys.inputs, len(asked) + number), dict(each)) for number, each in enumerate(new)]


def _renewed(way: Way, there: Mapping[str, Any], want: DesiredEntry, given: Mapping[str, str]) -> list[tuple[Way, Any]]:
    """What an entry that is there lacks: the command as it is today, settings, names of keys. No more."""
    puts: list[tuple[Way, Any]] = []
    fields, entry = want.fields, want.entry
    puts.append(((*way, fields["command"]), entry[fields["command"]]))
    if (args := entry.get(fields["args"], [])) or there.get(fields["args"]):
        puts.append(((*way, fields["args"]), args))
    if values := entry.get(fields["env"]):
        if env := mapping(there.get(fields["env"])):
            puts += [
                ((*way, fields["env"], variable), value)
                for variable, value in values.items()
                if variable in given or variable not in env
            ]
        else:
            puts.append(((*way, fields["env"]), values))
    if (field := fields.get("keys")) and (names := entry.get(field)):
        had = listed(there.get(field))
        puts.append(((*way, field), [*had, *(each for each in names if each not in had)]))
    return puts


def _at(value: Any, way: Sequence[str]) -> Any:
    for step in way:
        value = mapping(value).get(step)
    return value


def _before(host: HostRow, old: files.FileText, home: Path) -> Any:
    """What the copy from before says; None where there is none that can be read."""
    try:
        before = files.read(files.backup_of(old.path), home)
        return None if before.state is None else KINDS[host.kind].read(before.text)
    except (InvalidArguments, InvalidJson):
        return None


def _original(host: HostRow, name: str, old: files.FileText, home: Path) -> str | None:
    """The copy from before, where nothing but this entry came to it since: an empty or a null value is back too."""
    try:
        before = files.read(files.backup_of(old.path), home)
        now, then = KINDS[host.kind].read(old.text), KINDS[host.kind].read(before.text)
        puts: list[tuple[Way, Any]] = [((*host.servers, name), _entry_of(now, host, name))]
        if host.keys.inputs:
            asked, had = listed(_at(now, host.keys.inputs)), len(listed(_at(then, host.keys.inputs)))
            puts += [((*host.keys.inputs, had + number), each) for number, each in enumerate(asked[had:])]
        same = changed(KINDS[host.kind], before.text, put=puts) == old.text
    except (InvalidArguments, InvalidJson):
        return None
    return before.text if same and before.state is not None and _entry_of(then, host, name) is None else None


def _made_for_us(host: HostRow, old: files.FileText, text: str, before: Any) -> bool:
    """Whether the place for servers, empty now, was not there before we came.

    Empty, it says to a host what none says; but whoever put it there, or wrote a comment to it, looks for it again. So
    it goes only where the copy from before has none, or where without a copy nothing else stands in the file.
    """
    if before is None:
        return set(mapping(_value(host, replace(old, text=text)))) == {host.servers[0]}
    return _at(before, host.servers) is None


def _without_unused_inputs(host: HostRow, old: files.FileText, text: str, before: Any) -> str:
    """Without the questions that we put in and no entry refers to any more; nor their list, if it was not there."""
    asked = listed(_at(KINDS[host.kind].read(text), host.keys.inputs))
    ids = [str(mapping(each).get("id", "")) for each in asked]
    ours = input_id("")
    gone = [place for place, id in enumerate(ids) if id.startswith(ours) and f"${{input:{id}}}" not in text]
    if gone and len(gone) == len(asked) and _at(before, host.keys.inputs) is None:
        return _changed(host, old, cut=[tuple(host.keys.inputs)], text=text)
    return _changed(host, old, cut=[(*host.keys.inputs, place) for place in reversed(gone)], text=text)
