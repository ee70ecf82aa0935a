"""Owns the events of an answer, streamed or whole, under a dialect and a scenario's step. Pure, no I/O.

Order: role, reasoning wholly before content, content, tool calls, finish_reason, usage, `[DONE]` (Moonshot streaming
guide; Kimi thinking-model guide).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from kimi_mcp.simulator import tokens
from kimi_mcp.simulator.answers import Answer
from kimi_mcp.simulator.dialects import Dialect
from kimi_mcp.simulator.faults import Step
from kimi_mcp.simulator.shapes import JsonObject, as_object

COMMENT = b": keep-alive\n\n"
"""A comment line, which no client may take for progress."""

DONE = b"data: [DONE]\n\n"

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Event:
    """One piece of a streamed response."""

    data: bytes
    tokens: int = 0
    """Tokens of the answer it carries: what the pace counts."""
    hold: str | None = None
    """Name of a gate to wait at before it is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What every chunk of one response repeats."""

    id: str
    created: int
    model: str
    """The model that the answer names."""
    prompt_tokens: int
    cached_tokens: int
    include_usage: bool


def encode(value: object) -> str:
    """Compact JSON, escaped where a lone surrogate could not be sent otherwise."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if not text.isascii() and _SURROGATE.search(text):
        return json.dumps(value, separators=(",", ":"))
    return text


def usage_object(answer: Answer, envelope: Envelope, dialect: Dialect) -> JsonObject:
    """The usage, cached tokens where the dialect reports them (Moonshot: `cached_tokens`)."""
    usage: JsonObject = {
        "prompt_tokens": envelope.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": envelope.prompt_tokens + answer.completion_tokens,
    }
    if dialect.moonshot:
        usage["cached_tokens"] = envelope.cached_tokens
    else:
        usage["prompt_tokens_details"] = {"cached_tokens": envelope.cached_tokens}
    if dialect.reports_reasoning_tokens:
        usage["completion_tokens_details"] = {"reasoning_tokens": answer.reasoning_tokens}
    return usage


