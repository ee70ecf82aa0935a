from __future__ import annotations

import contextlib
import io
import random
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image, ImageCms

from kimi_mcp.core.errors import MediaRejected
from kimi_mcp.media.convert import DECODERS, Converted, convert
from kimi_mcp.media.formats import inspect_bytes
from tests.media.specimens import drawing, samples, saved

CONVERTIBLE = [name for name in samples() if name.startswith(("bmp", "tiff", "avif", "heic"))]


def converted(data: bytes) -> tuple[Converted, Image.Image]:
    made = convert(data, inspect_bytes(data))
    picture = Image.open(io.BytesIO(made.data))
    picture.load()
    return made, picture


def like(picture: Image.Image, wanted: Image.Image, within: int) -> bool:
    """Whether no channel differs by more, seen from so far that what a lossy codec blurs does not count."""
    if picture.size != wanted.size:
        return False
    seen = [one.convert("RGB").reduce(10).tobytes() for one in (picture, wanted)]
    return max(abs(a - b) for a, b in zip(*seen, strict=True)) <= within


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_every_convertible_sample_becomes_a_picture_that_shows_the_same(name: str) -> None:
    made, picture = converted(samples()[name])
    lossless = name.startswith(("bmp", "tiff"))
    assert made.info.mime == ("image/png" if lossless else "image/jpeg")
    assert made.info == inspect_bytes(made.data)
    assert made.info.length == len(made.data)
    assert (made.info.width, made.info.height) == (60, 40)
    if "bilevel" not in name:
        assert like(picture, drawing(), 0 if lossless else 40)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB"])
