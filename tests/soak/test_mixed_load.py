"""One server process under mixed load: its memory, descriptors and threads stay flat.

Single calls with and without reasoning, pictures, swarms, looks at runs, cancellations and resources, in random order
from eight workers, over stdio; one upstream request in five meets a fault. Each second the process is looked at in
``/proc``; the medians of the first and the last third, after a warm-up of a fifth, are held against each other.

It takes 2 minutes; ``SOAK_MINUTES=25`` is the full length. ``SOAK_SEED`` repeats a run's choices. Linux alone.
"""

from __future__ import annotations

import base64
import os
import random
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import anyio
import pytest
from mcp import Client

from kimi_mcp.simulator import Simulator
from tests.server.processes import server_process
from tests.server.results import checked

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc"),
]

MINUTES = float(os.environ.get("SOAK_MINUTES", "2"))
SEED = int(os.environ.get("SOAK_SEED", "11"))
WORKERS = 8
WARM_UP = 0.2
"""The part of the time that is not looked at: caches fill, pages are touched for the first time."""

MORE_RSS, MORE_RSS_MB = 1.15, 8.0
"""What the last third may hold more than the first, as a factor and in megabytes on top."""
MORE_DESCRIPTORS, MORE_THREADS = 8, 6

FAULTS: dict[str, dict[str, Any]] = {
    "[500]": {"status": 500},
    "[429]": {"status": 429, "retry_after": 0.05},
    "[401]": {"status": 401},
    "[html]": {"html": True},
    "[cut]": {"truncate_at": 700},
    "[reset]": {"reset_at": 500},
    "[no finish]": {"no_finish": True},
    "[bad json]": {"bad_json": True},
    "[length]": {"length_in_reasoning": True},
    "[filter]": {"finish_reason": "content_filter"},
    "[no usage]": {"usage": "missing"},
}
"""What a prompt is answered by that says so."""

SLOW = "[slow]"
"""A prompt that says so is answered over half a minute: it is cancelled before."""


def picture(number: int) -> str:
    """A small picture as a data URI, another one for each number."""
    rows = b"".join(b"\0" + bytes((number + x * 3 + y) % 256 for x in range(96)) for y in range(32))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


@dataclass(frozen=True, slots=True)
class Sample:
    """How a process stands at one moment."""

    rss_mb: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Sample:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        return cls(
            rss_mb=int(status["VmRSS"].split()[0]) / 1024,
            descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
            threads=int(status["Threads"]),
        )


def children() -> set[int]:
    """The processes that this one has started and that live."""
    found = (file.read_text().split() for file in Path("/proc/self/task").glob("*/children"))
    return {int(pid) for pids in found for pid in pids}


