"""Memory that media cost: by how much the peak of our server's process grows (VmHWM, from before the call to after it).

A clip of 100 MB is uploaded from disk and asked about; then a picture of 24 MB goes into the body for a provider that
takes no uploads, from disk and once more as a data URI, which itself is a third larger than the picture. Each call is
made by a process of its own, which has sent a small clip or picture before and so has everything imported, but nothing
large; the simulator answers with the SHA-256 of what it received, and that is looked at.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

from benchmarks import processes
from benchmarks.report import Row

CLIP_BYTES = 100 * 1024 * 1024
"""What a provider takes of one file."""

PICTURE_BYTES = 24_000_000

_SMALL = 100_000


def measure(*, quick: bool) -> Iterator[Row]:
    del quick  # each is one call
    with TemporaryDirectory() as name:
        folder = Path(name)
        more_mb = _more_mb(folder, "simulator", {"small.mp4": clip(_SMALL, 1)}, {"large.mp4": clip(CLIP_BYTES, 2)})
        yield Row(what="peak of a 100 MB clip uploaded, MB more", ours=more_mb, most=16.0)
        pictures = {"small.png": picture(_SMALL, 1)}, {"large.png": picture(PICTURE_BYTES, 2)}
        for words, as_uri in (("a 24 MB picture inlined", False), ("the same as data URI", True)):
            more_mb = _more_mb(folder, "vllm", *pictures, as_uri=as_uri)
            yield Row(what=f"peak of {words}, times its size more", ours=more_mb * 1e6 / PICTURE_BYTES, most=3.0)


def clip(size: int, seed: int) -> bytes:
    """The example's clip, with a free box behind it that makes it so large."""
    content = (processes.ROOT / "examples" / "clip.mp4").read_bytes()
    box = size - len(content)
    return content + box.to_bytes(4, "big") + b"free" + random.Random(seed).randbytes(box - 8)


def picture(size: int, seed: int) -> bytes:
    """The example's picture, with a private chunk in it that makes it so large."""
    content = (processes.ROOT / "examples" / "shot.png").read_bytes()
    data = b"prVt" + random.Random(seed).randbytes(max(size - len(content) - 12, 0))
    chunk = (len(data) - 4).to_bytes(4, "big") + data + crc32(data).to_bytes(4, "big")
    return content[:33] + chunk + content[33:]


def _more_mb(
    folder: Path, provider: str, small: Mapping[str, bytes], large: Mapping[str, bytes], *, as_uri: bool = False
) -> float:
    """Megabytes by which the peak grows while the large one is asked about."""
    with processes.provider(provider) as source, _server(provider, source, folder) as server:
        _ask(server, folder, small, as_uri=as_uri)
        before = server.peak_mb()
        _ask(server, folder, large, as_uri=as_uri)
        return server.peak_mb() - before


@contextmanager
def _server(provider: str, source: processes.Source, folder: Path) -> Generator[processes.Server]:
    environment = {"KIMI_PROVIDER": provider, "KIMI_BASE_URL": source.base_url, "KIMI_ROOTS": str(folder)}
    server = processes.Server("-m", "kimi_mcp", tool="kimi_vision", environment=environment)
    with processes.closing([server]):
        server.connect()
        yield server


def _ask(server: processes.Server, folder: Path, media: Mapping[str, bytes], *, as_uri: bool) -> None:
    ((name, content),) = media.items()
    (folder / name).write_bytes(content)
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}" if as_uri else name
    named: dict[str, Any] = {"video": source} if name.endswith("mp4") else {"images": [source]}
    answer = server.call("kimi_video" if "video" in named else "kimi_vision", {"prompt": "What is it?", **named})
    assert hashlib.sha256(content).hexdigest()[:16] in answer, answer
