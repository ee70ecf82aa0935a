"""Media at the provider: uploads streamed from disk, the list of what lies there, and its removal. Does I/O.

A file's name at the provider tells its content (``kimi-mcp-<sha256>.<ending>``), so the provider's own list is the
memory of what was uploaded before: by content, for each account, and true even after someone removed a file there.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from kimi_mcp.core.bounds import LONGEST_NAME
from kimi_mcp.core.types import MediaKind
from kimi_mcp.provider.attempt import Destination, read_whole
from kimi_mcp.provider.failures import AttemptFailure, failure
from kimi_mcp.provider.inline_media import StreamedBody

if TYPE_CHECKING:
    from kimi_mcp.provider.clients import Client, Method

OUR_NAME = re.compile(r"kimi-mcp-([0-9a-f]{64})\.[a-z0-9]{2,5}\Z")
"""Names of files that this project left at a provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file at the provider."""

    id: str
    """What ``ms://`` refers to."""
    name: str
    """The name it was uploaded under."""
    size: int
    """Bytes."""
    purpose: str
    """``image``, ``video`` and others that are not ours."""
    created: int
    """Unix time, seconds."""

    @property
    def sha256(self) -> str | None:
        """The hash of its content, where this project uploaded it."""
        ours = OUR_NAME.match(self.name)
        return ours[1] if ours else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file on its way to the provider."""

    sha256: str
    """Hash of its content, hex."""
    mime: str
    """Its type, as its content tells."""
    kind: MediaKind
    """The purpose it is uploaded for."""
    size: int
    """Bytes."""
    chunks: Callable[[], Iterator[bytes]]
    """Its content from the beginning, piece by piece, read from disk in worker threads; called once an attempt."""
    on_sent: Callable[[int], None] | None = None
    """Told the bytes that are sent, after each piece."""

    @property
    def name(self) -> str:
        """The name that tells its content."""
        ending = re.sub(r"[^a-z0-9]", "", self.mime.rpartition("/")[2].removeprefix("x-"))[:5] or "bin"
        return f"kimi-mcp-{self.sha256}.{ending}"


async def upload(client: Client, file: Upload, *, to: Destination, wall: Callable[[], float]) -> str | AttemptFailure:
    """Send a file; its id, or why it was not taken. Memory stays flat: one piece at a time."""
    boundary = f"kimi-mcp-{secrets.token_hex(16)}"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{file.kind}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n'
        f"Content-Type: {file.mime}\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield head
        yield from file.chunks()
        yield tail

    def sent(count: int) -> None:
        if file.on_sent is not None and 0 < count - len(head) <= file.size:
            file.on_sent(count - len(head))

    whole = StreamedBody(length=len(head) + file.size + len(tail), pieces=body)
    told = await _told(client, "POST", "files", to, wall, whole, f"multipart/form-data; boundary={boundary}", sent)
    if isinstance(told, AttemptFailure):
        return told
    identity = told.get("id")
    return identity if isinstance(identity, str) and 0 < len(identity) <= LONGEST_NAME else _unreadable(to)


async def listed(
    client: Client, *, to: Destination, wall: Callable[[], float]
) -> tuple[RemoteFile, ...] | AttemptFailure:
    """What lies at the provider under this account, whoever put it there."""
    told = await _told(client, "GET", "files", to, wall)
    if isinstance(told, AttemptFailure):
        return told
    rows = told.get("data")
    rows = cast(list[Any], rows) if isinstance(rows, list) else []
    return tuple(_remote(cast(dict[str, Any], row)) for row in rows if isinstance(row, dict))


async def removed(
    client: Client, identity: str, *, to: Destination, wall: Callable[[], float]
) -> AttemptFailure | None:
    """Remove a file; None when it is gone."""
    told = await _told(client, "DELETE", f"files/{quote(identity, safe='')}", to, wall)
    return told if isinstance(told, AttemptFailure) else None


async def _told(
    client: Client,
    method: Method,
    path: str,
    to: Destination,
    wall: Callable[[], float],
    content: StreamedBody | None = None,
    content_type: str = "",
    on_sent: Callable[[int], None] | None = None,
) -> dict[str, Any] | AttemptFailure:
    """The JSON object that the provider answers with."""
    found = await read_whole(
        client,
        path,
        to=to,
        wall=wall,
        method=method,
        content=content,
        content_type=content_type,
        on_sent=on_sent,
    )
    if isinstance(found, AttemptFailure):
        return found
    try:
        told: Any = json.loads(found)
    except (ValueError, RecursionError):
        told = None
    return cast(dict[str, Any], told) if isinstance(told, dict) else _unreadable(to)


def _unreadable(to: Destination) -> AttemptFailure:
    return failure("json", provider=to.provider.id, host=to.host)


def _remote(row: dict[str, Any]) -> RemoteFile:
    return RemoteFile(
        id=_text(row, "id"),
        name=_text(row, "filename"),
        size=_count(row, "bytes"),
        purpose=_text(row, "purpose"),
        created=_count(row, "created_at"),
    )


def _text(row: dict[str, Any], name: str) -> str:
    return str(row.get(name, ""))[:LONGEST_NAME]


def _count(row: dict[str, Any], name: str) -> int:
    """A whole number that can be reckoned with; 0 for anything else."""
    value = row.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else 0
