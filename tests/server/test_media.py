"""Pictures and clips through the whole server: what is named arrives, byte for byte and in order, or is refused."""

from __future__ import annotations

import functools
import gc
import random
import tracemalloc
from io import BytesIO
from pathlib import Path
from urllib.parse import quote
from zlib import crc32

import pytest
from PIL import Image

from kimi_mcp.core.types import MediaPart, TextPart, Turn
from kimi_mcp.media.fetch import FetchedBody, fetch
from kimi_mcp.pipeline.attachments import MediaLimits
from kimi_mcp.runs.store.serializers import turn_as_json
from kimi_mcp.server.app import _call_key
from kimi_mcp.server.tools import TOOLS, VisionArguments
from kimi_mcp.simulator import Simulator
from tests.media.sites import Authority, says, site
from tests.media.specimens import CLIPS, drawing, samples, saved
from tests.server.clients import KimiClient, ServerOptions, connect
from tests.server.media import CLIP, contents, data_uri, hashes, hashes_in, parts, picture, said_to, urls, write
from tests.server.processes import server_process
from tests.server.requests import body_of, chats
from tests.server.results import checked as held_result

AS_THEY_ARE = {
    name: content for name, content in samples().items() if name.split()[0] in ("png", "jpeg", "gif", "webp")
}
CONVERTED = {name: content for name, content in samples().items() if name.split()[0] in ("bmp", "tiff", "avif", "heic")}
VIDEOS = {path.name: path.read_bytes() for path in CLIPS.iterdir() if path.suffix not in (".mkv", ".ts", ".m4a")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The one root."""
    made = tmp_path / "work"
    made.mkdir()
    return made


async def look(kimi: KimiClient, *images: str, prompt: str = "What is it?", **arguments: object):
    return await kimi.call("kimi_vision", {"prompt": prompt, "images": list(images), **arguments})


async def watch(kimi: KimiClient, video: str, prompt: str = "What happens?", **arguments: object):
    return await kimi.call("kimi_video", {"prompt": prompt, "video": video, **arguments})


# ── what arrives ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_ten_pictures_in_one_call_arrive_in_order_with_their_exact_bytes(
    sim: Simulator, mode: str, folder: Path
) -> None:
    pictures = [picture(number, ("PNG", "JPEG", "GIF", "WEBP")[number % 4]) for number in range(10)]
    for number, content in enumerate(pictures):
        (folder / f"{number}.png").write_bytes(content)
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        named = [str(folder / f"{number}.png") if number % 2 else f"{number}.png" for number in range(10)]
        result = await look(kimi, *named)
    assert result.status == "completed", result.text
    assert result.structured["policy"] == []
    assert contents(sim) == pictures
    assert hashes_in(result.answer) == hashes(pictures)
    assert [part["type"] for part in parts(chats(sim)[0])] == ["image_url"] * 10 + ["text"]
    assert parts(chats(sim)[0])[-1]["text"] == "What is it?"
    assert len(body_of(chats(sim)[0])["messages"]) == 1, "the prompt and its pictures are the only message"


async def test_each_form_of_naming_a_picture_brings_the_same_bytes(
    sim: Simulator, mode: str, folder: Path, tmp_path: Path
) -> None:
    one, two, three, four = (picture(number) for number in range(4))
    write(folder, one_png=one)
    authority = Authority(tmp_path)
    async with site(authority, shot=says(three, "content-type: image/png")) as here:
        trusting = functools.partial(fetch, resolve=here.resolve, connect=here.connect, trust=here.trusted)
        options = ServerOptions(media_limits=MediaLimits(fetch=trusting))
        write(folder, four_png=four)
        all_uploaded = ServerOptions(media_limits=MediaLimits(inline=0))
        async with connect(sim, mode, options=all_uploaded, KIMI_ROOTS=str(folder)) as kimi:
            await look(kimi, "four.png")
            (uploaded,) = urls(chats(sim)[-1])
        async with connect(sim, mode, options=options, KIMI_ROOTS=str(folder)) as kimi:
            named = ["one.png", data_uri(two), "https://pictures.example/shot?token=swordfish", uploaded]
            result = await look(kimi, *named, (folder / "one.png").as_uri())
    assert result.status == "completed", result.text
    assert contents(sim) == [one, two, three, four, one]
    assert [url.partition(":")[0] for url in urls(chats(sim)[-1])] == ["data", "data", "data", "ms", "data"]
    said = said_to(sim)
    assert "pictures.example" not in said, "no URL of the user's is passed on"
    assert "swordfish" not in said + result.text + str(result.structured)
    assert "https:" not in said
    assert result.rules == ["media-inline"]


@pytest.mark.parametrize("name", AS_THEY_ARE)
async def test_what_every_model_takes_goes_as_it_is(sim: Simulator, folder: Path, name: str) -> None:
    write(folder, shot_bin=AS_THEY_ARE[name])
    async with connect(sim, KIMI_ROOTS=str(folder), KIMI_POLICY="strict") as kimi:
        result = await look(kimi, "shot.bin")
    assert result.status == "completed", result.text
    assert contents(sim) == [AS_THEY_ARE[name]]
    assert urls(chats(sim)[0])[0].startswith(f"data:image/{name.split()[0]};base64,"), "by content, not by name"
    assert result.structured["policy"] == []


@pytest.mark.parametrize("name", CONVERTED)
async def test_what_no_model_takes_is_converted_and_reported_once(sim: Simulator, folder: Path, name: str) -> None:
    write(folder, shot_bin=CONVERTED[name])
    found = f"image/{name.split()[0]}"
    for source in ("shot.bin", data_uri(CONVERTED[name], found)):
        sim.reset()
        async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
            result = await look(kimi, source)
        assert result.status == "completed", result.text
        (url,) = urls(chats(sim)[0])
        assert url.startswith(("data:image/png;", "data:image/jpeg;"))
        assert "60×40" in result.answer
        (note,) = result.structured["policy"]
        assert (note["rule"], note["action"]) == ("media-converted", "adjusted")
        assert note["asked"] == found
        assert note["sent"] == url[5:].partition(";")[0]
        assert "media-converted" in result.text


async def test_a_document_of_several_pages_says_that_its_first_alone_is_sent(sim: Simulator, folder: Path) -> None:
    pages = BytesIO()
    drawing().save(pages, "TIFF", save_all=True, append_images=[drawing(), drawing()])
    write(folder, scan_tiff=pages.getvalue(), one_tiff=saved("TIFF", drawing()))
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        several, one = await look(kimi, "scan.tiff"), await look(kimi, "one.tiff")
    (note,) = several.structured["policy"]
    assert "Only the first of its 3 pages is sent." in note["why"]
    assert "Only the first of its 3 pages is sent." in several.text
    assert "page" not in one.text


async def test_of_several_pictures_the_one_at_fault_is_named(sim: Simulator, mode: str, folder: Path) -> None:
    write(folder, a_png=picture(1), b_png=picture(2)[:-20], c_bmp=picture(3, "BMP"))
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        for source, code in (("b.png", "media_rejected"), ("d.png", "path_refused"), ("https://[::1]/", "url_refused")):
            result = await look(kimi, "a.png", "c.bmp", source)
            assert result.code == code
            assert result.error["message"].startswith("`images[2]`: "), result.text
        alone, converted = await look(kimi, "b.png"), await look(kimi, "a.png", "c.bmp")
    assert "images" not in alone.error["message"], "there is no other"
    assert [note["field"] for note in converted.structured["policy"]] == ["images[1]"]


@pytest.mark.parametrize("name", ["bmp", "tiff"])
async def test_a_conversion_is_refused_under_strict(sim: Simulator, mode: str, folder: Path, name: str) -> None:
    write(folder, shot_png=CONVERTED[name])
    async with connect(sim, mode, KIMI_ROOTS=str(folder), KIMI_POLICY="strict") as kimi:
        for source in ("shot.png", data_uri(CONVERTED[name], f"image/{name}")):
            result = await look(kimi, source)
            assert result.code == "policy_refused"
            assert result.error["rule"] == "media-converted"
            assert name in result.error["message"]
            assert "png" in result.error["fix"]
    assert chats(sim) == []


@pytest.mark.parametrize("mime", ["image/jpg", "image/pjpeg", "IMAGE/JPEG", "application/octet-stream", ""])
@pytest.mark.parametrize("policy", ["adjust", "strict"])
async def test_a_data_uri_is_judged_by_its_content_and_nothing_is_reported_that_was_not_done(
    sim: Simulator, mime: str, policy: str
) -> None:
    content = picture(1, "JPEG")
    async with connect(sim, KIMI_POLICY=policy) as kimi:
        result = await look(kimi, data_uri(content, mime))
    assert result.status == "completed", result.text
    assert contents(sim) == [content]
    assert urls(chats(sim)[0])[0].startswith("data:image/jpeg;base64,")
    assert result.structured["policy"] == [], "it was sent as it is"


@pytest.mark.parametrize("name", sorted(VIDEOS))
async def test_every_kind_of_clip_that_is_taken_arrives_whole(sim: Simulator, folder: Path, name: str) -> None:
    write(folder, clip_bin=VIDEOS[name])
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        result = await watch(kimi, "clip.bin")
    assert result.status == "completed", result.text
    assert contents(sim) == [VIDEOS[name]]
    assert [part["type"] for part in parts(chats(sim)[0])] == ["video_url", "text"]
    assert hashes_in(result.answer) == hashes([VIDEOS[name]])


@pytest.mark.parametrize("asked", [None, "thinking", "instant"])
async def test_a_picture_is_looked_at_in_the_mode_that_was_asked_for(
    sim: Simulator, mode: str, folder: Path, asked: str | None
) -> None:
    write(folder, a_png=picture(1), a_mp4=CLIP)
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        for result in (await look(kimi, "a.png", mode=asked), await watch(kimi, "a.mp4", mode=asked)):
            assert result.structured["mode"] == (asked or "thinking")
            assert (result.structured["reasoning"] is None) is (asked == "instant")
            assert body_of(chats(sim)[-1])["thinking"]["type"] == ("disabled" if asked == "instant" else "enabled")


async def test_a_mode_of_another_name_is_refused_with_those_there_are(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await look(kimi, data_uri(picture(1)), mode="fast")
    assert result.code == "invalid_arguments"
    assert "thinking" in result.error["fix"]
    assert "instant" in result.error["fix"]
    assert chats(sim) == []


async def test_an_answer_about_pictures_can_be_held_to_a_schema_and_asked_for_again_with_them(
    sim: Simulator, mode: str, folder: Path
) -> None:
    pictures = [picture(1), picture(2)]
    write(folder, a_png=pictures[0], b_png=pictures[1])
    schema = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
    sim.play({"content": "It is red."}, {"content": '{"colour": "red"}'})
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        result = await look(kimi, "a.png", "b.png", response_schema=schema, mode="instant")
    assert result.status == "completed", result.text
    assert result.structured["parsed"] == {"colour": "red"}
    assert result.rules == ["answer-repaired"]
    first, second = chats(sim)
    assert contents(sim, first) == pictures
    assert body_of(second)["messages"][0] == body_of(first)["messages"][0], "the pictures are sent again, byte for byte"


async def test_a_second_attempt_sends_the_same_bytes_again(sim: Simulator, folder: Path) -> None:
    content = saved("PNG", None)
    write(folder, a_png=content)
    sim.play({"status": 500}, {"status": 503})
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        result = await look(kimi, "a.png")
    assert result.status == "completed", result.text
    assert result.attempts == 3
    assert [contents(sim, each) for each in chats(sim)] == [[content]] * 3


async def test_a_picture_beyond_one_window_of_base64_arrives_whole(sim: Simulator, folder: Path) -> None:
    pictures = [picture(1) + bytes(0), saved("BMP")]
    large = saved("PNG", _noise(700))
    assert len(large) > 1_000_000
    write(folder, a_png=large, b_bmp=pictures[1], c_png=pictures[0])
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        result = await look(kimi, "a.png", "b.bmp", "a.png", "c.png")
    assert result.status == "completed", result.text
    arrived = contents(sim)
    assert (arrived[0], arrived[2], arrived[3]) == (large, large, pictures[0])


def _noise(side: int) -> Image.Image:
    """A picture that no format makes smaller, and always the same."""
    return Image.frombytes("RGB", (side, side), random.Random(side).randbytes(side * side * 3))


async def test_a_real_process_shows_pictures_and_clips_in_both_eras(
    sim: Simulator, mode: str, folder: Path, tmp_path: Path
) -> None:
    write(folder, a_png=picture(1), a_mp4=CLIP)
    log = tmp_path / "stderr"
    async with server_process(sim, mode, stderr=log, KIMI_ROOTS=str(folder)) as client:
        shown = {"prompt": "What is it?", "images": ["a.png"]}
        looked = held_result(await client.call_tool("kimi_vision", shown))
        watched = held_result(await client.call_tool("kimi_video", {"prompt": "What happens?", "video": "a.mp4"}))
    assert looked.status == watched.status == "completed"
    assert hashes_in(looked.answer) + hashes_in(watched.answer) == hashes([picture(1), CLIP])
    assert log.read_text() == "", "nothing to say, nothing said"


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!DOCTYPE html><html><body>404</body></html>"


def _header(side: int) -> bytes:
    """The beginning of a png of so many pixels a side."""
    said = b"IHDR" + side.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\r" + said + crc32(said).to_bytes(4, "big") + bytes(900)


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
            said = result.error["message"]
            assert "found" in said or "says" in said, said
            assert found in said
            assert expected in said + result.error["fix"]
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
    contents_of = [saved("PNG", _noise(side)) for side in (29, 30, 31)] + [saved("PNG", _noise(400))]
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
    content = saved("PNG", _noise(400 if broken_up > 76 else 30))
    head, _, text = data_uri(content).partition(",")
    lines = "\r\n ".join(text[at : at + broken_up] for at in range(0, len(text), broken_up))
    async with connect(sim) as kimi:
        result = await look(kimi, f"{head},{lines}\n")
        assert result.status == "completed", result.text
        assert contents(sim) == [content]
        for spoilt in (f"{text}%", f"{text}AAAA" if text.endswith("=") else f"{text}A", f"{text[:300_000]}=={text}"):
            assert (await look(kimi, f"{head},{spoilt}")).code == "media_rejected"


def test_telling_the_same_call_again_copies_no_picture() -> None:
    uri = data_uri(bytes(12_000_000))
    ask = VisionArguments(prompt="What is it?", images=[uri])
    tracemalloc.start()
    try:
        key = _call_key(TOOLS["kimi_vision"], ask)
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
    assert _call_key(TOOLS["kimi_vision"], same) == key
    assert len({key, *(_call_key(TOOLS["kimi_vision"], other) for other in others)}) == 5


async def test_the_content_of_a_data_uri_is_never_written_down(sim: Simulator, tmp_path: Path) -> None:
    uri = data_uri(saved("PNG", _noise(100)))
    async with connect(sim, KIMI_DATA_DIR=str(tmp_path)) as kimi:
        assert (await look(kimi, uri)).status == "completed"
        assert (await look(kimi, uri[:-2000])).code == "media_rejected"
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"What is it?" in written
    assert uri[2000:2200].encode() not in written
    shown = Turn(role="user", parts=(MediaPart(kind="image", url=uri), TextPart(text="What is it?")))
    assert turn_as_json(shown)["parts"][0]["url"] == "data:image/png;base64,", "not even until it was looked at"


async def test_bare_base64_is_told_from_a_path(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        for content in (saved("PNG", _noise(40)), saved("JPEG", _noise(40))):
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


# ── what is left behind ───────────────────────────────────────────────────────────────────────────────────────────


async def test_every_descriptor_is_closed_after_success_refusal_and_failure(sim: Simulator, folder: Path) -> None:
    some_uploaded = ServerOptions(media_limits=MediaLimits(inline=500))
    write(folder, a_png=picture(1), a_mp4=CLIP, b_bmp=saved("BMP"), c_png=picture(2)[:-20], n_txt="words")
    async with connect(sim, options=some_uploaded, KIMI_ROOTS=str(folder)) as kimi:

        async def all_of_it() -> None:
            assert (await look(kimi, "a.png", "b.bmp", "a.png")).status == "completed"
            assert (await watch(kimi, "a.mp4")).status == "completed"
            assert (await kimi.think(files=["n.txt", "*.txt"])).status == "completed"
            assert (await look(kimi, "a.png", "b.bmp", "c.png")).code == "media_rejected"
            assert (await look(kimi, "a.png", "nowhere.png")).code == "path_refused"
            assert (await look(kimi, "a.png", "a.mp4")).code == "media_rejected"
            sim.play({"status": 401})
            assert (await look(kimi, "a.png")).code == "auth_failed"

        await all_of_it()
        gc.collect()
        before = _open_files(folder)
        for _ in range(5):
            await all_of_it()
        gc.collect()
        assert _open_files(folder) == before == []


def _open_files(folder: Path) -> list[str]:
    """What of the folder, or without a name, is open in this process."""
    found: list[str] = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            at = str(link.readlink())
        except OSError:
            continue
        if at.startswith(str(folder)) or "kimi-mcp-" in at:
            found.append(at)
    return found
