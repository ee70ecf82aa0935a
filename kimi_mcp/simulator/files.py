"""Owns uploaded files: parses the multipart form of an upload, keeps and finds its file. I/O.

Purposes and limits: Moonshot files API (file-extract, image, video, batch; 100 MB a file, 1,000 files, 10 GB in all).
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from anyio import to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from kimi_mcp.simulator.extraction import content_of, extract
from kimi_mcp.simulator.media import ReceivedMedium, sniff
from kimi_mcp.simulator.refusals import Refused, invalid
from kimi_mcp.simulator.shapes import JsonObject

PURPOSES = ("file-extract", "image", "video", "batch")
MAX_FILE_BYTES = 100 * 1024 * 1024
MAX_FILES = 1000
MAX_TOTAL_BYTES = 10 * 1024**3

_MAX_FORM_BYTES = 65_536
"""What a form may hold beside its file."""
_MAX_MEMORY_BYTES = 1024 * 1024
"""A larger file is kept on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that was uploaded."""

    id: str
    filename: str
    purpose: str
    created: int
    data: File
    medium: ReceivedMedium
    text: str | None = None
    """What was taken out of it, where that is its purpose."""

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        self.data.file_object.seek(0)
        return self.data.file_object.read()

    def to_json(self) -> JsonObject:
        """The file as the files API describes it."""
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


class FileStore:
    """The files of one simulator; large ones are temporary files."""

    def __init__(self, max_bytes: int = MAX_FILE_BYTES, max_files: int = MAX_FILES) -> None:
        self._max_bytes, self._max_files = max_bytes, max_files
        self._files: dict[str, StoredFile] = {}
        self._next = 1

    async def upload(self, content_type: str, chunks: AsyncIterator[bytes]) -> StoredFile:
        """Store the file of a multipart form; raises Refused."""
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            invalid("Invalid request: the body must be multipart/form-data")
        if len(self._files) >= self._max_files:
            invalid(f"Invalid request: at most {self._max_files} files can be stored")
        if sum(each.medium.size for each in self._files.values()) >= MAX_TOTAL_BYTES:
            invalid("Invalid request: the files exceed 10 GB in all")
        fields: list[Field] = []
        files: list[File] = []
        ended: list[bool] = []
        form = FormParser(
            "multipart/form-data",
            fields.append,
            files.append,
            lambda: ended.append(True),
            boundary=options[b"boundary"],
            config={"MAX_MEMORY_FILE_SIZE": sys.maxsize},  # what is refused leaves no temporary file
        )
        try:
            async for piece in chunks:
                form.write(piece)
                if form.bytes_received > self._max_bytes + _MAX_FORM_BYTES:
                    invalid("Invalid request: the file exceeds 100 MB")
        except FormParserError:
            invalid("Invalid request: malformed multipart body")
        file = next((one for one in files if one.field_name == b"file"), None)
        if not ended or file is None:
            invalid("Invalid request: the body must have a part 'file'")
        purposes = [field.value or b"" for field in fields if field.field_name == b"purpose"]
        purpose = b"".join(purposes).decode("utf-8", "replace").strip()
        text = None
        if purpose == "file-extract" and 0 < file.size <= self._max_bytes:
            text = await to_thread.run_sync(extract, _name(file), _data(file))
        stored = self._stored(file, purpose, text)
        self._files[stored.id] = stored
        self._next += 1
        return stored

    def _stored(self, file: File, purpose: str, text: str | None) -> StoredFile:
        """The file, checked; raises Refused."""
        if file.size > self._max_bytes:
            invalid("Invalid request: the file exceeds 100 MB")
        if purpose not in PURPOSES:
            invalid(f"Invalid request: purpose must be one of {', '.join(PURPOSES)}")
        if file.size == 0:
            invalid("Invalid request: the file is empty")
        medium = sniff(_data(file), purpose)
        if purpose in ("image", "video") and medium.kind != purpose:
            invalid(f"Invalid request: the file is not a supported {purpose}")
        if file.size > _MAX_MEMORY_BYTES:
            file.flush_to_disk()
        return StoredFile(
            id=f"simfile-{self._next:06d}",
            filename=_name(file),
            purpose=purpose,
            created=int(time.time()),
            data=file,
            medium=medium,
            text=text,
        )

    def extracted(self, file_id: str) -> bytes:
        """What the files API gives as the content of a file; raises Refused (for another purpose: assumed)."""
        found = self.get(file_id)
        if found.text is None:
            invalid(f"Invalid request: file {file_id} has purpose '{found.purpose}', not 'file-extract'")
        return content_of(found.filename, found.text)

    def medium(self, file_id: str) -> ReceivedMedium | None:
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

    def delete(self, file_id: str) -> JsonObject:
        """Remove a file, and what the files API answers; raises Refused with 404."""
        self.get(file_id).data.close()
        del self._files[file_id]
        return {"deleted": True, "id": file_id, "object": "file"}

    def close(self) -> None:
        """Remove every file."""
        for file in self._files.values():
            file.data.close()
        self._files.clear()


def _name(file: File) -> str:
    return (file.file_name or b"unnamed").decode("utf-8", "replace")


def _data(file: File) -> bytes:
    file.file_object.seek(0)
    return file.file_object.read()
