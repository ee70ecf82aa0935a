from __future__ import annotations

import io
import random
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from kimi_mcp.core.errors import MediaRejected
from kimi_mcp.media.convert import DECODERS, convert
from kimi_mcp.media.formats import FORMATS, PIXELS_MAX, MediaInfo, inspect, inspect_bytes, require_label
from kimi_mcp.media.formats.media_info import STEPS_MAX, WINDOW
from kimi_mcp.simulator.media import sniff
from tests.media.specimens import CLIPS, drawing, samples, saved

NAMES = list(samples())
BY_PILLOW = ("bmp", "tiff", "heic", "avif")
"""Formats of which Pillow reads the header when they are converted."""
CUT_UNSEEN = {
    *("mpeg clip.mpg", "mpeg clip.vob", "mp4 fragments.mp4", "tiff pages", "wmv clip.wmv", "x-flv clip.flv"),
    "webm streamed.webm",
}
"""Streams without a length of their own, or with an index or padding behind it: some prefixes of them are whole."""


def judge(data: bytes) -> MediaInfo:
    """What bytes are, read to their end as far as that is done before they are sent."""
    found = inspect_bytes(data)
    if found.mime in DECODERS:
        made = convert(data, found)
        return replace(found, width=made.info.width, height=made.info.height)
    return found


def rejection(data: bytes) -> MediaRejected:
    with pytest.raises(MediaRejected) as caught:
        judge(data)
    return caught.value


def judged(data: bytes) -> MediaInfo | None:
    """What hostile bytes are; None where they are rejected. Nothing else may be raised."""
    try:
        return judge(data)
    except MediaRejected as error:
        texts = error.message, error.fix
    assert all(text.isprintable() and text for text in texts)
    return None


# ------------------------------------------------------------------------------------------------ what is found


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_what_it_is_and_how_large(name: str) -> None:
    data = samples()[name]
    found = judge(data)
    subtype = name.split()[0]
    assert found.mime == f"{found.kind}/{subtype}"
    assert found.length == len(data)
    if found.kind == "image":
        assert (found.width, found.height) == (60, 40)
    if inspect_bytes(data).mime in DECODERS:
        assert convert(data, inspect_bytes(data)).pages == (3 if name.endswith("pages") else 1)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(BY_PILLOW)])
def test_the_simulator_which_reads_by_itself_agrees(name: str) -> None:
    found, other = inspect_bytes(samples()[name]), sniff(samples()[name])
    assert found.mime == f"{other.kind}/{other.format}"
    if found.kind == "image":
        assert (other.width, other.height) == (found.width, found.height)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("head_bytes", [0, 5, 64, 10**9])
def test_a_medium_is_read_in_windows_whatever_the_head(name: str, head_bytes: int) -> None:
    data, requested = samples()[name], list[int]()

    def read_at(offset: int, length: int) -> bytes:
        requested.append(length)
        return data[offset : offset + length]

    assert inspect(data[:head_bytes], len(data), read_at) == inspect_bytes(data)
    assert max(requested, default=0) <= WINDOW
    assert not requested or head_bytes < len(data)


def test_a_large_clip_is_judged_without_being_read() -> None:
    clip = samples()["mp4 clip.mp4"]
    size = 3 << 30
    hole = struct.pack(">I4sQ", 1, b"mdat", size - len(clip))
    requested: list[int] = []

    def read_at(offset: int, length: int) -> bytes:
        requested.append(length)
        whole = clip[offset : offset + length] + (
            hole[max(0, offset - len(clip)) :] if offset + length > len(clip) else b""
        )
        return (whole + bytes(length))[:length]

    assert inspect(clip[:100], size, read_at).length == size
    assert sum(requested) < 10 * WINDOW


# ------------------------------------------------------------------------------------------------ whole or not


@pytest.mark.parametrize("name", NAMES)
def test_every_prefix_is_rejected_or_read_consistently(name: str) -> None:
    data = samples()[name]
    whole, passed = judge(data), 0
    sizes = 500 if name.startswith(BY_PILLOW) else 8_000
    for size in {*range(0, len(data), 1 + len(data) // sizes), *range(max(0, len(data) - 200), len(data))}:
        found = judged(data[:size])
        if found is not None:
            passed += 1
            assert found.length <= size
            assert (found.mime, found.width, found.height) == (whole.mime, whole.width, whole.height)
    assert (passed == 0) == (name not in CUT_UNSEEN)


@pytest.mark.parametrize("name", NAMES)
def test_a_random_change_is_rejected_or_read_but_nothing_else(name: str) -> None:
    data, rng = samples()[name], random.Random(name)
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(min(len(data), rng.choice([32, 128, 1_024, len(data)])))
            changed[at : at + rng.choice([1, 1, 4])] = rng.choice(
                [
                    rng.randbytes(1),
                    b"\xff\xff\xff\xff",
                    b"\0\0\0\0",
                    b"\x7f\xff\xff\xff",
                    b"",
                    b"\0\0\0\1",
                    rng.randbytes(9),
                ]
            )
        found = judged(bytes(changed))
        if found is not None:
            assert found.length <= len(changed)
            assert found.width is None or found.width > 0
            assert found.height is None or found.height > 0
            assert (found.width or 0) * (found.height or 0) <= PIXELS_MAX
            assert found.mime in FORMATS


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("png", "jpeg", "gif", "webp"))])
@pytest.mark.parametrize(
    "behind", [b"PK\x03\x04 a zip archive", b"<script>alert(1)</script>", b"\0" * 70_000, b"\xff\xd8\xff"]
)
def test_what_stands_behind_a_picture_is_no_part_of_it(name: str, behind: bytes) -> None:
    data = samples()[name]
    found = inspect_bytes(data + behind)
    assert found == inspect_bytes(data)
    with Image.open(io.BytesIO((data + behind)[: found.length])) as picture:
        picture.load()


