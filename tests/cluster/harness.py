"""A cluster of real processes: replicas, PostgreSQL, a balancer; the provider is a simulator of this process. I/O.

The simulator's log tells which replica sent what: each has its own name for a key.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from math import ceil, inf
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import psycopg
from sqlalchemy import make_url

from kimi_mcp.simulator import ReceivedRequest, Simulator
from scripts.cluster.processes import Balancer, Program, Replica, received_from, replica_environment
from scripts.demo import library
from tests.postgres import PASSWORD, Postgres, postgres
from tests.server.http.served import newest, newest_headers

SEED = int(os.environ.get("TEST_SEED", random.randrange(1_000_000)))
"""Repeats the choices of a chaos test."""

FULL = os.environ.get("CLUSTER_FULL", "") == "1"
"""Whether a chaos test takes as long as it should once, and not as short as it may each time."""

TOOL, OFFERED = "library__look_up", "library.look_up"
"""A tool of the sub-agents: as a model calls it, as a caller names it."""

CLOCKS_S = 0.002
"""Seconds by which two readings of clocks may differ."""

Key = tuple[str, int]
"""A request of an agent: its task, and how often the model had answered it before."""


def chat_key(request: ReceivedRequest) -> Key:
    """Which step of which agent a request makes."""
    assert request.body is not None
    messages: Any = request.body["messages"]
    task = next(message["content"] for message in messages if message["role"] == "user")
    return str(task), sum(message["role"] == "assistant" for message in messages)


def working(task: str, steps: int, delay: float) -> list[dict[str, Any]]:
    """What the simulator plays for agents with such a task: a look-up in each step but the last, then an answer."""
    call = {"name": TOOL, "arguments": {"city": "Rome"}}
    turns = [
        {"match": {"text": task, "turns": turn}, "tool_calls": [{**call, "id": f"functions.look_up:{turn}"}],
         "delay": delay, "times": "always"}
        for turn in range(steps - 1)
    ]  # fmt: skip
    answer = {"match": {"text": task, "turns": steps - 1}, "content": "All is known of it.", "delay": delay}
    together = {"match": {"system": "Several agents have worked"}, "content": "All is known of all.", "delay": delay}
    return [{**together, "times": "always"}, *turns, {**answer, "times": "always"}]


class Cluster:
    """Replicas of one database, each of which may die; those that replace them have names of their own."""

    def __init__(self, sim: Simulator, database: Postgres, folder: Path, variables: Mapping[str, str]) -> None:
        self.sim, self.database, self.folder = sim, database, folder
        library_file = folder / "mcp.json"
        library_server = {"command": sys.executable, "args": [library.__file__]}
        library_file.write_text(json.dumps({"mcpServers": {"library": library_server}}), "utf-8")
        self.environment = replica_environment(
            database.url,
            sim.base_url,
            **{"KIMI_REPLY_WITHIN_S": "1", "KIMI_SWARM_MCP": str(library_file), "KIMI_LOG_LEVEL": "INFO", **variables},
        )
        """What all replicas have."""
        self.programs: list[Program] = []
        """All that was ever started."""
        self.replicas: list[Replica] = []
        """Those that are meant to live."""
        self.killed: set[str] = set()
        """The names of those that were killed."""
        self._http = httpx2.AsyncClient(timeout=httpx2.Timeout(120, connect=10), trust_env=False)
        self._draw = random.Random(SEED)

    async def aclose(self) -> None:
        """End every process."""
        await self._http.aclose()
        async with anyio.create_task_group() as tasks:
            for program in self.programs:
                tasks.start_soon(anyio.to_thread.run_sync, partial(program.end, 15))

    # ── processes ─────────────────────────────────────────────────────────────────────────────────────────────────

    def replica(self, name: str | None = None, **how: Any) -> Replica:
        """Start another one, without waiting."""
        name = name or f"replica-{sum(isinstance(each, Replica) for each in self.programs) + 1}"
        environment = {**self.environment, **how.pop("environment", {})}
        made = Replica(name, folder=self.folder, environment=environment, **how)
        self.programs.append(made)
        self.replicas.append(made)
        made.start()
        return made

    async def start(self, number: int = 3, **how: Any) -> list[Replica]:
        """Start so many; they are ready."""
        made = [self.replica(**how) for _ in range(number)]
        await self.ready(*made)
        return made

    async def ready(self, *programs: Program) -> None:
        """Return once they are."""
        for program in programs:
            await anyio.to_thread.run_sync(program.wait_ready)

    async def balanced(self, replicas: Sequence[Replica]) -> Balancer:
        """A balancer before them."""
        made = Balancer([replica.port for replica in replicas], folder=self.folder)
        self.programs.append(made)
        made.start()
        await self.ready(made)
        return made

    def kill(self, replica: Replica) -> None:
        """Kill one without any warning."""
        self.replicas.remove(replica)
        self.killed.add(replica.name)
        replica.signal(signal.SIGKILL)

    def named(self, name: str) -> Replica:
        """The one of that name."""
        return next(each for each in self.replicas if each.name == name)

    # ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def call(self, tool: str, url: str | None = None, **arguments: Any) -> dict[str, Any]:
        """A tool's result by one of the living; raises ``httpx2.TransportError`` where that one died meanwhile."""
        return (await self.result(tool, arguments, url))["structuredContent"]

    async def result(
        self, tool: str, arguments: Mapping[str, Any], url: str | None = None, *, can_ask: bool = False, **more: Any
    ) -> dict[str, Any]:
        """All of a call's result, likewise; ``can_ask``: whether its host can ask its user, ``more``: parameters."""
        url = url or self._draw.choice(self.replicas).url
        message = newest("tools/call", {"name": tool, "arguments": dict(arguments), **more})
        if can_ask:
            capabilities = {"elicitation": {"form": {}}}
            message["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities
        response = await self._http.post(url, json=message, headers=newest_headers("tools/call", tool))
        if response.status_code == 503:
            raise httpx2.ConnectError("it takes no calls")
        assert response.status_code == 200, response.text
        text = response.text
        if response.headers["content-type"].startswith("text/event-stream"):
            text = [line for line in text.splitlines() if line.startswith("data: ")][-1].removeprefix("data: ")
        answer = json.loads(text)
        assert "result" in answer, answer
        return answer["result"]

    async def requested(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Likewise, by another one as long as they die."""
        while True:
            try:
                return await self.call(tool, **arguments)
            except httpx2.TransportError:
                await anyio.sleep(0.1)

    async def swarm(self, prompt: str, items: Sequence[str], url: str | None = None) -> str:
        """Begin a swarm with an agent for each item; its run."""
        result = await self.call("kimi_swarm", url, prompt=prompt, items=list(items), tools=[OFFERED])
        assert result["status"] in ("running", "completed"), result
        return result["run_id"]

    async def begun(self, prompt: str, items: Sequence[str]) -> str:
        """Likewise, by another one where it dies at once; in other words: the first may have begun all the same."""
        for attempt in count(1):
            try:
                return await self.swarm(prompt if attempt == 1 else f"{prompt} Attempt {attempt}.", items)
            except httpx2.TransportError:
                await anyio.sleep(0.1)
        raise AssertionError

    async def ended(self, run_id: str) -> dict[str, Any]:
        """The result of a run, once it has ended."""
        while (result := await self.requested("kimi_run", run_id=run_id, wait_s=5))["status"] == "running":
            pass
        return result

    # ── what was received ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def chats(self) -> list[ReceivedRequest]:
        """The requests for an answer, in order of arrival."""
        return [each for each in self.sim.requests if each.path.endswith("/chat/completions") and each.body is not None]

    def chats_of(self, name: str) -> list[ReceivedRequest]:
        """Those that a replica sent."""
        return [each for each in self.chats if received_from(each.headers) == name]

    def at_work(self) -> Counter[str]:
        """How many requests of each replica are open."""
        return Counter(received_from(each.headers) for each in self.chats if each.outcome == "open")

    def answered(self) -> int:
        """How many were answered."""
        return sum(each.outcome == "answered" for each in self.chats)

    async def until(self, condition: Callable[[], bool], within_s: float = 120) -> None:
        """Return once the condition holds, which the log of the provider changes; raises TimeoutError."""
        await self.sim.until(condition, within_s)

    def repeated(self) -> dict[Key, list[ReceivedRequest]]:
        """The requests that came more than once."""
        found: dict[Key, list[ReceivedRequest]] = {}
        for request in self.chats:
            found.setdefault(chat_key(request), []).append(request)
        return {key: sent for key, sent in found.items() if len(sent) > 1}

    def doubles(self) -> list[str]:
        """Requests that were sent again although whoever had sent them before was never killed."""
        return [
            f"{key}: {[received_from(each.headers) for each in sent]}"
            for key, sent in self.repeated().items()
            if any(received_from(each.headers) not in self.killed for each in sent[:-1])
        ]

    # ── what is stored ────────────────────────────────────────────────────────────────────────────────────────────

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the database."""
        url = make_url(self.database.url)
        known = {"host": url.host, "port": url.port, "user": url.username, "dbname": url.database}
        with psycopg.connect(**known, password=PASSWORD) as connection:
            return connection.execute(sql.encode()).fetchall()

    def stored(self) -> list[tuple[Any, ...]]:
        """All that is stored of runs and their steps."""
        runs = self.rows("SELECT id, owner, status, answer, reasoning, outcome, ended_at FROM runs ORDER BY id")
        steps = self.rows("SELECT run_id, key, told, result, ended_at FROM steps ORDER BY run_id, key")
        return runs + steps + self.rows("SELECT count(*) FROM pieces")

    async def asked_again(self) -> list[Key]:
        """Steps whose request was sent again after their end was recorded."""
        finished = await anyio.to_thread.run_sync(self._finished)
        to_wall = time.time() - anyio.current_time()
        repeated = self.repeated().items()
        return [key for key, sent in repeated if sent[-1].at + to_wall > finished.get(key, inf) + CLOCKS_S]

    def _finished(self) -> dict[Key, float]:
        """When the requests of agents were recorded as finished, by the wall clock."""
        rows = self.rows("SELECT run_id, told, ended_at FROM steps WHERE ended_at IS NOT NULL")
        steps = [(run_id, json.loads(reported), ended_at) for run_id, reported, ended_at in rows]
        tasks = {(run_id, about["agent"]): about["task"] for run_id, about, _ in steps if "task" in about}
        return {
            (tasks[run_id, about["agent"]], about["step"] - 1): ended_at
            for run_id, about, ended_at in steps
            if about["kind"] == "request"
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """By nearest rank; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)] if ordered else 0.0


@asynccontextmanager
async def cluster(tmp_path: Path, **variables: str) -> AsyncIterator[Cluster]:
    """A cluster without replicas yet; all of it ends with the block."""
    async with Simulator(provider="simulator") as sim:
        with postgres() as database:
            made = Cluster(sim, database, tmp_path, variables)
            try:
                yield made
            finally:
                with anyio.CancelScope(shield=True):
                    await made.aclose()
