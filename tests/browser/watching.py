"""A page in Chromium, and all that it does which it must not: scripts of others, requests elsewhere, errors. I/O."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import anyio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request

from tests.browser.served import page_of

REPORT = "reportToTest"
"""The function of every page by which it reports."""

WATCH = """
(() => {
  const report = window.reportToTest;
  addEventListener("securitypolicyviolation", (event) =>
    report(`policy: ${event.effectiveDirective} refused ${event.blockedURI} ${event.sample}`));
  for (const name of ["alert", "confirm", "prompt", "print", "open"]) {
    window[name] = (...values) => { report(`script: ${name}(${values})`); return null; };
  }
})();
"""
"""Runs before anything of the page does."""

HERE = ("data", "blob", "about", "file")
"""Schemes of what is asked of nobody."""


@dataclass  # without slots: Playwright marks the object of a handler
class Watched:
    """A page, and what it did."""

    page: Page
    wrong: list[str] = field(default_factory=list[str])
    """What no page of ours does, in the order in which it happened."""
    requests: list[str] = field(default_factory=list[str])
    """The URLs that it asked for."""
    origins: set[str] = field(default_factory=set[str])
    """The servers that it may ask: those that the test opened."""

    async def goto(self, url: str) -> None:
        """Open an address; its server is one that the page may ask from now on."""
        self.origins.add(origin(url))
        await self.page.goto(url)

    async def settle(self) -> None:
        """Return once the page has done what it was about to do, and all that is recorded."""
        await self.page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")

    def on_report(self, text: str) -> None:
        self.wrong.append(text)

    def on_request(self, request: Request) -> None:
        self.requests.append(request.url)
        if urlsplit(request.url).scheme not in HERE and origin(request.url) not in self.origins:
            self.wrong.append(f"request: {request.method} {request.url}")

    async def on_dialog(self, dialog: Dialog) -> None:
        self.wrong.append(f"script: {dialog.type} {dialog.message}")
        await dialog.dismiss()

    def on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.wrong.append(f"console: {message.text}")


def origin(url: str) -> str:
    """Scheme, host and port of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@dataclass(slots=True)
class Visitor:
    """Who opened the link once, and opens the page again and again."""

    link: str
    cookies: list[Any] = field(default_factory=list[Any])
    _opening: anyio.Lock = field(default_factory=anyio.Lock)

    async def open(self, found: Watched, route: str = "") -> None:
        """Open the page in a context, with its cookie; ``route`` is what follows ``#``."""
        async with self._opening:  # of two at once, the second has the cookie of the first
            await self._open(found, route)
        await found.page.get_by_role("heading", level=1).first.wait_for()

    async def _open(self, found: Watched, route: str) -> None:
        if self.cookies:
            await found.page.context.add_cookies(self.cookies)
            await found.goto(page_of(self.link) + (f"#{route}" if route else ""))
        else:
            await found.goto(self.link)
            self.cookies += await found.page.context.cookies()
            if route:
                await found.page.evaluate("(hash) => { location.hash = hash }", route)


@asynccontextmanager
async def context(browser: Browser, **options: Any) -> AsyncIterator[BrowserContext]:
    """A browser of somebody who was nowhere yet; ``options`` are Playwright's own."""
    made = await browser.new_context(**{"viewport": {"width": 1200, "height": 800}, "locale": "en-US", **options})
    made.set_default_timeout(60_000)
    try:
        yield made
    finally:
        await made.close()


async def watched(within: BrowserContext) -> Watched:
    """A page whose deeds are recorded."""
    page = await within.new_page()
    found = Watched(page)
    await page.expose_function(REPORT, found.on_report)
    await page.add_init_script(WATCH)
    page.on("request", found.on_request)
    page.on("dialog", found.on_dialog)
    page.on("console", found.on_console)
    page.on("pageerror", lambda error: found.wrong.append(f"error: {error}"))
    page.on("popup", lambda popup: found.wrong.append(f"popup: {popup.url}"))
    page.on("download", lambda download: found.wrong.append(f"download: {download.url}"))
    return found
