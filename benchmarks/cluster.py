"""Several machines: replicas on one PostgreSQL, all of them processes of this machine. Needs the extra ``cluster``.

A provider of the benchmark's own (``agents``) plays the swarms and tells which replica sent which request: each has its
own name for a key. Pick-up is from the call until the provider has the swarm's first request. The critical path is the
critical steps of the result times a step's latency. CPU is that of all replicas and of every process of PostgreSQL
together; a durable step is a row of ``steps``, of a request or of a tool. Small calls go to all replicas at once, as
many in flight at each; their CPU is all CPU by the calls, less what the same processes use in that time while they are
idle. What grows with the number of replicas shows where one of six is called as much as a single one; where all are,
more processes than there are cores take turns, and each has less to write at once. While calls run PostgreSQL is asked
who waits for a lock.
Launches are not staged: what is measured is what we add.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import agents, processes
from benchmarks.http_client import Client, Connection, HttpServer
from benchmarks.processes import NEWEST, Process
from benchmarks.report import Row, row
from scripts.cluster.processes import cpu_s, replica_environment
from scripts.demo import library
from tests.postgres import Postgres, postgres

REPLICAS, MANY = 3, 6
AGENTS, STEPS, SWARMS = 60, 5, 5
IN_FLIGHT = 16
PICK_UPS = 40
WARM_UP = 128
IDLE_S = 20.0


def measure(*, quick: bool) -> Iterator[Row]:
    with _running(REPLICAS) as cluster:
        yield from _idle(cluster, 5.0 if quick else IDLE_S)
        yield from _swarm(cluster, 20 if quick else AGENTS, 1 if quick else SWARMS)
        yield from _pick_up(cluster, 10 if quick else PICK_UPS)
    number = 480 if quick else 2_400
    pairs = [(_calls(MANY, number, called=1), _calls(1, number)) for _ in range(1 if quick else 3)]
    single = "a single replica"
    ones, alone = ([each[at].cpu_ms for each in pairs] for at in (0, 1))
    yield row(f"CPU a small call in one of {MANY} replicas, ms", ones, single, alone, most=1.1)
    one = pairs[-1][1]
    for many in (REPLICAS, MANY):
        all_called = _calls(many, number)
        yield row(f"CPU a small call in all of {many} replicas, ms", [all_called.cpu_ms], single, [one.cpu_ms])
        yield row(f"calls a second in {many} replicas", [all_called.a_second], single, [one.a_second])
        yield Row(what=f"sessions that wait for a lock, of {many} replicas", ours=all_called.waiting, most=1.0)


class Cluster:
    """Replicas, their PostgreSQL, and the provider."""

    def __init__(self, database: Postgres, provider: str, replicas: Sequence[HttpServer]) -> None:
        self.database, self.provider, self.replicas = database, provider, replicas

    def cpu_s(self) -> float:
        """CPU seconds of all replicas and of PostgreSQL so far."""
        return sum(replica.cpu_s() for replica in self.replicas) + self._database_cpu_s()

    def received(self) -> list[tuple[float, str]]:
        """When the provider received each request since this was last asked, and from whom."""
        with urllib.request.urlopen(f"{self.provider}/received") as response:
            return [(at, sender) for at, sender in json.load(response)]

    def call(self, replica: HttpServer, tool: str, **arguments: Any) -> dict[str, Any]:
        """A tool's result."""
        with Connection(replica, NEWEST, tool=tool) as connection:
            _, message = connection.ask("tools/call", {"name": tool, "arguments": arguments})
        assert "result" in message, message
        return message["result"]["structuredContent"]

    def _database_cpu_s(self) -> float:
        # What ended since is in its parent's figures.
        postmaster = self.database.pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text("ascii").split()
        used = cpu_s(postmaster)
        for child in map(int, children):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                used += cpu_s(child)
        return used + cpu_s(postmaster, of_ended=True)


