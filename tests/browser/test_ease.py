"""The page for everybody: by keyboard alone, narrow, dark, without motion, in another locale, for a screen reader."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.axe import serious
from tests.browser.real_runs import OTHERS, PROMPTS, real_runs
from tests.browser.served import ui
from tests.browser.watching import Visitor, Watched, context, watched

pytestmark = pytest.mark.soak

SCHEMES = ["light", "dark"]
PLACES = ["list", *PROMPTS, "swarm", "agent", "question"]
WIDTHS = [360, 1200]

OVERFLOW = """
() => [...document.querySelectorAll("body *")].filter((element) => {
  const box = element.getBoundingClientRect();
  if (box.width === 0 || box.right <= innerWidth + 1) return false;
  for (let at = element; at; at = at.parentElement) {
    if (/auto|scroll|hidden|clip/.test(getComputedStyle(at).overflowX)) return false;
  }
  return true;
}).map((element) => `${element.outerHTML.slice(0, 120)}`)
"""
"""What is cut off at the right, and can't be scrolled to within a box of its own."""

MOVING = """
() => document.getAnimations().filter((each) => each.playState === "running"
  && each.effect.getComputedTiming().duration > 10).map((each) => each.animationName ?? each.transitionProperty)
"""


@pytest.fixture(scope="module")
async def link(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    folder: Path = tmp_path_factory.mktemp("ease")
    async with real_runs(folder), ui(folder) as found:
        yield found


async def show(page: Page, place: str) -> None:
    """Go from the list to a place."""
    if place == "list":
        await expect(page.get_by_role("row").filter(has_text=PROMPTS["completed"])).to_have_count(1)
        return
    prompt = PROMPTS["running"] if place == "question" else PROMPTS.get(place, OTHERS["kimi_swarm"])
    await page.get_by_role("row").filter(has_text=prompt).get_by_role("link").click()
    await page.get_by_role("article").wait_for()
    if place == "question":
        await page.get_by_role("button", name="Cancel…").click()
    if place == "agent":
        await page.get_by_role("rowheader").nth(1).click()
        await expect(page.get_by_role("complementary").get_by_role("heading", name="Answer")).to_be_visible()
    if place == "completed":
        await page.get_by_text("Reasoning", exact=True).click()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
async def test_axe_finds_nothing_serious(scheme: Any, width: int, visitor: Visitor, browser: Browser) -> None:
    async with context(browser, color_scheme=scheme, viewport={"width": width, "height": 800}) as within:
        found = await watched(within)
        for place in PLACES:
            await visitor.open(found)
            await show(found.page, place)
            assert await serious(found.page) == [], place
            assert found.wrong == []


@pytest.mark.parametrize("width", [360, 768, 2000])
async def test_nothing_is_cut_off_at_the_side(width: int, visitor: Visitor, browser: Browser) -> None:
    async with context(browser, viewport={"width": width, "height": 740}) as within:
        found = await watched(within)
        for place in PLACES:
            await visitor.open(found)
            await show(found.page, place)
            assert await found.page.evaluate(OVERFLOW) == [], place
            assert await found.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), place


async def test_nothing_moves_for_who_wants_no_motion(visitor: Visitor, browser: Browser) -> None:
    async with context(browser, reduced_motion="reduce") as within:
        found = await watched(within)
        for place in ("list", "running", "swarm", "question"):
            await visitor.open(found)
            await show(found.page, place)
            assert await found.page.evaluate(MOVING) == [], place


async def test_dark_is_dark_and_the_reader_may_choose(visitor: Visitor, browser: Browser) -> None:
    async def lightness(page: Page) -> float:
        color = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return sum(map(float, re.findall(r"[\d.]+", color)[:3]))

    async with context(browser, color_scheme="dark") as within:
        found = await watched(within)
        await visitor.open(found)
        assert await lightness(found.page) < 200
        await found.page.get_by_role("button", name=re.compile("^Theme: auto")).click()
        await expect(found.page.get_by_role("button", name=re.compile("^Theme: light"))).to_be_visible()
        assert await lightness(found.page) > 600
        await found.page.reload()
        assert await lightness(found.page) > 600


