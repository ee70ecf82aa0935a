"""The events of a stream, or a whole answer, become a completion. Pure, no I/O.

Whatever any provider sends is read, under every name that a field is known by, in any order.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic_core import from_json

from kimi_mcp.core import bounds
from kimi_mcp.core.tokens import text_bytes, tokens_in
from kimi_mcp.core.types import Completion, FinishReason, ToolCall, Usage
from kimi_mcp.provider.events import BadEvent, ErrorEvent
from kimi_mcp.provider.growing import GrowingText, joined_pairs

Object = dict[str, Any]
List = list[Any]
"""JSON's own two, built once: an accumulator casts to them for each token."""

REASONING_NAMES = ("reasoning_content", "reasoning")
"""Every name under which reasoning is known to come or go: Moonshot, SGLang and older vLLM say ``reasoning_content``
(HC; sglang), vLLM since 0.16, NIM and OpenRouter ``reasoning`` (vllm release notes 0.16)."""

FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
"""What providers call the end of an answer, and what we call it. Any other word is no finish: the stream is broken."""


class _Growing:
    """A tool call while its pieces arrive."""

    __slots__ = ("arguments", "id", "index", "name")

    def __init__(self, index: int, identity: str) -> None:
        self.index, self.id, self.name, self.arguments = index, identity, "", GrowingText()


def _nothing() -> None:
    """As many tokens may come as do."""


