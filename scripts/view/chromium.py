"""Chromium, for tests, pictures and figures of the page: where it is, and how it is started. I/O: starts it.

Run as a program, it exits with 0 where there is one.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, async_playwright

VARIABLE = "CHROMIUM"
"""The environment variable that names another one."""

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/usr/bin/chromium",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)

FLAGS = (
    "--no-sandbox",  # root, as containers and CI often are, can't have one; all pages that it opens are ours
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

MISSING = f"there is no Chromium: install it, or name one in {VARIABLE}"


def find() -> Path | None:
    """The program; None where there is none."""
    if named := os.environ.get(VARIABLE):
        return Path(named) if os.access(named, os.X_OK) else None
    found = (shutil.which(name) for name in (*NAMES, *PLACES))
    return next((Path(path) for path in found if path is not None), None)


@asynccontextmanager
async def started(program: Path) -> AsyncGenerator[Browser]:
    """A browser without a window, which ends with the block."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, headless=True, args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


if __name__ == "__main__":
    sys.exit(find() is None)
