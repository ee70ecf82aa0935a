"""Takes text and pictures out of a PDF, in a process that may be killed. I/O: a temporary file, a process.

The bounds are those of ``PdfLimits``; the process (``pdf_process``) holds itself to those that need the system's help,
the server to time and output, whatever the process does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import anyio
import anyio.to_thread

from kimi_mcp.core.errors import ContextTooLong, InvalidArguments, KimiError, MediaRejected, internal_error
from kimi_mcp.media.content import Content
from kimi_mcp.media.documents import Pages
from kimi_mcp.media.formats.media_info import WHOLE_FILE

MIB = 1024 * 1024

PROCESSES = 2
"""Documents that are read at once."""

LONGEST_HEADER = 1_024
"""Bytes of the line that the process writes first."""

_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""The variables that a Python may need to start; the process has no other, and so no key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PdfLimits:
    """What reading one PDF, or drawing one of its pages, may take."""

    cpu_s: int = 20
    """Seconds of processor time, where the platform can bound it. 500 full pages take about one."""
    within_s: float = 60
    """Seconds in all, on a machine with other work."""
    memory: int = 512 * MIB
    """Bytes of address space, where the platform can bound it. 500 full pages take 35 MB."""
    pages: int = 5_000
    text: int = 16 * MIB
    """Bytes of text: four times what any model takes."""
    pixels: int = 4_000_000
    """Pixels of a page as a picture: A4 has 2.2 million at 150 dpi; a larger page is drawn smaller."""
    picture: int = 32 * MIB
    """Bytes of a picture."""


class PdfReader:
    """Reads the PDFs of all calls of one server."""

    def __init__(self, limits: PdfLimits | None = None) -> None:
        self._limits = limits or PdfLimits()
        self._slots = anyio.Semaphore(PROCESSES)

    async def text(self, what: str, content: Content, pages: Pages | None) -> str:
        """The text of the pages, each under its number. ``what``: the document in messages.

        Raises ``MediaRejected`` for what can't be read or has no text, ``InvalidArguments`` for pages that it has not,
        ``ContextTooLong`` for more pages or text than is taken.
        """
        texts = (await self._read(what, content, pages, picture=False)).decode("utf-8", "replace").split("\f")
        if not any(texts):
            raise no_text(what)
        first = pages[0] if pages else 1
        return "\n\n".join(f"[page {number}]\n{text or '(no text)'}" for number, text in enumerate(texts, first))

    async def picture(self, what: str, content: Content, page: int) -> bytes:
        """One page, drawn, as PNG or JPEG; raises as :meth:`text`."""
        return await self._read(what, content, (page, page), picture=True)

    async def _read(self, what: str, content: Content, pages: Pages | None, *, picture: bool) -> bytes:
        """What the process makes of the document; raises what is wrong with it."""
        limits = self._limits
        most = (limits.picture if picture else limits.text + limits.pages) + LONGEST_HEADER
        request = {
            "path": sys.path,
            "pages": pages,
            "picture": picture,
            "memory": limits.memory,
            "cpu_s": limits.cpu_s,
            "most_pages": limits.pages,
            "most_bytes": limits.text,
            "most_pixels": limits.pixels,
        }
        async with self._slots:
            with await anyio.to_thread.run_sync(_copied, content) as file:
                output, code = await _run(json.dumps(request), file, most, limits.within_s)
        header, end, body = output.partition(b"\n")
        found: dict[str, Any] = json.loads(header) if end and len(output) <= most else {"fault": _fault_of(code)}
        if "fault" in found:
            raise self._error(what, found["fault"], found.get("pages", 0), pages, picture=picture)
        return body

    def _error(self, what: str, fault: str, has: int, pages: Pages | None, *, picture: bool) -> KimiError:
        """The error for a fault. ``has``: the pages of the document, where they could be counted."""
        limits = self._limits
        fewer = "Name the pages that matter, such as `report.pdf#page=1-50`."
        other = "Export the page as png or jpeg, and give that." if picture else fewer
        match fault:
            case "encrypted":
                return MediaRejected(f"{what} opens with a password alone.", fix="Save a copy without a password.")
            case "no such page":
                named = pages[1] if pages else 0
                message = f"{what} has {has:,} pages: there is no page {named:,}."
                return InvalidArguments(message, fix=f"Name pages from 1 to {has}.")
            case "too many pages":
                return ContextTooLong(f"{what} has {has:,} pages; {limits.pages:,} are read at once.", fix=fewer)
            case "too much text":
                size = f"{limits.text // MIB} MiB"
                return ContextTooLong(f"{what} has more than {size} of text: more than any model takes.", fix=fewer)
            case "time":
                return MediaRejected(f"{what} takes too long: it was not read after {limits.cpu_s} s.", fix=other)
            case "memory":
                size = f"{limits.memory // MIB} MiB"
                return MediaRejected(f"{what} takes more than {size} of memory to be read.", fix=other)
            case "no PDFium":
                message = "PDFs can't be read here: found no PDFium on this system, expected pypdfium2."
                return MediaRejected(message, fix="Install pypdfium2 beside kimi-mcp, or give the text as a text file.")
            case "mistake":
                return internal_error()
            case _:
                return MediaRejected(f"{what} is damaged: it can't be read as a PDF.", fix=WHOLE_FILE)


def no_text(what: str) -> MediaRejected:
    """The error for a document of pictures alone."""
    return MediaRejected(
        f"{what} holds no text: its pages are pictures, as a scanner makes them.",
        fix="Show the pages of a PDF to kimi_vision: `images` takes `report.pdf#page=1`, or a range: `#page=1-5`.",
    )


def _copied(content: Content) -> IO[bytes]:
    """The content in a file without a name, at its beginning: what was judged is what the process reads."""
    try:
        with ExitStack() as closing:
            file = closing.enter_context(tempfile.TemporaryFile())
            for piece in content.chunks():
                file.write(piece)
            file.seek(0)
            closing.pop_all()
            return file
    except OSError:
        raise MediaRejected(
            "There is not enough space here for a copy of the PDF.",
            fix="Free some space in the folder for temporary files.",
        ) from None


async def _run(request: str, file: IO[bytes], most: int, within_s: float) -> tuple[bytes, int | None]:
    """The output of the process, some more than ``most`` bytes at most, and its exit code; None: it was killed here."""
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("pdf_process.py")), request]
    environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    output, code = bytearray(), None
    async with await anyio.open_process(command, stdin=file, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        try:
            with anyio.move_on_after(within_s):
                async for piece in process.stdout:
                    output += piece
                    if len(output) > most:
                        return bytes(output), None
                code = await process.wait()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
    return bytes(output), code


def _fault_of(code: int | None) -> str:
    """The fault of a process that came to no end of its own; ``code`` as :func:`_run` gives it."""
    if code is None or -code == getattr(signal, "SIGXCPU", 0):
        return "time"
    if code == 1:  # an exception that it does not expect
        return "mistake"
    # PDFium ends itself where it gets no memory; the system kills what takes too much.
    no_memory = (getattr(signal, name, 0) for name in ("SIGABRT", "SIGTRAP", "SIGILL", "SIGKILL"))
    return "memory" if -code in no_memory else "damaged"
