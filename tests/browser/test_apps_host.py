"""A run within the reference host of MCP Apps: the ext-apps SDK's own bridge, in Chromium, with a sandbox around it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import pytest
from playwright.async_api import Browser, FrameLocator, Page, expect

from kimi_mcp.simulator import Simulator
from tests.browser.watching import context, watched
from tests.npm import EXT_APPS, NODE, NPM
from tests.server.http.served import Served, served
from tests.server.test_swarm import TELL

pytestmark = pytest.mark.soak

APPS = Path(__file__).with_name("apps")

WITHIN_MS = 90_000
expect.set_options(timeout=WITHIN_MS)  # a loaded machine shows late what it shows

SWARM = {"match": {"system": "You lead a swarm"}, "content": "Rome, Oslo and Lima."}
HELD_AGENT = {"match": {"text": "Oslo"}, "gate": "end", "gate_at": "finish", "content": "Oslo is a city."}

AS_HIGH = """(root) => new Promise((done) => {
    const look = () => root.scrollHeight === root.clientHeight ? done() : requestAnimationFrame(look);
    look();
})"""
"""Ends once a document is as high as what is in it."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host's page that shows the view of one call."""

    page: Page

    @property
    def view(self) -> FrameLocator:
        """The document that it shows: in the sandbox."""
        return self.page.frame_locator("iframe[title=view]").frame_locator("iframe[title=run]")

    async def seen(self, name: str) -> Any:
        """What the host has seen of the view: ``links``, ``calls``, ``sizes``, ``result``."""
        return await self.page.evaluate(f"window.seen.{name}")


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(provider="simulator") as simulator:
        yield simulator


@asynccontextmanager
async def hosting(url: str, folder: Path) -> AsyncIterator[dict[str, int]]:
    """Serves the host for an MCP server; its ports."""
    (folder / "node_modules").symlink_to(NPM.path_of(EXT_APPS), target_is_directory=True)
    scripts = [folder / name for name in ("serve.mjs", "page.mjs", "sandbox.mjs")]
    for script in scripts:
        script.write_bytes((APPS / script.name).read_bytes())
    command = [NODE / "node", scripts[0], url, *map(str, scripts[1:])]
    process = await anyio.open_process(command, cwd=folder, stderr=subprocess.DEVNULL)
    async with process:
        try:
            assert process.stdout is not None
            line = b""
            while not line.endswith(b"\n"):
                line += await process.stdout.receive()
            yield json.loads(line)
        finally:
            process.kill()


@asynccontextmanager
async def showing(
    browser: Browser, http: Served, folder: Path, tool: str, arguments: dict[str, Any], **options: str
) -> AsyncIterator[Host]:
    """The reference host with the view of a call; ``options`` are those of its page."""
    async with hosting(http.serving.local_url, folder) as ports, context(browser) as within:
        within.set_default_timeout(WITHIN_MS)
        found = await watched(within)
        found.origins.add(f"http://localhost:{ports['sandbox']}")
        query = {"sandbox": ports["sandbox"], "tool": tool, "arguments": json.dumps(arguments), **options}
        await found.goto(f"http://127.0.0.1:{ports['page']}/?{urlencode(query)}")
        yield Host(found.page)
        assert found.wrong == []


ANSWER = "Oslo is the capital; see [the census](https://example.org/census)."
THINK = {"prompt": "Which city is the capital?"}
SLOWLY = {"tools": ["none"], **TELL}


@pytest.mark.parametrize("options", [{"era": "older"}, {"era": "newest", "opaque": ""}], ids=str)
async def test_a_run_is_shown_in_the_sandbox_of_a_host(
    browser: Browser, sim: Simulator, tmp_path: Path, options: dict[str, str]
) -> None:
    sim.play({"content": ANSWER, "reasoning": "It is in Norway."})
    async with served(sim) as http, showing(browser, http, tmp_path, "kimi_think", THINK, **options) as host:
        await expect(host.view.get_by_role("heading", level=1)).to_contain_text("kimi_think")
        await expect(host.view.get_by_role("main")).to_contain_text("completed")
        await expect(host.view.get_by_role("main")).to_contain_text("Oslo is the capital")
        await expect(host.view.get_by_role("button", name="Cancel")).to_have_count(0)


async def test_the_frame_is_as_high_as_what_is_in_it(browser: Browser, sim: Simulator, tmp_path: Path) -> None:
    sim.play({"content": "A paragraph.\n\n" * 60})
    async with served(sim) as http, showing(browser, http, tmp_path, "kimi_think", THINK) as host:
        await expect(host.view.get_by_role("main")).to_contain_text("completed")
        await host.page.wait_for_function("document.querySelector('iframe').offsetHeight > 1500")
        await host.view.locator("html").evaluate(AS_HIGH)