def tool_call_objects(answer: Answer, step: Step) -> list[JsonObject]:
    """The calls as a message carries them, with the faults of the step."""
    made: list[JsonObject] = []
    for index, call in enumerate(answer.tool_calls):
        arguments = call.arguments
        if step.half_arguments and index == len(answer.tool_calls) - 1:
            arguments = arguments[: max(1, len(arguments) // 2)]
        entry: JsonObject = {
            "index": index,
            "id": answer.tool_calls[0].id if step.tool_call_ids == "duplicate" else call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": arguments},
        }
        if step.tool_call_ids == "missing":
            del entry["id"]
        made.append(entry)
    return made


def whole_answer(answer: Answer, envelope: Envelope, dialect: Dialect, step: Step) -> JsonObject:
    """The body of a response that is not streamed."""
    message: JsonObject = {"role": "assistant", "content": answer.content}
    if answer.reasoning is not None and not step.lose_reasoning:
        message[step.reasoning_field or dialect.reasoning_field] = answer.reasoning
    calls = tool_call_objects(answer, step)
    if calls:
        message["tool_calls"] = calls
        message["content"] = answer.content or None
    choice: JsonObject = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
    body: JsonObject = {
        "id": envelope.id,
        "object": "chat.completion",
        "created": envelope.created,
        "model": envelope.model,
        "choices": [] if step.empty_choices else [choice],
    }
    usage = usage_object(answer, envelope, dialect)
    if step.usage in ("choice", "both") and not step.empty_choices:
        choice["usage"] = usage
    if step.usage not in ("choice", "missing"):
        body["usage"] = usage
    return body


class _Chunks:
    """Builds the chunks of one stream."""

    def __init__(self, answer: Answer, envelope: Envelope, dialect: Dialect, step: Step) -> None:
        self.answer, self.envelope, self.dialect, self.step = answer, envelope, dialect, step
        self.usage = usage_object(answer, envelope, dialect)

    def chunk(self, *choices: JsonObject, count: int = 0, usage: bool = False) -> Event:
        """A chunk with these choices, and with the usage where it carries that; ``count``: its tokens."""
        body: JsonObject = {
            "id": self.envelope.id,
            "object": "chat.completion.chunk",
            "created": self.envelope.created,
            "model": self.envelope.model,
            "choices": [] if self.step.empty_choices else choices,
        }
        if usage or self.step.usage == "every":
            body["usage"] = self.usage
        return Event(f"data: {encode(body)}\n\n".encode(), count)

    def delta(self, delta: JsonObject, count: int = 0) -> Event:
        """A chunk with that delta."""
        return self.chunk({"index": 0, "delta": delta, "finish_reason": None}, count=count)

    def finish(self) -> Event:
        """The chunk with the finish reason, and Moonshot's usage inside the choice."""
        choice: JsonObject = {"index": 0, "delta": {}, "finish_reason": self.answer.finish_reason}
        if self.step.usage in ("choice", "both") or (self.step.usage is None and self.dialect.moonshot):
            choice["usage"] = self.usage
        return self.chunk(choice)


def _pieces(text: str, size: int) -> Iterator[tuple[str, int]]:
    found = tokens.pieces(text)
    for at in range(0, len(found), size):
        group = found[at : at + size]
        yield "".join(group), len(group)


def _answer_chunks(chunks: _Chunks) -> Iterator[tuple[str, Event]]:
    """The chunks that carry the answer, each with the kind of what it carries."""
    answer, step = chunks.answer, chunks.step
    size = 1 if step.token_every else max(1, step.event_tokens)
    field = step.reasoning_field or chunks.dialect.reasoning_field
    thought = [] if step.lose_reasoning else list(_pieces(answer.reasoning or "", size))
    written = list(_pieces(answer.content, size))
    if step.together:
        for (left, first), (right, second) in zip_longest(thought, written, fillvalue=("", 0)):
            delta: JsonObject = {name: text for name, text in ((field, left), ("content", right)) if text}
            yield "content" if right else "reasoning", chunks.delta(delta, first + second)
    else:
        reasoning = [("reasoning", chunks.delta({field: text}, count)) for text, count in thought]
        content = [("content", chunks.delta({"content": text}, count)) for text, count in written]
        yield from content + reasoning if step.content_first else reasoning + content
    for call in tool_call_objects(answer, step):
        function = as_object(call["function"]) or {}
        arguments = str(function["arguments"])
        opening = {**call, "function": {"name": function["name"], "arguments": ""}}
        yield "tool", chunks.delta({"tool_calls": [opening]}, 1)
        for text, count in _pieces(arguments, max(1, size // 4)):
            part: JsonObject = {"index": call["index"], "function": {"arguments": text}}
            yield "tool", chunks.delta({"tool_calls": [part]}, count)


def events(answer: Answer, envelope: Envelope, dialect: Dialect, step: Step) -> list[Event]:
    """Every event of a streamed answer, in order, with the additions and faults of the step."""
    chunks = _Chunks(answer, envelope, dialect, step)
    made: list[Event] = [Event(COMMENT)] * step.comments_before
    places: dict[str, int] = {"start": 0, "head": 0}
    made.append(chunks.delta({"role": "assistant", "content": ""}))
    for kind, event in _answer_chunks(chunks):
        made.append(event)
        places.setdefault(kind, len(made))
    places["finish"] = len(made)
    if not step.no_finish:
        made.append(chunks.finish())
    if step.usage in ("top", "both") or (step.usage is None and envelope.include_usage):
        made.append(chunks.chunk(usage=True))
    if not step.no_done:
        made.append(Event(DONE))

    def index(place: str | int) -> int:
        return min(place, len(made)) if isinstance(place, int) else places.get(place, places["finish"])

    return _disturbed(made, chunks, step, index(step.at), index(step.gate_at))


def _disturbed(made: list[Event], chunks: _Chunks, step: Step, at: int, gate_at: int) -> list[Event]:
    inserted: list[Event] = []
    if step.bad_json:
        whole = chunks.delta({"content": "cut"}).data
        inserted.append(Event(whole[: whole.rindex(b"cut") + 3] + b"\n\n"))
    if step.invalid_utf8:
        broken = chunks.delta({"content": "?"})
        inserted.append(Event(broken.data.replace(b'"?"', b'"\xc3\x28"')))
    ends = step.error_event is not None
    if ends:
        inserted.append(Event(f"data: {encode({'error': step.error_event})}\n\n".encode()))
    result = [*made[:at], *inserted, *([] if ends else made[at:])]
    if step.gate and step.gate_at != "start":
        place = min(gate_at + (len(inserted) if gate_at > at else 0), len(result))
        gate = Event(b"", hold=step.gate)
        result.insert(place, gate)
    return result


def split_bytes(data: bytes, split: int | str) -> list[bytes]:
    """The data in pieces: of a number of bytes, or cut inside every multi-byte character."""
    if isinstance(split, int):
        return [data[at : at + split] for at in range(0, len(data), split)]
    found: list[bytes] = []
    start = 0
    for at, byte in enumerate(data):
        if byte & 0xC0 == 0x80 and data[at - 1] & 0xC0 == 0xC0:
            found.append(data[start:at])
            start = at
    return [*found, data[start:]]
