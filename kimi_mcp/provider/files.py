"""Files at the provider: upload from disk, list, remove. Does I/O.

A file's name at the provider holds its hash (``kimi-mcp-<sha256>.<ending>``), so the provider's own list records what
was uploaded before: by content, for each account, and still true after someone removed a file there.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

from kimi_mcp.core.bounds import LONGEST_NAME
from kimi_mcp.core.types import MediaKind
from kimi_mcp.provider.inline_media import StreamedBody
from kimi_mcp.provider.json_requests import JsonClient

OUR_NAME = re.compile(r"kimi-mcp-([0-9a-f]{64})\.[a-z0-9]{2,5}\Z")
"""Names of files that kimi-mcp uploaded."""


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
        """The hash of its content, if kimi-mcp uploaded it."""
        ours = OUR_NAME.match(self.name)
        return ours[1] if ours else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file on its way to the provider."""

    sha256: str
    """Hash of its content, hex."""
    mime: str
    """MIME type, detected from the content."""
    kind: MediaKind
    """The purpose it is uploaded for."""
    size: int
    """Bytes."""
    chunks: Callable[[], Iterator[bytes]]
    """Reads the content from the beginning, in worker threads."""
    on_sent: Callable[[int], None] | None = None
    """Called with the number of bytes sent, after each piece."""

    @property
    def name(self) -> str:
        """The name that holds its hash."""
        ending = re.sub(r"[^a-z0-9]", "", self.mime.rpartition("/")[2].removeprefix("x-"))[:5] or "bin"
        return f"kimi-mcp-{self.sha256}.{ending}"


async def upload(client: JsonClient, file: Upload) -> str:
    """Send a file; returns its id. Memory stays flat: one piece at a time."""
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

    content = StreamedBody(length=len(head) + file.size + len(tail), pieces=body)
    created = await client.request("POST", "files", content, f"multipart/form-data; boundary={boundary}", sent)
    identity = created.get("id")
    if not isinstance(identity, str) or not 0 < len(identity) <= LONGEST_NAME:
        raise client.failed("json")
    return identity


async def list_files(client: JsonClient) -> tuple[RemoteFile, ...]:
    """All files of this account, whoever uploaded them."""
    rows = (await client.request("GET", "files")).get("data")
    rows = cast(list[Any], rows) if isinstance(rows, list) else []
    return tuple(_remote(cast(dict[str, Any], row)) for row in rows if isinstance(row, dict))


async def remove_file(client: JsonClient, identity: str) -> None:
    """Remove a file."""
    await client.request("DELETE", f"files/{quote(identity, safe='')}")


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
    """A whole number that JSON can hold exactly; 0 for anything else."""
    value = row.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else 0
