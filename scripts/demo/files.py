"""The demo's scenes of pictures, clips, files and documents. I/O: reads the examples.

What arrived of a picture is known from the simulator's answer, which has the size and the head of the SHA-256 that it
measured, and from the body that it received.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, cast

from scripts.demo.stage import Stage, ToolReply

SHOT, CLIP, REPORT = "shot.png", "clip.mp4", "report.pdf"
"""The examples that the scenes need."""

_ARRIVED = re.compile(r"(\d+) bytes, sha256 ([0-9a-f]+)")


async def picture(stage: Stage) -> None:
    """A screenshot, and a question about it."""
    reply = await stage.call("kimi_vision", prompt="What is wrong on this screen?", images=[SHOT])
    _arrived_unharmed(stage, reply, stage.examples / SHOT)


async def clip(stage: Stage) -> None:
    """A clip, watched without reasoning."""
    reply = await stage.call("kimi_video", prompt="When does the ball meet the wall?", video=CLIP, mode="instant")
    _arrived_unharmed(stage, reply, stage.examples / CLIP)
    stage.check("The answer came at once, without reasoning.", not reply.reasoning, reply.reasoning)


async def converted(stage: Stage) -> None:
    """The same screenshot as a bitmap, which no model takes, and as what it is."""
    from PIL import Image

    bitmap = stage.folder / "screen.bmp"
    Image.open(stage.examples / SHOT).convert("RGB").save(bitmap)
    reply = await stage.call("kimi_vision", prompt="Are these the same?", images=[str(bitmap), SHOT])
    _show_arrived(stage, reply)
    stage.check("The conversion is reported.", reply.rules == ["media-converted"], reply.rules)
    mimes, data = zip(*_inlined(stage), strict=True)
    both = mimes == ("image/png", "image/png") and data[1] == (stage.examples / SHOT).read_bytes()
    stage.check("Both arrived as PNG, in their order.", both, mimes)
    same = [Image.open(source).convert("RGB").tobytes() for source in (BytesIO(data[0]), bitmap)]
    stage.check("Not one pixel changed.", same[0] == same[1], "other pixels")


async def files(stage: Stage) -> None:
    """A text file as context."""
    text = (stage.examples / "README.md").read_text("utf-8")
    reply = await stage.call("kimi_think", prompt="Which program drew the picture?", files=["*.md"])
    messages = cast("list[dict[str, Any]]", stage.body.get("messages", []))
    context = str(messages[0]["content"]) if messages else ""
    whole = text in context and "## README.md" in context
    stage.check("The whole file comes before the prompt, under its name.", whole, context)
    last = messages[-1]["content"] if messages else None
    stage.check("The prompt is unchanged.", last == "Which program drew the picture?", last)
    stage.check("It was answered.", reply.result["status"] == "completed", reply.result["status"])


async def document(stage: Stage) -> None:
    """A PDF: its text, taken out by the provider, and one of its pages as a picture."""
    for question in ("How high did the water rise?", "And what went wrong?"):
        reply = await stage.call("kimi_think", prompt=question, files=[REPORT])
        stage.check("It was answered.", reply.result["status"] == "completed", reply.result["status"])
    held = "168 cm above chart datum" in _sent_before(stage) and "no space was left" in _sent_before(stage)
    stage.check("The text of both pages came before the prompt.", held, _sent_before(stage))
    sent = [file.purpose for file in stage.sim.files.all()]
    stage.check("It was uploaded once, to have its text taken out.", sent == ["file-extract"], sent)
    reply = await stage.call("kimi_vision", prompt="What is under “Incidents”?", images=[f"{REPORT}#page=2"])
    _show_arrived(stage, reply)
    mimes = [mime for mime, _ in _inlined(stage)]
    stage.check("Its second page arrived as a picture.", mimes == ["image/png"], mimes)


async def document_here(stage: Stage) -> None:
    """The same PDF for an engine that keeps no files: it is read here."""
    await stage.call("kimi_think", prompt="How high did the water rise?", files=[REPORT])
    before = _sent_before(stage)
    held = "[page 1]" in before and "168 cm above chart datum" in before and "[page 2]" in before
    stage.check("The text came before the prompt, each page under its number.", held, before)
    await stage.call("kimi_think", prompt="What went wrong?", files=[f"{REPORT}#page=2"])
    stage.check("Of a page that is named, that text alone.", "168 cm" not in _sent_before(stage), _sent_before(stage))


def _sent_before(stage: Stage) -> str:
    """What was sent before the last prompt."""
    messages = cast("list[dict[str, Any]]", stage.body.get("messages", []))
    return "\n".join(str(message["content"]) for message in messages[:-1])


async def outside(stage: Stage) -> None:
    """A file outside the allowed folders, and a key within them."""
    reply = await stage.call("kimi_vision", prompt="Read this.", images=["../README.md"])
    refused = reply.error.get("code") == "path_refused" and "KIMI_ROOTS" in reply.error.get("fix", "")
    stage.check("It was refused, and the fix names the variable.", refused, reply.error)
    secret = stage.folder / ".env"
    secret.write_text("MOONSHOT_API_KEY=not-a-key\n", "utf-8")
    reply = await stage.call("kimi_think", prompt="What is in it?", files=[str(secret)])
    refused = reply.error.get("code") == "path_refused"
    stage.check("So was the file of keys, though it is in an allowed folder.", refused, reply.error)
    stage.check("Neither was sent.", not stage.chats, len(stage.chats))


async def uploaded(stage: Stage) -> None:
    """A picture too large for a request, asked about twice."""
    from PIL import Image

    large = stage.folder / "large.png"
    with Image.open(stage.examples / SHOT) as drawn:
        tripled = Image.new("RGB", (drawn.width * 3, drawn.height * 3))
        for place in range(9):
            tripled.paste(drawn, (place % 3 * drawn.width, place // 3 * drawn.height))
    tripled.save(large, compress_level=0)
    for question in ("What is wrong on this screen?", "And how is it fixed?"):
        reply = await stage.call("kimi_vision", prompt=question, images=[str(large)], mode="instant")
        _show_arrived(stage, reply)
        stage.check("It arrived whole.", _measured(reply) == [_measure(large.read_bytes())], _measured(reply))
    sent = [request for request in stage.sim.requests if (request.method, request.path) == ("POST", "/v1/files")]
    stage.page.row("uploads", f"{len(sent)}, of {large.stat().st_size / 1e6:.1f} MB; both questions refer to it")
    stage.check("It was uploaded once.", len(sent) == 1, len(sent))


async def no_video(stage: Stage) -> None:
    """A clip for an engine that can't take one: vLLM."""
    reply = await stage.call("kimi_video", prompt="What happens?", video=CLIP)
    error = reply.error
    stage.check("The policy refused it.", error.get("rule") == "video-provider" and reply.is_error, error)
    stage.check("The fix says who would take it.", "simulator" in error.get("fix", ""), error)
    stage.check("Nothing was sent; the engine would have answered HTTP 500.", not stage.chats, len(stage.chats))