class StreamAccumulator:
    """Folds events into a completion; streamed chunks and a whole answer go the same way.

    The only mutable thing of this room: it grows while the stream runs, and ``answer`` and ``reasoning`` can be read
    at any time. What follows the finish reason adds nothing but usage.
    """

    __slots__ = (
        "_answer",
        "_arguments",
        "_bytes",
        "_calls",
        "_calls_by_id",
        "_calls_by_index",
        "_escaped",
        "_finish",
        "_model",
        "_most",
        "_names",
        "_on_first",
        "_on_more",
        "_reasoning",
        "_reasoning_seen",
        "_usage",
        "pieces",
    )

    def __init__(self, on_first: Callable[[], None] | None = None) -> None:
        self._on_first = on_first
        self.watch(sys.maxsize, _nothing)
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new attempt begins."""
        self._answer = GrowingText()
        self._reasoning = GrowingText()
        self._reasoning_seen = False
        self._names = REASONING_NAMES
        self._calls: list[_Growing] = []
        self._calls_by_index: dict[int, _Growing] = {}  # the latest of each
        self._calls_by_id: dict[tuple[int, str], _Growing] = {}
        self._finish: str | None = None
        self._model: str | None = None
        self._usage: dict[str, int] = {}
        self._escaped = False
        self._bytes = 0
        self._arguments = 0
        self.pieces: int = 0
        """How many pieces of reasoning and answer have arrived."""

    @property
    def finished(self) -> bool:
        """Whether a finish reason that we know has been seen: without one there is no success."""
        return self._finish in FINISH_REASONS

    @property
    def answer(self) -> str:
        """The answer so far."""
        return self._answer.read(self._escaped)

    @property
    def reasoning(self) -> str | None:
        """The reasoning so far; None where no field of that kind was seen. An empty string is not None."""
        return self._reasoning.read(self._escaped) if self._reasoning_seen else None

    @property
    def tokens(self) -> int:
        """About how many tokens have arrived: some providers send several in one piece."""
        return max(self.pieces, tokens_in(self._bytes))

    def watch(self, most: int, on_more: Callable[[], None]) -> None:
        """Have ``on_more`` called once more than ``most`` tokens have arrived of an answer that is not whole."""
        self._most, self._on_more = most, on_more

    def settle(self) -> None:
        """All that came at once has been fed: now it can be told whether it was too much, or the end.

        Raises ``bounds.OutOfBounds``.
        """
        for text in (self._answer, self._reasoning, *(call.arguments for call in self._calls)):
            text.settle(self._escaped)
        if self.pieces > bounds.MOST_PIECES:
            raise bounds.OutOfBounds(f"more than {bounds.MOST_PIECES:,} pieces of an answer")
        if self.tokens > self._most and not self.finished:
            self._on_more()

    @property
    def has_answer(self) -> bool:
        """Whether the answer has begun."""
        return bool(self._answer)

    def feed(self, payload: bytes) -> bool:
        """Take one ``data:`` payload, or the whole body of an answer that was not streamed.

        True when it carried a piece of reasoning, answer or tool call. Raises ``BadEvent`` for a payload that can't be
        read, ``ErrorEvent`` for an error that the provider reports inside the stream, and ``bounds.OutOfBounds`` where
        the answer grows beyond what any answer has; what is too much is not taken.
        """
        event = self._read(payload)
        error = event.get("error")
        if error or event.get("object") == "error":
            raise _error_event(error or event)
        if self._model is None and isinstance(model := event.get("model"), str) and model:
            self._model = _name(model, "a model's name")
        if usage := event.get("usage"):
            self._count(usage)
        choices = event.get("choices")
        if not choices or not isinstance(choices, list):
            return False
        choices = cast(List, choices)
        if len(choices) > bounds.MOST_CHOICES:
            raise bounds.OutOfBounds(f"more than {bounds.MOST_CHOICES:,} choices")
        found = (cast(Object, choice) for choice in choices if isinstance(choice, dict))
        # n is 1: nothing but the first choice was asked for
        choice = next((choice for choice in found if not choice.get("index")), None)
        return False if choice is None else self._choose(choice)

    def completion(self) -> Completion:
        """What has arrived, as a value."""
        calls, malformed = self._whole_calls()
        return Completion(
            answer=self.answer,
            reasoning=self.reasoning,
            reasoning_field=self._names[0] if self._reasoning else None,
            tool_calls=calls,
            malformed_calls=malformed,
            finish_reason=FINISH_REASONS.get(self._finish or ""),
            model=self._model and self._sound(self._model),
            usage=_usage(self._usage),
        )

    def _read(self, payload: bytes) -> dict[str, Any]:
        if len(payload) > bounds.UNCOUNTED_EVENT:
            bounds.check_values(payload)
        try:
            event = from_json(payload)
        except ValueError:
            # Half a surrogate pair in an escape, a byte that is no UTF-8, a number of thousands of digits: the rest of
            # the answer is worth more.
            try:
                event = json.loads(payload.decode("utf-8", "replace"), parse_int=_int)
            except (ValueError, RecursionError):
                raise BadEvent("json") from None
            self._escaped = True
        if not isinstance(event, dict):
            raise BadEvent("json")
        return cast(Object, event)

    def _choose(self, choice: dict[str, Any]) -> bool:
        if usage := choice.get("usage"):
            self._count(usage)
        if self._finish in FINISH_REASONS:
            return False
        delta = choice.get("delta") or choice.get("message")
        grew = self._take(cast(Object, delta)) if isinstance(delta, dict) else False
        if isinstance(finish := choice.get("finish_reason"), str) and finish:
            self._finish = finish  # after what came with it: that may be too much
        return grew

    def _take(self, delta: Object) -> bool:
        grew = self._reason(delta)
        if content := delta.get("content"):
            text = content if isinstance(content, str) else _text_of_parts(content)
            if text:
                self._bytes += text_bytes(text)
                self._check_length()
                self._answer.add(text)
                grew = True
        if calls := delta.get("tool_calls"):
            grew = self._call(calls) or grew
        if grew:
            if not self.pieces and self._on_first is not None:
                self._on_first()
            self.pieces += 1
        return grew

    def _check_length(self) -> None:
        if self._bytes > bounds.LARGEST_TEXT:
            raise bounds.OutOfBounds(f"an answer of more than {bounds.LARGEST_TEXT:,} bytes")

    def _reason(self, delta: dict[str, Any]) -> bool:
        """Some providers send one piece under two names: one name a chunk counts, the one in use first."""
        for name in self._names:
            if isinstance(piece := delta.get(name), str):
                self._reasoning_seen = True
                if piece:
                    if not self._reasoning:
                        self._names = (name, *(other for other in REASONING_NAMES if other != name))
                    self._bytes += text_bytes(piece)
                    self._check_length()
                    self._reasoning.add(piece)
                    return True
        return False

    def _call(self, calls: Any) -> bool:
        grew = False
        for position, call in enumerate(cast(List, calls) if isinstance(calls, list) else ()):
            if not isinstance(call, dict):
                continue
            call = cast(Object, call)
            function = call.get("function")
            function = cast(Object, function) if isinstance(function, dict) else {}
            index, identity = call.get("index"), call.get("id")
            growing = self._growing(
                index if isinstance(index, int) else position, identity if isinstance(identity, str) else ""
            )
            if isinstance(name := function.get("name"), str):
                if not growing.arguments and name != growing.name:  # some send the whole name in every chunk
                    growing.name = _name(growing.name + name, "a tool's name")
                grew = grew or bool(name)
            if isinstance(arguments := function.get("arguments"), str) and arguments:
                self._arguments += text_bytes(arguments)
                if self._arguments > bounds.LARGEST_ARGUMENTS:
                    raise bounds.OutOfBounds(f"tool arguments of more than {bounds.LARGEST_ARGUMENTS:,} bytes")
                growing.arguments.add(arguments)
                grew = True
        return grew

    def _growing(self, index: int, identity: str) -> _Growing:
        """The call that a piece belongs to: by index, and by id where one index carries several ids."""
        call = self._calls_by_index.get(index)
        if call is None or (identity and call.id not in ("", identity)):
            call = self._calls_by_id.get((index, identity))
        if call is None:
            if len(self._calls) >= bounds.MOST_CALLS:
                raise bounds.OutOfBounds(f"more than {bounds.MOST_CALLS:,} tool calls")
            call = self._calls_by_index[index] = _Growing(index, "")
            self._calls.append(call)
        if identity and not call.id:
            call.id = _name(identity, "a tool call's id")
            self._calls_by_id[index, identity] = call
        return call

    def _whole_calls(self) -> tuple[tuple[ToolCall, ...], int]:
        whole: dict[str, ToolCall] = {}
        for call in self._calls:
            arguments, identity = call.arguments.read(self._escaped) or "{}", self._sound(call.id)
            if identity and call.name and identity not in whole and _is_object(arguments):
                whole[identity] = ToolCall(id=identity, name=self._sound(call.name), arguments=arguments)
        return tuple(whole.values()), len(self._calls) - len(whole)

    def _count(self, usage: Any) -> None:
        for name, *path in _USAGE_PLACES:
            value: Any = usage
            for step in path:
                value = cast(Object, value).get(step) if isinstance(value, dict) else None
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= bounds.MOST_TOKENS:
                self._usage[name] = value

    def _sound(self, text: str) -> str:
        """The text as it can be written down."""
        return joined_pairs(text) if self._escaped else text


def _name(text: str, what: str) -> str:
    if len(text) > bounds.LONGEST_NAME:
        raise bounds.OutOfBounds(f"{what} of more than {bounds.LONGEST_NAME:,} characters")
    return text


def _int(digits: str) -> int | None:
    """A whole number; None for one of more digits than Python reads, which is none that anybody counts."""
    return int(digits) if len(digits) < 400 else None


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


_USAGE_PLACES = (
    ("prompt_tokens", "prompt_tokens"),
    ("completion_tokens", "completion_tokens"),
    ("total_tokens", "total_tokens"),
    ("reasoning_tokens", "completion_tokens_details", "reasoning_tokens"),
    ("reasoning_tokens", "reasoning_tokens"),
    ("cached_tokens", "prompt_tokens_details", "cached_tokens"),
    ("cached_tokens", "cached_tokens"),
)
"""Where a number of tokens may stand inside a usage object, and what we call it."""


def _usage(counted: Mapping[str, int]) -> Usage | None:
    if not counted:
        return None
    total = counted.get("total_tokens")
    if total is None and "prompt_tokens" in counted and "completion_tokens" in counted:
        total = counted["prompt_tokens"] + counted["completion_tokens"]
    return Usage(**{**counted, "total_tokens": total})


def _text_of_parts(content: Any) -> str:
    """The text of a content that came as a list of parts."""
    if not isinstance(content, list):
        return ""
    texts = [cast(Object, part).get("text") for part in cast(List, content) if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _error_event(error: Any) -> ErrorEvent:
    if not isinstance(error, dict):
        return ErrorEvent(type="", message=_words(error), status=None)
    error = cast(Object, error)
    kind, message, code = error.get("type"), error.get("message"), error.get("code")
    status = code if isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599 else None
    if not isinstance(kind, str) or not kind:
        kind = code if isinstance(code, str) else ""
    return ErrorEvent(type=_words(kind, bounds.LONGEST_NAME), message=_words(message), status=status)


def _words(text: Any, most: int = bounds.LONGEST_MESSAGE) -> str:
    """The beginning of a provider's own words."""
    return joined_pairs(text[:most]) if isinstance(text, str) else ""
