"""What the other tests rely on: that they see each thing that a page must not do."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser

from tests.browser.watching import context, watched

pytestmark = pytest.mark.soak

HOME = "http://page.invalid/"
POLICY = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'">"""
WRONG = {
    "script: alert(1)": "<script>alert(1)</script>",
    "request: GET http://x.invalid/": "<img src='http://x.invalid/'>",
    "console: Failed": "<img src='http://x.invalid/'>",
    "error: moon": "<script>throw new Error('moon')</script>",
    "script: open": "<script>window.open('about:blank')</script>",
    "policy: script-src-elem": f"{POLICY}<script>alert(1)</script>",
    "policy: img-src": f"{POLICY}<img src='http://x.invalid/'>",
    "policy: script-src-attr": f"{POLICY}<svg onload='alert(1)'>",
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_a_page_must_not_do_is_seen(wrong: str, browser: Browser) -> None:
    async with context(browser) as within:
        found = await watched(within)
        await found.page.route(HOME, lambda route: route.fulfill(body=WRONG[wrong], content_type="text/html"))
        await found.goto(HOME)
        await found.settle()
    assert any(each.startswith(wrong) for each in found.wrong), found.wrong