def test_every_kind_of_tiff_is_brought_to_eight_bits(mode: str) -> None:
    if mode == "I;16":
        source = Image.frombytes("I;16", (2, 1), struct.pack("<HH", 0, 65_535)).resize((60, 40), 0)
    elif mode == "LAB":
        profiles = [ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")]
        source = ImageCms.profileToProfile(drawing(), *profiles, outputMode="LAB")
        assert source is not None
    else:
        source = drawing(mode)
    made, picture = converted(saved("TIFF", source))
    assert made.info.mime == "image/png"
    assert picture.mode in ("1", "L", "P", "RGB", "RGBA")
    assert picture.size == (60, 40)
    if mode in ("I;16", "I", "F"):
        assert picture.getextrema() == (0, 255)


def test_transparency_is_kept() -> None:
    seen_through = drawing("RGBA")
    seen_through.putalpha(Image.linear_gradient("L").resize(seen_through.size))
    for form in ("TIFF", "AVIF", "HEIF"):
        made, picture = converted(saved(form, seen_through))
        assert made.info.mime == "image/png"
        assert picture.mode == "RGBA"
        seen = picture.getchannel("A").tobytes()
        assert min(seen) < 20
        assert max(seen) > 235


@pytest.mark.parametrize("form", ["TIFF", "AVIF", "HEIF"])
def test_a_picture_is_turned_as_its_exif_says(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    _, picture = converted(saved(form, drawing(), exif=exif.tobytes()))
    assert picture.size == (40, 60)
    assert like(picture, drawing().transpose(Image.Transpose.ROTATE_270), 40)


@pytest.mark.parametrize("form", ["TIFF", "AVIF", "HEIF"])
def test_metadata_is_dropped(form: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Swordfish Cameras"
    exif.get_ifd(0x8825)[1] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = saved(form, drawing(), exif=exif, icc_profile=profile)
    assert b"Swordfish" in data
    made, picture = converted(data)
    assert b"Swordfish" not in made.data
    assert not picture.getexif()
    assert "icc_profile" not in picture.info


def test_colours_are_brought_to_srgb() -> None:
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, green = swapped.index(b"rXYZ"), swapped.index(b"gXYZ")
    turned = bytearray(swapped)  # a profile whose red is green, an obvious difference
    turned[red : red + 4], turned[green : green + 4] = b"gXYZ", b"rXYZ"
    _, plain = converted(saved("TIFF", drawing()))
    _, picture = converted(saved("TIFF", drawing(), icc_profile=bytes(turned)))
    assert not like(picture, plain, 60)


def test_a_broken_profile_changes_nothing() -> None:
    _, picture = converted(saved("TIFF", drawing(), icc_profile=b"no profile at all" * 20))
    assert like(picture, drawing(), 0)


def test_a_large_lossless_source_becomes_a_jpeg() -> None:
    for name, mime in (("tiff", "image/jpeg"), ("bmp bilevel", "image/png")):
        data = samples()[name]
        assert convert(data, inspect_bytes(data), png_pixels=60 * 40 - 1).info.mime == mime


def test_what_follows_the_picture_is_not_read() -> None:
    data = samples()["avif"] + b"<script>"
    made = convert(data, inspect_bytes(data))
    assert made.info.mime == "image/jpeg"
    assert b"<script>" not in made.data


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_damage_is_reported_in_our_words(name: str) -> None:
    data, rng, seen = samples()[name], random.Random(name), list[MediaRejected]()
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(rng.choice([1, 3, 20])):
            changed[rng.randrange(rng.choice([64, len(changed)]))] = rng.randrange(256)
        try:
            made = convert(bytes(changed), inspect_bytes(bytes(changed)))
        except MediaRejected as error:
            seen.append(error)
        else:
            assert made.info == inspect_bytes(made.data)
    assert seen
    for error in seen:
        assert error.message.startswith(("The ", "This is no picture"))
        assert error.__cause__ is None
        assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_the_decoder_finds_is_held_to_the_limit() -> None:
    small, bmp = inspect_bytes(samples()["bmp"]), bytearray(samples()["bmp"])
    bmp[18:26] = struct.pack("<ii", 12_000, 12_000)
    with pytest.raises(MediaRejected, match="too large: found 12,000 × 12,000 pixels in its header"):
        convert(bytes(bmp), small)
    bmp[18:26] = struct.pack("<ii", 50_000, 50_000)
    with pytest.raises(MediaRejected, match="too large to be converted"):
        convert(bytes(bmp), small)


def test_only_the_decoder_of_the_content_runs() -> None:
    png = samples()["png"]
    with pytest.raises(MediaRejected, match="can't be decoded"):
        convert(png, inspect_bytes(samples()["bmp"]))
    assert set(DECODERS) == {"image/bmp", "image/tiff", "image/avif", "image/heic"}


def test_a_missing_heic_decoder_is_reported_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MediaRejected, match="no HEIC decoder") as caught:
        convert(samples()["heic"], inspect_bytes(samples()["heic"]))
    assert "pillow-heif" in caught.value.fix


def test_ten_threads_convert_at_once() -> None:
    done: list[str] = []
    threads = [
        threading.Thread(target=lambda name=name: done.append(converted(samples()[name])[0].info.mime))
        for name in ("heic", "avif", "tiff", "bmp", "tiff deflate") * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == ["image/jpeg"] * 4 + ["image/png"] * 6


PEAK = """
import re, sys
from pathlib import Path
from kimi_mcp.media.convert import convert
from kimi_mcp.media.formats import inspect_bytes

peaks = []
for name in ("small", "large"):
    data = Path(sys.argv[1], name).read_bytes()
    convert(data, inspect_bytes(data))
    peaks.append(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
print(peaks[1] - peaks[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells the peak")
@pytest.mark.parametrize(
    "form", ["TIFF", "BMP", *(pytest.param(slow, marks=pytest.mark.soak) for slow in ("AVIF", "HEIF"))]
)
def test_a_large_picture_is_not_held_decoded_time_and_again(form: str, tmp_path: Path) -> None:
    side = 4_000
    for name, size in (("small", (64, 64)), ("large", (side, side))):
        (tmp_path / name).write_bytes(saved(form, Image.new("RGB", size, "teal")))
    done = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], check=True, capture_output=True, text=True)
    decoded_kb = side * side * 4 / 1024
    assert int(done.stdout) < 2.5 * decoded_kb


@pytest.mark.skipif(sys.platform == "win32", reason="there libtiff can't be reached")
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg", "group4", "lzma", "zstd"])
def test_a_broken_tiff_prints_nothing(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(f"seed {compression}")
    noise = Image.effect_noise((120, 120), 50)
    whole = saved("TIFF", noise.convert("1") if compression == "group4" else noise, compression=compression)
    for _ in range(100):
        spoilt = bytearray(whole)
        for _ in range(draw.choice((1, 3, 20))):
            spoilt[draw.randrange(8, len(spoilt))] = draw.randrange(256)
        with contextlib.suppress(MediaRejected):
            convert(bytes(spoilt), inspect_bytes(bytes(spoilt)))
    assert capfd.readouterr() == ("", "")
