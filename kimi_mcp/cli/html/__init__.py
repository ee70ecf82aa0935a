"""A run as one self-contained HTML page: who worked when, on what, and with which result. Reads its own style sheet.

No script, no link, nothing fetched: what opens on a click is a ``details`` element, which a keyboard opens too. Every
text of a model, a tool or a caller is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from math import ceil, floor, log10
from pathlib import Path
from typing import Any, cast

from kimi_mcp.cli.console import counted
from kimi_mcp.cli.html.trace import Bar, Lane, trace
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.profiles import dollars
from kimi_mcp.core.redaction import clean
from kimi_mcp.runs.store.records import RunRecord, StepRecord

TICKS = 8
"""About how many marks the axis has at most."""

HOUR = 3_600
MINUTES = (60, 120, 300, 600, 1_200, 1_800, HOUR)
"""Seconds between two marks of a run that takes minutes; in a longer run they are whole hours apart."""

LAST = 0.9
"""From here on the axis a mark's text is left of the mark: right of it there is no space."""

TITLE_CHARS = 200
"""Characters of a task in the title of a lane."""

CUT_CHARS = 40_000
"""Characters of one text that are shown; the store has the rest."""


def page(record: RunRecord, steps: Sequence[StepRecord]) -> str:
    """The page of a run, as HTML."""
    task = cast("Mapping[str, Any]", record.request.get("task") or {})
    laid, outcome = trace(record, steps), record.outcome
    style = Path(__file__).with_name("page.css").read_text("utf-8")
    lanes, seconds, tick = laid.lanes, laid.seconds, _tick(laid.seconds)
    started = datetime.fromtimestamp(record.started_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    body = [
        f"<h1>{_(record.tool)} <span class='state {_(outcome.status)}'>{_(outcome.status)}</span></h1>",
        f"<div class='id'>{_(record.id)} · {started}</div>",
        f"<div class='prompt'>{_(task.get('prompt', record.prompt_head))}</div>",
        _facts(outcome, seconds),
        f"<p class='why'>{_(outcome.error.message)} {_(outcome.error.fix)}</p>" if outcome.error else "",
        "<h2>Who worked when</h2>",
        _legend(lanes),
        f"<div class='lanes' style='--tick: {100 * tick / seconds:.4f}%'>",
        _axis(seconds, tick),
        *(_lane(lane, seconds) for lane in lanes),
        "</div>",
        f"<h2>Answer</h2><pre>{_text(outcome.answer)}</pre>" if outcome.answer else "",
        "<footer>Open a lane to see its task, its reasoning and its answer. Made by kimi-mcp runs show.</footer>",
    ]
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{_(record.tool)} · {_(outcome.status)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _(text: object) -> str:
    return escape(clean(str(text), "host"), quote=True)


def _text(text: str) -> str:
    """A long text, cut visibly."""
    text = clean(text, "host")  # before the cut: half a key would not be recognised
    if len(text) <= CUT_CHARS:
        return _(text)
    return f"{_(text[:CUT_CHARS])}\n[… {len(text):,} characters in all; kimi-mcp runs show has them]"


def _facts(outcome: Outcome, seconds: float) -> str:
    facts: list[tuple[str, str]] = [
        ("model", outcome.model_answered or outcome.model_sent or outcome.model_asked or "unknown"),
        ("provider", outcome.provider or "unknown"),
        ("took", _seconds(seconds)),
    ]
    if swarm := outcome.swarm:
        facts += [
            ("agents", str(len(swarm["agents"]))),
            ("main steps", str(swarm["steps"])),
            ("critical steps", str(swarm["critical_steps"])),
            ("speed-up", "unknown" if swarm["speedup"] is None else f"{swarm['speedup']:g} ×"),
        ]
    facts += [("tokens", _count(outcome.usage and outcome.usage.total_tokens)), ("cost", _usd(outcome.cost_usd))]
    rows = "".join(f"<div><dt>{_(name)}</dt><dd>{_(value)}</dd></div>" for name, value in facts)
    return f"<dl class='facts'>{rows}</dl>"


def _legend(lanes: Sequence[Lane]) -> str:
    bars = [bar for lane in lanes for bar in lane.bars]
    entries = {
        "request": ("request", True),
        "tool": ("tool call", any(bar.kind == "tool" for bar in bars)),
        "failed": ("failed", True),
        "unfinished": ("not finished", any(bar.state == "unfinished" for bar in bars)),
        "critical": ("critical path ◆: what the run waited for", len(lanes) > 1),
    }
    spans = "".join(f"<span><i class='{kind}'></i>{text}</span>" for kind, (text, used) in entries.items() if used)
    return f"<div class='legend'>{spans}</div>"


def _axis(seconds: float, tick: float) -> str:
    marks = [number * tick for number in range(floor(seconds / tick) + 1)]
    spans = "".join(
        f"<span{' class=end' if mark > LAST * seconds else ''} style='left: {100 * mark / seconds:.3f}%'>"
        f"{_(_seconds(mark, tick))}</span>"
        for mark in marks
    )
    return f"<div class='axis'><div></div><div class='ticks'>{spans}</div></div>"


def _lane(lane: Lane, seconds: float) -> str:
    critical = " critical" if lane.critical else ""
    calls = sum(bar.kind == "tool" for bar in lane.bars)
    steps = counted(len(lane.requests), "step") + (f" · {counted(calls, 'tool call')}" if calls else "")
    bars = "".join(_bar(bar, seconds) for bar in lane.bars)
    last = lane.requests[-1] if lane.requests else None
    texts = _texts(
        ("Task", lane.task),
        ("System prompt", lane.system),
        ("Reasoning of its last step", last.reasoning if last else ""),
        ("Answer", last.result if last else ""),
    )
    sums = f"{_count(lane.tokens)} tokens · {_usd(lane.cost_usd)}"
    # The id, by which the answer and the errors name the agent, is left out where it is the name.
    identity = "" if lane.id == lane.label else f"{_(lane.id)} · "
    who = lane.id if lane.label == lane.id else f"{lane.id}, {lane.label}"
    title = f"{who}: {' '.join(lane.task[:TITLE_CHARS].split())}" if lane.task else who
    return (
        f"<details class='lane{critical}' id='{_(lane.id)}'><summary>"
        f"<span class='who'><b title='{_(title)}'><span>{_(lane.name)}</span>{_(lane.task_number)}</b>"
        f"<small>{identity}<span class='state {_(lane.status)}'>{_(lane.status)}</span> · {_(steps)}</small></span>"
        f"<span class='track'>{bars}</span></summary>"
        f"<div class='inside'>{texts}<h3>Steps · {_(sums)}</h3>"
        f"<div class='steps'>{''.join(_step(bar) for bar in lane.bars)}</div></div></details>"
    )


def _texts(*parts: tuple[str, str]) -> str:
    return "".join(f"<h3>{name}</h3><pre>{_text(text)}</pre>" for name, text in parts if text)


def _bar(bar: Bar, seconds: float) -> str:
    left, width = 100 * bar.start_s / seconds, 100 * (bar.end_s - bar.start_s) / seconds
    state = "" if bar.state == "done" else f" {bar.state}"
    title = f"{bar.label}: {_seconds(bar.end_s - bar.start_s)}" + (f", {bar.why}" if bar.why else "")
    return (
        f"<span class='bar {bar.kind}{state}' style='left: {left:.3f}%; width: {min(width, 100 - left):.3f}%' "
        f"title='{_(title)}'></span>"
    )


def _step(bar: Bar) -> str:
    facts = (
        _seconds(bar.end_s - bar.start_s),
        bar.tokens is not None and f"{bar.tokens:,} tokens",
        bar.cost_usd is not None and _usd(bar.cost_usd),
        bar.calls and f"calls {', '.join(bar.calls)}",
        bar.state != "done" and bar.state,
    )
    texts = _texts(
        ("Why", bar.why),
        ("Arguments", bar.arguments),
        ("Reasoning", bar.reasoning),
        ("Result" if bar.kind == "tool" else "Answer", bar.result),
    )
    spans = "".join(f"<span>{_(fact)}</span>" for fact in facts if fact)
    return (
        f"<details id='{_(bar.key)}'><summary><b>{_(bar.label)}</b>{spans}</summary>"
        f"<div class='body'>{texts or '<h3>No result.</h3>'}</div></details>"
    )


def _tick(seconds: float) -> float:
    """Seconds between two marks: 1, 2 or 5 of some power of ten, or a round number of minutes."""
    least = seconds / TICKS
    if least > MINUTES[0] / 3:
        return next((tick for tick in MINUTES if tick >= least), HOUR * ceil(least / HOUR))
    power = 10.0 ** floor(log10(least))
    return power * next(step for step in (1, 2, 5, 10) if step * power >= least)


def _seconds(seconds: float, tick: float | None = None) -> str:
    if tick is not None and tick >= MINUTES[0]:
        return f"{seconds / 60:.0f} min"
    if seconds >= 120:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    digits = 1 if tick is None else max(0, ceil(-log10(tick)))
    return f"{seconds:.{digits}f} s"


def _count(tokens: int | None) -> str:
    return "unknown" if tokens is None else f"{tokens:,}"


def _usd(cost: float | None) -> str:
    return "cost unknown" if cost is None else dollars(cost)
