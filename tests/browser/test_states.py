"""The page of a run in each of its states, made by a real server, and the list of them all."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.real_runs import CITIES, MARKDOWN, OTHERS, PROMPTS, REASONING, real_runs
from tests.browser.served import ui
from tests.browser.watching import Visitor, Watched

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
async def link(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    folder: Path = tmp_path_factory.mktemp("states")
    async with real_runs(folder), ui(folder) as found:
        yield found


@pytest.fixture
async def page(visitor: Visitor, watch: Watched) -> Page:
    """The list, open."""
    await visitor.open(watch)
    return watch.page


def row(page: Page, prompt: str) -> Locator:
    """The run of that prompt in the list."""
    return page.get_by_role("row").filter(has_text=prompt)


async def opened(page: Page, prompt: str) -> Locator:
    """The page of the run of that prompt."""
    await row(page, prompt).get_by_role("link").click()
    run = page.get_by_role("article")
    await expect(run).to_contain_text(prompt)
    return run


@pytest.mark.parametrize("status", PROMPTS)
async def test_the_list_and_the_run_say_its_status(status: str, page: Page) -> None:
    await expect(row(page, PROMPTS[status])).to_contain_text(status)
    await opened(page, PROMPTS[status])
    await expect(page.get_by_role("heading", level=1)).to_contain_text(status)
    await expect(page).to_have_title(re.compile(status))


@pytest.mark.parametrize("tool", OTHERS)
async def test_a_run_of_each_tool_is_shown(tool: str, page: Page) -> None:
    run = await opened(page, OTHERS[tool])
    await expect(page.get_by_role("heading", level=1)).to_contain_text(tool)
    await expect(run.get_by_role("heading", name="Answer", exact=True)).to_be_visible()


async def test_an_answer_is_rendered_as_markdown(page: Page) -> None:
    run = await opened(page, PROMPTS["completed"])
    answer = run.locator(".markdown")
    await expect(answer.get_by_role("heading", name="Three cities")).to_be_visible()
    await expect(answer.get_by_role("row", name=re.compile("Oslo"))).to_contain_text("717,710")
    await expect(answer.get_by_role("listitem")).to_have_count(2)
    await expect(answer.locator("pre")).to_contain_text("largest = max(")
    link = answer.get_by_role("link", name=re.compile("the census"))
    await expect(link).to_have_attribute("href", "https://example.org/census")
    await expect(link).to_have_attribute("rel", re.compile("noreferrer"))
    await expect(link).to_contain_text("example.org")
    await run.get_by_role("button", name="As text").click()
    await expect(run.locator("pre", has_text="# Three cities")).to_have_text(MARKDOWN)


async def test_the_reasoning_is_there_when_it_is_opened(page: Page) -> None:
    run = await opened(page, PROMPTS["completed"])
    await run.get_by_text("Reasoning", exact=True).click()
    await expect(run.get_by_text(REASONING)).to_be_visible()


@pytest.mark.parametrize("status", ["partial", "failed"])
async def test_a_run_that_is_incomplete_says_why_and_what_to_do(status: str, page: Page) -> None:
    run = await opened(page, PROMPTS[status])
    await expect(run.get_by_role("alert")).to_contain_text("What to do")


async def test_what_had_arrived_of_a_cancelled_run_is_shown(page: Page) -> None:
    run = await opened(page, PROMPTS["cancelled"])
    await expect(run.locator(".markdown")).to_contain_text("Half of it")


async def test_a_swarm_has_a_lane_for_each_agent_and_its_texts_beside_them(page: Page) -> None:
    run = await opened(page, OTHERS["kimi_swarm"])
    for city in CITIES:
        await expect(run.get_by_role("rowheader", name=re.compile(city))).to_be_visible()
    await run.get_by_role("rowheader", name=re.compile("Oslo")).click()
    agent = page.get_by_role("complementary")
    await expect(agent).to_contain_text("What is known of Oslo?")
    await expect(agent.get_by_role("heading", name="Answer")).to_be_visible()
    await agent.get_by_role("button", name="Close the agent").click()
    await expect(agent).to_have_count(0)


async def test_filters_narrow_the_list_and_are_in_the_address(page: Page) -> None:
    await page.get_by_role("group", name="Status").get_by_role("button", name="failed").click()
    await expect(row(page, PROMPTS["completed"])).to_have_count(0)
    await expect(row(page, PROMPTS["failed"])).to_have_count(1)
    await expect(page).to_have_url(re.compile("status=failed"))
    await page.reload()
    await expect(row(page, PROMPTS["failed"])).to_have_count(1)
    await expect(row(page, PROMPTS["completed"])).to_have_count(0)


async def test_a_word_of_the_prompt_finds_a_run(page: Page) -> None:
    await page.get_by_role("searchbox").fill("rome and")
    await expect(row(page, PROMPTS["failed"])).to_have_count(0)
    await expect(row(page, PROMPTS["completed"])).to_have_count(1)


async def test_a_run_that_is_not_there_is_an_error_with_what_to_do(page: Page, watch: Watched) -> None:
    await page.evaluate("() => { location.hash = '#/run/run_of_nobody' }")
    await expect(page.get_by_role("alert")).to_contain_text("There is no such run")
    watch.wrong[:] = [each for each in watch.wrong if "404" not in each]


async def test_the_way_back_leads_to_the_list_as_it_was(page: Page) -> None:
    await page.get_by_role("group", name="Status").get_by_role("button", name="failed").click()
    await opened(page, PROMPTS["failed"])
    await page.go_back()
    await expect(row(page, PROMPTS["failed"])).to_have_count(1)
    await expect(row(page, PROMPTS["completed"])).to_have_count(0)
