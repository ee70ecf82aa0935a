"""``make cluster``: three replicas on one PostgreSQL behind a balancer, a swarm over all, and one replica killed.

I/O: starts real processes on loopback, kills one of them, prints. No key, no network; nothing stays behind. The
provider is the simulator, whose log tells which replica sent which request.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread

from kimi_mcp.cli.console import Printer
from kimi_mcp.simulator import Match, ReceivedRequest, ScriptedCall, Simulator, Step
from kimi_mcp.simulator.faults import CHAT_PATH
from scripts.cluster.places import PLACES
from scripts.cluster.processes import ROOT, Balancer, Program, Replica, free_ports, received_from, replica_environment
from scripts.demo import swarms
from tests.postgres import postgres

if TYPE_CHECKING:
    from mcp import Client

REPLICAS = 3
STEP_S = 2.0
"""Seconds that the provider thinks about each request."""

SHOW_S = 240.0
"""Seconds after which it counts as stuck."""

PROMPT, OFFERED = "What is known of {{item}}?", "library.look_up"


class Report:
    """What was seen, and whether all of it was as it should be."""

    def __init__(self) -> None:
        self.page = Printer(label=11, indent=3)
        self.failed = 0

    def check(self, statement: str, truth: bool, instead: object = "") -> None:
        """Show a statement that must be true."""
        self.failed += not truth
        self.page.mark("ok" if truth else "bad", statement if truth else f"{statement} Instead: {instead}")


async def play(places: Sequence[str] = PLACES) -> bool:
    """Play it, with an agent for each place; returns whether everything was as it should be."""
    report, began = Report(), time.monotonic()
    report.page.line("kimi-mcp cluster", "name")
    report.page.line("Three replicas, one PostgreSQL and a balancer, on this machine: no network.", "quiet")
    with tempfile.TemporaryDirectory(prefix="kimi-mcp-cluster-") as folder:
        try:
            with anyio.fail_after(SHOW_S):
                await _show(Path(folder), places, report)
        except Exception as fault:  # noqa: BLE001 - one sentence of it is enough, below the logs
            report.check("It was played to its end.", False, f"{type(fault).__name__}: {fault}")
    report.page.line()
    if report.failed:
        report.page.mark("bad", f"{report.failed} of it did not hold, after {time.monotonic() - began:.0f} s.")
    else:
        report.page.mark("ok", f"All of it held, in {time.monotonic() - began:.0f} s.", "ok")
        report.page.line("   Next: docs/guides/cluster.md says how to run one of your own.", "quiet")
    return not report.failed


async def _show(folder: Path, places: Sequence[str], report: Report) -> None:
    page = report.page
    async with AsyncExitStack() as stack:
        began = time.monotonic()
        with page.waiting("starting PostgreSQL …"):
            database = await anyio.to_thread.run_sync(lambda: stack.enter_context(postgres()))
        sim = await stack.enter_async_context(Simulator(provider="simulator"))
        sim.play(*_steps(places))
        environment = replica_environment(
            database.url,
            sim.base_url,
            KIMI_REPLY_WITHIN_S="2",
            KIMI_SWARM_MCP=swarms.tool_servers(folder),
        )
        ports = free_ports(REPLICAS)
        replicas = [
            Replica(f"replica-{number}", folder=folder, environment=environment, port=port)
            for number, port in enumerate(ports, 1)
        ]
        balancer = Balancer(ports, folder=folder)
        stack.push_async_callback(_end, [balancer, *replicas], report)
        with page.waiting("starting the replicas and the balancer …"):
            for program in (balancer, *replicas):
                program.start()
            for program in (balancer, *replicas):
                await anyio.to_thread.run_sync(program.wait_ready)
        page.line()
        page.heading("1 A cluster", f"up in {time.monotonic() - began:.1f} s")
        page.row("database", "PostgreSQL, from its wheel")
        page.row("balancer", f"Caddy at {balancer.url}")
        for replica in replicas:
            page.row(replica.name, f"{replica.url}, process {replica.pid}")
        await _swarm(sim, places, balancer, replicas, report)
        page.line()
        page.heading("5 What `kimi-mcp cluster` shows now")
        shown = await anyio.to_thread.run_sync(_cluster, environment)
        for line in shown.stdout.splitlines():
            page.line(f"   {line}".rstrip())
        report.check(
            f"It names the {REPLICAS - 1} that live.", shown.stdout.count("ready") == REPLICAS - 1, shown.stderr
        )


def _cluster(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What an operator sees."""
    command = [sys.executable, "-m", "kimi_mcp", "cluster"]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment, "COLUMNS": "77"},
        text=True,
        capture_output=True,
        check=False,
    )


