"""A server before hostile upstreams: each day those that are quick; the soak test has all, with memory and pauses."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator

import anyio
import pytest

from kimi_mcp.provider.decoding import StreamAccumulator
from tests.provider.hostile import BODIES, BROKEN, CUT, FRAMED, HEADS, ODD, REFUSED, SLOW, TABLE, serve
from tests.server.clients import KimiClient, connect
from tests.server.keys import KEY
from tests.server.results import Result

ENDLESS = {name for name, hostile in TABLE.items() if hostile.codes in (CUT, SLOW)}
"""They end at a deadline, or after tens of megabytes."""

WORST = ("text-without-end", "a-line-without-end", "a-model-of-20-MB", "json-of-lists", "empty-lines-of-one-event")
"""Those of them that are looked at each day."""

SLOWER = ("a-body-nested-for-ever", "objects-nested-for-ever", "comments-without-end-after-the-end", "byte-by-byte")

NAMES = sorted((TABLE.keys() - ENDLESS - {*SLOWER}) | {*WORST})


@pytest.fixture
def url() -> Iterator[str]:
    """Where all of them are."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        address, ended = listening.getsockname(), threading.Event()
        serving = threading.Thread(target=serve, args=(listening, ended), daemon=True)
        serving.start()
        yield f"http://127.0.0.1:{address[1]}/v1"
        ended.set()
        socket.create_connection(address).close()
        serving.join()


def settings(url: str) -> dict[str, str]:
    return {"provider": "moonshot", "KIMI_BASE_URL": url, "KIMI_API_KEY": KEY, "KIMI_MODEL": "kimi-k2.6"}


def wrong(name: str, result: Result) -> str | None:
    """What is wrong with the result; None: nothing."""
    expected = TABLE[name]
    if result.code not in expected.codes:
        return f"{name}: the code {result.code}, not one of {expected.codes}"
    fits = expected.answer is None or expected.answer == result.answer
    return None if fits else f"{name}: the answer {result.answer[:60]!r}"


@pytest.mark.soak
async def test_every_quick_hostile_upstream_gets_a_right_code(url: str) -> None:
    assert len(NAMES) > 68
    with anyio.fail_after(120):
        async with connect(None, **settings(url)) as kimi:
            results = {name: await kimi.instant(f"Greet me, <{name}>.") for name in NAMES}
    assert [fault for name in NAMES if (fault := wrong(name, results[name]))] == []


async def ask_often(kimi: KimiClient, name: str) -> int:
    """Call a few times; how many answers are in memory afterwards."""
    for number in range(5):
        await kimi.instant(f"Greet me {number} times, <{name}>.")
    return sum(isinstance(one, StreamAccumulator) for one in gc.get_objects())


@pytest.mark.soak
@pytest.mark.parametrize(
    "name", ["no-type", "silence-after-the-end", "no-end", "an-error-in-the-middle", "a-page-for-401"]
)
async def test_an_answer_leaves_memory_with_its_call_and_waits_for_no_collector(url: str, name: str) -> None:
    with anyio.fail_after(60):
        async with connect(None, **settings(url)) as kimi:
            await ask_often(kimi, name)
            gc.collect()
            gc.disable()
            try:
                before, after = await ask_often(kimi, name), await ask_often(kimi, name)
            finally:
                gc.enable()
    assert after <= before


def test_the_table_is_whole() -> None:
    assert len(TABLE) == sum(map(len, (HEADS, REFUSED, BODIES, ODD, FRAMED))) >= 68
    assert {BROKEN, CUT, SLOW} <= {hostile.codes for hostile in TABLE.values()}
