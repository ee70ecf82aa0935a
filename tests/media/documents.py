"""Documents for the tests: PDFs, office files and an EPUB, written byte by byte, and harmful ones."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence

Objects = dict[int, bytes]


def pdf(
    *pages: str, size: tuple[float, float] = (595, 842), extra: Objects | None = None, trailer: bytes = b""
) -> bytes:
    """A PDF with a page for each text; an empty one has a drawing alone, as a scan has."""
    objects: Objects = {1: b"<</Type/Catalog/Pages 2 0 R>>", 3: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"}
    kids: list[str] = []
    for index, text in enumerate(pages):
        page, content = 10 + 2 * index, 11 + 2 * index
        kids.append(f"{page} 0 R")
        objects[page] = (
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {size[0]} {size[1]}]/Contents {content} 0 R"
            "/Resources<</Font<</F 3 0 R>>>>>>"
        ).encode()
        objects[content] = stream(_drawn(text))
    objects[2] = f"<</Type/Pages/Kids[{' '.join(kids)}]/Count {len(pages)}>>".encode()
    return written(objects | (extra or {}), trailer)


def _drawn(text: str) -> bytes:
    if not text:
        return b"0.5 g 50 50 300 300 re f"
    lines = (line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for line in text.splitlines())
    return (
        b"BT /F 12 Tf 14 TL 50 780 Td " + b" ".join(b"(%s) Tj T*" % line.encode("latin-1") for line in lines) + b" ET"
    )


def stream(data: bytes) -> bytes:
    """A stream object."""
    data = zlib.compress(data)
    return b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(data), data)


def written(objects: Mapping[int, bytes], trailer: bytes = b"") -> bytes:
    """A PDF of these objects."""
    out = io.BytesIO()
    out.write(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    places: dict[int, int] = {}
    for number, body in sorted(objects.items()):
        places[number] = out.tell()
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    at = out.tell()
    out.write(b"xref\n0 1\n0000000000 65535 f \n")
    for number, place in places.items():
        out.write(b"%d 1\n%010d 00000 n \n" % (number, place))
    out.write(b"trailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (max(objects) + 1, trailer, at))
    return out.getvalue()


def encrypted() -> bytes:
    """A PDF that opens with a password alone."""
    handler = b"<</Filter/Standard/V 1/R 2/O<%s>/U<%s>/P -4>>" % (b"41" * 32, b"42" * 32)
    return pdf("Secret", extra={4: handler}, trailer=b"/Encrypt 4 0 R/ID[<00><00>]")


def _gigabyte() -> bytes:
    """A page of 400 MB of zeros, packed twice."""
    packer = zlib.compressobj(1)
    once = b"".join(packer.compress(bytes(1 << 20)) for _ in range(400)) + packer.flush()
    twice = zlib.compress(once, 9)
    body = b"<</Length %d/Filter[/FlateDecode/FlateDecode]>>stream\n%s\nendstream" % (len(twice), twice)
    return pdf("x", extra={11: body})


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "a page tree that holds itself": lambda: pdf(
        "x", extra={2: b"<</Type/Pages/Kids[2 0 R 10 0 R]/Count 2000000000>>"}
    ),
    "a page that unpacks to much": _gigabyte,
    "a page of endless drawing": lambda: pdf(
        "x", extra={11: stream(b"q 1 0 0 1 0 0 cm BT /F 1 Tf (x) Tj ET Q\n" * 2_000_000)}
    ),
    "nested arrays": lambda: pdf("x", extra={10: b"[" * 2_000_000}),
}
"""PDFs that are made to take too much."""


def archive(parts: Mapping[str, bytes | str], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as packed:
        for name, content in parts.items():
            packed.writestr(name, content, zipfile.ZIP_STORED if name == "mimetype" else None)
    return out.getvalue()


def docx(*paragraphs: str, **more: bytes) -> bytes:
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    return archive({"[Content_Types].xml": "<Types/>", "word/document.xml": f"<w:document>{body}</w:document>", **more})


def office(kind: str, text: str) -> bytes:
    """A document of each kind but PDF, that says ``text``."""
    match kind:
        case "docx":
            return docx(text)
        case "pptx":
            parts = {"ppt/presentation.xml": "<p/>", "ppt/slides/slide1.xml": f"<a:p><a:t>{text}</a:t></a:p>"}
        case "xlsx":
            parts = {"xl/workbook.xml": "<w/>", "xl/sharedStrings.xml": f"<sst><si><t>{text}</t></si></sst>"}
        case _:
            return archive({"mimetype": "application/epub+zip", "text/1.xhtml": f"<html><p>{text}</p></html>"})
    return archive({"[Content_Types].xml": "<Types/>", **parts})


def lines(pages: Sequence[int], each: int = 40) -> list[str]:
    """Texts of pages, each with so many lines."""
    return ["\n".join(f"Page {page}, line {line}: what was measured" for line in range(each)) for page in pages]
