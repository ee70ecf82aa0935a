"""Values that the packages pass to each other. Pure, no I/O.

All are frozen, slotted and keyword-only; times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

Mode = Literal["thinking", "instant"]
"""``thinking``: the model reasons before it answers. ``instant``: it answers at once."""

Effort = Literal["low", "high", "max"]
"""How much a model thinks that has efforts, least first (Kimi-Vendor-Verifier tests/k3_features)."""

CacheTtl = Literal["5m", "1h"]
"""How long a prompt stays in the provider's cache after its last use (``prompt_cache_options.ttl`` on the wire)."""

Status = Literal["completed", "running", "partial", "failed", "cancelled"]
"""The state of a run."""

FinishReason = Literal["stop", "length", "content_filter", "tool_calls"]
"""Why the provider ended the answer."""

MediaKind = Literal["image", "video"]
"""What a media part shows."""

SamplingName = Literal["temperature", "top_p", "n", "presence_penalty", "frequency_penalty"]
"""The sampling values that Kimi models fix (Kimi-Vendor-Verifier verify_params.py), by their name on the wire."""

SAMPLING = get_args(SamplingName)
"""The same, to go through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """A piece of text in a turn."""

    text: str
    """Verbatim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPart:
    """An image or a video in a turn."""

    kind: MediaKind
    """Which of ``image_url`` and ``video_url`` it is on the wire."""
    url: str
    """A ``data:`` URL or an ``ms://`` id; the policy converts or refuses anything else before it is sent."""
    sha256: str | None = None
    """The hash of what was sent of it in an earlier turn, hex: anything else is no longer what was shown then."""
    size: int | None = None
    """Bytes of what was sent of it then."""


Part = TextPart | MediaPart
"""What a turn's content is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of a tool that the model requests."""

    id: str
    """As the provider gave it (Kimi's look like ``functions.name:0``); given back unchanged."""
    name: str
    """The tool's name."""
    arguments: str
    """JSON text, as the model wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    """Who speaks."""
    parts: tuple[Part, ...] = ()
    """The content; empty for an assistant turn that only calls tools."""
    reasoning: str | None = None
    """An assistant turn's reasoning, byte for byte; None where there was none. An empty string is not None."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The tools that an assistant turn calls."""
    tool_call_id: str | None = None
    """Which call a ``tool`` turn answers."""
    partial: bool = False
    """Whether it is the beginning of an answer, which the model is to continue; only as the last turn."""

    @property
    def text(self) -> str:
        """The text parts, joined by nothing."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def media(self) -> tuple[MediaPart, ...]:
        """The media parts, in order."""
        return tuple(part for part in self.parts if isinstance(part, MediaPart))


def user(text: str) -> Turn:
    """A user turn of one text."""
    return Turn(role="user", parts=(TextPart(text=text),))


def system(text: str) -> Turn:
    """A system turn of one text."""
    return Turn(role="system", parts=(TextPart(text=text),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is wanted from one upstream request, before the policy has decided."""

    mode: Mode
    """The requested mode."""
    turns: tuple[Turn, ...]
    """The whole conversation in order; a system turn only where the caller wants one."""
    sampling: Mapping[str, float] = field(default_factory=dict[str, float])
    """The sampling values in the request, by their names (see ``SAMPLING``); absent ones are left open."""
    max_tokens: int | None = None
    """Upper bound of reasoning plus answer, in tokens; None: left open."""
    effort: str | None = None
    """The requested reasoning effort (``low``, ``high``, ``max``); None: left open."""
    cache_ttl: CacheTtl | None = None
    """How long the prompt is to stay in the provider's cache, where it has that choice; None: left open."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Function definitions, as under ``tools[].function`` on the wire."""
    tool_choice: str | Mapping[str, Any] | None = None
    """``auto``, ``none``, ``required``, or an object that names a function; None: left open."""
    response_schema: Mapping[str, Any] | None = None
    """JSON schema of the answer; None: plain text."""
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    """Steps that a swarm may take, by argument name; empty outside a swarm."""
    model_asked: str = "auto"
    """The model that the caller or the setting names: a catalogue id, a provider's own id, or ``auto``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """One entry of a result's ``policy`` list: what a rule changed or warns of."""

    rule: str
    """The rule's id."""
    action: Literal["adjusted", "warned"]
    """``adjusted``: the request was changed. ``warned``: nothing was changed."""
    field: str
    """The argument or wire field it is about."""
    asked: Any
    """What was requested, as JSON; None where nothing was."""
    sent: Any
    """What was sent instead, as JSON; None where nothing was."""
    why: str
    """One sentence for the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one request or of several; None where the provider sent none."""

    prompt_tokens: int | None = None
    """Tokens that were sent."""
    completion_tokens: int | None = None
    """Tokens of reasoning and answer together."""
    reasoning_tokens: int | None = None
    """Tokens of reasoning; None unless the provider reports it."""
    cached_tokens: int | None = None
    """Tokens of the prompt that came from the provider's cache."""
    total_tokens: int | None = None
    """Prompt and completion together."""


def add_usage(first: Usage | None, second: Usage | None) -> Usage | None:
    """The tokens of two requests together; a number that one of them lacks is unknown."""
    if first is None or second is None:
        return None
    pairs = {each.name: (getattr(first, each.name), getattr(second, each.name)) for each in fields(Usage)}
    return Usage(**{name: None if None in pair else sum(pair) for name, pair in pairs.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A provider's answer, complete or cut."""

    answer: str = ""
    """The text of the answer, exactly what arrived."""
    reasoning: str | None = None
    """The reasoning, exactly what arrived; None where no field of that kind was ever seen."""
    reasoning_field: str | None = None
    """The name under which the reasoning came."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Whole tool calls only: id, name, and arguments that are valid JSON."""
    malformed_calls: int = 0
    """Tool calls that arrived without a name, without an id of their own, or with half an argument."""
    finish_reason: FinishReason | None = None
    """None: the stream ended without one, and the completion is no success."""
    model: str | None = None
    """The model that the answer names."""
    usage: Usage | None = None
    """None where the provider sent none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A page that an answer was looked up in."""

    title: str
    """Its title; its URL where none is known."""
    url: str
    """Its http or https URL."""


def joined_reasoning(first: str | None, second: str | None) -> str | None:
    """The reasoning of two requests for one answer."""
    return "\n\n".join(part for part in (first, second) if part) or (second if first is None else first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a run took."""

    first_token_s: float | None = None
    """Seconds from the start to the first token of reasoning or answer."""
    total_s: float = 0.0
    """Seconds from the start to the end, all attempts included."""
    attempts: int = 0
    """Upstream requests that were sent."""
