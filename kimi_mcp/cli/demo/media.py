"""The demo's scenes with pictures, clips and files: what was sent, held against what arrived. I/O: reads the examples.

What arrived is known from the simulator's answer, which has the size and the head of the SHA-256 that it measured, and
from the body that it received. A scene's docstring is its heading.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from kimi_mcp.cli.demo.stage import Stage, ToolReply

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
"""The picture and the clip; a checkout has them, a wheel does not."""

SHOT, CLIP = "shot.png", "clip.mp4"

FILES_PATH = "/v1/files"

_ARRIVED = re.compile(r"(\d+) bytes, sha256 ([0-9a-f]+)")


def missing() -> list[str]:
    """The examples that are not there."""
    return [name for name in (SHOT, CLIP) if not (EXAMPLES / name).is_file()]


async def picture(stage: Stage) -> None:
    """A screenshot, and a question about it."""
    reply = await stage.call("kimi_vision", prompt="What is wrong on this screen?", images=[SHOT])
    _arrived_unharmed(stage, reply, EXAMPLES / SHOT)


async def clip(stage: Stage) -> None:
    """A clip, watched without reasoning."""
    reply = await stage.call("kimi_video", prompt="When does the ball meet the wall?", video=CLIP, mode="instant")
    _arrived_unharmed(stage, reply, EXAMPLES / CLIP)
    stage.holds("The answer came at once, without reasoning.", not reply.reasoning, reply.reasoning)


async def converted(stage: Stage) -> None:
    """The same screenshot as a bitmap, which no model takes, and as what it is."""
    from PIL import Image

    bitmap = stage.folder / "screen.bmp"
    with Image.open(EXAMPLES / SHOT) as opened:
        drawn = opened.convert("RGB")
    drawn.save(bitmap)
    reply = await stage.call("kimi_vision", prompt="Are these the same?", images=[str(bitmap), SHOT])
    _show_arrived(stage, reply)
    stage.holds("The conversion is reported.", reply.rules == ["media-converted"], reply.rules)
    mimes, data = [mime for mime, _ in _inlined(stage)], [data for _, data in _inlined(stage)]
    stage.holds("Both arrived as PNG, in their order.",
                mimes == ["image/png"] * 2 and data[1] == (EXAMPLES / SHOT).read_bytes(), mimes)  # fmt: skip
    same = _pixels(data[0]) == drawn.tobytes() if data else False
    stage.holds("Not one pixel changed.", same, "other pixels")


async def files(stage: Stage) -> None:
    """A text file as context."""
    text = (EXAMPLES / "README.md").read_text("utf-8")
    reply = await stage.call("kimi_think", prompt="Which program drew the picture?", files=["*.md"])
    messages = cast("list[dict[str, Any]]", stage.body.get("messages", []))
    context = str(messages[0]["content"]) if messages else ""
    stage.holds("The file stands before the prompt, whole, under its name.",
                text in context and "## README.md" in context, context)  # fmt: skip
    last = messages[-1]["content"] if messages else None
    stage.holds("The prompt is still as it was.", last == "Which program drew the picture?", last)
    stage.holds("It was answered.", reply.result["status"] == "completed", reply.result["status"])


async def outside(stage: Stage) -> None:
    """A file outside the allowed folders, and a key within them."""
    reply = await stage.call("kimi_vision", prompt="Read this.", images=["../README.md"])
    names_variable = "KIMI_ROOTS" in reply.error.get("fix", "")
    stage.holds("It was refused, and the fix names the variable.",
                reply.error.get("code") == "path_refused" and names_variable, reply.error)  # fmt: skip
    secret = stage.folder / ".env"
    secret.write_text("MOONSHOT_API_KEY=not-a-key\n", "utf-8")
    reply = await stage.call("kimi_think", prompt="What is in it?", files=[str(secret)])
    stage.holds("So was the file of keys, though it lies in an allowed folder.",
                reply.error.get("code") == "path_refused", reply.error)  # fmt: skip
    stage.holds("Neither was sent.", not stage.chats, len(stage.chats))


async def uploaded(stage: Stage) -> None:
    """A picture too large for a request, asked about twice."""
    from PIL import Image

    large = stage.folder / "large.png"
    with Image.open(EXAMPLES / SHOT) as drawn:
        tripled = Image.new("RGB", (drawn.width * 3, drawn.height * 3))
        for place in range(9):
            tripled.paste(drawn, (place % 3 * drawn.width, place // 3 * drawn.height))
    tripled.save(large, compress_level=0)
    for question in ("What is wrong on this screen?", "And how is it fixed?"):
        reply = await stage.call("kimi_vision", prompt=question, images=[str(large)], mode="instant")
        _show_arrived(stage, reply)
        stage.holds("It arrived whole.", _measured(reply) == [_measure(large.read_bytes())], _measured(reply))
    sent = [request for request in stage.sim.requests if (request.method, request.path) == ("POST", FILES_PATH)]
    stage.page.row("uploads", f"{len(sent)}, of {large.stat().st_size / 1e6:.1f} MB; both questions refer to it")
    stage.holds("It was uploaded once.", len(sent) == 1, len(sent))


async def no_video(stage: Stage) -> None:
    """A clip for an engine that can't take one: vLLM."""
    reply = await stage.call("kimi_video", prompt="What happens?", video=CLIP)
    error = reply.error
    stage.holds("The policy refused it.", error.get("rule") == "video-provider" and reply.is_error, error)
    stage.holds("The fix says who would take it.", "simulator" in error.get("fix", ""), error)
    stage.holds("Nothing was sent; the engine would have answered HTTP 500.", not stage.chats, len(stage.chats))


def _arrived_unharmed(stage: Stage, reply: ToolReply, file: Path) -> None:
    """Size and hash are the file's, as the simulator measured them and as they come out of the body."""
    data, measured = file.read_bytes(), _measured(reply)
    _show_arrived(stage, reply)
    stage.holds("Every byte arrived: size and SHA-256 are the file's.", measured == [_measure(data)], measured)
    stage.holds("The body held the file and no link to it.", [body for _, body in _inlined(stage)] == [data])


def _show_arrived(stage: Stage, reply: ToolReply) -> None:
    for line in reply.result["answer"].splitlines():
        if line.startswith("Media: "):
            stage.page.row("arrived", line.removeprefix("Media: "))


def _measure(data: bytes) -> tuple[int, str]:
    return len(data), hashlib.sha256(data).hexdigest()[:16]


def _measured(reply: ToolReply) -> list[tuple[int, str]]:
    """Size and head of the SHA-256 of each medium, as the simulator's answer tells them."""
    return [(int(size), sha256) for size, sha256 in _ARRIVED.findall(reply.result["answer"])]


def _inlined(stage: Stage) -> Iterator[tuple[str, bytes]]:
    """Type and content of each medium in the last body, decoded."""
    for message in cast("list[dict[str, Any]]", stage.body.get("messages", [])):
        for part in cast("list[dict[str, Any]]", message["content"] if isinstance(message["content"], list) else []):
            if part["type"] in ("image_url", "video_url"):
                head, _, data = str(part[part["type"]]["url"]).partition(";base64,")
                yield head.removeprefix("data:"), base64.b64decode(data)


def _pixels(data: bytes) -> bytes:
    import io

    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()