def _arrived_unharmed(stage: Stage, reply: ToolReply, file: Path) -> None:
    """Check size and hash as the simulator measured them, and the content of the body."""
    data, measured = file.read_bytes(), _measured(reply)
    _show_arrived(stage, reply)
    stage.check("Every byte arrived: size and SHA-256 are the file's.", measured == [_measure(data)], measured)
    stage.check("The body held the file and no link to it.", [body for _, body in _inlined(stage)] == [data])


def _show_arrived(stage: Stage, reply: ToolReply) -> None:
    for line in reply.result["answer"].splitlines():
        if line.startswith("Media: "):
            stage.page.row("arrived", line.removeprefix("Media: "))


def _measure(data: bytes) -> tuple[int, str]:
    return len(data), hashlib.sha256(data).hexdigest()[:16]


def _measured(reply: ToolReply) -> list[tuple[int, str]]:
    """Size and head of the SHA-256 of each medium, as the simulator's answer has them."""
    return [(int(size), sha256) for size, sha256 in _ARRIVED.findall(reply.result["answer"])]


def _inlined(stage: Stage) -> Iterator[tuple[str, bytes]]:
    """Type and content of each medium in the last body, decoded."""
    for message in cast("list[dict[str, Any]]", stage.body.get("messages", [])):
        for part in cast("list[dict[str, Any]]", message["content"] if isinstance(message["content"], list) else []):
            if part["type"] in ("image_url", "video_url"):
                head, _, data = str(part[part["type"]]["url"]).partition(";base64,")
                yield head.removeprefix("data:"), base64.b64decode(data)
