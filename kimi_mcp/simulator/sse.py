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


def encode(value: object) -> str:
    """Compact JSON, escaped where a lone surrogate could not be sent otherwise."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if not text.isascii() and _SURROGATE.search(text):
        return json.dumps(value, separators=(",", ":"))
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedReply:
    """The answer to one request, in its provider's dialect, with the faults of its step."""

    id: str
    created: int
    model: str
    """The model that the answer names."""
    answer: Answer
    dialect: Dialect
    step: Step
    prompt_tokens: int
    cached_tokens: int
    include_usage: bool

    def whole(self) -> JsonObject:
        """The body of a response that is not streamed."""
        answer, step = self.answer, self.step
        message: JsonObject = {"role": "assistant", "content": answer.content}
        if answer.reasoning is not None and not step.lose_reasoning:
            message[step.reasoning_field or self.dialect.reasoning_field] = answer.reasoning
        calls = self._tool_calls()
        if calls:
            message["tool_calls"] = calls
            message["content"] = answer.content or None
        choice: JsonObject = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
        if step.usage in ("choice", "both"):
            choice["usage"] = self._usage()
        body = self._body("chat.completion", [choice])
        if step.usage not in ("choice", "missing"):
            body["usage"] = self._usage()
        return body

    def events(self) -> list[Event]:
        """Every event of a streamed answer, in order."""
        step = self.step
        made: list[Event] = [Event(COMMENT)] * step.comments_before
        places: dict[str, int] = {"start": 0, "head": 0}
        made.append(self._delta({"role": "assistant", "content": ""}))
        for kind, event in self._answer_chunks():
            made.append(event)
            places.setdefault(kind, len(made))
        places["finish"] = len(made)
        if not step.no_finish:
            choice: JsonObject = {"index": 0, "delta": {}, "finish_reason": self.answer.finish_reason}
            if step.usage in ("choice", "both") or (step.usage is None and self.dialect.moonshot):
                choice["usage"] = self._usage()
            made.append(self._chunk(choice))
        if step.usage in ("top", "both") or (step.usage is None and self.include_usage):
            made.append(self._chunk(usage=True))
        if not step.no_done:
            made.append(Event(DONE))

        def index(place: str | int) -> int:
            return min(place, len(made)) if isinstance(place, int) else places.get(place, places["finish"])

        return self._disturbed(made, index(step.at), index(step.gate_at))

    def _body(self, kind: str, choices: list[JsonObject]) -> JsonObject:
        choices = [] if self.step.empty_choices else choices
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}

    def _usage(self) -> JsonObject:
        """The usage, cached tokens where the dialect reports them (Moonshot: `cached_tokens`)."""
        usage: JsonObject = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.answer.completion_tokens,
            "total_tokens": self.prompt_tokens + self.answer.completion_tokens,
        }
        if self.dialect.moonshot:
            usage["cached_tokens"] = self.cached_tokens
        else:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        if self.dialect.reports_reasoning_tokens:
            usage["completion_tokens_details"] = {"reasoning_tokens": self.answer.reasoning_tokens}
        return usage

    def _tool_calls(self) -> list[JsonObject]:
        """The calls as a message carries them."""
        made: list[JsonObject] = []
        for index, call in enumerate(self.answer.tool_calls):
            arguments = call.arguments
            if self.step.half_arguments and index == len(self.answer.tool_calls) - 1:
                arguments = arguments[: max(1, len(arguments) // 2)]
            entry: JsonObject = {
                "index": index,
                "id": self.answer.tool_calls[0].id if self.step.tool_call_ids == "duplicate" else call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": arguments},
            }
            if self.step.tool_call_ids == "missing":
                del entry["id"]
            made.append(entry)
        return made

    def _chunk(self, *choices: JsonObject, count: int = 0, usage: bool = False) -> Event:
        """A chunk with these choices, and with the usage where it carries that; ``count``: its tokens."""
        body = self._body("chat.completion.chunk", [*choices])
        if usage or self.step.usage == "every":
            body["usage"] = self._usage()
        return Event(f"data: {encode(body)}\n\n".encode(), count)

    def _delta(self, delta: JsonObject, count: int = 0) -> Event:
        return self._chunk({"index": 0, "delta": delta, "finish_reason": None}, count=count)

    def _answer_chunks(self) -> Iterator[tuple[str, Event]]:
        """The chunks that carry the answer, each with the kind of what it carries."""
        answer, step = self.answer, self.step
        size = 1 if step.token_every else max(1, step.event_tokens)
        field = step.reasoning_field or self.dialect.reasoning_field
        thought = [] if step.lose_reasoning else list(_pieces(answer.reasoning or "", size))
        written = list(_pieces(answer.content, size))
        if step.together:
            for (left, first), (right, second) in zip_longest(thought, written, fillvalue=("", 0)):
                delta: JsonObject = {name: text for name, text in ((field, left), ("content", right)) if text}
                yield "content" if right else "reasoning", self._delta(delta, first + second)
        else:
            reasoning = [("reasoning", self._delta({field: text}, count)) for text, count in thought]
            content = [("content", self._delta({"content": text}, count)) for text, count in written]
            yield from content + reasoning if step.content_first else reasoning + content
        for call in self._tool_calls():
            function = as_object(call["function"]) or {}
            arguments = str(function["arguments"])
            opening = {**call, "function": {"name": function["name"], "arguments": ""}}
            yield "tool", self._delta({"tool_calls": [opening]}, 1)
            for text, count in _pieces(arguments, max(1, size // 4)):
                part: JsonObject = {"index": call["index"], "function": {"arguments": text}}
                yield "tool", self._delta({"tool_calls": [part]}, count)

    def _disturbed(self, made: list[Event], at: int, gate_at: int) -> list[Event]:
        """The events with what the step inserts among them."""
        step, inserted = self.step, list[Event]()
        if step.bad_json:
            whole = self._delta({"content": "cut"}).data
            inserted.append(Event(whole[: whole.rindex(b"cut") + 3] + b"\n\n"))
        if step.invalid_utf8:
            inserted.append(Event(self._delta({"content": "?"}).data.replace(b'"?"', b'"\xc3\x28"')))
        if step.error_event is not None:
            inserted.append(Event(f"data: {encode({'error': step.error_event})}\n\n".encode()))
        result = [*made[:at], *inserted, *(made[at:] if step.error_event is None else ())]
        if step.gate and step.gate_at != "start":
            place = min(gate_at + (len(inserted) if gate_at > at else 0), len(result))
            result.insert(place, Event(b"", hold=step.gate))
        return result


def _pieces(text: str, size: int) -> Iterator[tuple[str, int]]:
    found = tokens.pieces(text)
    for at in range(0, len(found), size):
        group = found[at : at + size]
        yield "".join(group), len(group)


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
