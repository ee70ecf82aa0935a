"""A browser for each file of tests, and a page for each test that must do nothing but what it is for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect

from scripts.view import chromium
from tests.browser.watching import Visitor, Watched, context, watched

expect.set_options(timeout=60_000)  # what a page shows in the end; a busy machine takes its time


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, or a skip that says what is missing."""
    program = chromium.find()
    if program is None:
        pytest.skip(chromium.MISSING)
    async with chromium.started(program) as found:
        yield found


@pytest.fixture(scope="module")
def visitor(link: str) -> Visitor:
    """Who has the link to the page's server; a file of tests says what ``link`` leads to."""
    return Visitor(link)


@pytest.fixture
async def watch(browser: Browser) -> AsyncIterator[Watched]:
    """A page; the test fails where it ran a script of others, asked anybody else, or reported an error."""
    async with context(browser) as within:
        found = await watched(within)
        yield found
        assert found.wrong == []
