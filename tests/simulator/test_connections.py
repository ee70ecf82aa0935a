"""HTTP as bare clients speak it, and requests that mean harm."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import anyio
import pytest

from kimi_mcp.simulator import Simulator
from kimi_mcp.simulator.answers import compose
from kimi_mcp.simulator.checks import read_chat
from kimi_mcp.simulator.dialects import DIALECTS, FACTS_DAY, Dialect
from kimi_mcp.simulator.faults import DEFAULT_STEP
from kimi_mcp.simulator.refusals import Refused
from tests.simulator.requests import (
    INSTANT,
    SCHEMAS,
    THINK,
    WEATHER,
    answer,
    bare,
    chunks_of,
    data_url,
    dechunked,
    png,
    post,
    request_bytes,
    seeing,
)

pytestmark = pytest.mark.anyio


def closing(body: Any) -> bytes:
    return request_bytes(body).replace(b"host: x\r\n", b"host: x\r\nconnection: close\r\n")


async def test_requests_that_come_together_are_answered_in_order(sim: Simulator) -> None:
    sim.play({"content": "first"}, {"content": "second"})
    got, _ = await bare(sim, request_bytes(INSTANT) + closing(INSTANT))
    assert got.count(b"HTTP/1.1 200 OK") == 2
    assert got.index(b"first") < got.index(b"second")


async def test_a_client_may_ask_before_it_sends_its_body(sim: Simulator) -> None:
    got, _ = await bare(sim, closing(INSTANT).replace(b"host: x\r\n", b"host: x\r\nexpect: 100-continue\r\n"))
    assert b"HTTP/1.1 200 OK" in got


async def test_a_body_may_come_in_chunks(sim: Simulator) -> None:
    data = json.dumps(INSTANT).encode()
    head = closing(INSTANT).partition(b"content-length")[0] + b"transfer-encoding: chunked\r\n\r\n"
    pieces = b"".join(b"%x\r\n%b\r\n" % (1, data[at : at + 1]) for at in range(len(data)))
    got, _ = await bare(sim, head + pieces + b"0\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200 OK")
    assert sim.requests[0].raw == len(data)


async def test_a_body_in_broken_chunks_is_refused(sim: Simulator) -> None:
    head = closing(INSTANT).partition(b"content-length")[0] + b"transfer-encoding: chunked\r\n\r\n"
    got, _ = await bare(sim, head + b"zz\r\n")
    assert got.startswith(b"HTTP/1.1 400 ")
    assert [(one.outcome, one.status) for one in sim.requests] == [("answered", 400)]


async def test_a_client_of_http_1_0_gets_a_stream_without_chunks(sim: Simulator) -> None:
    got, ending = await bare(sim, request_bytes({**THINK, "stream": True}).replace(b"HTTP/1.1", b"HTTP/1.0"))
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body.endswith(b"data: [DONE]\n\n")
    assert ending == "eof"


async def test_a_client_that_leaves_while_it_uploads_is_gone(sim: Simulator) -> None:
    host, port = sim.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    async with await anyio.connect_tcp(host, int(port)) as stream:
        await stream.send(request_bytes(INSTANT)[:-10])
    await sim.client_gone()
    assert sim.requests[0].body is None


async def test_a_client_that_hangs_up_after_the_last_byte_was_answered(sim: Simulator) -> None:
    for _ in range(20):
        got, _ = await bare(sim, closing({**THINK, "stream": True}))
        assert chunks_of(dechunked(got))
    assert {one.outcome for one in sim.requests} == {"answered"}


async def test_of_two_limits_max_completion_tokens_holds(sim: Simulator) -> None:
    got = (await post(sim, {**INSTANT, "max_tokens": 900, "max_completion_tokens": 4})).json()
    assert got["usage"]["completion_tokens"] == 4


async def test_web_search_is_taken_in_instant_mode(sim: Simulator) -> None:
    tools = [{"type": "builtin_function", "function": {"name": "$web_search"}}]
    await answer(sim, {**INSTANT, "tools": tools})


@pytest.mark.parametrize("stream", [False, True])
async def test_a_lone_surrogate_comes_back_as_json(sim: Simulator, stream: bool) -> None:
    body = {**INSTANT, "messages": [{"role": "user", "content": "\ud800 é"}], "stream": stream}
    got = await post(sim, None, data=json.dumps(body).encode())
    answers = chunks_of(got.content) if stream else [got.json()]
    assert "\\ud800" in json.dumps(answers)


async def test_nothing_that_nests_too_deep_stops_the_simulator(sim: Simulator) -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(600):
        deep = {"type": "array", "items": deep}
    tool = copy.deepcopy(WEATHER)
    tool["function"]["parameters"]["properties"]["city"] = deep
    assert (await post(sim, {**INSTANT, "tools": [tool]})).status_code in (200, 400)
    assert (await post(sim, INSTANT)).status_code == 200


BASES: list[dict[str, Any]] = [
    {**THINK, "tools": [WEATHER], "tool_choice": "auto", "stop": ["x"], "stream": True, "stream_options": {}},
    {
        **INSTANT,
        "temperature": 0.6,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMAS["nested"]}},
    },
    seeing("image", data_url("image/png", png())),
    {
        **THINK,
        "messages": [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {
                "role": "assistant",
                "reasoning_content": "",
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "a", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "a", "content": "b"},
        ],
    },
]
VALUES: list[Any] = [
    10**9,
    None,
    True,
    0,
    -1,
    0.5,
    "",
    "x",
    "ms://x",
    "data:,",
    [],
    [[]],
    [None],
    {},
    {"type": "x"},
    {"url": 7},
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, one in inner for found in places(one, (*path, key)))]


def outcome(body: Any, dialect: Dialect) -> int:
    try:
        chat = read_chat(body, dialect, FACTS_DAY, lambda _: None)
    except Refused as refused:
        return refused.status
    compose(chat, DEFAULT_STEP)
    return 200


@pytest.mark.parametrize("provider", ["moonshot", "vllm", "together"])
def test_no_malformed_request_is_anything_but_answered_or_refused(provider: str) -> None:
    seeded = random.Random(7)
    dialect = DIALECTS[provider]
    for base in BASES:
        for path in places(base):
            for value in seeded.sample(VALUES, 8):
                body: Any = copy.deepcopy(base)
                body["model"] = dialect.serves[-1].id
                spot: Any = {"": body}
                for key in ("", *path)[:-1]:
                    spot = spot[key]
                spot[("", *path)[-1]] = value
                assert outcome(body, dialect) in (200, 400, 404, 500)
