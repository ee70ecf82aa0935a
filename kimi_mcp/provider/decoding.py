"""Decodes the events of a stream, or a whole answer, into a completion, by any provider's spelling. Pure, no I/O."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any, cast

from pydantic_core import from_json

from kimi_mcp.core import bounds
from kimi_mcp.core.tokens import text_bytes, tokens_in
from kimi_mcp.core.types import Completion, FinishReason, ToolCall, Usage
from kimi_mcp.provider.error_mapping import ProviderError, error_in
from kimi_mcp.provider.failures import Unreadable

Object = dict[str, Any]
List = list[Any]
"""JSON's containers, built once: they are cast to for each token."""

REASONING_NAMES = ("reasoning_content", "reasoning")
"""Every known name of the reasoning field: ``reasoning_content`` at Moonshot (help center), SGLang and older vLLM,
``reasoning`` at vLLM since 0.16 (its release notes), NIM and OpenRouter."""

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
"""Providers' finish reasons, and ours. Any other word is none: the stream is broken."""


class ErrorEvent(Exception):
    """An error that the provider reports inside the stream, or as the whole body of a 200."""

    def __init__(self, error: ProviderError) -> None:
        super().__init__(error.kind)
        self.error = error


class _GrowingCall:
    """A tool call while its pieces arrive."""

    def __init__(self) -> None:
        self.id, self.name, self.arguments = "", "", StringIO()


