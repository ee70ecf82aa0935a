"""Pictures and clips for the tests: pictures drawn by Pillow, clips as ffmpeg wrote them (`samples/`)."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

CLIPS = Path(__file__).with_name("samples")
"""A test card of one second, 64 × 48 (3gp: 128 × 96), made with ffmpeg -f lavfi -i testsrc."""


def drawing(mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> Image.Image:
    """A picture whose corners differ: red, green, blue, and a gradient."""
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    wide, high = size
    for row in range(high):
        pen.line((0, row, wide, row), fill=(row * 255 // high, 128, 255 - row * 255 // high))
    for place, colour in (((0, 0), "red"), ((wide - wide // 4, 0), "lime"), ((0, high - high // 4), "blue")):
        pen.rectangle((place, (place[0] + wide // 4, place[1] + high // 4)), fill=colour)
    return picture.convert(mode)


def saved(form: str, picture: Image.Image | None = None, **options: Any) -> bytes:
    if form == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    (picture or drawing()).save(buffer, form, **options)
    return buffer.getvalue()


@functools.cache
def samples() -> dict[str, bytes]:
    """Every format that is read, whole, by a name that begins with its subtype."""
    frames = [drawing(), drawing().rotate(90), drawing().rotate(180)]
    animated = {"save_all": True, "append_images": frames[1:], "duration": 100}
    stills = {
        "png": saved("PNG"),
        "png palette": saved("PNG", drawing("P")),
        "png animated": saved("PNG", frames[0], **animated),
        "jpeg": saved("JPEG"),
        "jpeg progressive": saved("JPEG", progressive=True, exif=Image.Exif()),
        "jpeg grey": saved("JPEG", drawing("L"), restart_marker_blocks=2),
        "gif": saved("GIF"),
        "gif animated": saved("GIF", frames[0], **animated),
        "webp": saved("WEBP"),
        "webp lossless": saved("WEBP", lossless=True),
        "webp alpha": saved("WEBP", drawing("RGBA").rotate(45)),
        "webp animated": saved("WEBP", frames[0], **animated),
        "bmp": saved("BMP"),
        "bmp bilevel": saved("BMP", drawing("1")),
        "tiff": saved("TIFF"),
        "tiff deflate": saved("TIFF", compression="tiff_adobe_deflate"),
        "tiff pages": saved("TIFF", frames[0], **animated),
        "tiff big": saved("TIFF", big_tiff=True),
        "avif": saved("AVIF"),
        "heic": saved("HEIF"),
    }
    subtypes = {"3gp": "3gpp", "mpg": "mpeg", "vob": "mpeg", "flv": "x-flv"}
    clips = {
        f"{subtypes.get(path.suffix[1:], path.suffix[1:])} {path.name}": path.read_bytes()
        for path in sorted(CLIPS.iterdir())
        if path.suffix not in (".mkv", ".ts", ".m4a")
    }
    return stills | clips
