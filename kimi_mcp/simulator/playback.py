"""Owns sending a response in time: pace, gates, comments, stalls, cuts. I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import anyio

from kimi_mcp.simulator.faults import Step
from kimi_mcp.simulator.http import ResponseWriter
from kimi_mcp.simulator.sse import COMMENT, Event, split_bytes
from kimi_mcp.simulator.state import SimulatorState

_BATCH = 64
"""Events in one TCP write where no pace is set."""

STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


async def play_stream(
    writer: ResponseWriter, step: Step, events: Sequence[Event], state: SimulatorState, headers: Mapping[str, str]
) -> None:
    """Send a streamed response; raises CutOff where the step cuts it."""
    await _delay(step, state)
    length = sum(len(event.data) for event in events)
    headers = _merged(STREAM_HEADERS, headers, step.headers)
    await writer.start(step.status or 200, headers, framing=step.framing or "chunked", length=length)
    if step.comments_every is not None:
        await _comments(writer, step.comments_every)
    started, sent_tokens = anyio.current_time(), 0
    batch: list[bytes] = []

    async def flush(*, last: bool = False) -> None:
        if state.on_event:
            for data in batch:
                state.on_event(step, data)
        if batch or last:
            await _write(writer, step, b"".join(batch), last=last)
        batch.clear()

    for event in events:
        if event.hold is not None:
            await flush()
            await state.pass_gate(event.hold)
            started, sent_tokens = anyio.current_time(), 0
            continue
        if step.pace and event.tokens:
            sent_tokens += event.tokens
            wait = started + sent_tokens / step.pace - anyio.current_time()
            if wait > 0:
                await flush()
                await anyio.sleep(wait)
        if len(batch) >= _BATCH:
            await flush()
        batch.append(event.data)
    await flush(last=True)


async def play_body(
    writer: ResponseWriter,
    step: Step,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    state: SimulatorState,
    *,
    tokens: int = 0,
) -> None:
    """Send a response that is one body of so many tokens; raises CutOff where the step cuts it."""
    await _delay(step, state)
    if step.pace and tokens:
        await anyio.sleep(tokens / step.pace)
    headers = _merged(headers, step.headers)
    await writer.start(status, headers, framing=step.framing or "length", length=len(body))
    if step.gate and step.gate_at != "start":
        await state.pass_gate(step.gate)
    if step.comments_every is not None:
        await _comments(writer, step.comments_every)
    await _write(writer, step, body, last=True)


async def _write(writer: ResponseWriter, step: Step, data: bytes, *, last: bool) -> None:
    *earlier, final = split_bytes(data, step.split) if step.split and data else [data]
    for piece in earlier:
        await writer.write(piece)
    await writer.write(final, last=last)


def _merged(*layers: Mapping[str, str]) -> dict[str, str]:
    """The headers of all layers; a later one replaces an earlier one of its name."""
    return {name.lower(): value for layer in layers for name, value in layer.items()}


async def _delay(step: Step, state: SimulatorState) -> None:
    if step.delay:
        await anyio.sleep(step.delay)
    if step.gate and step.gate_at == "start":
        await state.pass_gate(step.gate)


async def _comments(writer: ResponseWriter, every: float) -> NoReturn:
    while True:
        await writer.write(COMMENT)
        await anyio.sleep(every)
