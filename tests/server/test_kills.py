"""Servers that are killed at random moments of many streams: no text older than a second is lost, no run runs for ever.

``TEST_KILLS=50`` (any number) kills that many; what was sent a second before is then held against the letter.
``TEST_SEED`` repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import httpx2
import pytest
from anyio.abc import Process

from kimi_mcp.runs.store.records import RunRecord
from kimi_mcp.simulator import Simulator
from kimi_mcp.simulator.faults import Step
from tests.runs.store.stores import latest, opened
from tests.server.clients import connect
from tests.server.http.served import newest, newest_headers
from tests.server.processes import http_server_process, raw_server_process

STREAMS = 20
"""Calls that stream in each server."""

FEW = 5
"""Servers that are killed in a normal run of the tests."""

AT_ONCE = 2
"""Servers that live at once, on one data folder."""

WORDS = ("a tower ", "你好 ", "🌍 ", "keeps ", "count\n", "of ships, ")

Sent = dict[str, list[tuple[float, str, str]]]
"""By prompt: when what was sent, of which kind."""


def record_event(sent: Sent, step: Step, event: bytes) -> None:
    """Add what an event carries."""
    if b'"delta"' in event:
        delta = json.loads(event.removeprefix(b"data: "))["choices"][0]["delta"]
        now = time.monotonic()
        sent[step.match.text or ""] += [(now, kind, text) for kind, text in delta.items() if kind != "role" and text]


def text(pieces: Sequence[tuple[float, str, str]], kind: str, before: float = float("inf")) -> str:
    """What was sent of a kind until a moment."""
    return "".join(part for at, what, part in pieces if what == kind and at <= before)


def tale(draw: random.Random, words: int) -> str:
    return "".join(draw.choice(WORDS) for _ in range(words))


def lost(record: RunRecord, pieces: Sequence[tuple[float, str, str]], killed: float) -> float:
    """How old the oldest text is that was lost, in seconds before the kill; 0 where none was."""
    for kind, kept in (("reasoning_content", record.outcome.reasoning or ""), ("content", record.outcome.answer)):
        whole = text(pieces, kind)
        assert whole.startswith(kept), "nothing but what was sent"
        length = 0
        for at, what, part in pieces:
            if what == kind:
                length += len(part)
                if length > len(kept):
                    return max(0.0, killed - at)
    return 0.0


@asynccontextmanager
async def called(sim: Simulator, transport: str, prompts: Sequence[str]) -> AsyncIterator[Process]:
    """A server that all of them were sent to."""
    places = {"KIMI_MAX_CONCURRENCY": str(len(prompts))}
    if transport == "stdio":
        async with raw_server_process(sim, **places) as peer:
            await peer.initialize()
            for call, prompt in enumerate(prompts):
                await peer.call("kimi_think", call, prompt=prompt)
            yield peer.process
        return
    async with (
        http_server_process(sim, **places) as (url, process),
        httpx2.AsyncClient(timeout=None, trust_env=False) as client,
        anyio.create_task_group() as tasks,
    ):

        async def post(prompt: str) -> None:
            call = newest("tools/call", {"name": "kimi_think", "arguments": {"prompt": prompt}})
            with suppress(httpx2.TransportError):
                await client.post(url, json=call, headers=newest_headers("tools/call", "kimi_think"))

        for prompt in prompts:
            tasks.start_soon(post, prompt)
        yield process


@pytest.mark.soak
@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_a_server_that_is_killed_loses_no_text_older_than_a_second(
    data_dir: Path, capsys: pytest.CaptureFixture[str], transport: str
) -> None:
    requested = os.environ.get("TEST_KILLS")
    kills, most_s = (
        (FEW, 2.0) if requested is None else (int(requested), 1.0)
    )  # in a normal run the machine may be busy
    seed = int(os.environ.get("TEST_SEED", random.randrange(1_000_000)))
    draw = random.Random(seed)
    killed_at: dict[str, float] = {}
    sent: Sent = defaultdict(list)
    slots = anyio.Semaphore(AT_ONCE)

    async def kill(sim: Simulator, number: int, moment: float) -> None:
        prompts = [f"server {number:03} call {call:02}" for call in range(STREAMS)]
        for prompt in prompts:
            reasoning, content = (tale(draw, draw.randrange(1, 90)) for _ in range(2))
            pace = {"tokens_per_second": draw.choice((20, 60, 150)), "event_tokens": draw.choice((1, 4))}
            sim.play({"match": {"text": prompt}, "reasoning": reasoning, "content": content, **pace})
        async with slots, called(sim, transport, prompts) as process:
            await sim.until(lambda: any(prompt in sent for prompt in prompts))
            await anyio.sleep(moment)
            process.kill()
            now = time.monotonic()
            killed_at.update(dict.fromkeys(prompts, now))
            await process.wait()

    with anyio.fail_after(30 + 10 * kills):
        simulator = Simulator(provider="simulator", on_event=partial(record_event, sent))
        async with simulator as sim, anyio.create_task_group() as tasks:
            for number in range(kills):
                tasks.start_soon(kill, sim, number, draw.uniform(0.0, 2.5))
    async with connect(None) as kimi:
        await kimi.run()
        records = {record.prompt_head: record for record in await latest(kimi.runs.store)}
    with opened(data_dir) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert file.execute("SELECT count(*) FROM runs WHERE status = 'running'").fetchone() == (0,)
        assert file.execute("SELECT count(*) FROM pieces").fetchone() == (0,)
    worst, ends = 0.0, defaultdict[str, int](int)
    for prompt, killed in killed_at.items():
        if prompt not in records:
            assert prompt not in sent, "what was asked was written down before"
            continue
        outcome = records[prompt].outcome
        ends[outcome.status] += 1
        assert outcome.status in ("failed", "completed"), f"seed {seed}"
        if outcome.status == "failed":
            assert outcome.error is not None
            assert outcome.error.code == "answer_cut_off"
        age = lost(records[prompt], sent[prompt], killed)
        assert age <= most_s, f"{prompt}: text of {age:.2f} s before the kill is lost (seed {seed})"
        worst = max(worst, age)
    assert ends["failed"]
    with capsys.disabled():
        if requested is not None:
            print(f"\n{kills} kills, {dict(ends)}; the oldest text that was lost: {worst:.2f} s (seed {seed})")
