"""The answers of the simulator: visibly a simulator's, and derived from the request. Pure, no I/O.

So that a test, or a person watching, can tell that the right thing arrived.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from kimi_mcp.simulator import tokens
from kimi_mcp.simulator.checks import Chat
from kimi_mcp.simulator.messages import StoredMedium
from kimi_mcp.simulator.schemas import instance

HEAD = 200
"""Characters of the prompt that an answer repeats."""

HASH = 16
"""Hexadecimal digits of a sha256 that are shown."""

_FILLER = "The simulator goes on counting aloud: "


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedToolCall:
    """A call of a tool, as an answer carries it."""

    name: str
    arguments: str
    """JSON text, or what a scenario put in its place."""
    id: str | None
    """Like `functions.name:0` (MoonshotAI/Kimi-K2.5 README); None: missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedAnswer:
    """What a model would say, whole."""

    reasoning: str | None
    """None in instant mode."""
    content: str
    tool_calls: tuple[ScriptedToolCall, ...]
    finish_reason: str
    completion_tokens: int
    reasoning_tokens: int


def fingerprint(text: str) -> str:
    """The first digits of the text's sha256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH]


def _described(text: str | None) -> str:
    return "none" if text is None else f"{len(text)} characters, sha256 {fingerprint(text)}"


def mode_words(chat: Chat) -> str:
    """The mode as the answer names it."""
    if not chat.thinking:
        return "instant mode"
    return f"thinking mode, effort {chat.effort}" if chat.effort else "thinking mode"


def medium_words(stored: StoredMedium) -> str:
    """One line on a medium that arrived."""
    medium = stored.medium
    if medium is None:
        return f"a file of {stored.size} bytes"
    if stored.url is not None:
        return f"{medium.kind} by link (an engine would fetch it itself): {stored.url}"
    parts = [f"{medium.kind} {medium.format}"]
    if medium.width and medium.height:
        parts.append(f"{medium.width}×{medium.height}")
    parts.append(f"{stored.size} bytes, sha256 {stored.sha256[:HASH]}")
    return " ".join(parts)


def reasoning_text(chat: Chat) -> str:
    """The reasoning of an answer in thinking mode."""
    got = chat.received
    earlier = ", ".join(f"{index}: {fingerprint(text)}" for index, text in got.reasoning)
    lines = [
        f"[simulator] I am {chat.answering.model.name} in {mode_words(chat)}.",
        (
            f"The prompt has {_described(got.prompt)}; system: {_described(got.system)}; turns: {got.turns}; "
            f"reasoning received in turns: [{earlier}]."
        ),
    ]
    if chat.tools:
        lines.append(f"Tools offered: {', '.join(chat.tools)}.")
    if got.media:
        lines.append("I look at " + "; ".join(medium_words(one) for one in got.media) + ".")
    if got.last_tool_text is not None:
        lines.append(f"The tools answered with {_described(got.last_tool_text)}.")
    lines.append("Nothing here was thought by a model: I repeat what arrived, then I answer.")
    return "\n".join(lines)


def content_text(chat: Chat) -> str:
    """The answer's text: JSON where the request asked for it."""
    got = chat.received
    head = got.prompt[:HEAD] + ("…" if len(got.prompt) > HEAD else "")
    if chat.schema is not None:
        return json.dumps(instance(chat.schema, head), ensure_ascii=False)
    if chat.json_answer:
        summary = {
            "simulator": chat.answering.model.name,
            "mode": mode_words(chat),
            "prompt": head,
            "turns": got.turns,
        }
        return json.dumps(summary, ensure_ascii=False)
    sampling = ", ".join(f"{name} {chat.sampling.get(name, 'not set')}" for name in ("temperature", "top_p"))
    limit = chat.requested_limit if chat.requested_limit is not None else "not set"
    lines = [
        f"[simulator] {chat.answering.model.name} in {mode_words(chat)} was asked: {head}",
        (
            f"Received: {sampling}, token limit {limit}; {got.turns} turn{'s' if got.turns != 1 else ''}; "
            f"prompt of {_described(got.prompt)}."
        ),
    ]
    if got.system is not None:
        lines.append(f"System prompt: {got.system[:HEAD]}")
    lines += [f"Media: {medium_words(one)}." for one in got.media]
    if got.last_tool_text is not None:
        lines.append(f"Tool result: {got.last_tool_text[:HEAD]}")
    return "\n".join(lines)


def lengthened(text: str, wanted: int | None) -> str:
    """The text brought to that many tokens, by counting on or by cutting."""
    if wanted is None:
        return text
    missing = wanted - tokens.count(text)
    if missing > 0:
        text += "".join(f"\n{_FILLER}{number}." for number in range(missing // (len(_FILLER) // 4) + 2))
    return "".join(tokens.pieces(text)[:wanted])


def forced_call(chat: Chat) -> tuple[ScriptedToolCall, ...]:
    """The call that a forced tool choice leads to, its arguments made from the tool's schema."""
    if chat.forced_tool is None:
        return ()
    made = instance(chat.tools[chat.forced_tool] or {"type": "object"}, chat.received.prompt[:HEAD])
    arguments = json.dumps(made, ensure_ascii=False)
    return (ScriptedToolCall(name=chat.forced_tool, arguments=arguments, id=f"functions.{chat.forced_tool}:0"),)


def limited(
    chat: Chat,
    reasoning: str | None,
    content: str,
    calls: tuple[ScriptedToolCall, ...],
    *,
    inside_reasoning: bool = False,
) -> ScriptedAnswer:
    """The answer cut by stop strings and by the token limit, which reasoning counts against."""
    for stop in chat.stops:
        content = content.partition(stop)[0]
    thought = tokens.pieces(reasoning or "")
    if inside_reasoning and reasoning is not None:
        return _cut_thought("".join(thought[: max(1, len(thought) // 2)]))
    if reasoning is not None and len(thought) >= chat.limit:
        return _cut_thought("".join(thought[: chat.limit]))
    spoken = tokens.pieces(content)
    room = chat.limit - len(thought)
    called = sum(tokens.count(call.name + call.arguments) for call in calls)
    finish = "tool_calls" if calls else "stop"
    if len(spoken) > room:
        spoken, calls, called, finish = spoken[:room], (), 0, "length"
    return ScriptedAnswer(
        reasoning=reasoning,
        content="".join(spoken),
        tool_calls=calls,
        finish_reason=finish,
        completion_tokens=len(thought) + len(spoken) + called,
        reasoning_tokens=len(thought),
    )


def _cut_thought(reasoning: str) -> ScriptedAnswer:
    count = tokens.count(reasoning)
    return ScriptedAnswer(
        reasoning=reasoning,
        content="",
        tool_calls=(),
        finish_reason="length",
        completion_tokens=count,
        reasoning_tokens=count,
    )
