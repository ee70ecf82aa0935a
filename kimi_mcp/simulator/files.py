"""Owns uploaded files: parses multipart bodies as they arrive, straight to disk, and looks files up. I/O.

Purposes and limits: Moonshot files API (file-extract, image, video, batch; 100 MB a file, 1,000 files).
"""

from __future__ import annotations

import hashlib
import mmap
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from kimi_mcp.simulator.media import sniff
from kimi_mcp.simulator.messages import StoredMedium
from kimi_mcp.simulator.refusals import Refused, invalid
from kimi_mcp.simulator.shapes import JsonObject

PURPOSES = ("file-extract", "image", "video", "batch")
LARGEST_FILE = 100 * 1024 * 1024
MOST_FILES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that was uploaded."""

    id: str
    filename: str
    purpose: str
    created: int
    path: Path
    medium: StoredMedium

    def described(self) -> JsonObject:
        """As the files API tells it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.medium.size,
            "created_at": self.created,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "ok",
            "status_details": "",
        }


class _Upload:
    """The parts of one multipart body: `purpose` in memory, `file` on disk."""

    def __init__(self, boundary: str, path: Path) -> None:
        self.purpose = ""
        self.filename: str | None = None
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._path = path
        self._file = path.open("wb")
        self._part = ""
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._headers = Message()
        self.finished = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        self._parser.write(data)

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        self._file.close()  # first: Windows removes no file that is open
        self._path.unlink()

    def _begin(self) -> None:
        self._headers = Message()
        self._header = (bytearray(), bytearray())

    def _header_end(self) -> None:
        self._headers[self._header[0].decode("latin-1")] = self._header[1].decode("utf-8", "replace")
        self._header = (bytearray(), bytearray())

    def _headers_finished(self) -> None:
        name = self._headers.get_param("name", "", "content-disposition")
        self._part = name if isinstance(name, str) else ""
        if self._part == "file":
            self.filename = self._headers.get_filename() or "unnamed"

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part == "purpose":
            self.purpose += data[start:end].decode("utf-8", "replace")
            if len(self.purpose) > 64:
                invalid("Invalid request: unknown purpose")
        elif self._part == "file":
            self.size += end - start
            if self.size > LARGEST_FILE:
                raise Refused(400, "invalid_request_error", "Invalid request: the file exceeds 100 MB")
            piece = data[start:end]
            self.sha256.update(piece)
            self._file.write(piece)

    def _end(self) -> None:
        self.finished = True


class FileStore:
    """The files of one simulator, in a temporary folder of its own."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files: dict[str, StoredFile] = {}
        self._made = 0

    def __len__(self) -> int:
        return len(self._files)

    async def upload(self, content_type: str, chunks: AsyncIterator[bytes]) -> StoredFile:
        """Take in a multipart body; raises Refused."""
        head = Message()
        head["content-type"] = content_type
        boundary = head.get_param("boundary")
        if head.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
            invalid("Invalid request: the body must be multipart/form-data")
        if len(self._files) >= MOST_FILES:
            invalid(f"Invalid request: at most {MOST_FILES} files can be stored")
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="simulator-files-")
        self._made += 1
        file_id = f"simfile-{self._made:06d}"
        path = Path(self._folder.name) / file_id
        upload = _Upload(boundary, path)
        try:
            async for piece in chunks:
                upload.feed(piece)
            upload.close()
            stored = _stored(upload, file_id, path)
        except MultipartParseError:
            upload.discard()
            invalid("Invalid request: malformed multipart body")
        except BaseException:
            upload.discard()
            raise
        self._files[file_id] = stored
        return stored

    def stored(self, file_id: str) -> StoredMedium | None:
        """The medium behind an `ms://` id."""
        found = self._files.get(file_id)
        return found.medium if found else None

    def all(self) -> list[StoredFile]:
        """Every file, oldest first."""
        return list(self._files.values())

    def get(self, file_id: str) -> StoredFile:
        """The file of that id; raises Refused with 404."""
        found = self._files.get(file_id)
        if found is None:
            raise Refused(404, "resource_not_found_error", f"Not found the file {file_id}")
        return found

    def delete(self, file_id: str) -> None:
        """Remove a file; raises Refused with 404."""
        self.get(file_id).path.unlink()
        del self._files[file_id]

    def close(self) -> None:
        """Remove every file and the folder."""
        self._files.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def _stored(upload: _Upload, file_id: str, path: Path) -> StoredFile:
    purpose = upload.purpose.strip()
    if not upload.finished or upload.filename is None:
        invalid("Invalid request: the body must have a part 'file'")
    if purpose not in PURPOSES:
        invalid(f"Invalid request: purpose must be one of {', '.join(PURPOSES)}")
    if upload.size == 0:
        invalid("Invalid request: the file is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        medium = sniff(data)
    if purpose in ("image", "video") and (medium is None or medium.kind != purpose):
        invalid(f"Invalid request: the file is not a supported {purpose}")
    return StoredFile(
        id=file_id,
        filename=upload.filename,
        purpose=purpose,
        created=int(time.time()),
        path=path,
        medium=StoredMedium(medium=medium, size=upload.size, sha256=upload.sha256.hexdigest(), purpose=purpose),
    )
