"""Media for the tests of a whole server: a folder of pictures and clips, and what of them arrived at the provider."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from kimi_mcp.simulator import ReceivedRequest, Simulator
from tests.media.specimens import CLIPS, drawing, saved
from tests.server.clients import KimiClient
from tests.server.requests import body_of, chats
from tests.server.results import Result

CLIP = (CLIPS / "clip.mp4").read_bytes()
VIDEOS = {path.name: path.read_bytes() for path in CLIPS.iterdir() if path.suffix not in (".mkv", ".ts", ".m4a")}


def picture(number: int, form: str = "PNG", size: tuple[int, int] | None = None) -> bytes:
    """A picture whose bytes no other number has."""
    return saved(form, drawing(size=size or (60 + number, 40)))


def noise(side: int) -> Image.Image:
    """A picture that no format makes smaller, and always the same."""
    return Image.frombytes("RGB", (side, side), random.Random(side).randbytes(side * side * 3))


def padded_clip(size: int) -> bytes:
    """A clip of so many bytes: a free box behind it."""
    box = size - len(CLIP)
    return CLIP + box.to_bytes(4, "big") + b"free" + bytes(box - 8)


def write(folder: Path, **files: bytes | str) -> list[str]:
    """Write files; ``a_png`` becomes ``a.png``. Their names, in order."""
    names: list[str] = []
    for key, content in files.items():
        names.append(key.replace("_", "."))
        (folder / names[-1]).write_bytes(content.encode() if isinstance(content, str) else content)
    return names


def data_uri(content: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def parts(request: ReceivedRequest) -> list[dict[str, Any]]:
    """The parts of the last user message."""
    content = body_of(request)["messages"][-1]["content"]
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def urls(request: ReceivedRequest) -> list[str]:
    """The media URLs of the last user message, in order."""
    return [part[part["type"]]["url"] for part in parts(request) if part["type"] != "text"]


def contents(sim: Simulator, request: ReceivedRequest | None = None) -> list[bytes]:
    """The media of a chat request (the last one) as the provider has them: inlined, or uploaded before."""
    found: list[bytes] = []
    for url in urls(request or chats(sim)[-1]):
        if url.startswith("ms://"):
            found.append(sim.files.get(url.removeprefix("ms://")).content)
        else:
            found.append(base64.b64decode(url.partition(",")[2], validate=True))
    return found


def hashes(files: Iterable[bytes]) -> list[str]:
    """What the simulator says of each: its SHA-256, cut as in its answer."""
    return [hashlib.sha256(content).hexdigest()[:16] for content in files]


def hashes_in(answer: str) -> list[str]:
    """The hashes that an answer of the simulator names, in order."""
    return [line.rpartition("sha256 ")[2].rstrip(".") for line in answer.splitlines() if line.startswith("Media: ")]


def uploads(sim: Simulator) -> list[ReceivedRequest]:
    """The files that were sent."""
    return [one for one in sim.requests if (one.method, one.path) == ("POST", "/v1/files")]


async def look(kimi: KimiClient, *images: str, prompt: str = "What is it?", **arguments: Any) -> Result:
    """Ask about pictures."""
    return await kimi.call("kimi_vision", {"prompt": prompt, "images": list(images), **arguments})


async def watch(kimi: KimiClient, video: str, prompt: str = "What happens?", **arguments: Any) -> Result:
    """Ask about a clip."""
    return await kimi.call("kimi_video", {"prompt": prompt, "video": video, **arguments})


def text_sent(sim: Simulator) -> str:
    """Everything that the provider received, but for the media themselves."""
    return "\n".join(f"{one.method} {one.path} {dict(one.headers)} {_without_data(one.body)}" for one in sim.requests)


def _without_data(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_data(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_data(each) for each in value]
    return value.partition(",")[0] if isinstance(value, str) and value.startswith("data:") else value


def hanging_resolver(folder: Path) -> Path:
    """Let a Python with ``folder`` on its path hang on a name with ``slow`` in it; the file that says that it does."""
    requested = folder / "asked"
    (folder / "sitecustomize.py").write_text(
        "import pathlib, socket, threading\n"
        f"known, asked = socket.getaddrinfo, pathlib.Path({str(requested)!r})\n"
        "def hangs(host, *more, **named):\n"
        "    if 'slow' in str(host):\n"
        "        asked.touch()\n"
        "        threading.Event().wait(600)\n"
        "    return known(host, *more, **named)\n"
        "socket.getaddrinfo = hangs\n"
    )
    return requested
