"""Draws shot.png, report.pdf and clip.mp4 for the demo: python examples/draw.py (the clip needs ffmpeg)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
FRAMES, RATE = 60, 15

PAGES = (
    "Tidewatch, Harbour North\nReport of July\n\nThe highest water was 168 cm above chart datum, on the 9th at 14:20.",
    "Incidents\n\nThe export of the readings failed on the 31st: no space was left on /data.\nNothing was lost.",
)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def shot() -> Image.Image:
    """A made-up program, Tidewatch, whose export has just failed."""
    picture = Image.new("RGB", (800, 500), "#eef1f4")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, 800, 36), fill="#24424f")
    pen.text((14, 9), "Tidewatch - Harbour North - July", font=font(16), fill="white")
    for at, colour in ((720, "#f2c14e"), (746, "#6fb98f"), (772, "#e4572e")):
        pen.ellipse((at, 12, at + 13, 25), fill=colour)
    pen.rectangle((0, 36, 170, 500), fill="#dbe2e7")
    for row, entry in enumerate(("Stations", "Readings", "Tide tables", "Alerts (2)", "Export", "Settings")):
        if entry == "Export":
            pen.rectangle((0, 52 + row * 36, 170, 84 + row * 36), fill="#b9cbd4")
        pen.text((18, 58 + row * 36), entry, font=font(16), fill="#24424f")
    heights = [64, 98, 142, 120, 70, 52, 88, 150, 168, 126, 82, 60, 96, 140, 158]
    for column, height in enumerate(heights):
        left = 200 + column * 38
        pen.rectangle((left, 440 - height, left + 24, 440), fill="#8fb3c4")
        pen.text((left + 4, 446), str(column + 1), font=font(12), fill="#5b6b73")
    pen.text((200, 56), "Water level, cm above chart datum", font=font(18), fill="#24424f")
    pen.rectangle((236, 150, 726, 350), fill="#9aa6ad")
    pen.rectangle((230, 144, 720, 344), fill="white", outline="#7a868d", width=2)
    pen.rectangle((230, 144, 720, 178), fill="#c0392b")
    pen.text((246, 152), "Export failed", font=font(17), fill="white")
    pen.ellipse((250, 200, 298, 248), fill="#c0392b")
    pen.text((268, 205), "!", font=font(34), fill="white")
    lines = (
        "The file july.csv could not be written.",
        "Error 28: no space left on device /data",
        "12.4 MB needed, 0.3 MB free.",
    )
    for row, line in enumerate(lines):
        pen.text((320, 198 + row * 26), line, font=font(17), fill="#222222")
    for left, label, colour in ((470, "Retry", "#24424f"), (594, "Cancel", "#7a868d")):
        pen.rounded_rectangle((left, 296, left + 108, 328), 6, fill=colour)
        pen.text((left + 30, 303), label, font=font(16), fill="white")
    return picture.quantize(64, dither=Image.Dither.NONE)


def report() -> bytes:
    """Two pages of text as a PDF."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"", b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    kids: list[bytes] = []
    for page in PAGES:
        lines = b" ".join(b"(%s) Tj T*" % line.encode("ascii") for line in page.splitlines())
        drawn = b"BT /F 12 Tf 18 TL 60 760 Td " + lines + b" ET"
        kids.append(b"%d 0 R" % (len(objects) + 1))
        objects += [
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents %d 0 R/Resources<</Font<</F 3 0 R>>>>>>"
            % (len(objects) + 2),
            b"<</Length %d>>stream\n%s\nendstream" % (len(drawn), drawn),
        ]
    objects[1] = b"<</Type/Pages/Kids[%s]/Count %d>>" % (b" ".join(kids), len(kids))
    written, places = bytearray(b"%PDF-1.4\n"), list[bytes]()
    for number, body in enumerate(objects, 1):
        places.append(b"%010d 00000 n \n" % len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    count = len(objects) + 1
    table = b"xref\n0 %d\n0000000000 65535 f \n%s" % (count, b"".join(places))
    return (
        bytes(written) + table + b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (count, len(written))
    )


def frame(number: int) -> Image.Image:
    """A red ball rolls from the left, meets a wall, and rolls back; a clock counts the seconds."""
    picture = Image.new("RGB", (320, 240), "#f4f1e8")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 190, 320, 240), fill="#8d99a6")
    pen.rectangle((270, 90, 300, 190), fill="#4a5560")
    half = FRAMES // 2
    at = 20 + (number if number < half else FRAMES - number) * 210 // half
    pen.ellipse((at, 150, at + 40, 190), fill="#d1342f")
    pen.text((12, 10), f"{number / RATE:.1f} s", font=font(24), fill="#24424f")
    if number >= half:
        pen.text((200, 50), "bump!", font=font(24), fill="#24424f")
    return picture


def main() -> None:
    shot().save(HERE / "shot.png", optimize=True)
    (HERE / "report.pdf").write_bytes(report())
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise SystemExit("The clip needs ffmpeg.")
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "320x240", "-r", str(RATE), "-i", "-"]
    made = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-fflags", "+bitexact"]
    command = [ffmpeg, "-loglevel", "error", "-y", *raw, *made, "-flags:v", "+bitexact", str(HERE / "clip.mp4")]
    frames = b"".join(frame(number).tobytes() for number in range(FRAMES))
    subprocess.run(command, input=frames, check=True)  # noqa: S603 - the command is ours


if __name__ == "__main__":
    main()
