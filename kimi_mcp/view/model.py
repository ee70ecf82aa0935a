"""The JSON of what people look at: a list of runs, one run, one step, costs by day. Pure, but for the clock.

All texts are cleaned by ``redaction.clean``; what is long is cut, and ``cut`` names how long it is. Times are ISO 8601
in UTC, seconds are floats, what is not known is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from kimi_mcp.core.json_values import to_json
from kimi_mcp.core.redaction import clean, clean_values
from kimi_mcp.runs.store.costs import Costs
from kimi_mcp.runs.store.day_limits import DAY_S, midnight
from kimi_mcp.runs.store.records import JSON, RunRecord, in_list
from kimi_mcp.view.lanes import Bar, Lane, Trace

VERSION = 1
"""Of the JSON of a run; it changes where a page of an older one could not read it."""

CUT_CHARS = 400_000
"""Characters of one text at most."""

INLINE_CHARS, INLINE_CHARS_IN_ALL = 40_000, 20_000_000
"""Characters of one text, and of all texts together at most, of steps that stand in the view of their run."""

TASK_CHARS = 2_000
"""Characters of an agent's task and system prompt at most, beside its lane; its first step has all of them."""

LEFT_BEHIND = "its server has died; it goes on once another one continues it"
"""What a run does whose server has died, and which another server can continue."""


def summary(record: RunRecord) -> dict[str, Any]:
    """A run among others."""
    found = in_list(record)
    for name in ("tool", "prompt", "host"):
        found[name] = found[name] and clean(found[name], "host")
    swarm = record.outcome.swarm
    return found | {
        "caller": clean(record.caller, "host"),
        "doing": _doing(record),
        "agents": len(swarm["agents"]) if swarm else None,
    }


def run_view(
    record: RunRecord,
    laid: Trace,
    *,
    conversation: Mapping[str, Any] | None = None,
    may_cancel: bool = False,
    inline: bool = False,
) -> dict[str, Any]:
    """All of a run but the texts of its steps; ``inline``: with these, for a page that can load nothing."""
    texts = Texts()
    shown = {name: texts.cut(name, text) for name, text in texts_of(record).items()}
    most = _inline_chars(laid) if inline else None
    return {
        "version": VERSION,
        **shown,
        **parts(record, laid),
        "conversation": conversation or neighbours((), ()),
        "seconds": round(laid.seconds, 3),
        "lanes": [lane_view(lane, inline=most) for lane in laid.lanes],
        "cancellable": may_cancel and record.running,
        "cut": texts.lengths,
    }


def texts_of(record: RunRecord) -> dict[str, str | None]:
    """The long texts of a run, not cleaned yet."""
    outcome = record.outcome
    return {"prompt": prompt_of(record), "answer": outcome.answer, "reasoning": outcome.reasoning}


def parts(record: RunRecord, laid: Trace) -> dict[str, Any]:
    """What is known of a run beside its texts, its lanes and its conversation."""
    outcome = record.outcome
    known = to_json(replace(outcome, swarm=None, answer="", reasoning=None))
    timing = known["timing"]
    return {
        "run": summary(record),
        **{name: clean_values(known[name], "host") for name in ("parsed", "policy", "sources", "error")},
        "timing": timing | {name: timing[name] and round(timing[name], 3) for name in ("first_token_s", "total_s")},
        "swarm": outcome.swarm and _swarm(outcome.swarm),
        "phase": record.phase and {"doing": _doing(record), "lines": clean_values(record.phase.lines, "host")},
        "budget": _budget(record, laid),
    }


def neighbours(before: Sequence[RunRecord], after: Sequence[RunRecord]) -> dict[str, Any]:
    """The runs of a conversation before a run and behind it."""
    return {"before": [*map(summary, before)], "after": [*map(summary, after)]}


def _budget(record: RunRecord, laid: Trace) -> dict[str, Any] | None:
    """What a running swarm has used of its limits, each with the limit (null: there is none)."""
    if record.phase is None or record.phase.limits is None:
        return None
    used = {"usd": round(laid.used.usd, 6), "tokens": laid.used.tokens, "tool_calls": laid.used.tool_calls}
    limits = record.phase.limits
    return {name: [amount, limits.get(name)] for name, amount in (used | {"steps": laid.main_steps}).items()}


def _swarm(swarm: JSON) -> dict[str, Any]:
    """The result's ``swarm``; of its agents only the names are others' words."""
    agents = [{**agent, "name": clean(str(agent.get("name")), "host")} for agent in swarm["agents"]]
    return {**swarm, "agents": agents}


def _doing(record: RunRecord) -> str | None:
    if record.orphaned:
        return LEFT_BEHIND
    return record.phase and clean(record.phase.doing + record.phase.again, "host")


