"""Nothing that a model, a tool, a page or a user wrote acts in the page: more than 150 spellings, in every field."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from playwright.async_api import Browser, Error, expect

from kimi_mcp.core.redaction import clean
from kimi_mcp.view.documents import still_document
from kimi_mcp.view.reading import run_view
from scripts.view.recording import Clock, RecordedRun, open_recording
from tests.browser.hostile import HOST, record, spellings
from tests.browser.served import ui
from tests.browser.watching import Visitor, Watched, context, watched

pytestmark = pytest.mark.soak

TEXTS = spellings()
RUNNING_EVERY = 8
"""Of so many runs one goes on, with its phase and growing texts."""

PER_FILE = 50
"""Texts in one file of a run."""

INSPECT = """
() => {
  const found = [];
  const ours = new Set(["script", "style", "link", "meta", "title"]);
  const never = "script,iframe,frame,object,embed,base,form,applet,portal,style,video,audio,template,math,img,map";
  for (const element of document.body.querySelectorAll(never)) {
    if (element.matches("form.filters")) continue;
    if (!(element.localName === "script" && (element.id === "data" || !element.closest("#view")))) {
      found.push(`element: ${element.outerHTML.slice(0, 200)}`);
    }
  }
  for (const element of document.querySelectorAll("*")) {
    for (const { name, value } of element.attributes) {
      if (/^on|^srcdoc$|^ping$|^formaction$|^is$|^slot$/i.test(name)) found.push(`attribute: ${name}=${value}`);
      if (/^(xlink:)?href$|^src$|^action$|^data$/i.test(name) && !ours.has(element.localName)
          && !/^(https?:|mailto:|#)/i.test(value)) found.push(`address: ${element.localName} ${name}=${value}`);
    }
    if (element.localName === "a" && element.protocol === "javascript:") found.push(`address: ${element.href}`);
    if (element.namespaceURI !== "http://www.w3.org/1999/xhtml" && !element.closest("svg.icon, svg.chart")) {
      if (!element.closest("svg") || element.closest(".markdown")) found.push(`namespace: ${element.outerHTML}`);
    }
  }
  for (const name of ["getElementById", "querySelector", "createElement", "body", "head"]) {
    if (Object.prototype.toString.call(document[name]) === "[object HTMLFormElement]"
        || document[name] instanceof HTMLImageElement) found.push(`clobbered: document.${name}`);
  }
  for (const name of ["innerHTML", "x", "alert"]) {
    if (name in Object.prototype) found.push(`prototype: ${name}`);
  }
  if (document.title.length > 300) found.push("title");
  return found;
}
"""


@pytest.fixture(scope="module")
async def folder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """A store in which each text has a run; every eighth of them goes on."""
    where = tmp_path_factory.mktemp("hostile")
    clock = Clock()
    store = open_recording(where, clock)
    began = time.time() - 10 * len(TEXTS)
    for number, text in enumerate(TEXTS):
        run = RecordedRun(
            store=store,
            clock=clock,
            id=run_id(number),
            tool="kimi_swarm",
            prompt=text,
            host=text,
            caller=text,
            model=text,
            provider=text,
            started_at=began + 10 * number,
            conversation_id=f"conv_{text}",
            follows=run_id(number - 1) if number % 3 else None,
        )
        await record(run, text, running=number % RUNNING_EVERY == 0)
    clock.at = time.time()
    yield where
    await store.aclose(unfinished=True)


async def together(where: Path, texts: list[str]) -> dict[str, Any]:
    """The view of one run, of which each text has an agent."""
    clock = Clock()
    store = open_recording(where, clock)
    first = texts[0]
    run = RecordedRun(
        store=store,
        clock=clock,
        id=run_id(0),
        tool="kimi_swarm",
        prompt=first,
        host=first,
        caller=first,
        model=first,
        provider=first,
        started_at=clock.at,
        conversation_id=first,
    )
    await record(run, *texts)
    found = await run_view(store, run.id, None, inline=True)
    await store.aclose()
    return found


def run_id(number: int) -> str:
    return f"run_{number:024x}"


@pytest.fixture(scope="module")
async def link(folder: Path) -> AsyncIterator[str]:
    async with ui(folder) as found:
        yield found


async def look(found: Watched, text: str) -> None:
    """Fail where anything of a text acts on the page, now or when it is pointed at."""
    await found.settle()
    inspected = await found.page.evaluate(INSPECT)
    assert found.wrong + inspected == [], f"{text!r}: {found.wrong + inspected}"
    assert not [url for url in found.requests if HOST in url.split("?", 1)[0]], text


async def test_at_least_150_of_them_act_where_nothing_keeps_them_from_it(browser: Browser) -> None:
    acted: list[str] = []
    async with context(browser) as within:
        await within.route("**/*", lambda route: route.fulfill(status=204))  # nothing leads anywhere
        found = await watched(within)
        for text in TEXTS:
            found.wrong.clear()
            with suppress(Error):  # where the text leads the page away
                await found.page.set_content(f"<main id=view>{text}", wait_until="commit")
                await found.settle()
                found.wrong += await found.page.evaluate(INSPECT)
            acted += [text] if found.wrong else []
    assert len(acted) >= 150


async def test_no_text_acts_in_the_live_page(visitor: Visitor, browser: Browser) -> None:
    async def read(numbers: range) -> None:
        async with context(browser) as within:
            found = await watched(within)
            await visitor.open(found)
            for number in numbers:
                step = f"#/run/{run_id(number)}/agent-1/agent-1%2Fstep-1"
                await found.page.evaluate("(hash) => { location.hash = hash }", step)
                await found.page.locator("article code", has_text=run_id(number)).first.wait_for()
                await expect(found.page.get_by_role("complementary")).not_to_contain_text("Loading…")
                await look(found, TEXTS[number])
                shown = await found.page.locator("article .prompt").text_content()
                assert clean(TEXTS[number], "host") in str(shown), "it is shown as it was written"

    async with anyio.create_task_group() as tasks:
        for half in (0, 1):
            tasks.start_soon(read, range(half, len(TEXTS), 2))


async def test_no_text_acts_in_the_list_and_its_filters(visitor: Visitor, watch: Watched) -> None:
    await visitor.open(watch)
    page = watch.page
    for name in ("Host", "Caller"):
        await page.get_by_role("button", name=name, exact=True).click()
        await look(watch, name)
        await page.keyboard.press("Escape")
    runs = page.get_by_role("table", name="Runs").get_by_role("link")
    await runs.first.focus()
    seen: set[str] = set()
    while len(seen) < len(TEXTS):
        new = {*await runs.evaluate_all("(links) => links.map((link) => link.hash)")} - seen
        assert new, f"{len(seen)} of {len(TEXTS)} are in the list"
        seen |= new
        await look(watch, "the list")
        await page.keyboard.press("PageDown")


@pytest.mark.parametrize("policy", [True, False], ids=["with-the-policy", "by-the-sanitiser-alone"])
async def test_no_text_acts_in_the_file_of_a_run(policy: bool, folder: Path, tmp_path: Path, browser: Browser) -> None:
    """Each file has the texts of fifty runs, in the steps of one."""
    async with context(browser, bypass_csp=not policy) as within:
        found = await watched(within)
        for first in range(0, len(TEXTS), PER_FILE):
            file = tmp_path / f"{first}.html"
            texts = TEXTS[first : first + PER_FILE]
            file.write_text(still_document(await together(tmp_path / str(first), texts)), "utf-8")
            await found.goto(file.as_uri())
            for number in range(1, len(texts) + 1):
                step = f"#/run/{run_id(0)}/agent-{number}/agent-{number}%2Fstep-1"
                await found.page.evaluate("(hash) => { location.hash = hash }", step)
                await found.page.get_by_role("complementary").get_by_text(f"agent-{number}").first.wait_for()
                await look(found, texts[number - 1])
