"""``python -m scripts.view.pictures [NAME…]``: takes the pictures of the page in docs/pictures. I/O: Chromium.

``file`` is docs/swarm.png: what ``examples/swarm.py`` writes. The others show `kimi-mcp ui` over a store of this
script's own: a list, a swarm that runs, one that has ended, on a phone, in the dark. Each has at most 128 colours,
which nobody sees and which makes it a third as large.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import anyio
from PIL import Image
from playwright.async_api import Browser, Page

from scripts.view import chromium
from scripts.view.recording import Clock, open_recording
from scripts.view.scene import SECONDS, record_swarm
from tests.browser.served import page_of, ui
from tests.view import varied

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "pictures"

COLOURS = 128
RUNS = 400
RUNNING, DONE = f"run_{'a' * 24}", f"run_{'b' * 24}"
WIDE, PHONE = {"width": 1200, "height": 780}, {"width": 360, "height": 740}

PICTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "list": ("#/", {"viewport": WIDE}),
    "list-dark": ("#/", {"viewport": WIDE, "color_scheme": "dark"}),
    "swarm": (f"#/run/{RUNNING}", {"viewport": WIDE}),
    "swarm-dark": (f"#/run/{RUNNING}", {"viewport": WIDE, "color_scheme": "dark"}),
    "agent": (f"#/run/{DONE}/agent-3", {"viewport": {"width": 1200, "height": 1000}}),
    "answer": (f"#/run/{DONE}", {"viewport": {"width": 1200, "height": 1500}}),
    "phone": (f"#/run/{RUNNING}", {"viewport": PHONE}),
    "phone-dark": ("#/", {"viewport": PHONE, "color_scheme": "dark"}),
}
"""What each shows: the route, and the reader's browser."""

FILE, EXAMPLE = "file", ROOT / "examples" / "swarm.py"


async def take(names: list[str]) -> None:
    """Take those pictures. Raises ``FileNotFoundError`` without a Chromium."""
    program = chromium.find()
    if program is None:
        raise FileNotFoundError(chromium.MISSING)
    FOLDER.mkdir(exist_ok=True)
    if FILE in names:
        names = [name for name in names if name != FILE]
        await _take_file(program)
    if not names:
        return
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        store = open_recording(Path(folder), clock)
        store.lock.acquire()
        await varied.fill(store, RUNS, running=4)
        now = time.time()
        await record_swarm(store, clock, DONE, running=False, began=now - 400)
        await record_swarm(store, clock, RUNNING, running=True, began=now - SECONDS)
        async with ui(Path(folder)) as link, chromium.started(program) as browser:
            cookies = await _signed_in(browser, link)
            for name in names:
                route, options = PICTURES[name]
                context = await browser.new_context(locale="en-US", timezone_id="UTC", **options)
                await context.add_cookies(cookies)
                page = await context.new_page()
                await page.goto(page_of(link) + route)
                await _settled(page)
                size = _write(FOLDER / f"{name}.png", await page.screenshot(animations="disabled"))
                print(f"docs/pictures/{name}.png: {size / 1e3:.0f} kB")
                await context.close()
        await store.aclose(unfinished=True)


async def _take_file(program: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "swarm.html"
        await anyio.run_process([sys.executable, str(EXAMPLE), str(written)])
        async with chromium.started(program) as browser:
            page = await browser.new_page(locale="en-US", timezone_id="UTC", viewport={"width": 1200, "height": 900})
            await page.goto(written.as_uri())
            await _settled(page)
            size = _write(ROOT / "docs" / "swarm.png", await page.screenshot(full_page=True, animations="disabled"))
    print(f"docs/swarm.png: {size / 1e3:.0f} kB")


async def _signed_in(browser: Browser, link: str) -> list[Any]:
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(link)
    await page.get_by_role("heading", level=1).wait_for()
    cookies = await context.cookies()
    await context.close()
    return [*cookies]


async def _settled(page: Page) -> None:
    """Return once the page has what it shows."""
    await page.get_by_role("heading", level=1).wait_for()
    await page.wait_for_load_state("load")
    await page.get_by_text("Loading…").last.wait_for(state="detached")
    await page.evaluate("new Promise((done) => setTimeout(done, 400))")


def _write(file: Path, picture: bytes) -> int:
    """Write it with few colours; its bytes."""
    few = Image.open(BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(file, optimize=True)
    return file.stat().st_size


if __name__ == "__main__":
    known = [FILE, *PICTURES]
    wanted = sys.argv[1:] or known
    if unknown := set(wanted) - set(known):
        sys.exit(f"There is no picture {', '.join(sorted(unknown))}: there are {', '.join(known)}.")
    anyio.run(take, wanted)
