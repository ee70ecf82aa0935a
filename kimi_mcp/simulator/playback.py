"""Owns sending a response in time: pace, gates, comments, stalls, cuts. I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn, Protocol

import anyio

from kimi_mcp.simulator.faults import Step
from kimi_mcp.simulator.http import Reply
from kimi_mcp.simulator.sse import COMMENT, Event, split_bytes

_BATCH = 64
"""Events in one TCP write where nothing asks for a pace."""

STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


class Gates(Protocol):
    """Where a response may be held."""

    async def pass_gate(self, name: str) -> None:
        """Return once the gate is open."""
        ...


async def play_stream(
    reply: Reply, step: Step, events: Sequence[Event], gates: Gates, headers: Mapping[str, str]
) -> None:
    """Send a streamed response; raises CutOff where the step cuts it."""
    await _before(step, gates)
    framing = step.framing or "chunked"
    length = sum(len(event.data) for event in events)
    await reply.head(
        step.status or 200, _headers(STREAM_HEADERS, headers, step.headers), framing=framing, length=length
    )
    if step.comments_every is not None:
        await _comments(reply, step.comments_every)
    await _play_events(reply, step, events, gates)


async def _play_events(reply: Reply, step: Step, events: Sequence[Event], gates: Gates) -> None:
    pace = step.pace
    started, spoken = anyio.current_time(), 0
    batch: list[bytes] = []
    for event in events:
        if event.hold is not None:
            await _flush(reply, step, batch)
            await gates.pass_gate(event.hold)
            started, spoken = anyio.current_time(), 0
            continue
        if pace and event.tokens:
            spoken += event.tokens
            wait = started + spoken / pace - anyio.current_time()
            if wait > 0:
                await _flush(reply, step, batch)
                await anyio.sleep(wait)
        if len(batch) >= _BATCH:
            await _flush(reply, step, batch)
        batch.append(event.data)
    await _flush(reply, step, batch, last=True)


async def _flush(reply: Reply, step: Step, batch: list[bytes], *, last: bool = False) -> None:
    if not batch and not last:
        return
    if step.split is None:
        await reply.write(batch, last=last)
    else:
        await _write_split(reply, b"".join(batch), step.split, last=last)
    batch.clear()


async def _write_split(reply: Reply, data: bytes, split: int | str, *, last: bool) -> None:
    *earlier, final = split_bytes(data, split) or [b""]
    for piece in earlier:
        await reply.write([piece])
    await reply.write([final], last=last)


async def play_body(
    reply: Reply,
    step: Step,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    gates: Gates,
    *,
    spoken: int = 0,
) -> None:
    """Send a response that is one body; raises CutOff where the step cuts it."""
    await _before(step, gates)
    if step.pace and spoken:
        await anyio.sleep(spoken / step.pace)
    await reply.head(status, _headers(headers, step.headers), framing=step.framing or "length", length=len(body))
    if step.gate and step.gate_at != "start":
        await gates.pass_gate(step.gate)
    if step.comments_every is not None:
        await _comments(reply, step.comments_every)
    if step.split is None:
        await reply.write([body], last=True)
    else:
        await _write_split(reply, body, step.split, last=True)


def _headers(*layers: Mapping[str, str]) -> dict[str, str]:
    """The headers of all layers; a later one replaces an earlier one of its name."""
    return {name.lower(): value for layer in layers for name, value in layer.items()}


async def _before(step: Step, gates: Gates) -> None:
    if step.delay:
        await anyio.sleep(step.delay)
    if step.gate and step.gate_at == "start":
        await gates.pass_gate(step.gate)


async def _comments(reply: Reply, every: float) -> NoReturn:
    while True:
        await reply.write([COMMENT])
        await anyio.sleep(every)
