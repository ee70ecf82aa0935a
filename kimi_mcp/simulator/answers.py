"""The answers of the simulator: visibly a simulator's, and derived from the request. Pure, no I/O.

So that a test, or a person watching, can see that the right request arrived.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass

from kimi_mcp.simulator import tokens, web
from kimi_mcp.simulator.checks import Chat
from kimi_mcp.simulator.faults import ScriptedCall, Step
from kimi_mcp.simulator.instances import instance
from kimi_mcp.simulator.media import ReceivedMedium

HEAD_CHARS = 200
"""Characters of the prompt that an answer repeats."""

DIGEST_DIGITS = 16
"""Hexadecimal digits of a sha256 that are shown."""

_PASSES = {"low": 0, "high": 1, "max": 2}
"""How often it goes over its reasoning again, by effort: more effort, longer reasoning."""

_QUOTED = re.compile(r"""(["'`])(\w{1,64})\1""")
"""Words in quotes, as prompts name the keys of the JSON they ask for."""

_FILLER = "The simulator goes on counting aloud: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The whole answer of a model."""

    reasoning: str | None
    """None in instant mode."""
    content: str
    tool_calls: tuple[ScriptedCall, ...]
    finish_reason: str | None
    completion_tokens: int
    reasoning_tokens: int


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_DIGITS]


def _described(text: str | None) -> str:
    return "none" if text is None else f"{len(text)} characters, sha256 {_digest(text)}"


def _mode(chat: Chat) -> str:
    if not chat.thinking:
        return "instant mode"
    return f"thinking mode, effort {chat.effort}" if chat.effort else "thinking mode"


def _medium(medium: ReceivedMedium) -> str:
    if medium.url is not None:
        return f"{medium.kind} by link (an engine would fetch it itself): {medium.url}"
    size = f" {medium.width}×{medium.height}" if medium.width and medium.height else ""
    return f"{medium.kind} {medium.format}{size} {medium.size} bytes, sha256 {medium.sha256[:DIGEST_DIGITS]}"


def _reasoning(chat: Chat) -> str:
    got, texts = chat.received, chat.texts
    earlier = ", ".join(f"{index}: {_digest(text)}" for index, text in got.reasoning)
    lines = [
        f"[simulator] I am {chat.answering.model.name} in {_mode(chat)}.",
        (
            f"The prompt has {_described(texts.text)}; system: {_described(texts.system or None)}; turns: {got.turns}; "
            f"reasoning received in turns: [{earlier}]."
        ),
    ]
    if chat.tools:
        lines.append(f"Tools offered: {', '.join(chat.tools)}.")
    if got.media:
        lines.append("I look at " + "; ".join(_medium(one) for one in got.media) + ".")
    if texts.tool is not None:
        lines.append(f"The tools answered with {_described(texts.tool)}.")
    lines += [f"I go over it again, {number}." for number in range(1, _PASSES.get(chat.effort or "", 0) + 1)]
    lines.append("Nothing here was thought by a model: I repeat what arrived, then I answer.")
    return "\n".join(lines)


def _content(chat: Chat) -> str:
    """The answer's text: JSON where the request wants it."""
    got, texts = chat.received, chat.texts
    head = texts.text[:HEAD_CHARS] + ("…" if len(texts.text) > HEAD_CHARS else "")
    if chat.schema is not None:
        return json.dumps(instance(chat.schema, head), ensure_ascii=False)
    if chat.json_answer:
        quoted = {key: f"[simulator] {key}" for _, key in _QUOTED.findall(texts.text)}
        summary = {"simulator": chat.answering.model.name, "mode": _mode(chat), "prompt": head, "turns": got.turns}
        return json.dumps(quoted | summary, ensure_ascii=False)
    sampling = ", ".join(f"{name} {chat.sampling.get(name, 'not set')}" for name in ("temperature", "top_p"))
    limit = chat.requested_limit if chat.requested_limit is not None else "not set"
    lines = [
        f"[simulator] {chat.answering.model.name} in {_mode(chat)} was asked: {head}",
        (
            f"Received: {sampling}, token limit {limit}; {got.turns} turn{'s' if got.turns != 1 else ''}; "
            f"prompt of {_described(texts.text)}."
        ),
    ]
    if texts.system:
        lines.append(f"System prompt: {texts.system[:HEAD_CHARS]}")
    if chat.ignored:
        lines.append(f"Ignored: {', '.join(chat.ignored)}.")
    lines += [f"Media: {_medium(one)}." for one in got.media]
    if texts.tool is not None:
        lines.append(f"Tool result: {got.latest[:HEAD_CHARS]}")
    if urls := web.urls_in(got.results):
        lines.append(f"From the web: {', '.join(urls)}")
    return "\n".join(lines)