@contextmanager
def _running(replicas: int) -> Generator[Cluster]:
    """A cluster; it ends with the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="kimi-mcp-bench-")))
        tools = folder / "mcp.json"
        server = {"command": sys.executable, "args": [library.__file__]}
        tools.write_text(json.dumps({"mcpServers": {"library": server}}), "utf-8")
        database = stack.enter_context(postgres())
        provider = Process("-m", "benchmarks.agents", "library__look_up")
        stack.enter_context(processes.closing([provider]))
        url = provider.output.readline().decode().strip()
        environment = replica_environment(
            database.url, url, KIMI_REPLY_WITHIN_S="600", KIMI_SWARM_MCP=str(tools), KIMI_MODEL=agents.MODEL
        )
        made = [
            HttpServer(
                *("-m", "benchmarks.cluster_replica", "serve", "--transport", "http"),
                tool="kimi_think",
                environment={**environment, "KIMI_DATA_DIR": str(folder / name), "KIMI_API_KEY": name},
            )
            for name in (f"replica-{number + 1}" for number in range(replicas))
        ]
        stack.enter_context(processes.closing(made))
        for replica in made:
            while replica.get("/readyz") != 200:
                time.sleep(0.05)
        yield Cluster(database, url, made)


def _idle(cluster: Cluster, seconds: float) -> Iterator[Row]:
    time.sleep(3)
    before = [replica.cpu_s() for replica in cluster.replicas]
    time.sleep(seconds)
    used = [replica.cpu_s() - cpu for replica, cpu in zip(cluster.replicas, before, strict=True)]
    yield Row(what="an idle replica, % of a core", ours=100 * max(used) / seconds, most=3.0)
    held = cluster.database.query("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    yield Row(what="connections of an idle replica", ours=(int(held) - 1) / len(cluster.replicas), most=8.0)


def _swarm(cluster: Cluster, number: int, rounds: int) -> Iterator[Row]:
    first = agents.prompt(6, 3, 0.05)
    for replica in cluster.replicas:
        assert cluster.call(replica, "kimi_swarm", prompt=first)["status"] == "completed"
    walls, paths, busiest, others, each_cpu = list[float](), list[float](), list[float](), list[float](), list[float]()
    for _ in range(rounds):
        cluster.received()
        steps = int(cluster.database.query("SELECT count(*) FROM steps"))
        cpu, began = cluster.cpu_s(), time.perf_counter()
        result = cluster.call(cluster.replicas[0], "kimi_swarm", prompt=agents.prompt(number, STEPS, 1.0))
        walls.append(time.perf_counter() - began)
        cpu = cluster.cpu_s() - cpu
        assert result["status"] == "completed", result["error"]
        paths.append(result["swarm"]["critical_steps"] * 1.0)
        each_cpu.append(cpu * 1e3 / (int(cluster.database.query("SELECT count(*) FROM steps")) - steps))
        by = Counter(sender for _, sender in cluster.received())
        shares = [by[f"replica-{number + 1}"] / by.total() for number in range(len(cluster.replicas))]
        busiest.append(max(shares))
        others.append(1 - min(shares))
    what = f"wall of {number} × {STEPS} steps of 1 s over {len(cluster.replicas)} replicas"
    yield row(what, walls, "critical path", paths, most=1.25)
    yield Row(what="share of its requests that the busiest replica makes", ours=max(busiest), most=0.5)
    yield Row(what="share of them that all but the least busy one make", ours=max(others), most=0.8)
    cpu_ms = statistics.median(each_cpu)
    yield Row(what="CPU a durable step in a cluster, PostgreSQL included, ms", ours=cpu_ms, most=10.0)


def _pick_up(cluster: Cluster, number: int) -> Iterator[Row]:
    waits: list[float] = []
    for at in range(number):
        cluster.received()
        began = time.monotonic()
        replica = cluster.replicas[at % len(cluster.replicas)]
        cluster.call(replica, "kimi_swarm", prompt=agents.prompt(2, 1, 0.0))
        waits.append(min(received for received, _ in cluster.received()) - began)
    p95 = statistics.quantiles(waits, n=20)[-1]
    yield Row(what="pick-up of a swarm, p95, s", ours=p95, most=0.5)


class _Figures:
    """Of small calls."""

    def __init__(self, cpu_ms: float, a_second: float, waiting: float) -> None:
        self.cpu_ms, self.a_second, self.waiting = cpu_ms, a_second, waiting


def _calls(replicas: int, number: int, *, called: int | None = None) -> _Figures:
    """``called``: how many of the replicas get the calls; None: all."""
    with _running(replicas) as cluster:
        clients = [Client(replica, NEWEST, IN_FLIGHT) for replica in cluster.replicas[:called]]
        for client in clients:
            client.connect()
        prompt = agents.prompt(0, 1, 0.0)
        _at_once(clients, prompt, WARM_UP)
        idle = _idle_cores(cluster)
        over, waiting = threading.Event(), list[int]()
        looking = threading.Thread(target=_look, args=(cluster.database, over, waiting))
        cpu, began = cluster.cpu_s(), time.perf_counter()
        looking.start()
        _at_once(clients, prompt, number // len(clients))
        wall, cpu = time.perf_counter() - began, cluster.cpu_s() - cpu
        over.set()
        looking.join()
        for client in clients:
            client.close()
    made = number // len(clients) * len(clients)
    return _Figures((cpu - idle * wall) * 1e3 / made, made / wall, statistics.fmean(waiting or [0]))


def _idle_cores(cluster: Cluster) -> float:
    """The cores that all of it uses while nobody calls."""
    time.sleep(2)
    cpu = cluster.cpu_s()
    time.sleep(5)
    return (cluster.cpu_s() - cpu) / 5


def _at_once(clients: Sequence[Client], prompt: str, number: int) -> None:
    """So many calls of each client, of all at the same time."""
    failed: list[BaseException] = []

    def call(client: Client) -> None:
        try:
            client.calls(prompt, number, in_flight=IN_FLIGHT)
        except BaseException as fault:  # noqa: BLE001 - raised by who waits for it
            failed.append(fault)

    threads = [threading.Thread(target=call, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _look(database: Postgres, over: threading.Event, found: list[int]) -> None:
    """How many sessions wait for a lock, several times a second, until it is over."""
    while not over.wait(0.25):
        found.append(int(database.query("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")))
