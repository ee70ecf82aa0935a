"""The file of one run, opened from a disk: what is on it, what it says of whom, and that it needs nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Locator, expect

from kimi_mcp.core.errors import UpstreamTimeout
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.types import Timing
from kimi_mcp.runs.store.records import RunRecord, StepRecord
from kimi_mcp.view.documents import still_document
from kimi_mcp.view.lanes import trace
from kimi_mcp.view.model import INLINE_CHARS, run_view
from tests.browser.watching import Watched
from tests.view.recorded import HOSTILE, START, STEPS, request, run

pytestmark = pytest.mark.soak

LONG = 300
"""Agents of a swarm that is longer than a screen."""


async def opened(watch: Watched, folder: Path, record: RunRecord, steps: list[StepRecord]) -> None:
    """Open the file of a run."""
    file = folder / "run.html"
    file.write_text(still_document(run_view(record, trace(record, steps), inline=True)), "utf-8")
    await watch.goto(file.as_uri())
    await watch.page.locator("article").wait_for()


async def test_the_page_has_a_lane_an_agent_and_a_bar_a_step(watch: Watched, tmp_path: Path) -> None:
    await opened(watch, tmp_path, run(), STEPS)
    page = watch.page
    await expect(page.get_by_role("rowheader")).to_have_count(3)
    await expect(page.get_by_role("gridcell")).to_have_count(len(STEPS))
    await expect(page.get_by_role("gridcell", name="tool search")).to_have_count(1)
    await expect(page.get_by_role("gridcell", name="failed")).to_have_count(1)
    await expect(page.get_by_role("rowheader", name="critical path")).to_have_count(2)


async def test_it_says_what_the_run_waited_for_longest(watch: Watched, tmp_path: Path) -> None:
    await opened(watch, tmp_path, run(), STEPS)
    await expect(watch.page.locator(".waited p")).to_have_text(
        "Of 20.0 s the run waited longest for agent-2: 8.5 s (43 %), then main agent: 8.0 s (40 %). "
        "For 3.0 s (15 %) nobody on its critical path was at work.",
        use_inner_text=True,
    )


async def test_task_reasoning_answer_tokens_and_cost_can_be_read(watch: Watched, tmp_path: Path) -> None:
    await opened(watch, tmp_path, run(), STEPS)
    page = watch.page
    for fact in ("1,234", "1.7 ×", "20.0 s", "moonshot", "kimi-k2.6"):
        await expect(page.locator(".run-head")).to_contain_text(fact, use_inner_text=True)
    await page.get_by_role("rowheader", name="agent-1").click()
    agent = page.get_by_role("complementary")
    await expect(agent.get_by_role("heading", name="agent-1")).to_be_visible()
    for words in ("The task of agent-1", "north is done", "$0.25", "10 tokens"):
        await expect(agent).to_contain_text(words, use_inner_text=True)
    await agent.get_by_text("System prompt").click()
    await expect(agent).to_contain_text("You are agent-1.", use_inner_text=True)
    await page.get_by_role("gridcell", name="tool search").click()
    for words in ("Arguments", "Result", f"found {HOSTILE}".replace("\u2028", "")[:20]):
        await expect(agent).to_contain_text(words, use_inner_text=True)


async def test_nothing_that_a_model_or_a_tool_writes_becomes_part_of_the_page(watch: Watched, tmp_path: Path) -> None:
    await opened(watch, tmp_path, run(), STEPS)
    page = watch.page
    for cell in await page.locator("[data-at]").all():
        await cell.click()
    await expect(page.locator("img, iframe, object, form, article script")).to_have_count(0)
    assert [url for url in watch.requests if not url.startswith("file:")] == []
    await expect(page.locator("article")).to_contain_text("<script>alert('x')</script>", use_inner_text=True)


async def test_the_keyboard_moves_along_the_lanes_and_opens_what_it_is_at(watch: Watched, tmp_path: Path) -> None:
    await opened(watch, tmp_path, run(), STEPS)
    page = watch.page
    await page.locator(".lanes [tabindex='0']").focus()

    def cell(lane: str, at: str) -> Locator:
        return page.locator(f"[data-lane='{lane}'][data-at='{at}']")

    for key, (lane, at) in (
        ("ArrowDown", ("agent-1", "-1")),
        ("ArrowDown", ("agent-2", "-1")),
        ("ArrowRight", ("agent-2", "0")),
        ("End", ("agent-2", "2")),
        ("ArrowUp", ("agent-1", "0")),
        ("Home", ("agent-1", "-1")),
        ("Control+End", ("agent-2", "-1")),
        ("Control+Home", ("main", "-1")),
    ):
        await page.keyboard.press(key)
        await expect(cell(lane, at), key).to_be_focused()
    await expect(page.locator(".lanes [tabindex='0']")).to_have_count(1)
    await page.keyboard.press("End")
    await page.keyboard.press("Enter")
    agent = page.get_by_role("complementary")
    await expect(agent).to_contain_text(f"Weighing {HOSTILE}".replace("\u2028", "")[:30], use_inner_text=True)
    await page.keyboard.press("Escape")
    await expect(agent).to_have_count(0)
    await expect(cell("main", "1")).to_be_focused()


async def test_lanes_out_of_sight_are_no_elements_and_come_when_they_are_scrolled_to(
    watch: Watched, tmp_path: Path
) -> None:
    steps = [request(f"agent-{number}", 1, number, number + 3, answer="done") for number in range(1, LONG + 1)]
    await opened(watch, tmp_path, run(ended_at=START + LONG + 10), steps)
    page = watch.page
    assert await page.get_by_role("rowheader").count() < 60
    await page.locator(".lanes [tabindex='0']").focus()
    await page.keyboard.press("Control+End")
    last = page.get_by_role("rowheader", name=f"agent-{LONG}")
    await expect(last).to_be_focused()
    assert await page.get_by_role("rowheader").count() < 60
    await expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", str(LONG + 1))


async def test_an_address_opens_the_agent_and_the_step_that_it_names(watch: Watched, tmp_path: Path) -> None:
    steps = [request(f"agent-{number}", 1, number, number + 3, answer=f"done {number}") for number in range(1, LONG)]
    file = tmp_path / "run.html"
    record = run(ended_at=START + LONG + 10)
    file.write_text(still_document(run_view(record, trace(record, steps), inline=True)), "utf-8")
    await watch.goto(f"{file.as_uri()}#/run/run_1/agent-250/agent-250%2Fstep-1")
    agent = watch.page.get_by_role("complementary")
    await agent.get_by_text("done 250").wait_for()
    await watch.page.wait_for_function(
        """() => {
            const lane = document.querySelector("[data-lane='agent-250']").getBoundingClientRect();
            const grid = document.querySelector("[role='grid']").getBoundingClientRect();
            return grid.top <= lane.top && lane.bottom <= grid.bottom;
        }"""
    )


async def test_a_cut_text_says_how_long_it_is(watch: Watched, tmp_path: Path) -> None:
    steps = [request("main", 1, 0, 4, answer="word " * INLINE_CHARS), request("main", 2, 5, 6, answer="x")]
    await opened(watch, tmp_path, run(), steps)
    await watch.page.get_by_role("gridcell", name="step 1").click()
    cut = f"of {5 * INLINE_CHARS:,} characters in all"
    await expect(watch.page.get_by_role("complementary")).to_contain_text(cut, use_inner_text=True)


async def test_a_run_without_steps_has_its_answer_and_why_it_failed(watch: Watched, tmp_path: Path) -> None:
    outcome = Outcome(
        status="failed",
        answer="Half an",
        reasoning="Hm.",
        error=UpstreamTimeout("moonshot fell silent.", fix="Call again."),
        timing=Timing(total_s=3),
    )
    await opened(watch, tmp_path, run(tool="kimi_think", request={"turns": []}, outcome=outcome), [])
    page = watch.page
    await expect(page.get_by_role("grid")).to_have_count(0)
    await page.get_by_text("Reasoning").click()
    for words in ("Half an", "Hm.", "moonshot fell silent.", "Call again.", "Compare them", "upstream_timeout"):
        await expect(page.locator("article")).to_contain_text(words, use_inner_text=True)


async def test_marks_of_the_axis_stay_within_the_page(watch: Watched, tmp_path: Path) -> None:
    await watch.page.set_viewport_size({"width": 360, "height": 800})
    await opened(watch, tmp_path, run(), STEPS)
    page = watch.page
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    inside = await page.locator(".tick").evaluate_all(
        """all => all.every((tick) => tick.getBoundingClientRect().right <=
            tick.parentElement.getBoundingClientRect().right + 1)"""
    )
    assert inside