@pytest.mark.parametrize(("locale", "people"), [("de-DE", "2.755.309"), ("en-US", "2,755,309")])
async def test_numbers_are_in_the_readers_locale(locale: str, people: str, visitor: Visitor, browser: Browser) -> None:
    """The answer's own numbers stay as they are."""
    async with context(browser, locale=locale) as within:
        found = await watched(within)
        await visitor.open(found)
        await show(found.page, "completed")
        separator = people[1]
        took = found.page.locator("dl.facts div", has_text="First token after")
        await expect(took).to_contain_text(re.compile(rf"\d{'.' if separator == ',' else ','}\d s"))
        await expect(found.page.locator(".markdown")).to_contain_text("2,755,309")


async def test_everything_is_reached_by_the_keyboard_alone(visitor: Visitor, watch: Watched) -> None:
    await visitor.open(watch)
    page, keyboard = watch.page, watch.page.keyboard
    await show(page, "list")
    await keyboard.press("Tab")
    await expect(page.get_by_text("Skip to the content")).to_be_focused()
    await keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()

    # To the list: one stop for all rows, the arrows move within.
    links = page.get_by_role("row").get_by_role("link")
    await tab_to(page, links.first)
    await keyboard.press("ArrowDown")
    await expect(links.nth(1)).to_be_focused()
    await keyboard.press("End")
    await expect(links.last).to_be_focused()
    await keyboard.press("Home")
    swarm = page.get_by_role("row").filter(has_text=OTHERS["kimi_swarm"]).get_by_role("link")
    for _ in range(len(PROMPTS) + len(OTHERS)):
        if await swarm.evaluate("(link) => link === document.activeElement"):
            break
        await keyboard.press("ArrowDown")
    await keyboard.press("Enter")

    # In the swarm: to the lanes, along a lane to a step, into it, and back.
    lanes = page.get_by_role("grid")
    await tab_to(page, lanes.locator("[tabindex='0']"))
    await keyboard.press("ArrowDown")
    await expect(page.get_by_role("rowheader").nth(1)).to_be_focused()
    await keyboard.press("ArrowRight")
    await keyboard.press("Enter")
    agent = page.get_by_role("complementary")
    await expect(agent.get_by_role("heading", level=2)).to_be_focused()
    await expect(agent.get_by_role("heading", name="Answer")).to_be_visible()
    await keyboard.press("Escape")
    await expect(agent).to_have_count(0)
    await expect(lanes.locator(":focus")).to_have_count(1)


async def test_a_run_is_cancelled_by_the_keyboard_alone_and_the_focus_comes_back(
    visitor: Visitor, watch: Watched
) -> None:
    await visitor.open(watch)
    page, keyboard = watch.page, watch.page.keyboard
    await show(page, "running")
    cancel = page.get_by_role("button", name="Cancel…")
    await tab_to(page, cancel)
    await keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Keep it running")).to_be_focused()
    for _ in range(4):  # the focus stays within the question
        await keyboard.press("Tab")
        inside = "!document.activeElement || document.activeElement === document.body"
        assert await page.evaluate(f"{inside} || !!document.activeElement.closest('dialog')")
    await keyboard.press("Escape")
    await expect(cancel).to_be_focused()


async def test_what_has_the_focus_is_seen(visitor: Visitor, watch: Watched) -> None:
    await visitor.open(watch)
    await show(watch.page, "swarm")
    for _ in range(12):
        await watch.page.keyboard.press("Tab")
        outline = await watch.page.evaluate(
            """() => {
              const style = getComputedStyle(document.activeElement);
              return document.activeElement === document.body
                || (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
            }"""
        )
        assert outline, await watch.page.evaluate("document.activeElement.outerHTML.slice(0, 200)")


async def test_a_page_has_one_heading_of_the_first_level_and_landmarks(visitor: Visitor, watch: Watched) -> None:
    for place in ("list", "swarm", "failed"):
        await visitor.open(watch)
        await show(watch.page, place)
        await expect(watch.page.get_by_role("heading", level=1)).to_have_count(1)
        await expect(watch.page.get_by_role("main")).to_have_count(1)
        await expect(watch.page.get_by_role("banner")).to_have_count(1)


async def test_each_step_has_a_name_that_says_what_it_is(visitor: Visitor, watch: Watched) -> None:
    await visitor.open(watch)
    await show(watch.page, "swarm")
    step = watch.page.get_by_role("gridcell", name=re.compile(r"step 1, .+ s, done"))
    await expect(step.first).to_be_visible()


async def tab_to(page: Page, target: Any) -> None:
    """Press Tab until that has the focus."""
    for _ in range(60):
        if await target.evaluate("(element) => element === document.activeElement"):
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard does not reach {target}")
