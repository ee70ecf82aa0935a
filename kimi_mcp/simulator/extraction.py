"""Takes the text out of a file that was uploaded for it, in a simple way of its own. Computes only; it may block.

Moonshot's files API (platform.kimi.ai docs/api/files-upload, files-content, 2026-11-28): which endings it takes, and
that the text comes as plain text. What was seen in it is JSON with ``content``, ``file_type``, ``filename``, ``title``
and ``type`` (third parties). The words of its refusals are assumed. It reads pictures by OCR; here they hold no text.
"""

from __future__ import annotations

import html
import io
import json
import re
import subprocess
import sys
import zipfile
from mimetypes import guess_type

from kimi_mcp.simulator.refusals import invalid

_ENDINGS = """
pdf txt csv doc docx xls xlsx ppt pptx md jpeg png bmp gif svg svgz webp ico xbm dib pjp tif pjpeg avif dot apng
epub tiff jfif html json mobi log go h c cpp cxx cc cs java js css jsp php py py3 asp yaml yml ini conf ts tsx
"""
"""Endings of names that purpose file-extract takes."""

_MOST_UNPACKED = 256 * 1024 * 1024

_PARTS = re.compile(r"word/document\.xml|ppt/slides/slide\d+\.xml|xl/sharedStrings\.xml|.*\.x?html")
"""The parts of an archive that hold its text."""

_PDF_PROGRAM = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
except (ImportError, OSError, ValueError):
    pass
import pypdfium2
text = "\\n".join(page.get_textpage().get_text_bounded() for page in pypdfium2.PdfDocument(sys.stdin.buffer.read()))
sys.stdout.buffer.write(text.encode("utf-8", "replace"))
"""
"""A process of its own, so that no document ends the simulator."""

_PDF_S = 60


def extract(name: str, data: bytes) -> str:
    """The text of a file; raises Refused for what can't be read."""
    ending = name.rpartition(".")[2].lower()
    if ending not in _ENDINGS.split():
        invalid(f"Invalid request: files of type '{ending}' are not supported")
    if data.startswith(b"%PDF-"):
        return _pdf(data)
    if data.startswith(b"PK\x03\x04"):
        return _archive(data)
    if ending in ("pdf", "docx", "pptx", "xlsx", "epub"):
        invalid("Invalid request: text extract error: the file can't be parsed")
    return "" if b"\0" in data else data.decode("utf-8", "replace")


def content_of(name: str, text: str) -> bytes:
    """What the API gives as the content of a file."""
    kind = guess_type(name)[0] or "text/plain"
    fields = {"content": text, "file_type": kind, "filename": name, "title": "", "type": "file"}
    return json.dumps(fields, ensure_ascii=False).encode()


def _pdf(data: bytes) -> str:
    try:
        program = [sys.executable, "-c", _PDF_PROGRAM]
        done = subprocess.run(program, input=data, capture_output=True, timeout=_PDF_S, check=True)  # noqa: S603
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        invalid("Invalid request: text extract error: the file can't be parsed")
    return done.stdout.decode("utf-8")


def _archive(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            rows = [row for row in archive.infolist() if _PARTS.fullmatch(row.filename)]
            if sum(row.file_size for row in rows) > _MOST_UNPACKED:
                invalid("Invalid request: text extract error: the file unpacks to too much")
            parts = [archive.read(row).decode("utf-8", "replace") for row in rows]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError):
        invalid("Invalid request: text extract error: the file can't be parsed")
    paragraphs = (re.sub(r"</(?:w:p|a:p|si|p|h\d|li)>", "\n", part) for part in parts)
    return "\n".join(html.unescape(re.sub(r"<[^>]*>", "", part)).strip() for part in paragraphs)