async def test_the_theme_and_the_language_are_the_hosts(browser: Browser, sim: Simulator, tmp_path: Path) -> None:
    options = {"theme": "dark", "locale": "de-DE"}
    async with served(sim) as http, showing(browser, http, tmp_path, "kimi_think", THINK, **options) as host:
        await expect(host.view.get_by_role("main")).to_contain_text(re.compile(r"\d,\d\ss"))
        background = "root => getComputedStyle(root).backgroundColor"
        dark = await host.view.locator("html").evaluate(background)
        await host.page.evaluate("window.bridge.setHostContext({ theme: 'light' })")
        await expect(host.view.locator("html")).not_to_have_css("background-color", dark)


async def test_a_swarm_is_seen_before_its_call_returns_and_can_be_cancelled(
    browser: Browser, sim: Simulator, tmp_path: Path
) -> None:
    sim.play(SWARM, HELD_AGENT)
    async with served(sim) as http, showing(browser, http, tmp_path, "kimi_swarm", SLOWLY) as host:
        await expect(host.view.get_by_role("main")).to_contain_text("2 completed")
        assert await host.seen("result") is None
        await host.view.get_by_role("button", name="Cancel").click()
        question = host.view.get_by_role("dialog")
        await question.get_by_role("button", name="Keep it running").click()
        await expect(question).to_have_count(0)
        assert all(call.get("action") != "cancel" for call in await host.seen("calls"))
        await host.view.get_by_role("button", name="Cancel").click()
        await question.get_by_role("button", name="Cancel the run").click()
        await expect(host.view.get_by_role("button", name="Cancel")).to_have_count(0)
        await host.page.wait_for_function("window.seen.result !== null")
        result = await host.seen("result.structuredContent")
    assert result["status"] in ("cancelled", "partial")


async def test_a_lane_opens_with_what_its_agent_answered(browser: Browser, sim: Simulator, tmp_path: Path) -> None:
    sim.play(SWARM, {"match": {"text": "Oslo"}, "content": "Oslo is a city."})
    async with served(sim) as http, showing(browser, http, tmp_path, "kimi_swarm", SLOWLY, opaque="") as host:
        await expect(host.view.get_by_role("main")).to_contain_text("3 completed")
        await host.view.get_by_role("grid").get_by_text("Oslo").first.click()
        await expect(host.view.get_by_role("complementary")).to_contain_text("Oslo is a city.")


async def test_a_link_opens_by_the_host(browser: Browser, sim: Simulator, tmp_path: Path) -> None:
    sim.play({"content": ANSWER})
    async with served(sim) as http, showing(browser, http, tmp_path, "kimi_think", THINK) as host:
        await host.view.get_by_role("link", name="the census").click()
        await host.page.wait_for_function("window.seen.links.length > 0")
        assert await host.seen("links") == ["https://example.org/census"]
        await expect(host.view.get_by_role("main")).to_contain_text("Oslo is the capital")


async def test_a_message_of_another_window_is_not_heard(browser: Browser, sim: Simulator, tmp_path: Path) -> None:
    forged = """() => new Promise((done) => {
        const root = document.documentElement;
        addEventListener("message", ({ data }) => data === "after" && done(root.dataset.theme));
        const params = { theme: "dark" };
        postMessage({ jsonrpc: "2.0", method: "ui/notifications/host-context-changed", params }, "*");
        postMessage("after", "*");
    })"""
    async with served(sim) as http, showing(browser, http, tmp_path, "kimi_think", THINK, theme="light") as host:
        await expect(host.view.get_by_role("main")).to_contain_text("completed")
        assert await host.view.locator("html").evaluate(forged) == "light"


async def test_a_host_that_passes_no_calls_on_shows_what_it_has(
    browser: Browser, sim: Simulator, tmp_path: Path
) -> None:
    sim.play({"gate": "end", "gate_at": "finish", "content": "It is 391."})
    async with (
        served(sim, KIMI_REPLY_WITHIN_S="1") as http,
        showing(browser, http, tmp_path, "kimi_think", THINK, still="") as host,
    ):
        await expect(host.view.get_by_role("main")).to_contain_text("running")
        await expect(host.view.get_by_role("button", name="Cancel")).to_have_count(0)
        assert await host.seen("calls") == []


async def test_a_refused_call_shows_why(browser: Browser, sim: Simulator, tmp_path: Path) -> None:
    async with served(sim) as http, showing(browser, http, tmp_path, "kimi_think", {"prompt": " "}) as host:
        await expect(host.view.get_by_role("alert")).to_contain_text("prompt is empty")


async def test_the_host_can_take_the_view_away(browser: Browser, sim: Simulator, tmp_path: Path) -> None:
    async with served(sim) as http, showing(browser, http, tmp_path, "kimi_think", THINK) as host:
        await expect(host.view.get_by_role("main")).to_contain_text("completed")
        assert await host.page.evaluate("window.bridge.teardownResource({})") == {}
