"""Converting stills that no model takes into png or jpeg, by Pillow. Computes only; Pillow is imported on first use.

``convert`` blocks: call it in a worker thread. A process of its own would survive a crash of a decoder, but costs each
call 300 ms and a second copy of the picture; the decoders run with limits instead: ``formats`` has held the header to
its limits before, the decoder's own idea of the size is held to them again before a single row is decoded, only the
one decoder that the content asks for may run, and of a document only the first page. A thread can't be stopped: what
the limits let through takes some seconds and some hundred megabytes at most.

What a converted picture is: the first frame or page, turned as its EXIF says, its colours brought to sRGB where a
profile came along, eight bits a channel, all metadata dropped (place, camera, thumbnails). PNG as long as it stays
small: bilevel and palette pictures, what shows transparency, and lossless sources of up to ``PNG_PIXELS``; JPEG for
everything else, since a photo as PNG is ten times as large and looks no better.
"""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from kimi_mcp.core.errors import KimiError, MediaRejected
from kimi_mcp.media.formats import PIXELS_MAX, MediaInfo, inspect_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

DECODERS = {"image/bmp": "BMP", "image/tiff": "TIFF", "image/avif": "AVIF", "image/heic": "HEIF"}
"""Pillow's decoder for each format that is converted."""

PNG_PIXELS = 10_000_000
"""A lossless source above so many pixels becomes a JPEG: ours; a 4K screenshot (8.3 million) stays exact."""

JPEG_QUALITY = 90
"""On Pillow's scale, with full colour resolution: small text on coloured ground stays readable."""

_LOSSLESS = frozenset({"image/bmp", "image/tiff"})
_EXPORT = "Export it as png or jpeg, and give that."


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A picture in a format that every model takes."""

    data: bytes
    """The whole file, png or jpeg."""
    info: MediaInfo
    """What ``formats`` says about it."""


def convert(data: bytes, found: MediaInfo) -> Converted:
    """Turn a still into png or jpeg; raises ``MediaRejected``. Blocks, up to some seconds for the largest pictures.

    ``data``: the medium, no more than ``found.length`` bytes of it are read; ``found``: what ``formats`` found,
    its type one of ``DECODERS``.
    """
    try:
        made = _converted(data[: found.length], found)
        return Converted(data=made, info=inspect_bytes(made))
    except KimiError:
        raise
    except MemoryError:
        raise MediaRejected(
            f"The {found.name} is too large to be converted here: {found.width:,} × {found.height:,} pixels.",
            fix="Scale it down, or export it as png or jpeg.",
        ) from None
    except Exception:  # noqa: BLE001 - a decoder on broken input raises anything; its words stay here
        raise MediaRejected(
            f"The {found.name} can't be decoded: found damaged or unusual data, expected a picture of "
            f"{found.width:,} × {found.height:,} pixels.",
            fix=_EXPORT,
        ) from None


def _converted(data: bytes, found: MediaInfo) -> bytes:
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = PIXELS_MAX  # Pillow warns beyond it and fails beyond twice as much; ours comes before both
    _hush()
    decoder = DECODERS[found.mime]
    if decoder == "HEIF":
        _register_heif(found)
    with Image.open(io.BytesIO(data), formats=[decoder]) as opened:
        width, height = opened.size
        if width * height > PIXELS_MAX:
            raise MediaRejected(
                f"The {found.name} is too large: found {width:,} × {height:,} pixels behind a header that says "
                f"{found.width:,} × {found.height:,}.",
                fix=_EXPORT,
            )
        opened.load()
        profile: Any = opened.info.get("icc_profile")
        ImageOps.exif_transpose(opened, in_place=True)
        picture = _in_srgb(_eight_bits(opened), profile)
    buffer = io.BytesIO()
    if _as_png(picture, found.mime):
        _bare(picture).save(buffer, "PNG")
    else:
        mode = "L" if picture.mode in ("L", "LA", "La", "1") else "RGB"
        picture = picture if picture.mode == mode else picture.convert(mode)
        _bare(picture).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _hush() -> None:
    """Let decoders print nothing: our own error reports what is wrong with a picture.

    Pillow's own words are warnings. libtiff writes its straight to descriptor 2, past every log; it has a function to
    leave that, which is found through the module that is linked with it.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")  # each time: who catches warnings puts filters back
    _hush_libtiff()


@cache
def _hush_libtiff() -> None:
    import ctypes

    from PIL import Image

    core: Any = Image.core  # without types
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        with suppress(OSError, AttributeError):  # there is none, or (on Windows) it is part of Pillow
            set_handler = ctypes.CDLL(core.__file__)[name]
            set_handler.argtypes, set_handler.restype = (ctypes.c_void_p,), ctypes.c_void_p
            set_handler(None)


def _register_heif(found: MediaInfo) -> None:
    try:
        import pillow_heif
    except ImportError:
        raise MediaRejected(
            f"The {found.name} can't be converted: found no HEIC decoder on this system, expected pillow-heif.",
            fix=f"Install pillow-heif beside kimi-mcp, or: {_EXPORT}",
        ) from None
    untyped: Any = pillow_heif
    untyped.register_heif_opener(thumbnails=False)


def _as_png(picture: Image, mime: str) -> bool:
    if picture.mode in ("1", "P") or _shows_transparency(picture):
        return True
    return mime in _LOSSLESS and picture.width * picture.height <= PNG_PIXELS


def _shows_transparency(picture: Image) -> bool:
    if picture.mode not in ("LA", "RGBA", "PA"):
        return False
    lowest, _ = picture.getchannel("A").getextrema()
    return isinstance(lowest, int) and lowest < 255


def _eight_bits(picture: Image) -> Image:
    """The same picture with eight bits a channel, in a mode that can be stored or turned into one."""
    anything: Any = picture  # Pillow leaves the types of `point` open
    if picture.mode.startswith("I;16"):
        return anything.convert("I").point([value >> 8 for value in range(65_536)], "L")
    if picture.mode in ("I", "F"):  # no range is agreed on: the darkest becomes black, the brightest white
        low, high = (float(value) for value in picture.getextrema() if isinstance(value, int | float))
        scale = 255 / (high - low) if high > low else 0.0

        def stretched(value: Any) -> Any:
            return value * scale - low * scale

        return anything.convert("F").point(stretched).convert("L")
    if picture.mode in ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK"):
        return picture
    return picture.convert("RGBA" if picture.mode.endswith(("a", "A")) else "RGB")


def _in_srgb(picture: Image, profile: Any) -> Image:
    """The picture's colours in sRGB, as what shows a picture without a profile takes them to be."""
    from PIL import ImageCms

    if isinstance(profile, bytes) and profile and picture.mode in ("RGB", "RGBA", "CMYK"):
        colours: Any = ImageCms  # the type of a profile is left open there
        target = picture.mode if picture.mode == "RGBA" else "RGB"
        try:
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            turned = colours.profileToProfile(picture, own, colours.createProfile("sRGB"), outputMode=target)
        except (ImageCms.PyCMSError, OSError):
            turned = None  # a broken profile: the colours as they stand are the best guess
        if turned is not None:
            return turned
    return picture.convert("RGB") if picture.mode == "CMYK" else picture


def _bare(picture: Image) -> Image:
    """The picture without metadata, but with the transparent colour of a palette."""
    kept = {key: value for key, value in picture.info.items() if key == "transparency"}
    picture.info.clear()
    picture.info.update(kept)
    return picture
