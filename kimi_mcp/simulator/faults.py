"""Owns scenarios: steps that change how the simulator answers. Reads a scenario file; otherwise pure.

A scenario is a list of steps, in Python `Step` values or mappings, in a file JSON (`[{…}]` or `{"steps": [{…}]}`) or
TOML (`[[steps]]`). Each chat request that the strict checks let pass plays the first step that is not used up and
whose `match` fits; where none fits it is answered normally. A refused request uses no step up. An unknown key, or a
value of the wrong type, is an error that names it. Every key may be left out:

    match            {"model": id, "text": part of the last user message, "system": part of the system message,
                      "tool": part of the tool results since the last assistant turn ("" where there are any),
                      "turns": number of assistant turns so far, such as 0,
                      "path": "/v1/models"}: without `path` only chat requests are meant
    times            how many requests it serves (1), or "always"
    unchecked        true: played before the strict checks, key included

  instead of an answer
    status           HTTP status (200); from 400 on the body is an error
    error_type, error_message      of that error (default: the documented type of that status)
    body             text or JSON in place of everything
    html             true or text: an HTML page (status 200 by default)
    headers          {name: value} on top
    retry_after      number or text of the Retry-After header: 3600, "soon"
    retry_after_date seconds from now, sent as an HTTP date
    echo_key         true: the error's message repeats the caller's key

  cutting the connection
    truncate_at      bytes after which the response ends with a clean EOF
    reset_at         … with an RST          stall_at   … nothing more comes, until the client goes
    over             "body" (default; before chunk framing) or "raw": the whole response with its headers
    framing          "chunked" (default for streams), "length" (default otherwise), "close": ended by EOF alone

  time
    delay            seconds before the first byte
    tokens_per_second   pace of the answer's tokens (default: as fast as it goes)
    token_every      one token an event, every that many seconds
    event_tokens     tokens in an event (4)
    comments_every   nothing but `: keep-alive` lines, every that many seconds, until the client goes
    comments_before  that many comment lines before the first event
    gate             name: holds until `Simulator.open_gate(name)`
    gate_at          where: "start" (default, before the headers), "head" (before the first event), "reasoning",
                     "content" (after the first event of that kind), "finish" (before finish_reason), or N: after
                     N events

  what the stream carries
    at               where the next three go: as `gate_at` ("content")
    bad_json         true: a chunk that is no JSON         invalid_utf8     true: a chunk that is no UTF-8
    error_event      {"type", "message"}: an error object, after which the stream ends
    length_in_reasoning   true: finish_reason length before any content
    lose_reasoning   true: thinks, and says nothing of it  reasoning_field  another name for the field
    answer_model     the model that the answer names       empty_choices    true: no choice in any chunk
    finish_reason    for example "content_filter"          no_finish        true: ends without a finish_reason
    no_done          true: no `data: [DONE]`
    usage            "choice", "top", "both", "every" (in each chunk) or "missing" (default: the dialect's way)
    tool_call_ids    "duplicate" or "missing"              half_arguments   true: the last call's arguments are cut
    together         true: reasoning and content in the same chunks      content_first   true: content, then reasoning
    split            N: pieces of N bytes, each sent alone; "utf8": cut inside every multi-byte character

  a scripted model
    reasoning, content             sent instead of the derived text
    reasoning_tokens, content_tokens    lengthens (or cuts) it to that many tokens
    tool_calls       [{"name", "arguments": object or text, "id"?}]
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

from kimi_mcp.simulator.shapes import JsonObject, as_array, as_number, as_object, as_text

Place = Literal["start", "head", "reasoning", "content", "finish"]
"""Points of a response where it can be held or disturbed."""

CHAT_PATH = "/v1/chat/completions"


class ScenarioError(ValueError):
    """A scenario that can't be understood; the message names the step and the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glimpse:
    """What a step's match is held against, read off a request before anything is checked."""

    path: str
    model: str = ""
    text: str = ""
    """Of the last user message."""
    system: str = ""
    """Of all system messages."""
    tool: str | None = None
    """Of the tool messages since the last assistant turn; None: there are none."""
    turns: int = 0
    """Assistant messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which requests a step is meant for; what is None fits everything."""

    model: str | None = None
    text: str | None = None
    system: str | None = None
    tool: str | None = None
    turns: int | None = None
    path: str | None = None

    def fits(self, request: Glimpse) -> bool:
        """Whether a request is meant."""
        return (
            request.path == (self.path or CHAT_PATH)
            and (self.model is None or self.model == request.model)
            and (self.text is None or self.text in request.text)
            and (self.system is None or self.system in request.system)
            and (self.tool is None or (request.tool is not None and self.tool in request.tool))
            and (self.turns is None or self.turns == request.turns)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedCall:
    """A tool call that a scenario dictates."""

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a scenario; the module's docstring says what each key does."""

    match: Match = field(default_factory=Match)
    times: int | Literal["always"] = 1
    unchecked: bool = False

    status: int | None = None
    error_type: str | None = None
    error_message: str | None = None
    body: str | JsonObject | list[object] | None = None
    html: bool | str = False
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    retry_after: float | int | str | None = None
    retry_after_date: float | int | None = None
    echo_key: bool = False

    truncate_at: int | None = None
    reset_at: int | None = None
    stall_at: int | None = None
    over: Literal["body", "raw"] = "body"
    framing: Literal["chunked", "length", "close"] | None = None

    delay: float | int = 0
    tokens_per_second: float | int | None = None
    token_every: float | int | None = None
    event_tokens: int = 4
    comments_every: float | int | None = None
    comments_before: int = 0
    gate: str | None = None
    gate_at: Place | int = "start"

    at: Place | int = "content"
    bad_json: bool = False
    invalid_utf8: bool = False
    error_event: Mapping[str, object] | None = None
    length_in_reasoning: bool = False
    lose_reasoning: bool = False
    reasoning_field: str | None = None
    answer_model: str | None = None
    empty_choices: bool = False
    finish_reason: str | None = None
    no_finish: bool = False
    no_done: bool = False
    usage: Literal["choice", "top", "both", "every", "missing"] | None = None
    tool_call_ids: Literal["duplicate", "missing"] | None = None
    half_arguments: bool = False
    together: bool = False
    content_first: bool = False
    split: int | Literal["utf8"] | None = None

    reasoning: str | None = None
    content: str | None = None
    reasoning_tokens: int | None = None
    content_tokens: int | None = None
    tool_calls: tuple[ScriptedCall, ...] = ()

    @property
    def pace(self) -> float | None:
        """Tokens a second, or None: as fast as it goes."""
        return 1 / self.token_every if self.token_every else self.tokens_per_second

    @property
    def cut(self) -> tuple[int, Literal["truncate", "reset", "stall"]] | None:
        """After how many bytes the connection is cut, and how."""
        if self.truncate_at is not None:
            return self.truncate_at, "truncate"
        if self.reset_at is not None:
            return self.reset_at, "reset"
        return None if self.stall_at is None else (self.stall_at, "stall")


PLAIN = Step(times="always")
"""The step of a request that no scenario is meant for."""

StepLike = Step | Mapping[str, object]
"""A step, or what a scenario file holds for one."""

_PLACES = get_args(Place)
_BOOLEANS = frozenset(one.name for one in fields(Step) if one.type == "bool")
_TEXTS = frozenset(one.name for one in fields(Step) if one.type == "str | None")
_WHOLE = frozenset(one.name for one in fields(Step) if one.type in ("int", "int | None"))
_NUMBERS = frozenset(one.name for one in fields(Step) if one.type in ("float | int", "float | int | None"))
_CHOICES = {
    "over": ("body", "raw"),
    "framing": ("chunked", "length", "close"),
    "usage": ("choice", "top", "both", "every", "missing"),
    "tool_call_ids": ("duplicate", "missing"),
}


def read_step(step: StepLike, place: int = 0) -> Step:
    """A step from its mapping; raises ScenarioError that names what is wrong."""
    if isinstance(step, Step):
        return step
    known = {one.name for one in fields(Step)}
    unknown = sorted(set(step) - known)
    if unknown:
        raise ScenarioError(f"step {place}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    values = {name: _value(name, value, f"step {place}: {name}") for name, value in step.items()}
    return Step(**values)  # pyright: ignore[reportArgumentType]  # each value was checked against its key


def _value(name: str, value: object, where: str) -> object:
    def expect(fits: bool, wanted: str) -> None:
        if not fits:
            raise ScenarioError(f"{where} must be {wanted}, not {value!r}")

    whole = isinstance(value, int) and not isinstance(value, bool)
    if name in _BOOLEANS:
        expect(isinstance(value, bool), "true or false")
    elif name in _TEXTS:
        expect(isinstance(value, str), "text")
    elif name in _WHOLE:
        expect(whole and cast(int, value) >= 0, "a whole number")
    elif name in _NUMBERS:
        expect(as_number(value) is not None and cast(float, value) >= 0, "a number")
    elif name in _CHOICES:
        expect(value in _CHOICES[name], f"one of {', '.join(_CHOICES[name])}")
    elif name in ("at", "gate_at"):
        expect(whole or value in _PLACES, f"a number of events or one of {', '.join(_PLACES)}")
    elif name == "times":
        expect(value == "always" or (whole and cast(int, value) > 0), 'a whole number from 1 on or "always"')
    elif name == "split":
        expect(value == "utf8" or (whole and cast(int, value) > 0), 'a number of bytes or "utf8"')
    elif name == "html":
        expect(isinstance(value, (bool, str)), "true or text")
    elif name == "retry_after":
        expect(as_number(value) is not None or isinstance(value, str), "a number or text")
    elif name == "body":
        expect(isinstance(value, (str, dict, list)), "text or JSON")
    elif name == "error_event":
        expect(isinstance(value, dict), "an object")
    elif name == "headers":
        found = as_object(value)
        expect(found is not None and all(isinstance(one, str) for one in found.values()), "names and texts")
    elif name == "match":
        return _match(value, where)
    elif name == "tool_calls":
        return _calls(value, where)
    return value


def _match(value: object, where: str) -> Match:
    if isinstance(value, Match):
        return value
    found = as_object(value)
    known = {one.name for one in fields(Match)}
    turns = None if found is None else found.get("turns", 0)
    texts = [] if found is None else [one for name, one in found.items() if name != "turns"]
    whole = isinstance(turns, int) and not isinstance(turns, bool)
    if found is None or set(found) - known or not whole or not all(isinstance(one, str) for one in texts):
        raise ScenarioError(
            f"{where} must be an object with the keys {', '.join(sorted(known))}: texts, but for turns, a number"
        )
    return Match(**cast("dict[str, Any]", found))


def _calls(value: object, where: str) -> tuple[ScriptedCall, ...]:
    if isinstance(value, tuple):
        return cast("tuple[ScriptedCall, ...]", value)
    found: list[ScriptedCall] = []
    for entry in as_array(value) or []:
        call = as_object(entry) or {}
        name, arguments = as_text(call.get("name")), call.get("arguments", {})
        if not name or set(call) - {"name", "arguments", "id"}:
            raise ScenarioError(f"{where}: a call has name, arguments and id")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        found.append(ScriptedCall(name=name, arguments=text, id=as_text(call.get("id"))))
    if not found:
        raise ScenarioError(f"{where} must be a list of calls")
    return tuple(found)


def load_scenario(path: Path) -> list[Step]:
    """The steps of a JSON or TOML file; raises ScenarioError."""
    try:
        text = path.read_text("utf-8")
        content: object = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ScenarioError(f"{path}: {error}") from None
    table = as_object(content)
    if table is not None and set(table) - {"steps"}:
        raise ScenarioError(f"{path}: unknown key {', '.join(sorted(set(table) - {'steps'}))}; known is steps")
    steps = as_array(table.get("steps") if table is not None else content)
    if steps is None:
        raise ScenarioError(f"{path}: must hold a list of steps")
    try:
        return [read_step(_mapping(step, place), place) for place, step in enumerate(steps, 1)]
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from None


def _mapping(step: object, place: int) -> JsonObject:
    found = as_object(step)
    if found is None:
        raise ScenarioError(f"step {place} must be an object")
    return found


class Scenario:
    """The steps that are still to be played."""

    def __init__(self, steps: Iterable[StepLike] = ()) -> None:
        self._left: list[tuple[Step, int | Literal["always"]]] = []
        self.add(*steps)

    def add(self, *steps: StepLike) -> None:
        """Append steps."""
        made = [read_step(step, place) for place, step in enumerate(steps, len(self._left) + 1)]
        for step in made:
            self._left.append((step, step.times))

    def clear(self) -> None:
        """Forget every step."""
        self._left.clear()

    def take(self, request: Glimpse, *, unchecked: bool) -> Step | None:
        """The step for a request, used up by one; None where no step is meant for it."""
        for place, (step, left) in enumerate(self._left):
            if step.unchecked == unchecked and step.match.fits(request):
                if left == 1:
                    del self._left[place]
                elif left != "always":
                    self._left[place] = (step, left - 1)
                return step
        return None
