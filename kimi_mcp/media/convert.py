"""Converts stills that no model takes into png or jpeg, by Pillow. Computes only; Pillow is imported on first use.

``convert`` blocks: call it in a worker thread. A thread can't be stopped: only the decoder of the detected format may
run, the size in the header is checked before a row is decoded, and only the first page is decoded.

The result is the first frame or page, rotated by its EXIF, in sRGB, eight bits a channel, without metadata (place,
camera, thumbnails): PNG for bilevel, palette and transparent pictures and for lossless sources up to ``PNG_PIXELS``,
else JPEG, since a photo as PNG is ten times as large and looks no better.
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
from kimi_mcp.media.formats.media_info import check_dimensions

if TYPE_CHECKING:
    from PIL.Image import Image

DECODERS = {"image/bmp": "BMP", "image/tiff": "TIFF", "image/avif": "AVIF", "image/heic": "HEIF"}
"""Pillow's decoder for each format that is converted."""

PNG_PIXELS = 10_000_000
"""Pixels up to which a lossless source becomes a PNG: ours; a 4K screenshot (8.3 million) stays exact."""

PAGES_MAX = 10_000
"""Pages of a TIFF that are counted."""

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
    pages: int
    """Pages of the source."""


def convert(data: bytes, found: MediaInfo, *, png_pixels: int = PNG_PIXELS) -> Converted:
    """Convert a still to png or jpeg; raises ``MediaRejected``. Blocks, up to some seconds for the largest pictures.

    ``data``: the medium, of which ``found.length`` bytes are read; ``found``: what ``formats`` found, its type one of
    ``DECODERS``; ``png_pixels``: up to how many pixels a lossless source becomes a PNG.
    """
    from PIL import Image

    try:
        return _converted(data[: found.length], found, png_pixels)
    except KimiError:
        raise
    except (MemoryError, Image.DecompressionBombError):
        raise MediaRejected(
            f"The {found.name} is too large to be converted here.", fix="Scale it down, or export it as png or jpeg."
        ) from None
    except Exception:  # noqa: BLE001 - the boundary: a decoder on broken input raises anything
        raise MediaRejected(
            f"The {found.name} can't be decoded: found damaged or unusual data, expected a picture.", fix=_EXPORT
        ) from None


def _converted(data: bytes, found: MediaInfo, png_pixels: int) -> Converted:
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = PIXELS_MAX  # Pillow fails beyond twice as much; we do beyond it
    warnings.filterwarnings("ignore", module=r"PIL\.")  # each time: catch_warnings restores filters
    _silence_libtiff()
    decoder = DECODERS[found.mime]
    if decoder == "HEIF":
        _register_heif(found)
    with Image.open(io.BytesIO(data), formats=[decoder]) as opened:
        check_dimensions(found.mime, *opened.size)
        pages = _pages(opened)
        opened.load()
        profile: Any = opened.info.get("icc_profile")
        ImageOps.exif_transpose(opened, in_place=True)
        picture = _in_srgb(_eight_bits(opened), profile)
    buffer = io.BytesIO()
    if _as_png(picture, found.mime, png_pixels):
        _bare(picture).save(buffer, "PNG")
    else:
        mode = "L" if picture.mode in ("L", "LA", "La", "1") else "RGB"
        picture = picture if picture.mode == mode else picture.convert(mode)
        _bare(picture).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    made = buffer.getvalue()
    return Converted(data=made, info=inspect_bytes(made), pages=pages)


def _pages(opened: Image) -> int:
    """The number of pages of a TIFF, each held to Pillow's limit; 1 of anything else."""
    pages = 1
    with suppress(EOFError):
        while opened.format == "TIFF" and pages < PAGES_MAX:
            opened.seek(pages)
            pages += 1
    opened.seek(0)
    return pages


@cache
def _silence_libtiff() -> None:
    """Keep libtiff from writing to descriptor 2, past every log: our own error reports what is wrong."""
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


def _as_png(picture: Image, mime: str, png_pixels: int) -> bool:
    if picture.mode in ("LA", "RGBA", "PA"):
        lowest, _ = picture.getchannel("A").getextrema()
        if isinstance(lowest, int) and lowest < 255:
            return True
    return picture.mode in ("1", "P") or (mime in _LOSSLESS and picture.width * picture.height <= png_pixels)


def _eight_bits(picture: Image) -> Image:
    """The picture with eight bits a channel, in a mode that can be stored or converted."""
    anything: Any = picture  # Pillow leaves the types of `point` open
    if picture.mode.startswith("I;16"):
        return anything.convert("I").point([value >> 8 for value in range(65_536)], "L")
    if picture.mode in ("I", "F"):  # without a defined range: the darkest becomes black, the brightest white
        low, high = (float(value) for value in picture.getextrema() if isinstance(value, int | float))
        scale = 255 / (high - low) if high > low else 0.0

        def stretched(value: Any) -> Any:
            return value * scale - low * scale

        return anything.convert("F").point(stretched).convert("L")
    if picture.mode in ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK"):
        return picture
    return picture.convert("RGBA" if picture.mode.endswith(("a", "A")) else "RGB")


def _in_srgb(picture: Image, profile: Any) -> Image:
    """The picture in sRGB, which viewers assume without a profile."""
    from PIL import ImageCms

    if isinstance(profile, bytes) and profile and picture.mode in ("RGB", "RGBA", "CMYK"):
        colours: Any = ImageCms  # without types
        target = picture.mode if picture.mode == "RGBA" else "RGB"
        with suppress(ImageCms.PyCMSError, OSError):  # a broken profile: the colours as they are are the best guess
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return colours.profileToProfile(picture, own, colours.createProfile("sRGB"), outputMode=target) or picture
    return picture.convert("RGB") if picture.mode == "CMYK" else picture


def _bare(picture: Image) -> Image:
    """The picture without metadata except a palette's transparent colour."""
    kept = {key: value for key, value in picture.info.items() if key == "transparency"}
    picture.info.clear()
    picture.info.update(kept)
    return picture
