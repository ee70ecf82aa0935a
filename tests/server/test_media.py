"""Pictures and clips through the whole server: what is named arrives, byte for byte and in order, or is refused."""

from __future__ import annotations

import functools
import gc
from io import BytesIO
from pathlib import Path

import pytest

from kimi_mcp.media.fetch import fetch
from kimi_mcp.pipeline.attachments import MediaLimits
from kimi_mcp.simulator import Simulator
from tests.media.sites import Authority, says, site
from tests.media.specimens import drawing, samples, saved
from tests.server.clients import ServerOptions, connect
from tests.server.media import (
    CLIP,
    VIDEOS,
    contents,
    data_uri,
    hashes,
    hashes_in,
    look,
    noise,
    parts,
    picture,
    text_sent,
    urls,
    watch,
    write,
)
from tests.server.processes import server_process
from tests.server.requests import body_of, chats
from tests.server.results import checked as held_result

AS_THEY_ARE = {
    name: content for name, content in samples().items() if name.split()[0] in ("png", "jpeg", "gif", "webp")
}
CONVERTED = {name: content for name, content in samples().items() if name.split()[0] in ("bmp", "tiff", "avif", "heic")}


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
    sent = text_sent(sim)
    assert "pictures.example" not in sent, "no URL of the user's is passed on"
    assert "swordfish" not in sent + result.text + str(result.structured)
    assert "https:" not in sent
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


@pytest.mark.parametrize("requested", [None, "thinking", "instant"])
async def test_a_picture_is_looked_at_in_the_mode_that_was_asked_for(
    sim: Simulator, mode: str, folder: Path, requested: str | None
) -> None:
    write(folder, a_png=picture(1), a_mp4=CLIP)
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        for result in (await look(kimi, "a.png", mode=requested), await watch(kimi, "a.mp4", mode=requested)):
            assert result.structured["mode"] == (requested or "thinking")
            assert (result.structured["reasoning"] is None) is (requested == "instant")
            assert body_of(chats(sim)[-1])["thinking"]["type"] == ("disabled" if requested == "instant" else "enabled")


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
    large = saved("PNG", noise(700))
    assert len(large) > 1_000_000
    write(folder, a_png=large, b_bmp=pictures[1], c_png=pictures[0])
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        result = await look(kimi, "a.png", "b.bmp", "a.png", "c.png")
    assert result.status == "completed", result.text
    arrived = contents(sim)
    assert (arrived[0], arrived[2], arrived[3]) == (large, large, pictures[0])


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
    assert log.read_text() == "", "nothing to report, nothing written"


# ── what is left behind ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.soak
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
