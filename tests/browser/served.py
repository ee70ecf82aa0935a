"""``kimi-mcp ui`` as a process, for a store that a test fills. I/O."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.streams.text import TextReceiveStream

LINK = re.compile(r"http://127\.0\.0\.1:\d+/ui\S*")


@asynccontextmanager
async def ui(folder: Path, **variables: str) -> AsyncIterator[str]:
    """The page's server; its link, which works once."""
    command = [sys.executable, "-m", "kimi_mcp", "ui", "--no-open"]
    environment = {**os.environ, "KIMI_DATA_DIR": str(folder), **variables}
    process = await anyio.open_process(command, env=environment, stdin=None, stderr=None)
    assert process.stdout is not None
    try:
        printed = ""
        with anyio.fail_after(60):
            async for text in TextReceiveStream(process.stdout):
                printed += text
                if "\n" in printed:
                    break
        found = LINK.search(printed)
        assert found, printed
        yield found[0]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.aclose()


def page_of(link: str) -> str:
    """The address of the page that a link opens."""
    return re.sub(r"/ui.*", "/ui", link)
