"""Pictures and clips that are refused: with what was found, what is expected, and nothing sent."""

from __future__ import annotations

import functools
import tracemalloc
from pathlib import Path
from urllib.parse import quote
from zlib import crc32

import pytest

from kimi_mcp.core.types import MediaPart, TextPart, Turn
from kimi_mcp.media.fetch import FetchedBody, fetch
from kimi_mcp.pipeline.attachments import MediaLimits
from kimi_mcp.runs.store.records import turn_as_json
from kimi_mcp.server.tools import TOOLS, VisionArguments, call_key
from kimi_mcp.simulator import Simulator
from tests.media.sites import Authority, says, site
from tests.media.specimens import saved
from tests.server.clients import ServerOptions, connect
from tests.server.media import CLIP, VIDEOS, contents, data_uri, look, noise, picture, watch, write
from tests.server.requests import chats

# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!DOCTYPE html><html><body>404</body></html>"


def _header(side: int) -> bytes:
    """The beginning of a png of so many pixels a side."""
    chunk = b"IHDR" + side.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\r" + chunk + crc32(chunk).to_bytes(4, "big") + bytes(900)


REJECTED = {
    "an SVG drawing": (SVG, "SVG", "png"),
    "a PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(500), "PDF", "png"),
    "a web page": (HTML, "HTML", "png"),
    "a truncated png": (picture(1)[:-20], "", ""),
    "a truncated jpeg": (picture(1, "JPEG")[:-30], "", ""),
    "a truncated webp": (picture(1, "WEBP")[:-30], "", ""),
    "nothing": (b"", "0 bytes", "picture"),
    "text": (b"just words\n" * 40, "text", "png"),
    "a header of 50,000 x 50,000": (
        _header(50_000),
        "50,000",
        "",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
async def test_what_is_no_whole_picture_is_rejected_with_what_was_found_and_expected(
    sim: Simulator, mode: str, folder: Path, case: str
) -> None:
    content, found, expected = REJECTED[case]
    write(folder, shot_png=content)
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        for source in ("shot.png", data_uri(content)):
            result = await look(kimi, source)
            assert result.code == "media_rejected", result.text
            message = result.error["message"]
            assert "found" in message or "says" in message, message
            assert found in message
            assert expected in message + result.error["fix"]
            assert result.structured["run_id"] is None, "nothing ran"
    assert chats(sim) == []


async def test_a_truncated_clip_is_rejected_with_what_was_found_and_expected(sim: Simulator, folder: Path) -> None:
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        for name, content in VIDEOS.items():
            if name in ("clip.mpg", "clip.vob", "fragments.mp4", "streamed.webm"):
                continue  # they have no length of their own
            write(folder, clip_mp4=content[: len(content) * 2 // 3])
            result = await watch(kimi, "clip.mp4")
            assert result.code == "media_rejected", (name, result.text)
            assert "found" in result.error["message"]
            assert "expected" in result.error["message"]
    assert chats(sim) == []


async def test_a_data_uri_that_says_another_type_is_rejected_with_both(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        for label in ("image/png", "image/svg+xml", "image/bmp", "text/html", "video/mp4"):
            result = await look(kimi, data_uri(picture(1, "JPEG"), label))
            assert result.code == "media_rejected", result.text
            assert "image/jpeg" in result.error["message"]
            assert label in result.error["message"]
    assert chats(sim) == []


async def test_a_data_uri_is_read_as_browsers_read_it(sim: Simulator, mode: str) -> None:
    contents_of = [saved("PNG", noise(side)) for side in (29, 30, 31)] + [saved("PNG", noise(400))]
    assert {len(content) % 3 for content in contents_of} == {0, 1, 2}, "with every kind of padding"
    async with connect(sim, mode) as kimi:
        for content in contents_of:
            text = data_uri(content).partition(",")[2]
            for written in (
                text.rstrip("="),
                quote(text, safe=""),
                quote(text.rstrip("="), safe=""),
                f"\t{text}%0D%0A",
            ):
                result = await look(kimi, f"data:image/png;base64,{written}")
                assert result.status == "completed", result.text
                assert contents(sim) == [content]


@pytest.mark.parametrize(
    "rest", ["", ",", ";base64", ";base64,", ";base64,%%%%", ";base64,AAAAA", ";base64,AAAA", "é,ü"]
)
async def test_a_broken_data_uri_is_rejected(sim: Simulator, rest: str) -> None:
    async with connect(sim) as kimi:
        result = await look(kimi, f"data:image/png{rest}")
    assert result.code == "media_rejected", result.text
    assert "found" in result.error["message"]


@pytest.mark.parametrize("broken_up", [1, 3, 76, 262_144, 262_143])
async def test_a_long_data_uri_is_read_whatever_its_line_ends(sim: Simulator, broken_up: int) -> None:
    content = saved("PNG", noise(400 if broken_up > 76 else 30))
    head, _, text = data_uri(content).partition(",")
    lines = "\r\n ".join(text[at : at + broken_up] for at in range(0, len(text), broken_up))
    async with connect(sim) as kimi:
        result = await look(kimi, f"{head},{lines}\n")
        assert result.status == "completed", result.text
        assert contents(sim) == [content]
        for spoilt in (f"{text}%", f"{text}AAAA" if text.endswith("=") else f"{text}A", f"{text[:300_000]}=={text}"):
            assert (await look(kimi, f"{head},{spoilt}")).code == "media_rejected"


def test_recognising_the_same_call_again_copies_no_picture() -> None:
    uri = data_uri(bytes(12_000_000))
    ask = VisionArguments(prompt="What is it?", images=[uri])
    tracemalloc.start()
    try:
        key = call_key(TOOLS["kimi_vision"], ask)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    same, others = (
        VisionArguments(prompt="What is it?", images=[str(uri)]),
        (
            VisionArguments(prompt="What is it?", images=[uri, uri]),
            VisionArguments(prompt="What is it?", images=[uri[:-1] + "B"]),
            VisionArguments(prompt="What is it?", images=[uri], system="null"),
            VisionArguments(prompt="What is it?", images=[uri], max_tokens=20_000),
        ),
    )
    assert call_key(TOOLS["kimi_vision"], same) == key
    assert len({key, *(call_key(TOOLS["kimi_vision"], other) for other in others)}) == 5


async def test_the_content_of_a_data_uri_is_never_written_down(sim: Simulator, tmp_path: Path) -> None:
    uri = data_uri(saved("PNG", noise(100)))
    async with connect(sim, KIMI_DATA_DIR=str(tmp_path)) as kimi:
        assert (await look(kimi, uri)).status == "completed"
        assert (await look(kimi, uri[:-2000])).code == "media_rejected"
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"What is it?" in written
    assert uri[2000:2200].encode() not in written
    shown = Turn(role="user", parts=(MediaPart(kind="image", url=uri), TextPart(text="What is it?")))
    assert turn_as_json(shown)["parts"][0]["url"] == "data:image/png;base64,", "not even until it was looked at"


async def test_bare_base64_is_distinguished_from_a_path(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        for content in (saved("PNG", noise(40)), saved("JPEG", noise(40))):
            result = await look(kimi, data_uri(content).partition(",")[2])
            assert result.code == "media_rejected", result.text
            assert "found base64 alone" in result.error["message"]
            assert "data:image/png;base64," in result.error["fix"]


async def test_a_picture_and_a_clip_are_each_sent_to_their_own_tool(sim: Simulator, mode: str, folder: Path) -> None:
    write(folder, a_png=picture(1), a_mp4=CLIP)
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        shown, watched = await look(kimi, "a.mp4"), await watch(kimi, "a.png")
    for result, tool, found in ((shown, "kimi_video", "MP4"), (watched, "kimi_vision", "PNG")):
        assert result.code == "media_rejected"
        assert tool in result.error["fix"]
        assert found in result.error["message"]
        assert "expected" in result.error["message"]
    assert chats(sim) == []


@pytest.mark.parametrize("provider", ["vllm", "sglang", "ktransformers"])
async def test_video_is_refused_where_no_engine_takes_it_before_anything_is_read_or_sent(
    mode: str, provider: str, folder: Path
) -> None:
    async def read(*_: object, **__: object) -> FetchedBody:
        raise AssertionError("the clip was touched")

    options = ServerOptions(media_limits=MediaLimits(fetch=read))
    async with Simulator(provider=provider) as engine:
        allowed = {"KIMI_ROOTS": str(folder), "KIMI_ALLOWED_PROVIDERS": "novita", "NOVITA_API_KEY": "sk_any"}
        async with connect(engine, mode, options=options, provider=provider, **allowed) as kimi:
            for source in ("not-there.mp4", "https://pictures.example/clip.mp4", data_uri(CLIP, "video/mp4")):
                result = await watch(kimi, source)
                assert result.code == "policy_refused", result.text
                assert result.error["rule"] == "video-provider"
                assert provider in result.error["message"]
                assert "novita with kimi-k2.5" in result.error["fix"]
                assert "moonshot" not in result.error["fix"], "only what the operator allows"
        async with connect(engine, mode, provider=provider) as kimi:
            alone = await watch(kimi, "a.mp4")
        assert alone.error["rule"] == "video-provider"
        assert "KIMI_ALLOWED_PROVIDERS" in alone.error["fix"]
        assert "novita" in alone.error["fix"]
        assert [one for one in engine.requests if one.path != "/v1/models"] == []


async def test_the_tool_that_shows_pictures_works_where_video_does_not(folder: Path) -> None:
    write(folder, a_png=picture(1))
    async with Simulator(provider="vllm") as engine, connect(engine, provider="vllm", KIMI_ROOTS=str(folder)) as kimi:
        result = await look(kimi, "a.png")
        assert result.status == "completed", result.text
        assert contents(engine) == [picture(1)]


@pytest.mark.parametrize(
    "source",
    [
        *("http://pictures.example/a.png", "HTTP://pictures.example/a.png", "ftp://h.example/a.png"),
        *("gopher://h.example/a", "file://elsewhere.example/a.png", "javascript:alert(1)", "ws://h.example/"),
        "s3://bucket/a.png",
    ],
)
async def test_a_url_of_another_scheme_is_refused_and_never_passed_on(
    sim: Simulator, mode: str, folder: Path, source: str
) -> None:
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        for result in (await look(kimi, source), await watch(kimi, source)):
            assert result.code == "policy_refused", result.text
            assert result.error["rule"] == "media-inline"
            assert "https" in result.error["fix"]
            assert source.partition(":")[2] not in result.text
    assert chats(sim) == []


@pytest.mark.parametrize(
    "source", ["https://127.0.0.1/a.png", "https://[::1]/a.png", "https://localhost/a.png", "https://169.254.169.254/"]
)
async def test_a_url_that_leads_inside_is_refused_and_never_passed_on(sim: Simulator, mode: str, source: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await look(kimi, source)
    assert result.code == "url_refused", result.text
    assert chats(sim) == []


async def test_a_url_that_labels_its_picture_as_another_is_rejected(sim: Simulator, tmp_path: Path) -> None:
    pages = {
        "page": says(HTML, "content-type: image/png"),
        "jpeg": says(picture(1, "JPEG"), "content-type: image/png"),
        "cut": says(picture(1)[:50], "content-type: image/png"),
        "good": says(picture(1), "content-type: image/png"),
    }
    async with site(Authority(tmp_path), **pages) as here:
        trusting = functools.partial(fetch, resolve=here.resolve, connect=here.connect, trust=here.trusted)
        async with connect(sim, options=ServerOptions(media_limits=MediaLimits(fetch=trusting))) as kimi:
            for page in ("page", "jpeg", "cut"):
                result = await look(kimi, "https://pictures.example/good", f"https://pictures.example/{page}")
                assert result.code == "media_rejected", (page, result.text)
                assert "found" in result.error["message"]
    assert chats(sim) == []


@pytest.mark.parametrize("images", [None, [], [""], ["  "], "a.png", [7], [None], {"0": "a.png"}])
async def test_images_of_the_wrong_kind_are_refused_by_name(sim: Simulator, mode: str, images: object) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.call("kimi_vision", {"prompt": "What is it?", "images": images})
    assert result.code == "invalid_arguments", result.text
    assert "images" in result.error["message"]
    assert chats(sim) == []