def test_what_stands_behind_a_clip_is_no_part_of_it() -> None:
    for name in ("mp4 clip.mp4", "mov clip.mov", "avi clip.avi", "webm clip.webm"):
        data = samples()[name]
        assert inspect_bytes(data + b"<script>alert(1)</script>") == inspect_bytes(data)


def test_what_begins_as_something_else_is_that() -> None:
    page = b"<html><body>" + samples()["png"]
    assert "an HTML page" in rejection(page).message
    assert inspect_bytes(b"GIF89a" + samples()["gif"][6:]).mime == "image/gif"
    assert "bytes of no known format" in rejection(b"GIF88a" + samples()["gif"][6:]).message


def test_a_truncated_picture_says_what_was_found_and_expected() -> None:
    data = samples()["webp"]
    error = rejection(data[:-7])
    assert error.message == (
        f"The WebP picture is truncated: found {len(data) - 7:,} bytes, expected {len(data):,} by its RIFF header."
    )
    assert error.fix == "Give the whole file: export it, or download it, once more."
    assert (error.code, error.rule, error.retryable) == ("media_rejected", None, False)


# ------------------------------------------------------------------------------------------------ too large


def huge(wide: int, high: int) -> dict[str, bytes]:
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    heic = samples()["heic"]
    at = heic.index(b"ispe") + 8
    tiff = bytearray(samples()["tiff"])
    for number, value in ((256, wide), (257, high)):
        entry = tiff.index(struct.pack("<HHI", number, 4, 1)) if struct.pack("<HHI", number, 4, 1) in tiff else -1
        if entry < 0:
            entry = tiff.index(struct.pack("<HHI", number, 3, 1))
            tiff[entry + 2 : entry + 4] = b"\x04\0"
        tiff[entry + 8 : entry + 12] = struct.pack("<I", value)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, min(wide, 65_535), min(high, 65_535), 0)
    return {
        "png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr)),
        "jpeg": b"\xff\xd8\xff\xc0\0\x11\x08"
        + struct.pack(">HH", min(high, 65_535), min(wide, 65_535))
        + b"\3"
        + bytes(9),
        "gif": b"GIF89a" + struct.pack("<HH", min(wide, 65_535), min(high, 65_535)) + bytes(3),
        "gif frame": b"GIF89a" + struct.pack("<HH", 1, 1) + bytes(3) + frame,
        "webp": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0"
        + bytes(4)
        + max(wide - 1, 0).to_bytes(3, "little")
        + max(high - 1, 0).to_bytes(3, "little"),
        "bmp": b"BM" + bytes(8) + struct.pack("<IIiiHH", 54, 40, wide, -high, 1, 24) + bytes(24),
        "tiff": bytes(tiff),
        "heic": heic[:at] + struct.pack(">II", wide, high) + heic[at + 8 :],
    }


@pytest.mark.parametrize("name", huge(1, 1))
def test_a_huge_header_is_refused_before_anything_is_decoded(name: str) -> None:
    error = rejection(huge(50_000, 50_000)[name])
    found = "found 50,000 × 50,000 pixels in its header, expected at most 100 million in all"
    by_pillow = {"bmp": "too large to be converted", "tiff": "too large to be converted", "heic": "can't be decoded"}
    assert by_pillow.get(name, f"too large: {found}") in error.message
    assert "Export it" in error.fix or "Scale it down" in error.fix


@pytest.mark.parametrize("name", ["bmp", "tiff"])
def test_a_picture_beyond_the_limit_is_not_converted(name: str) -> None:
    assert "too large: found 12,000 × 12,000 pixels in its header" in rejection(huge(12_000, 12_000)[name]).message


@pytest.mark.parametrize("name", ["bmp", "tiff", "heic", "png"])
def test_a_header_without_a_size_is_refused(name: str) -> None:
    assert ("can't be decoded" if name in BY_PILLOW else "0 × 40 pixels") in rejection(huge(0, 40)[name]).message


def test_a_strip_is_refused_by_its_side() -> None:
    assert "65,535 a side" in rejection(huge(200_000, 10)["png"]).message


def test_a_huge_clip_is_refused() -> None:
    clip = samples()["mp4 clip.mp4"]
    at = clip.index(b"tkhd") + 4 + 76
    assert (
        "50,000 × 50,000"
        in rejection(clip[:at] + struct.pack(">II", 50_000 << 16, 50_000 << 16) + clip[at + 8 :]).message
    )


