"""Documents among `files`, and pages of a PDF as pictures: who reads them, and what is refused with which words."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kimi_mcp.media.documents.pdf import PdfLimits
from kimi_mcp.pipeline.attachments import MediaLimits
from kimi_mcp.simulator import Simulator
from kimi_mcp.simulator.files import FileStore
from tests.media.documents import archive, encrypted, lines, office, pdf
from tests.server import clients
from tests.server.clients import KimiClient, ServerOptions
from tests.server.media import contents, data_uri, look, picture, uploads, write
from tests.server.requests import chats, messages
from tests.server.results import Result
from tests.server.uploading import names, requested

WORDS = "The tide rose by 42 cm"
ENGINE = "vllm"
"""A provider that keeps no files."""


def connect(sim: Simulator, folder: Path, mode: str = "auto", **more: Any) -> Any:
    return clients.connect(sim, mode, KIMI_ROOTS=str(folder), **more)


def context(sim: Simulator) -> str:
    """What was sent before the prompt of the last request."""
    *before, _ = messages(sim)
    return before[-1]["content"]


# ── by the provider ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["pdf", "docx", "pptx", "xlsx", "epub"])
async def test_a_document_is_read_by_the_provider_and_uploaded_once(sim: Simulator, folder: Path, kind: str) -> None:
    (folder / f"report.{kind}").write_bytes(pdf(WORDS) if kind == "pdf" else office(kind, WORDS))
    for _ in range(2):
        async with connect(sim, folder) as kimi:
            for tool in ("kimi_think", "kimi_instant"):
                result = await kimi.call(tool, {"prompt": "How high?", "files": [f"report.{kind}"]})
                assert result.status == "completed", result.text
                assert WORDS in context(sim)
                assert f"## report.{kind}\n" in context(sim)
    assert len(uploads(sim)) == 1
    ((name, purpose),) = names(sim)
    assert name.startswith("kimi-mcp-")
    assert name.endswith(f".{kind}")
    assert purpose == "file-extract"


async def test_a_document_is_data_beside_the_texts_and_gives_no_instructions(
    sim: Simulator, folder: Path, mode: str
) -> None:
    write(folder, a_md="before", report_pdf=pdf(WORDS), z_md="behind")
    async with connect(sim, folder, mode) as kimi:
        await kimi.think("How high?", files=["a.md", "report.pdf", "z.md"], system="Be brief.")
    assert [each["role"] for each in messages(sim)] == ["system", "user", "user"]
    assert messages(sim)[0]["content"] == "Be brief."
    places = [context(sim).index(one) for one in ("before", WORDS, "behind")]
    assert places == sorted(places)


async def test_a_document_that_has_vanished_at_the_provider_is_uploaded_again(sim: Simulator, folder: Path) -> None:
    write(folder, report_pdf=pdf(WORDS))
    async with connect(sim, folder) as kimi:
        await kimi.think("How high?", files=["report.pdf"])
        sim.files.delete(sim.files.all()[0].id)
        result = await kimi.think("And now?", files=["report.pdf"])
    assert result.status == "completed", result.text
    assert len(uploads(sim)) == 2
    assert WORDS in context(sim)


async def test_a_document_that_vanishes_again_and_again_is_an_error_of_the_provider(
    sim: Simulator, folder: Path
) -> None:
    write(folder, report_pdf=pdf(WORDS))
    for number in (1, 2):
        sim.play({"match": {"path": f"/v1/files/simfile-00000{number}/content"}, "status": 404})
    async with connect(sim, folder) as kimi:
        result = await kimi.think("How high?", files=["report.pdf"])
    assert result.code == "upstream_broken", result.text
    assert "report.pdf#page=" in result.error["fix"]
    assert (len(uploads(sim)), chats(sim)) == (2, [])


async def test_a_conversation_keeps_its_document_though_file_and_upload_are_gone(
    sim: Simulator, folder: Path, mode: str
) -> None:
    write(folder, report_pdf=pdf(WORDS))
    async with connect(sim, folder, mode) as kimi:
        first = await kimi.think("How high?", files=["report.pdf"])
        (folder / "report.pdf").unlink()
        sim.files.close()
        second = await kimi.think("In inches?", conversation_id=first.structured["conversation_id"])
    assert second.status == "completed", second.text
    assert WORDS in messages(sim)[0]["content"]
    assert len(requested(sim, "GET", "/v1/files/")) == 1, "the text is in the conversation"


async def test_a_call_that_the_policy_refuses_uploads_nothing(sim: Simulator, folder: Path) -> None:
    write(folder, report_pdf=pdf(WORDS))
    async with connect(sim, folder, KIMI_POLICY="strict") as kimi:
        result = await kimi.think("How high?", files=["report.pdf"], temperature=0.1)
    assert result.code == "policy_refused", result.text
    assert uploads(sim) == []


async def test_a_full_account_says_how_to_make_room_for_a_document(sim: Simulator, folder: Path) -> None:
    write(folder, report_pdf=pdf(WORDS))
    sim.files = FileStore(max_files=0)
    async with connect(sim, folder) as kimi:
        result = await kimi.think("How high?", files=["report.pdf"])
    assert result.code == "quota_exhausted", result.text
    assert "kimi-mcp files prune" in result.error["fix"]


@pytest.mark.parametrize("content", [encrypted(), pdf(WORDS)[:-400]])
async def test_what_the_provider_cannot_read_names_the_file_and_what_to_look_at(
    sim: Simulator, folder: Path, content: bytes
) -> None:
    write(folder, report_pdf=content)
    async with connect(sim, folder) as kimi:
        result = await kimi.think("How high?", files=["report.pdf"])
    assert result.code == "media_rejected", result.text
    assert "simulator could not take the text out of `report.pdf`" in result.error["message"]
    assert "without a password" in result.error["fix"]
    assert chats(sim) == []


# ── here ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_pdf_is_read_here_where_the_provider_keeps_no_files(folder: Path, mode: str) -> None:
    write(folder, report_pdf=pdf("First.", "", WORDS))
    async with Simulator(ENGINE) as engine, connect(engine, folder, mode, provider=ENGINE) as kimi:
        result = await kimi.think("How high?", files=["report.pdf"])
        assert result.status == "completed", result.text
        assert f"[page 1]\nFirst.\n\n[page 2]\n(no text)\n\n[page 3]\n{WORDS}" in context(engine)
        await kimi.think("How high?", files=["report.pdf#page=3"])
        assert f"```\n[page 3]\n{WORDS}\n```" in context(engine)


async def test_named_pages_are_read_here_by_any_provider(sim: Simulator, folder: Path) -> None:
    write(folder, report_pdf=pdf("First.", "Second.", WORDS))
    async with connect(sim, folder) as kimi:
        result = await kimi.think("How high?", files=["report.pdf#page=2-3"])
    assert result.status == "completed", result.text
    assert "First." not in context(sim)
    assert f"[page 2]\nSecond.\n\n[page 3]\n{WORDS}" in context(sim)
    assert uploads(sim) == []


async def test_a_glob_takes_documents_only_where_it_names_their_ending(folder: Path) -> None:
    write(folder, a_md="text", a_pdf=pdf("of a"), b_PDF=pdf("of b"))
    async with Simulator(ENGINE) as engine, connect(engine, folder, provider=ENGINE) as kimi:
        await kimi.think("What is it?", files=["**/*"])
        assert [one for one in context(engine).splitlines() if one.startswith("## ")] == ["## a.md"]
        await kimi.think("What is it?", files=["*.pdf"])
        assert [one for one in context(engine).splitlines() if one.startswith("## ")] == ["## a.pdf"]


BOMB = archive({"[Content_Types].xml": "<Types/>", "word/document.xml": bytes(80_000_000)})
OLD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)

REFUSED: dict[str, tuple[str, bytes, str, str, str]] = {
    "encrypted": ("a.pdf", encrypted(), "media_rejected", "opens with a password", "without a password"),
    "damaged": ("a.pdf", pdf(WORDS)[:-400], "media_rejected", "is damaged", "whole file"),
    "a scan": ("a.pdf", pdf("", ""), "media_rejected", "holds no text", "kimi_vision"),
    "no such page": ("a.pdf#page=3", pdf("a", "b"), "invalid_arguments", "has 2 pages: there is no page 3", "1 to 2"),
    "no page at all": ("a.pdf#page=0", pdf("a"), "invalid_arguments", "names no pages", "`report.pdf#page=3`"),
    "pages of a text": ("a.md#page=1", b"text", "invalid_arguments", "`a.md` is none", "Leave `#page=` out"),
    "a page that is no PDF": ("a.pdf", b"<html>Not found</html>", "media_rejected", "is mislabelled", "download"),
    "another ending": ("a.docx", pdf(WORDS), "media_rejected", "its content is a PDF", "ending"),
    "a zip bomb": ("a.docx", BOMB, "media_rejected", "zip bomb", "as PDF"),
    "old or encrypted office": ("a.doc", OLD, "media_rejected", "before 2007, or one with a password", "docx"),
    "an office document": ("a.docx", office("docx", WORDS), "media_rejected", "takes no text out", "moonshot"),
    "an archive": ("a.zip", archive({"a.txt": "a"}), "invalid_arguments", "a ZIP archive", "pdf, docx"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_no_readable_document_says_why_and_what_to_do(folder: Path, case: str) -> None:
    named, content, code, words, fix = REFUSED[case]
    (folder / named.partition("#")[0]).write_bytes(content)
    async with Simulator(ENGINE) as engine, connect(engine, folder, provider=ENGINE) as kimi:
        result = await kimi.think("How high?", files=[named])
        assert result.code == code, result.text
        assert words in result.error["message"]
        assert fix in result.error["fix"]
        assert chats(engine) == []


async def test_a_pdf_outside_the_roots_is_refused_like_any_file(folder: Path) -> None:
    (folder.parent / "report.pdf").write_bytes(pdf(WORDS))
    async with Simulator(ENGINE) as engine, connect(engine, folder, provider=ENGINE) as kimi:
        results = [await kimi.think("?", files=["../report.pdf#page=1"]), await look(kimi, "../report.pdf#page=1")]
    assert [result.code for result in results] == ["path_refused"] * 2, results
    assert all(str(folder.parent) not in result.text for result in results)


async def test_more_text_than_the_model_takes_names_the_pages_as_the_way_out(folder: Path) -> None:
    write(folder, report_pdf=pdf(*lines(range(3))))
    limits = ServerOptions(media_limits=MediaLimits(pdf=PdfLimits(text=1_500)))
    async with Simulator(ENGINE) as engine, connect(engine, folder, provider=ENGINE, options=limits) as kimi:
        result = await kimi.think("?", files=["report.pdf"])
    assert result.code == "context_too_long", result.text
    assert "report.pdf#page=1-50" in result.error["fix"]


# ── pages as pictures ─────────────────────────────────────────────────────────────────────────────────────────────


def shown(sim: Simulator) -> list[Image.Image]:
    """The pictures of the last request."""
    return [Image.open(io.BytesIO(content)) for content in contents(sim)]


async def test_pages_of_a_pdf_are_seen_as_pictures_in_their_order(sim: Simulator, folder: Path, mode: str) -> None:
    write(folder, scan_pdf=pdf("", WORDS, ""), a_png=picture(1))
    async with connect(sim, folder, mode) as kimi:
        result = await look(kimi, "scan.pdf#page=2-3", "a.png", f"file://{folder}/scan.pdf#page=1")
    assert result.status == "completed", result.text
    assert result.structured["policy"] == []
    second, third, other, first = shown(sim)
    assert second.size == third.size == first.size == (1240, 1755)
    assert third.tobytes() == first.tobytes() != second.tobytes()
    assert other.size == (61, 40)


async def test_a_page_shown_in_a_conversation_is_drawn_again_for_its_next_turn(sim: Simulator, folder: Path) -> None:
    write(folder, scan_pdf=pdf("", WORDS))
    async with connect(sim, folder) as kimi:
        first = await look(kimi, "scan.pdf#page=2")
        again = await look(kimi, "scan.pdf#page=1", conversation_id=first.structured["conversation_id"])
        (folder / "scan.pdf").write_bytes(pdf("", "Other words"))
        changed = await kimi.think("?", conversation_id=first.structured["conversation_id"])
    assert again.status == "completed", again.text
    assert changed.code == "media_rejected"
    assert "has changed since it was shown" in changed.error["message"]


async def test_a_page_too_large_to_be_drawn_at_150_dpi_is_drawn_smaller(sim: Simulator, folder: Path) -> None:
    write(folder, map_pdf=pdf("map", size=(14_400, 7_200)), strip_pdf=pdf("strip", size=(2, 1_000_000)))
    async with connect(sim, folder) as kimi:
        result = await look(kimi, "map.pdf#page=1", "strip.pdf#page=1")
    assert result.status == "completed", result.text
    large, strip = shown(sim)
    assert large.width * large.height <= 4_010_000
    assert max(strip.size) <= 8_192


@pytest.mark.parametrize(
    ("image", "code", "words", "fix"),
    [
        ("a.pdf", "media_rejected", "found a PDF document", "`report.pdf#page=1`"),
        ("a.pdf#page=9", "invalid_arguments", "there is no page 9", "1 to 2"),
        ("a.pdf#page=2-1", "invalid_arguments", "names no pages", "#page=3-7"),
        ("a.pdf#page=1-51", "invalid_arguments", "range of 51 pages", "the pages that matter"),
        ("a.png#page=1", "media_rejected", "of a PDF alone", "Leave `#page=` out"),
        ("b.pdf#page=1", "media_rejected", "`b.pdf` opens with a password", "without a password"),
        (data_uri(b"%PDF-1.7\nnone", "application/pdf") + "#page=1", "media_rejected", "The PDF is damaged", "whole"),
    ],
)
async def test_a_page_that_cannot_be_shown_says_why(
    sim: Simulator, folder: Path, image: str, code: str, words: str, fix: str
) -> None:
    write(folder, a_pdf=pdf("a", "b"), b_pdf=encrypted(), a_png=picture(1))
    async with connect(sim, folder) as kimi:
        result = await look(kimi, image)
    assert result.code == code, result.text
    assert words in result.error["message"]
    assert fix in result.error["fix"]
    assert chats(sim) == []


async def test_of_several_pictures_the_error_names_the_page(sim: Simulator, folder: Path) -> None:
    write(folder, a_pdf=pdf("a", "b"))
    async with connect(sim, folder) as kimi:
        result = await look(kimi, "a.pdf#page=1-3")
    assert "images[…#page=3]" in result.error["message"], result.text


async def test_a_changed_pdf_makes_another_call(sim: Simulator, folder: Path) -> None:
    async def both(kimi: KimiClient) -> list[Result]:
        return [await kimi.think("?", files=["a.pdf#page=1"]), await look(kimi, "a.pdf#page=1")]

    async with connect(sim, folder) as kimi:
        write(folder, a_pdf=pdf("a"))
        await both(kimi)
        write(folder, a_pdf=pdf("changed"))
        await both(kimi)
    assert len(chats(sim)) == 4


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("Plain text, as documented", "Plain text, as documented"),
        ('{"content": "a, \\ud800 [b", "type": "file"}', "a, ? [b"),
        ('{"content": "never ends', '{"content": "never ends'),
    ],
)
async def test_the_providers_text_is_taken_in_each_form_that_was_seen(
    sim: Simulator, folder: Path, body: str, text: str
) -> None:
    write(folder, report_pdf=pdf(WORDS))
    sim.play({"match": {"path": "/v1/files/simfile-000001/content"}, "body": body})
    async with connect(sim, folder) as kimi:
        result = await kimi.think("How high?", files=["report.pdf"])
    assert result.status == "completed", result.text
    assert f"```\n{text}\n```" in context(sim)
