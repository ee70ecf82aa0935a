"""What a document is by its content, and what a PDF may take: time, memory, pages, output."""

from __future__ import annotations

import io
import random
import re
import sys
from contextlib import suppress
from typing import Any

import anyio
import pytest
from PIL import Image

from kimi_mcp.core.errors import ContextTooLong, KimiError, MediaRejected
from kimi_mcp.media.content import Content
from kimi_mcp.media.documents import DocumentKind, identify
from kimi_mcp.media.documents.pdf import PdfLimits, PdfReader
from tests.media.documents import BOMBS, archive, lines, office, pdf, stream


def content(data: bytes) -> Content:
    return Content(size=len(data), read_at=lambda at, length: data[at : at + length])


def kind_of(name: str, data: bytes) -> DocumentKind | None:
    return identify(name, data[:8192], len(data), content(data).read_at)


async def text(data: bytes, **limits: Any) -> str:
    with anyio.fail_after(120):
        return await PdfReader(PdfLimits(**limits)).text("`a.pdf`", content(data), None)


async def refused(data: bytes, **limits: Any) -> KimiError:
    with pytest.raises(KimiError) as caught:
        await text(data, **limits)
    return caught.value


@pytest.mark.parametrize("ending", ["docx", "pptx", "xlsx", "epub"])
def test_a_packed_document_is_known_by_what_it_packs(ending: str) -> None:
    data = office(ending, "text")
    for name in (f"a.{ending}", f"a.{ending.upper()}", "no ending", "other.bin"):
        found = kind_of(name, data)
        assert found is not None
        assert found.ending == ending
    assert kind_of("a.zip", archive({"a.txt": "text"})) is None


def test_no_cut_or_changed_archive_breaks_the_recognition() -> None:
    data = bytearray(office("docx", "text"))
    for length in range(len(data)):
        kind_of("a.bin", bytes(data[:length]))
    for at in range(len(data)):
        for value in (0, 0x7F, 0xFF):
            changed = bytes(data[:at]) + bytes([value]) + bytes(data[at + 1 :])
            with suppress(MediaRejected):
                kind_of("a.docx", changed)


def test_an_endless_list_of_an_archive_is_not_read() -> None:
    parts = {f"{'x' * 60_000}{number}": b"" for number in range(70)}
    with pytest.raises(MediaRejected, match="unpacks to far more"):
        kind_of("a.docx", archive(parts))


async def test_all_of_500_pages_is_read() -> None:
    written = lines(range(1, 501))
    found = await text(pdf(*written))
    assert found == "\n\n".join(f"[page {number}]\n{page}" for number, page in enumerate(written, 1))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process")
@pytest.mark.parametrize(
    "name", ["a page tree that holds itself", *(pytest.param(name, marks=pytest.mark.soak) for name in list(BOMBS)[1:])]
)
async def test_a_bomb_ends_by_its_bounds(name: str) -> None:
    try:
        ended = await text(BOMBS[name](), memory=256 * 1024 * 1024, cpu_s=10)
    except MediaRejected as error:
        ended = error.message
    assert re.search(r"more than 256 MiB of memory|takes too long|holds no text|\[page 1\]\nx$", ended), ended


async def test_a_document_is_held_to_its_bounds() -> None:
    data = pdf(*lines(range(1, 60)))
    assert isinstance(await refused(data, pages=58), ContextTooLong)
    assert isinstance(await refused(data, text=10_000), ContextTooLong)
    late = await refused(data, within_s=0)
    assert "takes too long" in late.message
    assert "report.pdf#page=" in late.fix


async def test_a_page_that_is_a_photograph_becomes_a_jpeg() -> None:
    photograph = random.Random(1).randbytes(800 * 600 * 3)
    head = b"<</Type/XObject/Subtype/Image/Width 800/Height 600/ColorSpace/DeviceRGB/BitsPerComponent 8/Length %d>>"
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 11 0 R/Resources<</XObject<</I 5 0 R>>>>>>"
    image = head % len(photograph) + b"stream\n" + photograph + b"\nendstream"
    data = pdf("", extra={5: image, 10: page, 11: stream(b"595 0 0 842 0 0 cm /I Do")})
    with anyio.fail_after(120):
        drawn = await PdfReader().picture("`a.pdf`", content(data), 1)
    assert Image.open(io.BytesIO(drawn)).format == "JPEG"