def _inline_chars(laid: Trace) -> int:
    texts = 3 * sum(len(lane.bars) for lane in laid.lanes)
    return min(INLINE_CHARS, INLINE_CHARS_IN_ALL // max(1, texts))


def lane_view(lane: Lane, *, inline: int | None = None, brief: bool = False) -> dict[str, Any]:
    """An agent with its steps; ``inline``: as of ``bar_view``. ``brief``: without its task and system prompt."""
    texts = Texts(TASK_CHARS if inline is None else inline)
    about = {} if brief else {name: texts.cut(name, getattr(lane, name)) for name in ("system", "task")}
    found = {name: clean(getattr(lane, name), "host") for name in ("id", "name", "task_number", "status")}
    return {
        **found,
        **about,
        "critical": lane.critical,
        "tokens": lane.tokens,
        "cost_usd": lane.cost_usd,
        "steps": [bar_view(bar, inline=inline) for bar in lane.bars],
        **({} if brief else {"cut": texts.lengths}),
    }


def bar_view(bar: Bar, *, inline: int | None = None) -> dict[str, Any]:
    """A step without its long texts; ``inline``: with so many characters of each."""
    found: dict[str, Any] = {
        "key": bar.key,
        "kind": bar.kind,
        "label": clean(bar.label, "host") if bar.kind == "tool" else bar.label,
        "start_s": round(bar.start_s, 3),
        "waited_s": round(bar.waited_s, 3),
        "end_s": None if bar.end_s is None else round(bar.end_s, 3),
        "state": bar.state,
        "tokens": bar.tokens,
        "cost_usd": bar.cost_usd,
        "why": bar.why and clean(bar.why, "host"),
        "calls": bar.calls and clean_values(bar.calls, "host"),
    }
    return found if inline is None else found | step_view(bar, inline)


def step_view(bar: Bar, most: int = CUT_CHARS, about: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The texts of a step, so many characters of each at most.

    ``about``: ``system`` and ``task`` of its agent, where it is the first.
    """
    texts = Texts(most)
    found = {name: texts.cut(name, getattr(bar, name)) for name in ("arguments", "reasoning", "result", "why")}
    more = {name: texts.cut(name, text) for name, text in (about or {}).items() if text}
    known = {"key": clean(bar.key, "host"), "calls": clean_values(bar.calls, "host")}
    return known | found | more | {"cut": texts.lengths}


def costs_view(found: Iterable[Costs], days: int, now: float) -> list[dict[str, Any]]:
    """What the last days have cost, today (UTC) included, the oldest first and without gaps."""
    today = midnight(now)
    begins = [today - DAY_S * back for back in range(days - 1, -1, -1)]
    sums = {begin: _no_costs(begin) for begin in begins}
    for each in found:
        if (day := sums.get(each.since)) is not None:
            for name in ("calls", "running", "cost_unknown"):
                day[name] += getattr(each, name)
            for name in ("tokens", "cost_usd"):  # null where they are known of none
                if (known := getattr(each, name)) is not None:
                    day[name] = (day[name] or 0) + known
    return list(sums.values())


def _no_costs(begin: float) -> dict[str, Any]:
    day = datetime.fromtimestamp(begin, UTC).date().isoformat()
    return {"day": day, "calls": 0, "running": 0, "tokens": None, "cost_usd": None, "cost_unknown": 0}


def prompt_of(record: RunRecord) -> str:
    """The prompt of a run, as far as it is recorded; of one that searched the web or read files, without these."""
    task = cast("JSON", record.request.get("task") or {})
    if isinstance(prompt := task.get("prompt"), str):
        return prompt
    turns = cast("Sequence[JSON]", record.request.get("turns") or ())
    parts = [part for turn in turns if turn.get("role") == "user" for part in turn.get("parts", ())]
    texts = [text for part in parts if isinstance(text := part.get("text"), str)]
    return "\n\n".join(texts) or record.prompt_head


class Texts:
    """Texts as they are shown, and how long those are that were cut."""

    def __init__(self, most: int = CUT_CHARS) -> None:
        self.most = most
        """Characters of each at most."""
        self.lengths: dict[str, int] = {}
        """By the name of each text that was cut, how many characters it has in all."""

    def cut(self, name: str, text: str | None) -> str | None:
        """A text as it is shown; None where there is none."""
        if text is None:
            return None
        text = clean(text, "host")  # before the cut: half a key would not be recognised
        if len(text) > self.most:
            self.lengths[name] = len(text)
        return text[: self.most]


def error_view(error: Any) -> Mapping[str, Any]:
    """An error, as a page shows it."""
    return {"error": clean_values({name: getattr(error, name) for name in ("code", "message", "fix")}, "host")}
