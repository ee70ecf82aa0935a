"""``HostFile``: a host's file as it was read, whose entries in it are ours, and how it becomes what it was before us.

I/O: reads that file, its first backup and the record beside it. What is wrong with them is a ``NotConfigured``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kimi_mcp.cli.install import files
from kimi_mcp.cli.install.documents import FORMATS, MISSING, InvalidJson, changed, listed, mapping, value_at
from kimi_mcp.cli.install.entry import HostRow, LaunchCommand, desired_entry, input_id, is_ours
from kimi_mcp.cli.install.jsonc import KeyPath
from kimi_mcp.core.errors import NotConfigured


class HostFile:
    """A host's file as it was read."""

    def __init__(self, host: HostRow, path: Path, home: Path) -> None:
        self.host, self.home = host, home
        self.old = files.read(path, home)
        self.fields = desired_entry(host, "", LaunchCommand(command=""), {}, []).fields

    def value(self) -> Any:
        """What it holds."""
        try:
            return FORMATS[self.host.kind].read(self.old.text)
        except InvalidJson as fault:
            raise self._invalid(fault) from None

    def changed(self, text: str, *, put: Sequence[tuple[KeyPath, Any]] = (), cut: Sequence[KeyPath] = ()) -> str:
        """A text of it after all changes."""
        try:
            return changed(FORMATS[self.host.kind], text, put=put, cut=cut)
        except InvalidJson as fault:
            raise self._invalid(fault) from None

    def own_entry(self, value: Any, name: str, url: str | None = None) -> Mapping[str, Any] | None:
        """The entry of that name; None where there is none. Raises where it is another server's.

        One that starts kimi-mcp is ours. One with a URL is, if it is ``url`` or was recorded when it was written.
        """
        entry = entry_at(value, self.host, name)
        if entry is None:
            return None
        there = self.url_of(entry)
        if not is_ours(entry, self.fields) and (there is None or there not in (url, self.recorded().get(name))):
            raise NotConfigured(
                f"{name} is already the name of another server in {self.old.shown}; it was left as it is.",
                fix=f"Give another name with --name, or remove that server from {self.host.name} first.",
            )
        return entry

    def url_of(self, entry: Mapping[str, Any]) -> str | None:
        """The URL of an entry; None where the host starts the server."""
        field = None if self.host.remote is None else self.host.remote.url_field
        return None if field is None or is_ours(entry, self.fields) else str(mapping(entry).get(field) or "") or None

    def recorded(self) -> Mapping[str, str]:
        """The URLs of the entries that we wrote, by their names."""
        return files.recorded_urls(self.old.path)

    def env_of(self, entry: Mapping[str, Any]) -> dict[str, str]:
        """The settings of an entry."""
        return {name: str(value) for name, value in mapping(entry.get(self.fields["env"])).items()}

    def backup(self) -> tuple[str, Any]:
        """The text of the first backup and its value; None is the value where there is none that can be read."""
        try:
            before = files.read(files.backup_of(self.old.path), self.home)
            return before.text, None if before.state is None else FORMATS[self.host.kind].read(before.text)
        except (NotConfigured, InvalidJson):
            return "", None

    def restored(self, name: str, now: Any, text: str, before: Any) -> str | None:
        """The text of the first backup, where nothing but this entry was added since; None elsewhere."""
        host = self.host
        if before is None or entry_at(before, host, name) is not None:
            return None
        puts: list[tuple[KeyPath, Any]] = [((*host.servers, name), entry_at(now, host, name))]
        if host.keys.inputs:
            questions, had = listed(at(now, host.keys.inputs)), len(listed(at(before, host.keys.inputs)))
            puts += [((*host.keys.inputs, had + number), each) for number, each in enumerate(questions[had:])]
        with suppress(InvalidJson):
            if changed(FORMATS[host.kind], text, put=puts) == self.old.text:
                return text
        return None

    def without(self, name: str, now: Any) -> str:
        """Its text without an entry, and without what was put in for that alone."""
        host, (text, before) = self.host, self.backup()
        if (whole := self.restored(name, now, text, before)) is not None:
            return whole
        new = self.changed(self.old.text, cut=[(*host.servers, name)])
        if host.keys.inputs:
            new = self.without_unused_inputs(new, before)
        if FORMATS[host.kind].edit().is_bare(new, host.servers) and self._made_for_us(new, before):
            new = self._taken_out(new, host.servers, before)
        return new

    def without_unused_inputs(self, text: str, before: Any) -> str:
        """Without our questions that no entry refers to any more; and without their list, if it is new."""
        path = self.host.keys.inputs
        questions = listed(at(FORMATS[self.host.kind].read(text), path))
        ids = [str(mapping(each).get("id", "")) for each in questions]
        unused = [
            place for place, id in enumerate(ids) if id.startswith(input_id("")) and f"${{input:{id}}}" not in text
        ]
        if unused and len(unused) == len(questions) and at(before, path) is None:
            return self._taken_out(text, path, before)
        return self.changed(text, cut=[(*path, place) for place in reversed(unused)])

    def _made_for_us(self, text: str, before: Any) -> bool:
        """Whether the mapping of servers, empty now, did not exist before we came.

        It is removed only where the backup has none, or where without a backup nothing else is in the file: whoever
        put it there, or wrote a comment to it, will look for it.
        """
        servers = self.host.servers
        if before is None:
            return set(mapping(FORMATS[self.host.kind].read(text))) == {servers[0]}
        return at(before, servers) is None

    def _taken_out(self, text: str, path: KeyPath, before: Any) -> str:
        """The text without what is at a path; null where it was that before we came."""
        if value_at(before, path) is None:
            return self.changed(text, put=[(path, None)])
        return self.changed(text, cut=[path])

    def _invalid(self, fault: InvalidJson) -> NotConfigured:
        return NotConfigured(
            f"{self.old.shown} is not the {FORMATS[self.host.kind].name} that {self.host.name} reads: {fault}. "
            "It was left as it is.",
            fix="Fix that place, then try again; or put in by hand what --print shows.",
        )


def at(value: Any, path: KeyPath) -> Any:
    """The value at a path; None where there is nothing."""
    found = value_at(value, path)
    return None if found is MISSING else found


def entry_at(value: Any, host: HostRow, name: str) -> Any:
    """The entry of that name; None where there is none."""
    return at(value, (*host.servers, name))