class StreamAccumulator:
    """Collects events into a completion; ``answer`` and ``reasoning`` can be read at any time."""

    def __init__(
        self, on_first: Callable[[], None] | None = None, *, answer: str = "", reasoning: str | None = None
    ) -> None:
        """``answer`` and ``reasoning``: what earlier requests have brought of them."""
        self._on_first = on_first
        self._begun = answer, reasoning
        self.watch(sys.maxsize, lambda: None)
        self.reset()

    def reset(self) -> None:
        """Forget everything but what earlier requests have brought: a new attempt begins."""
        answer, reasoning = self._begun
        self._answer, self._reasoning = StringIO(), StringIO()
        self._answer.write(answer)
        self._reasoning.write(reasoning or "")
        self._reasoning_seen = reasoning is not None
        self._names = REASONING_NAMES
        self._calls: list[_GrowingCall] = []
        self._calls_by_index: dict[int, _GrowingCall] = {}  # the latest of each
        self._calls_by_id: dict[tuple[int, str], _GrowingCall] = {}
        self._finish: str | None = None
        self._model: str | None = None
        self._usage: dict[str, int] = {}
        self._escaped = False
        self._bytes = 0
        self._arguments = 0
        self.pieces: int = 0
        """How many pieces of reasoning and answer have arrived."""

    @property
    def continues(self) -> bool:
        """Whether it continues the answer of an earlier request."""
        return bool(self._begun[0])

    @property
    def finished(self) -> bool:
        """Whether a known finish reason has been seen: without one there is no success."""
        return self._finish in FINISH_REASONS

    @property
    def answer(self) -> str:
        """The answer so far."""
        return self._valid(self._answer.getvalue())

    @property
    def reasoning(self) -> str | None:
        """The reasoning so far; None where no such field was seen (an empty one counts as seen)."""
        return self._valid(self._reasoning.getvalue()) if self._reasoning_seen else None

    @property
    def tokens(self) -> int:
        """About how many tokens have arrived: some providers send several in one piece."""
        return max(self.pieces, tokens_in(self._bytes))

    def watch(self, most: int, on_more: Callable[[], None]) -> None:
        """Call ``on_more`` once more than ``most`` tokens of an unfinished answer have arrived."""
        self._most, self._on_more = most, on_more

    def settle(self) -> None:
        """Check the limits after each read. Raises ``bounds.OutOfBounds``."""
        if self.pieces > bounds.MOST_PIECES:
            raise bounds.OutOfBounds(f"more than {bounds.MOST_PIECES:,} pieces of an answer")
        if self.tokens > self._most and not self.finished:
            self._on_more()

    @property
    def has_answer(self) -> bool:
        """Whether the answer has begun."""
        return self._answer.tell() > 0

    def feed(self, payload: bytes) -> bool:
        """Take one ``data:`` payload, or the whole body of an answer that was not streamed.

        True if it held a piece of reasoning, answer or tool call. Raises ``Unreadable``, ``ErrorEvent``, and
        ``bounds.OutOfBounds`` where the answer outgrows any real one; the excess is not taken.
        """
        event = self._read(payload)
        if event.get("error") or event.get("object") == "error":
            raise ErrorEvent(error_in(event))
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
        # n is 1: nothing but the first choice was requested
        choice = next((choice for choice in found if not choice.get("index")), None)
        if choice is None:
            return False
        if usage := choice.get("usage"):
            self._count(usage)
        if self._finish in FINISH_REASONS:
            return False
        delta = choice.get("delta") or choice.get("message")
        grew = self._take(cast(Object, delta)) if isinstance(delta, dict) else False
        if isinstance(finish := choice.get("finish_reason"), str) and finish:
            self._finish = finish  # last: what came with it may be out of bounds
        return grew

    def completion(self) -> Completion:
        """What has arrived, as a value."""
        calls, malformed = self._whole_calls()
        return Completion(
            answer=self.answer,
            reasoning=self.reasoning,
            reasoning_field=self._names[0] if self._reasoning.tell() else None,
            tool_calls=calls,
            malformed_calls=malformed,
            finish_reason=FINISH_REASONS.get(self._finish or ""),
            model=self._model and self._valid(self._model),
            usage=_usage(self._usage),
        )

    def _read(self, payload: bytes) -> dict[str, Any]:
        if len(payload) > bounds.UNCOUNTED_EVENT:
            bounds.check_values(payload)
        try:
            event = from_json(payload)
        except ValueError:
            # Half a surrogate pair, invalid UTF-8 or a huge number must not cost the rest of the answer.
            try:
                event = json.loads(payload.decode("utf-8", "replace"), parse_int=_int)
            except (ValueError, RecursionError):
                raise Unreadable("json") from None
            self._escaped = True
        if not isinstance(event, dict):
            raise Unreadable("json")
        return cast(Object, event)

    def _take(self, delta: Object) -> bool:
        grew = self._reason(delta)
        if content := delta.get("content"):
            text = content if isinstance(content, str) else _text_of_parts(content)
            if text:
                self._write(text, self._answer)
                grew = True
        if calls := delta.get("tool_calls"):
            grew = self._call(calls) or grew
        if grew:
            if not self.pieces and self._on_first is not None:
                self._on_first()
            self.pieces += 1
        return grew

    def _write(self, text: str, to: StringIO) -> None:
        self._bytes += text_bytes(text)
        if self._bytes > bounds.LARGEST_TEXT:
            raise bounds.OutOfBounds(f"an answer of more than {bounds.LARGEST_TEXT:,} bytes")
        to.write(text)

    def _reason(self, delta: dict[str, Any]) -> bool:
        """Some providers send one piece under two names: count one name per chunk, the one in use first."""
        for name in self._names:
            if isinstance(piece := delta.get(name), str):
                self._reasoning_seen = True
                if piece:
                    if not self._reasoning.tell():
                        self._names = (name, *(other for other in REASONING_NAMES if other != name))
                    self._write(piece, self._reasoning)
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
                if not growing.arguments.tell() and name != growing.name:  # some send the whole name in every chunk
                    growing.name = _name(growing.name + name, "a tool's name")
                grew = grew or bool(name)
            if isinstance(arguments := function.get("arguments"), str) and arguments:
                self._arguments += text_bytes(arguments)
                if self._arguments > bounds.LARGEST_ARGUMENTS:
                    raise bounds.OutOfBounds(f"tool arguments of more than {bounds.LARGEST_ARGUMENTS:,} bytes")
                growing.arguments.write(arguments)
                grew = True
        return grew

    def _growing(self, index: int, identity: str) -> _GrowingCall:
        """The call that a piece belongs to: by index, and by id where one index carries several ids."""
        call = self._calls_by_index.get(index)
        if call is None or (identity and call.id not in ("", identity)):
            call = self._calls_by_id.get((index, identity))
        if call is None:
            if len(self._calls) >= bounds.MOST_CALLS:
                raise bounds.OutOfBounds(f"more than {bounds.MOST_CALLS:,} tool calls")
            call = self._calls_by_index[index] = _GrowingCall()
            self._calls.append(call)
        if identity and not call.id:
            call.id = _name(identity, "a tool call's id")
            self._calls_by_id[index, identity] = call
        return call

    def _whole_calls(self) -> tuple[tuple[ToolCall, ...], int]:
        whole: dict[str, ToolCall] = {}
        for call in self._calls:
            arguments, identity = self._valid(call.arguments.getvalue()) or "{}", self._valid(call.id)
            if identity and call.name and identity not in whole and _is_object(arguments):
                whole[identity] = ToolCall(id=identity, name=self._valid(call.name), arguments=arguments)
        return tuple(whole.values()), len(self._calls) - len(whole)

    def _count(self, usage: Any) -> None:
        for name, *path in _USAGE_PLACES:
            value: Any = usage
            for step in path:
                value = cast(Object, value).get(step) if isinstance(value, dict) else None
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= bounds.MOST_TOKENS:
                self._usage[name] = value

    def _valid(self, text: str) -> str:
        """The text without halves of surrogate pairs."""
        return joined_pairs(text) if self._escaped else text


def _name(text: str, what: str) -> str:
    if len(text) > bounds.LONGEST_NAME:
        raise bounds.OutOfBounds(f"{what} of more than {bounds.LONGEST_NAME:,} characters")
    return text


def _int(digits: str) -> int | None:
    """A whole number; None for one of more digits than Python parses."""
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
"""Our name of a number of tokens, and where it may be inside a usage object."""


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


def joined_pairs(text: str) -> str:
    """The text with split surrogate pairs joined, and U+FFFD for half of one."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
