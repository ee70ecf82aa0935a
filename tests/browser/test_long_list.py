"""A list of more runs than anybody reads, in a browser: what is in the document, and where the reader stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from kimi_mcp.runs.store.records import RunEntry
from kimi_mcp.runs.store.store import RunStore
from tests.browser.served import ui
from tests.browser.watching import Visitor, Watched
from tests.view import varied

pytestmark = pytest.mark.soak

RUNS = 2_500

NEAR = """(top) => {
  const link = document.elementFromPoint(400, top).closest("[role=row]").querySelector("a");
  return [link.hash, Math.round(link.getBoundingClientRect().top)];
}"""
"""The run whose row is there in the window, and where exactly."""

TO_END = "new Promise((done) => { scrollTo(0, document.body.scrollHeight); requestAnimationFrame(done); })"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("long")


@pytest.fixture(scope="module")
async def store(folder: Path) -> AsyncIterator[RunStore]:
    kept = RunStore(folder)
    await varied.fill(kept, RUNS)
    yield kept
    await kept.aclose(unfinished=True)


@pytest.fixture(scope="module")
async def link(folder: Path, store: RunStore) -> AsyncIterator[str]:
    async with ui(folder) as found:
        yield found


@pytest.fixture
async def page(visitor: Visitor, watch: Watched) -> Page:
    await visitor.open(watch)
    await watch.page.locator(".rows [role=row]").first.wait_for()
    return watch.page


async def begin(store: RunStore, run_id: str) -> None:
    """Record a run that begins now."""
    record = await store.find(f"run_{1:024x}", None)
    assert record is not None
    fresh = replace(record, id=run_id, started_at=store.now(), outcome=replace(record.outcome, status="running"))
    entry = RunEntry(**{each.name: getattr(fresh, each.name) for each in fields(RunEntry)})
    await store.record(entry, counted_usd=0.0, is_new=True)


async def test_the_oldest_run_is_reached_and_only_rows_near_the_window_are_there(page: Page) -> None:
    end = page.get_by_text(f"{RUNS:,} runs", exact=True)
    while not await end.count():
        await page.evaluate(TO_END)
    await page.evaluate(TO_END)
    oldest = page.locator(".rows [role=row]").last
    await expect(oldest.get_by_role("link")).to_have_attribute("href", f"#/run/run_{1:024x}")
    await expect(oldest).to_have_attribute("aria-rowindex", str(RUNS + 1))
    assert await page.locator(".rows [role=row]").count() < 80


async def test_who_has_scrolled_stays_where_they_are_when_a_run_begins(page: Page, store: RunStore) -> None:
    await page.evaluate("scrollTo(0, 3000)")
    await expect(page.locator(".rows [role=row]").first).not_to_have_attribute("aria-rowindex", "2")
    before = await page.evaluate(NEAR, 400)
    await begin(store, "run_begun_while_somebody_reads")
    await expect(page.get_by_role("status").first).to_contain_text("201 runs loaded")
    assert await page.evaluate(NEAR, 400) == before


async def test_a_day_of_the_table_leads_to_its_runs(page: Page) -> None:
    await page.get_by_role("button", name="Table").click()
    day = page.get_by_role("region", name="Costs by day").get_by_role("row").nth(3)
    number = await day.get_by_role("cell").first.inner_text()
    await day.get_by_role("link").click()
    await expect(page.get_by_role("status").first).to_have_text(f"{number} runs with these filters")


async def test_a_tool_is_chosen_in_its_menu_and_the_menu_closes_by_escape(page: Page) -> None:
    menu = page.get_by_role("button", name="Tool")
    await menu.click()
    await page.get_by_role("checkbox", name="kimi_video").check()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("checkbox")).to_have_count(0)
    await expect(menu).to_be_focused()
    await expect(menu).to_have_text("Tool: kimi_video")
    await expect(page.locator(".rows .c-tool").first).to_have_text("video")
    assert set(await page.locator(".rows .c-tool").all_inner_texts()) == {"video"}