@dataclass
class Load:
    """What the workers do, and what came of it."""

    client: Client
    draw: random.Random
    until: float
    counts: Counter[str] = field(default_factory=Counter[str])
    runs: list[str] = field(default_factory=list[str])
    number: int = 0

    async def work(self) -> None:
        """Do one thing after the other until the time is over."""
        things: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (20, self.think),
            (25, self.instant),
            (10, self.vision),
            (4, self.swarm),
            (15, self.look),
            (8, self.cancel),
            (5, self.cancel_run),
            (13, self.resources),
        ]
        weights, kinds = [weight for weight, _ in things], [kind for _, kind in things]
        while anyio.current_time() < self.until:
            (kind,) = self.draw.choices(kinds, weights)
            with anyio.fail_after(120):
                await kind()

    def prompt(self) -> str:
        """Another one each time; one in five asks for a fault."""
        self.number += 1
        fault = self.draw.choice(list(FAULTS)) if self.draw.random() < 0.2 else ""
        return f"Call {self.number} {fault} " + "about this and that. " * self.draw.randrange(1, 60)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """A tool's result, held against the contract and counted."""
        structured = checked(await self.client.call_tool(tool, arguments)).structured
        self.counts[f"{tool} {structured['status']}"] += 1
        if structured["error"]:
            self.counts[f"error {structured['error']['code']}"] += 1
        if structured["run_id"]:
            self.runs = [*self.runs[-199:], structured["run_id"]]
        return structured

    async def think(self) -> None:
        structured = await self.call("kimi_think", prompt=self.prompt())
        if structured["conversation_id"] and structured["status"] == "completed" and self.draw.random() < 0.3:
            await self.call("kimi_think", prompt=self.prompt(), conversation_id=structured["conversation_id"])

    async def instant(self) -> None:
        await self.call("kimi_instant", prompt=self.prompt())

    async def vision(self) -> None:
        await self.call("kimi_vision", prompt=self.prompt(), images=[picture(self.number)])

    async def swarm(self) -> None:
        items = [self.prompt() for _ in range(self.draw.randrange(2, 6))]
        await self.call("kimi_swarm", prompt="Tell me about {{item}}.", items=items, tools=[])

    async def look(self) -> None:
        if not self.runs:
            return
        action = self.draw.choice(["status", "wait", "answer", "reasoning", None])
        if action is None:
            await self.call("kimi_run")
        else:
            await self.call("kimi_run", run_id=self.draw.choice(self.runs), action=action)

    async def cancel(self) -> None:
        """A user's cancellation of a call."""
        with anyio.move_on_after(0.2 + self.draw.random() / 5):
            await self.call("kimi_think", prompt=f"{SLOW} {self.prompt()}")
        self.counts["cancelled calls"] += 1

    async def cancel_run(self) -> None:
        """A run that is cancelled by its id, from another call."""
        listed = checked(await self.client.call_tool("kimi_run", {})).structured["answer"]
        running = [line.split()[0] for line in listed.splitlines() if " running " in line]
        if running:
            await self.call("kimi_run", run_id=self.draw.choice(running), action="cancel")

    async def resources(self) -> None:
        await self.client.list_resources()
        await self.client.read_resource("kimi://runs")
        if self.runs:
            await self.client.read_resource(f"kimi://runs/{self.draw.choice(self.runs)}")
        self.counts["resources"] += 1


def flat(samples: list[Sample]) -> None:
    """The last third holds no more than the first, but for a generous margin."""
    samples = samples[int(len(samples) * WARM_UP) :]
    third = len(samples) // 3
    first, last = samples[:third], samples[-third:]

    def medians(name: str) -> tuple[float, float]:
        return median(getattr(one, name) for one in first), median(getattr(one, name) for one in last)

    figures = {name: medians(name) for name in Sample.__slots__}
    print({name: f"{before:.1f} -> {after:.1f}" for name, (before, after) in figures.items()}, f"{len(samples)} looks")
    before, after = figures["rss_mb"]
    assert after <= before * MORE_RSS + MORE_RSS_MB
    before, after = figures["descriptors"]
    assert after <= before + MORE_DESCRIPTORS
    before, after = figures["threads"]
    assert after <= before + MORE_THREADS


async def test_memory_descriptors_and_threads_stay_flat_under_mixed_load(tmp_path: Path) -> None:
    log, samples = tmp_path / "log", list[Sample]()
    steps = [{"match": {"text": text}, "times": "always", **fault} for text, fault in FAULTS.items()]
    async with Simulator(provider="simulator") as sim:
        sim.play({"match": {"text": SLOW}, "times": "always", "content_tokens": 600, "token_every": 0.05}, *steps)
        others = children()
        async with server_process(sim, stderr=log, KIMI_LOG_LEVEL="ERROR", KIMI_BUDGET_USD_PER_SWARM="100") as client:
            (pid,) = children() - others
            until = anyio.current_time() + MINUTES * 60
            load = Load(client, random.Random(SEED), until)
            with anyio.fail_after(MINUTES * 60 + 180):
                async with anyio.create_task_group() as workers:
                    for _ in range(WORKERS):
                        workers.start_soon(load.work)
                    while anyio.current_time() < until:
                        samples.append(Sample.of(pid))
                        await anyio.sleep(1)
            print(f"seed {SEED}, {sum(load.counts.values())} results", dict(sorted(load.counts.items())))
            last = checked(await client.call_tool("kimi_instant", {"prompt": "Still there?"}))
            assert last.status == "completed"
    flat(samples)
    assert load.counts["kimi_think completed"] > 10
    assert load.counts["kimi_swarm completed"] > 1
    assert load.counts["cancelled calls"] > 3
    assert "error internal" not in load.counts
    assert log.read_text() == "", "the server has nothing to complain about"