def compose(chat: Chat, step: Step) -> Answer:
    """The model's answer: derived from the request, or as the step dictates."""
    reasoning = None
    if chat.thinking and not chat.received.has_thought:
        reasoning = _of_length(_reasoning(chat) if step.reasoning is None else step.reasoning, step.reasoning_tokens)
    form = chat.answering.model.call_id
    calls = tuple(
        call.model_copy(update={"id": call.id or form.format(name=call.name, index=index)})
        for index, call in enumerate(step.tool_calls)
    )
    if not calls and chat.forced_tool is not None and step.content is None:
        made = instance(chat.tools[chat.forced_tool] or {"type": "object"}, chat.texts.text[:HEAD_CHARS])
        call_id = form.format(name=chat.forced_tool, index=0)
        calls = (ScriptedCall(name=chat.forced_tool, arguments=json.dumps(made, ensure_ascii=False), id=call_id),)
    if not calls and step.content is None and chat.may_call and not chat.received.begun:
        found = web.next_call(chat.tools, chat.texts.text, chat.received.calls, chat.received.results)
        calls = () if found is None else (found.model_copy(update={"id": form.format(name=found.name, index=0)}),)
    content = step.content
    if content is None:
        content = "" if calls else _content(chat)
    # What was begun is not sent again: only what follows it is (platform.kimi.ai, partial mode).
    content = _of_length(content, step.content_tokens).removeprefix(chat.received.begun)
    return _limited(chat, step, reasoning, content, calls)


def _of_length(text: str, wanted: int | None) -> str:
    """The text brought to that many tokens, by counting on or by cutting."""
    if wanted is None:
        return text
    missing = wanted - tokens.count(text)
    if missing > 0:
        text += "".join(f"\n{_FILLER}{number}." for number in range(missing // (len(_FILLER) // 4) + 2))
    return "".join(tokens.pieces(text)[:wanted])


def _limited(chat: Chat, step: Step, reasoning: str | None, content: str, calls: tuple[ScriptedCall, ...]) -> Answer:
    """The answer cut by stop strings and by the token limit, which reasoning counts against."""
    limit = sys.maxsize if step.ignore_limit else chat.limit
    for stop in chat.stops:
        content = content.partition(stop)[0]
    thought, written = tokens.pieces(reasoning or ""), tokens.pieces(content)
    finish = "tool_calls" if calls else "stop"
    if reasoning is not None and (step.length_in_reasoning or len(thought) >= limit):
        thought = thought[: max(1, len(thought) // 2) if step.length_in_reasoning else limit]
        written, calls, finish = [], (), "length"
    elif len(written) > limit - len(thought):
        written, calls, finish = written[: limit - len(thought)], (), "length"
    called = sum(tokens.count(call.name + call.arguments) for call in calls)
    return Answer(
        reasoning=None if reasoning is None else "".join(thought),
        content="".join(written),
        tool_calls=calls,
        finish_reason=None if step.no_finish else step.finish_reason or finish,
        completion_tokens=len(thought) + len(written) + called,
        reasoning_tokens=len(thought),
    )
