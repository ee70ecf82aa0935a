"""The live page in Chromium: weight, first paint, frames while scrolling, what a live swarm costs, event to pixel.

``kimi-mcp ui`` is a process of its own, and so is who writes the live swarm of 100 agents, each of which ends a step
every 3 s (``page_writer``). Frames are the times between two of the browser's animation frames while the wheel turns:
what else runs on the machine makes them longer, and leaves alone the CPU of the page's thread for a turn of the wheel.
CPU of the browser is that of all its processes, CPU of the server that of ``kimi-mcp ui``, while the page is open on
that swarm. Event to pixel is from the moment before a change is written to the store until a frame shows it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import anyio
from playwright.async_api import Browser, CDPSession, Page

from benchmarks import processes
from benchmarks.page_writer import AGENTS, LIVE
from benchmarks.report import Row
from kimi_mcp.runs.store.records import Phase
from kimi_mcp.view import documents
from scripts.view import chromium
from scripts.view.recording import Clock, RecordedRun, open_recording
from tests.browser.served import page_of
from tests.view import varied

RUNS = 10_000
STEPS = 100
BROAD = f"run_{'b' * 24}"

FRAMES = """
() => {
  window.frames_ms = [];
  let last = performance.now();
  window.looking = true;
  const look = (now) => {
    window.frames_ms.push(now - last);
    last = now;
    if (window.looking) requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}
"""

SEEN = """
(mark) => new Promise((done) => {
  const look = () => {
    if (document.querySelector("main").textContent.includes(mark)) {
      requestAnimationFrame(() => setTimeout(() => done(performance.timeOrigin + performance.now())));
    } else requestAnimationFrame(look);
  };
  look();
})
"""


def measure(*, quick: bool) -> Iterator[Row]:
    yield Row(what="weight of the live page, kB", ours=_weight() / 1e3, most=150)
    program = chromium.find()
    if program is None:
        raise SystemExit(f"The benchmark of the page needs a browser: {chromium.MISSING}.")
    yield from anyio.run(_rows, program, quick)


def _weight() -> int:
    document = documents.live_document()
    return len(document.encode()) + sum(
        len(documents.asset(name)[0]) for name in re.findall(r"/assets/([\w.]+)", document)
    )


async def _rows(program: Path, quick: bool) -> list[Row]:
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        where, clock = Path(folder), Clock()
        store = open_recording(where, clock)
        store.lock.acquire()
        await varied.fill(store, RUNS, running=0)
        await _broad(RecordedRun(store=store, clock=clock, id=BROAD, tool="kimi_swarm", prompt="", started_at=clock.at))
        ours = processes.Process("-m", "kimi_mcp", "ui", "--no-open", environment={"KIMI_DATA_DIR": folder}, quiet=True)
        with processes.closing([ours]):
            link = ours.output.readline().decode().strip()
            async with chromium.started(program) as browser, _page(browser) as page:
                await page.goto(link)
                rows += await _list(page, page_of(link), rounds=2 if quick else 5)
                rows += await _lanes(page)
                rows += await _events(page, store, clock, rounds=5 if quick else 20)
                rows += await _live(page, ours, folder, seconds=10 if quick else 30)
            ours.terminate()
        await store.aclose()
    return rows


@asynccontextmanager
async def _page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport={"width": 1200, "height": 800})
    yield await context.new_page()
    await context.close()


async def _broad(run: RecordedRun) -> None:
    """A finished swarm of 100 agents with 100 steps each."""
    run.add_agents({f"agent-{number}": f"reader {number}" for number in range(1, AGENTS + 1)}, "completed")
    await run.begin()
    await run.request("main", 0, 1, tool_calls=[{"name": "assign_task"}])
    for number in range(1, AGENTS + 1):
        agent = f"agent-{number}"
        for step in range(STEPS // 2):
            await run.request(agent, 1 + 2 * step, 2 + 2 * step, name=agent, usage={"total_tokens": 900})
            await run.tool_call(agent, "search", "{}", 2 + 2 * step, 3 + 2 * step, text="found")
    await run.end("completed", 2 + STEPS, answer="Done.")


async def _list(page: Page, address: str, rounds: int) -> list[Row]:
    paints: list[float] = []
    shown: list[float] = []
    for _ in range(rounds):
        await page.goto("about:blank")
        began = time.perf_counter()
        await page.goto(address)
        await page.get_by_role("table", name="Runs").get_by_role("link").nth(5).wait_for()
        shown.append((time.perf_counter() - began) * 1e3)
        paints += await page.evaluate("performance.getEntriesByType('paint').map((each) => each.startTime).slice(-1)")
    frames, cpu_ms = await _scrolled(page, 60, within=None)
    return [
        Row(what="first paint of the list, ms", ours=median(paints), most=1_000),
        Row(what=f"rows of {RUNS:,} runs shown, ms", ours=median(shown)),
        Row(what=f"longest frame, scrolling {RUNS:,} runs, ms", ours=max(frames), most=100),
        Row(what="CPU of the page for a turn of the wheel there, ms", ours=cpu_ms),
    ]


async def _lanes(page: Page) -> list[Row]:
    await page.evaluate("(hash) => { location.hash = hash }", f"#/run/{BROAD}")
    grid = page.get_by_role("grid")
    await grid.get_by_role("rowheader").nth(5).wait_for()
    frames, cpu_ms = await _scrolled(page, 40, within=await grid.bounding_box())
    return [
        Row(what=f"longest frame, scrolling {AGENTS} agents × {STEPS} steps, ms", ours=max(frames), most=100),
        Row(what="CPU of the page for a turn of the wheel there, ms", ours=cpu_ms),
    ]


async def _scrolled(page: Page, turns: int, within: object) -> tuple[list[float], float]:
    """The times of the frames while the wheel turns, and the CPU of the page's thread for each turn, ms."""
    await page.mouse.move(600, 500)
    if isinstance(within, dict):
        await page.mouse.move(within["x"] + within["width"] / 2, min(700, within["y"] + within["height"] / 2))
    await anyio.sleep(1)  # what opened the page is over
    session = await page.context.new_cdp_session(page)
    await session.send("Performance.enable", {"timeDomain": "threadTicks"})
    await page.evaluate(FRAMES)
    before = await _thread_s(session)
    for turn in range(turns):
        await page.mouse.wheel(0, 900 if turn < 0.7 * turns else -900)
        await page.evaluate("new Promise((done) => requestAnimationFrame(done))")
    cpu_s = await _thread_s(session) - before
    # A page with a frame at every refresh has a cost of its own, which is not the live page's.
    frames = await page.evaluate("() => { window.looking = false; return window.frames_ms.slice(1); }")
    return frames, cpu_s * 1e3 / turns


async def _thread_s(session: CDPSession) -> float:
    found = await session.send("Performance.getMetrics")
    return next(each["value"] for each in found["metrics"] if each["name"] == "TaskDuration")


async def _events(page: Page, store: object, clock: Clock, rounds: int) -> list[Row]:
    run = RecordedRun(
        store=store,  # pyright: ignore[reportArgumentType]
        clock=clock,
        id=f"run_{'e' * 24}",
        prompt="When is it seen?",
        started_at=time.time(),
    )
    await run.begin(phase=Phase(doing="mark 0"))
    await page.evaluate("(hash) => { location.hash = hash }", f"#/run/{run.id}")
    await page.get_by_text("mark 0").wait_for()
    took: list[float] = []
    for number in range(1, rounds + 1):
        await anyio.sleep(0.3)
        async with anyio.create_task_group() as tasks:
            began = time.time()

            async def wait(mark: str, began: float = began) -> None:
                took.append(await page.evaluate(SEEN, mark) - began * 1e3)

            tasks.start_soon(wait, f"mark {number}.")
            await run.change(phase=Phase(doing=f"mark {number}."))
    await run.end()
    return [
        Row(what="event to pixel, ms", ours=median(took)),
        Row(what="event to pixel at worst, ms", ours=max(took), most=1_000),
    ]


async def _live(page: Page, ours: processes.Process, folder: str, seconds: float) -> list[Row]:
    """What the page costs while the swarm of ``page_writer`` goes on."""
    writer = processes.Process("-m", "benchmarks.page_writer", folder)
    with processes.closing([writer]):
        assert writer.output.readline() == b"began\n"
        await page.evaluate("(hash) => { location.hash = hash }", f"#/run/{LIVE}")
        await page.get_by_role("rowheader").nth(5).wait_for()
        await anyio.sleep(3)
        before, began = (ours.cpu_s(), _browser_cpu_s()), time.perf_counter()
        await anyio.sleep(seconds)
        after, took = (ours.cpu_s(), _browser_cpu_s()), time.perf_counter() - began
    server, browser = (100 * (one - other) / took for one, other in zip(after, before, strict=True))
    return [
        Row(what=f"server, page open on {AGENTS} live agents, % of a core", ours=server, most=2),
        Row(what=f"browser, page open on {AGENTS} live agents, % of a core", ours=browser, most=10),
    ]


def _browser_cpu_s() -> float:
    """CPU seconds of all processes of the browser that this process has started."""
    found = dict(_processes())
    total = 0.0
    for pid, (parent, name, cpu_s) in found.items():
        at = parent
        while at in found and at != os.getpid():
            at = found[at][0]
        if at == os.getpid() and "chrom" in name and pid != os.getpid():
            total += cpu_s
    return total


def _processes() -> Iterator[tuple[int, tuple[int, str, float]]]:
    """Parent, name and CPU seconds of every process of the machine, by its id."""
    ticks = os.sysconf("SC_CLK_TCK")
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            continue  # it has ended meanwhile
        head, _, tail = text.rpartition(")")
        fields = tail.split()
        yield (
            int(path.parent.name),
            (int(fields[1]), head.partition("(")[2], (int(fields[11]) + int(fields[12])) / ticks),
        )