def test_an_inner_frame_does_not_hide_behind_a_small_canvas() -> None:
    lossless = samples()["webp lossless"]
    start = lossless.index(b"VP8L") + 9
    bits = struct.pack("<I", 16_383 | 16_383 << 14)
    canvas = b"VP8X\x0a\0\0\0" + bytes(10)
    body = b"WEBP" + canvas + lossless[12:start] + bits + lossless[start + 4 :]
    assert "16,384 × 16,384" in rejection(b"RIFF" + struct.pack("<I", len(body)) + body).message


def test_a_file_of_countless_pieces_is_given_up() -> None:
    gif = b"GIF89a" + struct.pack("<HH", 1, 1) + bytes(3) + b"\0" * (STEPS_MAX + 10)
    assert "1,000,000 pieces" in rejection(gif).message


# ------------------------------------------------------------------------------------------------ foreign


FOREIGN = {
    b"": "is empty",
    b"%PDF-1.7\n": "a PDF document",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>": "an SVG drawing",
    b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<svg>": "an SVG drawing",
    "<svg>".encode("utf-16"): "an SVG drawing",
    b"\n <!DOCTYPE html><title>404": "an HTML page",
    b"<?xml version='1.0'?><rss>": "an XML document",
    b'{"error": "not found"}': "JSON text",
    "Grüße".encode(): "text",
    b"PK\x03\x04\x14\0": "a ZIP archive or an office document",
    b"\x1f\x8b\x08\0": "a gzip file",
    b"ID3\x04": "a sound file",
    b"RIFF\x24\0\0\0WAVEfmt ": "a sound file",
    b"OggS\0\2": "an Ogg file",
    b"8BPS\0\1": "a Photoshop document",
    b"\0\0\1\0\1\0": "a Windows icon",
    b"\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL picture",
    b"version https://git-lfs.github.com/spec/v1\n": "a Git LFS pointer",
    b"BM is short for": "text",
    bytes(range(256)): "bytes of no known format",
    b"\0" * 5_000: "bytes of no known format",
}


@pytest.mark.parametrize("data", FOREIGN, ids=range(len(FOREIGN)))
def test_what_is_no_medium_is_named(data: bytes) -> None:
    error = rejection(data)
    assert FOREIGN[data] in error.message
    assert error.fix.strip()


def test_a_drawing_is_refused_with_the_fix() -> None:
    assert "save a screenshot" in rejection(b"<svg/>").fix


@pytest.mark.parametrize(
    ("name", "message", "fix"),
    [
        ("clip.mkv", "Matroska (mkv)", "ffmpeg -i clip.mkv -c copy clip.mp4"),
        ("clip.ts", "an MPEG transport stream", "clip.mp4"),
        ("sound.m4a", "found sound alone, expected a video track", "Give a clip with pictures"),
    ],
)
def test_what_comes_near_is_refused_with_the_fix(name: str, message: str, fix: str) -> None:
    error = rejection((CLIPS / name).read_bytes())
    assert message in error.message
    assert fix in error.fix


def test_a_recording_that_was_never_finished_says_what_is_missing() -> None:
    clip = samples()["mp4 clip.mp4"]
    assert "without the table of contents (moov)" in rejection(clip[: clip.index(b"moov") - 4]).message


# ------------------------------------------------------------------------------------------------ labels


PNG = MediaInfo(mime="image/png", width=1, height=1, length=1)
MOV = MediaInfo(mime="video/mov", length=1)


@pytest.mark.parametrize("label", ["image/png", "IMAGE/PNG; charset=x", "", "application/octet-stream", "image/apng"])
def test_a_label_that_fits_or_claims_nothing_is_fine(label: str) -> None:
    require_label(PNG, label, source="the data URI")
    require_label(MOV, "video/quicktime", source="the server")


@pytest.mark.parametrize(
    "label", ["image/jpeg", "text/html; charset=utf-8", "video/mp4", "image", "png", "image/svg+xml"]
)
def test_a_wrong_label_is_refused_with_what_was_found_and_expected(label: str) -> None:
    with pytest.raises(MediaRejected) as caught:
        require_label(PNG, label, source="the data URI")
    claimed = label.split(";")[0]
    assert caught.value.message == (
        f"The PNG picture is mislabelled: found image/png, expected {claimed} as the data URI says."
    )
    assert caught.value.fix.startswith("Label it image/png")


def test_a_wrong_label_is_never_quoted_at_length() -> None:
    for label in ("x" * 500, "image/\x1b[31m", "image/ü"):
        with pytest.raises(MediaRejected, match="expected something else as the server says"):
            require_label(PNG, label, source="the server")


def test_every_format_has_one_name() -> None:
    labels = [label for mime, one in FORMATS.items() for label in one.other_types | {mime}]
    assert len(set(labels)) == len(labels) - 1  # image/heif may be either of two
    assert Path(CLIPS).is_dir()


def test_a_phones_picture_with_a_clip_behind_it_is_the_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = saved("JPEG", drawing(), exif=exif)
    assert inspect_bytes(jpeg + samples()["mp4 clip.mp4"]).length == len(jpeg)