async def _swarm(
    sim: Simulator, places: Sequence[str], balancer: Balancer, replicas: list[Replica], report: Report
) -> None:
    page = report.page
    page.line()
    page.heading(f"2 A swarm of {len(places)} agents, called through the balancer")
    page.row("asked", f'kimi_swarm(prompt="{PROMPT}", items=[{len(places)} places])', "name")
    async with _client(balancer.url) as client:
        begun = await _call(client, "kimi_swarm", prompt=PROMPT, items=list(places), tools=[OFFERED])
    run_id = str(begun["run_id"])
    page.row("run", f"{run_id}, {begun['status']}")
    with page.waiting("agents at work on all replicas …"):
        await sim.until(lambda: len(_answered(sim)) >= len(places) * 2 // 3, SHOW_S)
    _table(sim, replicas, page)
    at_work = Counter(received_from(request.headers) for request in _chats(sim) if request.outcome == "open")
    workers = {received_from(request.headers) for request in _chats(sim)}
    report.check("All of them work for it.", len(workers) == REPLICAS, workers)

    victim = max(replicas, key=lambda replica: at_work[replica.name])
    page.line()
    page.heading(f"3 {victim.name} is killed (SIGKILL), with {at_work[victim.name]} requests under way")
    killed_at = anyio.current_time()
    victim.signal(signal.SIGKILL)
    cut = {_key(each) for each in _chats(sim) if each.outcome == "open" and received_from(each.headers) == victim.name}
    with page.waiting("its lease runs out, others take up its agents …"):
        await sim.until(lambda: len(_taken_up(sim, cut, victim.name)) == len(cut), SHOW_S)
    taken = _taken_up(sim, cut, victim.name)
    by, after = Counter(received_from(each.headers) for each in taken.values()), [each.at for each in taken.values()]
    for name, number in sorted(by.items()):
        page.row(name, f"took up {number} of its {len(cut)} agents")
    if after:
        page.row("after", f"{min(after) - killed_at:.1f} s the first, {max(after) - killed_at:.1f} s the last")
    living = [replica for replica in replicas if replica is not victim]
    report.check("Every agent that it had was taken up by another.", set(taken) == cut, cut - set(taken))

    other = living[-1]
    page.line()
    page.heading(f"4 The whole answer, fetched from {other.name}")
    async with _client(other.url) as client:
        with page.waiting("until the swarm ends …"):
            ended = await _ended(client, run_id)
        text = await _whole_answer(client, run_id)
    agents = cast("list[dict[str, Any]]", ended["swarm"]["agents"] if ended["swarm"] else [])
    states = Counter(agent["status"] for agent in agents)
    page.row(
        "status", f"{ended['status']}, agents: {', '.join(f'{number} {state}' for state, number in states.items())}"
    )
    page.row("answer", f"{len(text):,} characters: {' '.join(text.split())[:46]}…")
    report.check(
        "It is complete.", ended["status"] == "completed" and states["completed"] == len(places), ended["error"]
    )
    missing = [place for place in places if place not in text]
    report.check("It holds what each agent found.", not missing, missing)
    _table(sim, replicas, page)
    sent: dict[tuple[str, int], list[str]] = {}
    for request in _chats(sim):
        sent.setdefault(_key(request), []).append(received_from(request.headers))
    again = {key: senders for key, senders in sent.items() if len(senders) > 1}
    only = all(senders[0] == victim.name and len(senders) == 2 for senders in again.values())
    report.check(
        f"Asked again: {len(again)} requests, of those alone that {victim.name} had no record of.", only, again
    )


def _steps(places: Sequence[str]) -> list[Step]:
    """What the simulator plays: an agent looks its place up, then answers."""
    looks = [
        Step(
            match=Match(text=f"What is known of {place}?", turns=0),
            tool_calls=(ScriptedCall(name=swarms.TOOL, arguments={"city": place}, id="functions.library:0"),),  # pyright: ignore[reportArgumentType]
            delay=STEP_S,
            times="always",
        )
        for place in places
    ]
    together = "\n".join(f"{place}: found." for place in places)
    synthesis = Step(match=Match(system="Several agents have worked"), content=together, delay=STEP_S, times="always")
    return [synthesis, *looks, Step(match=Match(text="What is known of", turns=1), delay=STEP_S, times="always")]


def _chats(sim: Simulator) -> list[ReceivedRequest]:
    return [request for request in sim.requests if request.path == CHAT_PATH and request.body is not None]


def _answered(sim: Simulator) -> list[ReceivedRequest]:
    return [request for request in _chats(sim) if request.outcome == "answered"]


def _key(request: ReceivedRequest) -> tuple[str, int]:
    """Which step of which agent it is: the task, and how often the model has answered before."""
    messages = cast("list[dict[str, Any]]", (request.body or {})["messages"])
    task = next(str(each["content"]) for each in messages if each["role"] == "user")
    return task, sum(each["role"] == "assistant" for each in messages)


def _taken_up(sim: Simulator, cut: set[tuple[str, int]], dead: str) -> dict[tuple[str, int], ReceivedRequest]:
    """Of the requests that were cut, the one by which another replica went on."""
    found: dict[tuple[str, int], ReceivedRequest] = {}
    for request in _chats(sim):
        if (key := _key(request)) in cut and received_from(request.headers) != dead:
            found.setdefault(key, request)
    return found


def _table(sim: Simulator, replicas: list[Replica], page: Printer) -> None:
    sent = Counter(received_from(request.headers) for request in _chats(sim))
    answered = Counter(received_from(request.headers) for request in _answered(sim))
    most = max(sent.values(), default=1)
    names = [replica.name for replica in replicas]
    rows = [[name, str(sent[name]), str(answered[name]), "█" * round(30 * sent[name] / most)] for name in names]
    page.table(["", "sent", "answered", ""], rows, right=(1, 2))


@asynccontextmanager
async def _client(url: str) -> AsyncGenerator[Client]:
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async with Client(streamable_http_client(url)) as client:
        yield client


async def _call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.call_tool(tool, arguments)
    return cast("dict[str, Any]", answer.structured_content)


async def _ended(client: Client, run_id: str) -> dict[str, Any]:
    while (result := await _call(client, "kimi_run", run_id=run_id, wait_s=30))["status"] == "running":
        pass
    return result


async def _whole_answer(client: Client, run_id: str) -> str:
    text, offset = "", 0
    while offset is not None:
        page = (await _call(client, "kimi_run", run_id=run_id, action="answer", offset=offset))["page"]
        text, offset = text + page["text"], page["next_offset"]
    return text


async def _end(programs: Sequence[Program], report: Report) -> None:
    """End what still runs, the database after it."""
    lived = [program for program in programs if program.is_running]
    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as tasks:
            for program in programs:
                tasks.start_soon(anyio.to_thread.run_sync, partial(program.end, 20))
    report.page.line()
    report.page.heading("6 The end")
    if report.failed:
        for program in programs:
            for line in program.log.splitlines()[-5:]:
                report.page.row(program.name, line, "quiet")
    statuses = {program.name: program.status for program in lived if program.status}
    report.check(f"{len(lived)} processes got a signal to end, and did; nothing is left.", not statuses, statuses)
