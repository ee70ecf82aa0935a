"""Who gets the page of `kimi-mcp ui`: the browser that opens the link, once; and no page of another site."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Route, expect

from tests.browser.served import page_of, ui
from tests.browser.watching import Visitor, Watched, context, watched

pytestmark = pytest.mark.soak

ELSEWHERE = "http://elsewhere.invalid/"

FETCHED = """
async ([url, mode]) => {
  try { return (await fetch(url, { credentials: "include", mode })).type; } catch { return "refused"; }
}
"""


@pytest.fixture(scope="module")
async def link(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    folder: Path = tmp_path_factory.mktemp("access")
    async with ui(folder) as found:
        yield found


def allowed(found: Watched, *words: str) -> None:
    """Take what a test brings about on purpose out of what went wrong."""
    found.wrong[:] = [each for each in found.wrong if not any(word in each for word in words)]


async def test_a_link_that_was_used_opens_nothing_elsewhere(visitor: Visitor, watch: Watched, browser: Browser) -> None:
    await visitor.open(watch)
    await expect(watch.page.get_by_role("heading", name="Runs")).to_be_visible()
    async with context(browser) as within:
        other = await watched(within)
        await other.goto(visitor.link)
        await expect(other.page.locator("body")).to_contain_text("used already")
        await expect(other.page.locator("body")).to_contain_text("kimi-mcp ui")
        await other.goto(page_of(visitor.link))
        await expect(other.page.get_by_role("heading", name="Runs")).to_have_count(0)


async def test_the_link_does_not_stay_in_the_address(visitor: Visitor, watch: Watched) -> None:
    await visitor.open(watch)
    assert "once" not in watch.page.url


async def test_a_script_cannot_read_the_cookie(visitor: Visitor, watch: Watched) -> None:
    await visitor.open(watch)
    assert await watch.page.evaluate("document.cookie") == ""


async def elsewhere(found: Watched, body: str) -> None:
    """Open a page of another site."""

    async def serve(route: Route) -> None:
        await route.fulfill(body=f"<!doctype html><title>elsewhere</title>{body}", content_type="text/html")

    await found.page.route(ELSEWHERE, serve)
    await found.goto(ELSEWHERE)


async def test_another_site_cannot_frame_the_page(visitor: Visitor, watch: Watched) -> None:
    await visitor.open(watch)
    await elsewhere(watch, f"<iframe src='{page_of(visitor.link)}'></iframe>")
    frame = watch.page.frames[-1]
    assert await frame.get_by_role("heading", name="Runs").count() == 0
    allowed(watch, "frame", "Framing", "403", "401", "ERR_BLOCKED")


async def test_another_site_gets_no_data_by_the_readers_cookie(visitor: Visitor, watch: Watched) -> None:
    await visitor.open(watch)
    await elsewhere(watch, "")
    requested = f"{page_of(visitor.link)}/api/runs"
    outcome = await watch.page.evaluate(FETCHED, [requested, "cors"])
    opaque = await watch.page.evaluate(FETCHED, [requested, "no-cors"])
    assert outcome == "refused"
    assert opaque in ("opaque", "refused")
    allowed(watch, "CORS", "ERR_", "403", "401", "request: GET http://127")
