"""Many principals at one server over HTTP: the slowest beside the fastest, and single calls beside another's swarm.

200 principals, each with a token, make 5 calls at once, in a shuffled order, as from 200 machines; the server sends 16
requests at once, and the source takes 0.4 s for each. A principal's wait is the mean of its calls', from the moment in
which all are sent to the answer. Then ten principals make one call after the other, which takes the provider half a
second to one and a half: alone, and beside the swarm of another one, whose 100 agents want more slots than there are.
What is compared is the mean wait of the slowest of the ten; with one queue for all the ratio would be about 1.6.
"""

from __future__ import annotations

import random
import selectors
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from benchmarks import agents, http_client, processes, tokens
from benchmarks.http_client import Connection, HttpServer
from benchmarks.processes import NEWEST, Source
from benchmarks.report import Row, row
from kimi_mcp.server.http.auth.scopes import USE
from kimi_mcp.server.http.auth.token_file import TokenFile, utc_now

PRINCIPALS, CALLS, SINGLES = 200, 5, 10

GROWS_S = 15.0
"""Until the agents of a swarm, which begin one after the other, want more slots than they get."""


def measure(*, quick: bool) -> Iterator[Row]:
    yield _all_at_once(1 if quick else 2)
    yield _beside_a_swarm(10.0 if quick else 40.0)


def _all_at_once(rounds: int) -> Row:
    prompt = tokens.prompt(20, 50)
    slowest: list[float] = []
    fastest: list[float] = []
    with processes.token_source() as source, _server(source, PRINCIPALS, prompt) as (server, keys):
        for _ in range(rounds):
            waits = _mean_waits(server, keys * CALLS, lambda: prompt)
            each = [mean(waits[at::PRINCIPALS]) for at in range(PRINCIPALS)]
            slowest.append(max(each))
            fastest.append(min(each))
    return row("mean wait of the slowest of 200 principals, s", slowest, "the fastest of them", fastest, most=2.0)


def _beside_a_swarm(seconds: float) -> Row:
    draw = random.Random(0)

    def prompt() -> str:
        return agents.prompt(0, 1, round(draw.uniform(0.5, 1.5), 2))

    provider = processes.Process("-m", "benchmarks.agents")
    with processes.closing([provider]):
        source = Source(base_url=provider.output.readline().decode().strip())
        with _server(source, SINGLES + 1, prompt()) as (server, keys):
            alone = _mean_waits(server, keys[1:], prompt, seconds)
            with Connection(server, NEWEST, token=keys[0], tool="kimi_swarm") as swarm:
                swarm.call(agents.prompt(100, 90, 1.0))
                time.sleep(GROWS_S)
                beside = _mean_waits(server, keys[1:], prompt, seconds)
    return row("a call's mean wait beside a swarm of 100, s", [max(beside)], "the same alone", [max(alone)], most=1.3)


@contextmanager
def _server(source: Source, principals: int, prompt: str) -> Generator[tuple[HttpServer, list[str]]]:
    """A server that has answered a call, and a token of each principal."""
    with TemporaryDirectory(prefix="kimi-mcp-bench-") as folder:
        path = Path(folder) / "tokens.json"
        keys = [TokenFile(path).add(f"number-{number}", USE, now=utc_now())[1] for number in range(principals)]
        environment = {
            "KIMI_HTTP_TOKENS": str(path),
            "KIMI_QUOTA_CALLS_PER_MINUTE": "1000000",
            "KIMI_BUDGET_USD_PER_SWARM": "1000",
            "KIMI_ROOTS": folder,  # so that agents have tools, and go on
        }
        server = http_client.ours(source, at_once=16, **environment)
        with processes.closing([server]):
            server.get("/readyz")
            _mean_waits(server, keys[:1], lambda: prompt)
            yield server, keys


def _mean_waits(
    server: HttpServer, keys: Sequence[str], prompt: Callable[[], str], seconds: float = 0.0
) -> list[float]:
    """A call with each token at once, in a shuffled order, and others after it for so long; the mean wait of each."""
    waits: dict[int, list[float]] = defaultdict(list)
    with ExitStack() as opened, selectors.DefaultSelector() as selector:
        connections = [opened.enter_context(Connection(server, NEWEST, token=key)) for key in keys]
        for at in random.Random(0).sample(range(len(keys)), len(keys)):
            selector.register(connections[at].socket, selectors.EVENT_READ, at)
        began = time.monotonic()
        sent = [began] * len(keys)
        for key in selector.get_map().values():
            connections[key.data].call(prompt())
        running = len(keys)
        while running:
            for key, _ in selector.select():
                at: int = key.data
                if (message := connections[at].read()) is None:
                    continue
                assert http_client.succeeded(message), message
                now = time.monotonic()
                waits[at].append(now - sent[at])
                if now - began < seconds:
                    sent[at] = now
                    connections[at].call(prompt())
                else:
                    running -= 1
    return [mean(waits[at]) for at in range(len(keys))]
