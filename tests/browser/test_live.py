"""The page while things happen: a swarm of twenty, texts that grow, costs, a cancellation, a server that goes away."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from kimi_mcp.simulator import Match, Simulator, Step
from tests.browser.served import ui
from tests.browser.watching import Visitor, Watched, context, watched
from tests.server.clients import KimiClient, connect, wait_until

pytestmark = pytest.mark.soak

AGENTS = 20
TOPIC = "What is known of {{item}}?"
ITEMS = [f"city {number:02}" for number in range(1, AGENTS + 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
async def link(folder: Path) -> AsyncIterator[str]:
    async with ui(folder) as found:
        yield found


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(provider="simulator") as found:
        yield found
        for gate in ("go on", "one", "all", "end"):
            found.open_gate(gate)


@pytest.fixture
async def kimi(sim: Simulator, folder: Path) -> AsyncIterator[KimiClient]:
    """A server of another process, as it were: it answers a caller after a moment, and its runs go on."""
    where = str(folder)
    async with connect(sim, KIMI_DATA_DIR=where, KIMI_REPLY_WITHIN_S="0.2", KIMI_MAX_CONCURRENCY="32") as found:
        yield found


@pytest.fixture
async def page(visitor: Visitor, watch: Watched) -> Page:
    """The list, open before anything happens."""
    await visitor.open(watch)
    return watch.page


async def go_to(page: Page, run_id: str | None) -> None:
    await page.evaluate("(hash) => { location.hash = hash }", f"#/run/{run_id}")
    await page.get_by_role("article").wait_for()


async def began(sim: Simulator, kimi: KimiClient) -> str:
    """A swarm of twenty has begun; one of them waits for its answer at the gate ``one``, the others at ``all``."""
    sim.play(
        Step(match=Match(text=f"known of {ITEMS[0]}"), gate="one"),
        Step(match=Match(text="known of city"), gate="all", times="always"),
    )
    result = await kimi.call("kimi_swarm", {"prompt": TOPIC, "items": ITEMS})
    assert result.status == "running", result.text
    assert result.run_id is not None
    await wait_until(lambda: sim.waiting_at("one") + sim.waiting_at("all") == AGENTS)
    return result.run_id


async def test_a_swarm_of_twenty_is_followed_to_its_end(page: Page, sim: Simulator, kimi: KimiClient) -> None:
    run_id = await began(sim, kimi)
    row = page.get_by_role("row").filter(has_text="What is known of")
    await expect(row.filter(has_text="running")).to_have_count(1)
    await row.get_by_role("link").click()
    lanes = page.get_by_role("rowheader")
    await expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", re.compile(r"2[12]"))
    first = page.get_by_role("row").filter(has=lanes.filter(has_text=ITEMS[0]))
    await expect(first).to_contain_text("running")
    await expect(first.get_by_role("gridcell")).to_have_count(1)

    sim.open_gate("one")
    await expect(first).not_to_contain_text("running")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("running")

    sim.open_gate("all")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("completed", timeout=30_000)
    await expect(lanes.filter(has_text="running")).to_have_count(0)
    assert (await kimi.run(run_id, "wait", wait_s=10)).status == "completed"
    await expect(page.get_by_role("button", name="Cancel…")).to_have_count(0)


async def test_answer_and_reasoning_grow_as_they_arrive(page: Page, sim: Simulator, kimi: KimiClient) -> None:
    sim.play(Step(gate="go on", gate_at="finish", reasoning="Let me **see**.", content="It is **391**."))
    running = await kimi.think("How does it grow?")
    await go_to(page, running.run_id)
    answer = page.locator(".markdown")
    await expect(answer).to_contain_text("It is 391.")
    await expect(answer.locator("strong")).to_have_text("391")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("running")
    sim.open_gate("go on")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("completed")


async def test_the_running_step_of_an_open_agent_grows_and_its_end_takes_nothing_away(
    page: Page, sim: Simulator, kimi: KimiClient
) -> None:
    sim.play(
        Step(match=Match(system="Several agents have worked"), gate="end", gate_at="finish", content="All _in all_."),
        Step(
            match=Match(text=f"known of {ITEMS[0]}"),
            gate="one",
            gate_at="content",
            event_tokens=1,
            reasoning="Where is it?",
            content="**It** is at the sea.",
        ),
        Step(match=Match(text="known of city"), gate="all", times="always"),
    )
    running = await kimi.call("kimi_swarm", {"prompt": TOPIC, "items": ITEMS[:3]})
    await wait_until(lambda: sim.waiting_at("one") + sim.waiting_at("all") == 3)
    await go_to(page, running.run_id)
    lanes = page.get_by_role("rowheader")
    await lanes.filter(has_text=ITEMS[0]).click()
    agent = page.get_by_role("complementary")
    await expect(agent).to_contain_text("Reasoning of its running step")
    await expect(agent.get_by_role("region", name="Reasoning")).to_have_text("Where is it?")
    await expect(agent.get_by_role("heading", name="Answer")).to_be_visible()
    await expect(agent).not_to_contain_text("at the sea.")
    await agent.get_by_role("button", name="step 1").click()
    await expect(agent.locator(".body").get_by_role("region", name="Reasoning")).to_have_text("Where is it?")

    sim.open_gate("one")
    await expect(agent.locator(".markdown")).to_have_text("It is at the sea.")
    await expect(agent.locator(".markdown strong")).to_have_text("It")
    await agent.get_by_role("button", name="step 1").click()
    await expect(agent).to_contain_text("Reasoning of its last step")

    sim.open_gate("all")
    await lanes.filter(has_text="main").click()
    await expect(agent.locator(".markdown em")).to_have_text("in all")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("running")
    sim.open_gate("end")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("completed")
    await expect(agent.locator(".markdown em")).to_have_text("in all")


async def test_who_has_scrolled_to_the_end_of_an_agent_stays_there_while_its_answer_grows(
    page: Page, sim: Simulator, kimi: KimiClient
) -> None:
    lines = "\n\n".join([*(f"Fact {number}." for number in range(300)), "No more."])
    text = f"known of {ITEMS[0]}"
    sim.play(Step(match=Match(text=text), gate="end", gate_at="finish", token_every=0.005, content=lines))
    running = await kimi.call("kimi_swarm", {"prompt": TOPIC, "items": ITEMS[:2]})
    await go_to(page, f"{running.run_id}/agent-1")
    agent = page.get_by_role("complementary")
    await expect(agent).to_contain_text("Fact 20.")
    await agent.evaluate("(box) => { box.scrollTop = box.scrollHeight }")
    await expect(agent).to_contain_text("No more.")
    left = "(box) => box.scrollHeight - box.scrollTop - box.clientHeight"
    assert await agent.evaluate(left) < 40
    assert await agent.evaluate("(box) => box.scrollTop") > 1000
    sim.open_gate("end")


async def test_a_run_that_begins_and_ends_appears_in_the_open_list(
    page: Page, sim: Simulator, kimi: KimiClient
) -> None:
    sim.play(Step(gate="go on", gate_at="finish", content="Done."))
    await kimi.think("What appears by itself?")
    row = page.get_by_role("row").filter(has_text="What appears by itself?")
    await expect(row).to_contain_text("running")
    sim.open_gate("go on")
    await expect(row).to_contain_text("completed")


async def test_a_swarm_is_cancelled_after_a_question(page: Page, sim: Simulator, kimi: KimiClient) -> None:
    run_id = await began(sim, kimi)
    await go_to(page, run_id)
    await page.get_by_role("button", name="Cancel…").click()
    question = page.get_by_role("dialog")
    await expect(question).to_contain_text("Cancel this run?")
    await question.get_by_role("button", name="Keep it running").click()
    await expect(question).to_have_count(0)
    assert (await kimi.run(run_id, "status")).status == "running"

    await page.get_by_role("button", name="Cancel…").click()
    await question.get_by_role("button", name="Cancel the run").click()
    await expect(question).to_have_count(0)
    await expect(page.get_by_role("heading", level=1)).to_contain_text("cancelled")
    assert (await kimi.run(run_id, "status")).status == "cancelled"


async def test_escape_keeps_the_run(page: Page, sim: Simulator, kimi: KimiClient) -> None:
    sim.play(Step(gate="end", gate_at="finish", content="It goes on."))
    running = await kimi.think("What does Escape do?")
    await go_to(page, running.run_id)
    await page.get_by_role("button", name="Cancel…").click()
    await expect(page.get_by_role("button", name="Keep it running")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    assert (await kimi.run(running.run_id, "status")).status == "running"


async def test_a_page_whose_server_has_gone_says_so_and_keeps_what_it_shows(
    sim: Simulator, kimi: KimiClient, folder: Path, browser: Browser
) -> None:
    sim.play(Step(gate="end", gate_at="finish", content="It goes on."))
    running = await kimi.think("Who follows it?")
    async with context(browser) as within:
        found = await watched(within)
        async with ui(folder) as link:
            await Visitor(link).open(found, f"/run/{running.run_id}")
            await expect(found.page.get_by_role("article")).to_contain_text("It goes on.")
        await expect(found.page.get_by_text("The server can't be reached.")).to_be_visible()
        await expect(found.page.get_by_role("article")).to_contain_text("It goes on.")


async def test_two_pages_show_the_same_run(
    page: Page, visitor: Visitor, browser: Browser, sim: Simulator, kimi: KimiClient
) -> None:
    sim.play(Step(gate="go on", gate_at="finish", content="Seen twice."))
    running = await kimi.think("Who sees it?")
    async with context(browser) as within:
        other = await watched(within)
        await visitor.open(other, f"/run/{running.run_id}")
        await go_to(page, running.run_id)
        sim.open_gate("go on")
        for each in (page, other.page):
            await expect(each.get_by_role("heading", level=1)).to_contain_text("completed")
        assert other.wrong == []
