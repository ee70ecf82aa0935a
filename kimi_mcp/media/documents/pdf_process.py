"""The program that reads one PDF, for ``pdf``: a process of its own, since PDFium may crash, loop or fill the memory.

The document is on standard input, a seekable file; the request is the first argument, as JSON. Writes one line of JSON
(``pages``, or what is wrong as ``fault``), then the result: texts separated by form feeds, or a picture. It imports the
standard library, PDFium and Pillow, nothing of this package, and has no variable of the server's environment.
"""

from __future__ import annotations

import ctypes
import io
import json
import math
import mmap
import re
import sys
from collections.abc import Mapping
from typing import Any

PASSWORD, SECURITY = 4, 5
"""PDFium's errors for an encrypted document (fpdfview.h, FPDF_ERR_…)."""

RESOLUTION = 150 / 72
"""Pixels a point: 150 dpi, at which small print is readable."""

SIDE_MAX = 8_192
"""Pixels of one side."""

PNG_BYTES = 1024 * 1024
"""A page whose PNG is larger is a photograph or a scan: it becomes a JPEG."""

_HYPHEN = re.compile("[\x02\ufffe]\r?\n?")
"""How PDFium gives a hyphen at the end of a line, where a word is divided."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")


class PdfFault(Exception):
    """What is wrong with the document or the request, by its name."""


def main() -> None:
    """Read what the request asks for."""
    request: dict[str, Any] = json.loads(sys.argv[1])
    _bound(request)
    sys.path[:] = request["path"]
    header: dict[str, Any] = {}
    body = b""
    try:
        body = _result(request, header)
    except PdfFault as fault:
        header["fault"] = str(fault)
    except ImportError:
        header["fault"] = "no PDFium"
    except MemoryError:
        header["fault"] = "memory"
    except RuntimeError:  # PdfiumError
        header["fault"] = "damaged"
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + body)


def _bound(limits: Mapping[str, Any]) -> None:
    """Bound memory and processor time, where the platform can; the server bounds time and output in any case."""
    try:
        import resource
    except ImportError:  # Windows
        return
    bounds = {"RLIMIT_AS": limits["memory"], "RLIMIT_CPU": limits["cpu_s"], "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    for name, bound in bounds.items():
        try:
            kind = getattr(resource, name)
            _, hard = resource.getrlimit(kind)
            most = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
            resource.setrlimit(kind, (most, hard))  # the soft limit of processor time has a signal of its own
        except (AttributeError, OSError, ValueError):  # macOS knows RLIMIT_AS, and refuses it
            pass


def _result(request: Mapping[str, Any], header: dict[str, Any]) -> bytes:
    import pypdfium2  # pyright: ignore[reportMissingTypeStubs]

    pdfium: Any = pypdfium2
    stdin = mmap.mmap(0, 0, access=mmap.ACCESS_COPY)
    try:
        document = pdfium.PdfDocument((ctypes.c_ubyte * len(stdin)).from_buffer(stdin))
    except pdfium.PdfiumError as error:
        raise PdfFault("encrypted" if error.err_code in (PASSWORD, SECURITY) else "damaged") from None
    pages = header["pages"] = len(document)
    first, last = request["pages"] or (1, pages)
    if last > pages:
        raise PdfFault("no such page")
    if last - first >= request["most_pages"]:
        raise PdfFault("too many pages")
    numbers = range(first - 1, last)
    return _picture(document, numbers[0], request) if request["picture"] else _texts(document, numbers, request)


def _texts(document: Any, numbers: range, request: Mapping[str, Any]) -> bytes:
    texts: list[bytes] = []
    size = 0
    for number in numbers:
        texts.append(_text(document, number).encode("utf-8", "replace"))
        size += len(texts[-1]) + 1
        if size > request["most_bytes"]:
            raise PdfFault("too much text")
    return b"\f".join(texts)


def _text(document: Any, number: int) -> str:
    """What a reader sees of a page: not the text beyond its edges."""
    try:
        page = document[number]
    except RuntimeError:  # PdfiumError: a page that is damaged, or that only the count promises
        return ""
    text_page = page.get_textpage()
    text = text_page.get_text_bounded()
    text_page.close()
    page.close()
    return _CONTROL.sub("", _HYPHEN.sub("", text).replace("\r\n", "\n").replace("\r", "\n")).strip()


def _picture(document: Any, number: int, request: Mapping[str, Any]) -> bytes:
    document.init_forms()  # what is filled in is seen
    page = document[number]
    width, height = page.get_size()
    if not (width > 0 and height > 0 and math.isfinite(width * height)):
        raise PdfFault("damaged")
    most = math.sqrt(request["most_pixels"] / (width * height))
    picture = page.render(scale=min(RESOLUTION, most, SIDE_MAX / max(width, height))).to_pil()
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    if buffer.tell() > PNG_BYTES:
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
