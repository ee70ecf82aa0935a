"""How recorded runs look: in a list, and whole. Prints.

A person gets short ids, local times and what fits the width; a program gets everything in full.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from kimi_mcp.cli.console import Printer, changed, counted, in_a_shell, requests, shown
from kimi_mcp.core.callers import LOCAL, name_of
from kimi_mcp.core.outcome import Outcome, agent_counts, shortened
from kimi_mcp.core.profiles import dollars
from kimi_mcp.core.redaction import scrub
from kimi_mcp.runs.store.records import RunRecord, moment, seconds, tokens

if TYPE_CHECKING:
    from kimi_mcp.runs.store.costs import Costs
    from kimi_mcp.runs.store.records import Totals

KINDS: Mapping[str, str] = {
    "completed": "ok",
    "running": "name",
    "partial": "warn",
    "failed": "bad",
    "cancelled": "quiet",
}
"""The style of each status."""

TOOL_CHARS = 1_000
"""Characters of what a tool returned that are shown."""

SHORTEST = 6
"""Digits of an id that a person is shown at least."""

_TASK: Mapping[str, str | None] = {
    "known_definitions": "agents' tools",
    **dict.fromkeys(
        ("known_tools", "known_servers", "first_provider", "first_model", "texts", "offered_roots", "asks")
    ),
}
"""Labels of parts of a swarm's task, where they differ from their names; None: internal, not shown."""

HEAD = ("ID", "STARTED", "TOOL", "STATUS", "TOOK", "TOKENS", "COST", "PROMPT")

COSTS_HEAD = ("DAY", "PRINCIPAL", "CALLS", "TOKENS", "COST", "UNKNOWN")


def show_list(
    listed: Sequence[RunRecord], totals: Totals | None, digits: int, *, every: bool, principals: bool
) -> None:
    """The latest of the matching runs, and the totals of them all.

    ``digits``: characters of an id that identify it. ``every``: all runs match. ``principals``: whose each is.
    """
    page = Printer(indent=0)
    if not listed or totals is None:
        page.line("No run was recorded yet." if every else "No run matches.")
        return
    _table(page, listed, digits, _totals(totals, page), principals=principals)
    if len(listed) < totals.runs:
        page.line(f"The latest {len(listed)} of {totals.runs}; the totals are of all. --most N shows more.", "quiet")
    if totals.cost_unknown and page.folds:
        page.line(f"The cost of {totals.cost_unknown} is unknown: no usage was reported, or no price.", "quiet")


def show_pruned(removed: Sequence[RunRecord], kept: int) -> None:
    """What was removed."""
    page = Printer(indent=0)
    if removed:
        _table(page, removed[:50])
    if len(removed) > 50:
        page.line(f"and {len(removed) - 50} more", "quiet")
    stays = f" {counted(kept, 'run')} as old {'stays' if kept == 1 else 'stay'}: a kept conversation goes back to it."
    page.line(f"Removed {counted(len(removed), 'run')}.{stays if kept else ''}")


def show_costs(found: Sequence[Costs]) -> None:
    """What each principal has spent on each day (UTC), and all of it together."""
    page = Printer(indent=0)
    if not found:
        page.line("Nothing was run in that time.")
        return
    rows = [
        (
            datetime.fromtimestamp(each.since, UTC).strftime("%Y-%m-%d"),
            f"name|{name_of(each.caller)}",
            *_spent((each,), page),
        )
        for each in found
    ]
    total = ("head|total" if page.folds else "TOTAL", "" if page.folds else "-", *_spent(found, page))
    page.table(COSTS_HEAD, [*rows, total], right=(2, 3, 4, 5))
    if page.folds:
        running = sum(each.running for each in found)
        still = f" {counted(running, 'call')} still running, of which no cost is known yet." if running else ""
        page.line(f"Days are those of UTC.{still}", "quiet")


def _spent(costs: Sequence[Costs], page: Printer) -> tuple[str, str, str, str]:
    """Calls, tokens, cost, and the calls whose cost is unknown, of several together; a dash where nothing is known."""
    known = [each.cost_usd for each in costs if each.cost_usd is not None]
    tokens = [each.tokens for each in costs if each.tokens is not None]
    _, token_sum, usd = _figures(0, sum(tokens) if tokens else None, sum(known) if known else None, page)
    unknown = sum(each.cost_unknown for each in costs)
    return (str(sum(each.calls for each in costs)), token_sum, usd, f"warn|{unknown}" if unknown else "0")


def costs_as_json(costs: Costs) -> dict[str, Any]:
    """What a principal has spent on a day, as JSON."""
    return {
        "day": datetime.fromtimestamp(costs.since, UTC).strftime("%Y-%m-%d"),
        "principal": name_of(costs.caller),
        "caller": costs.caller,
        **{name: getattr(costs, name) for name in ("calls", "running", "tokens")},
        "cost_usd": None if costs.cost_usd is None else round(costs.cost_usd, 6),
        "cost_unknown": costs.cost_unknown,
        "counted_usd": round(costs.counted_usd, 6),
    }


def _table(
    page: Printer, records: Sequence[RunRecord], digits: int = 0, *more: Sequence[str], principals: bool = False
) -> None:
    length = max(digits, len("run_") + SHORTEST) if page.folds else None
    head, rows, right, optional = HEAD, [_cells(record, length, page) for record in records], (4, 5, 6), (2, 5, 1, 4, 6)
    rows += [tuple(row) for row in more]
    if principals:  # the second column
        nobody = "" if page.folds else "-"
        whose = ["PRINCIPAL", *(name_of(record.caller) for record in records), *(nobody for _ in more)]
        head, *rows = ((first, name, *rest) for name, (first, *rest) in zip(whose, (head, *rows), strict=True))
        right, optional = tuple(each + 1 for each in right), tuple(each + 1 for each in optional)
    page.table(head, rows, right=right, optional=optional, cut_last=True)


def _cells(record: RunRecord, length: int | None, page: Printer) -> tuple[str, ...]:
    outcome, folds = record.outcome, page.folds
    return (
        f"name|{record.id[:length]}",
        _started(record.started_at) if folds else moment(record.started_at) or "",
        f"quiet|{record.tool.removeprefix('kimi_') if folds else record.tool}",
        f"{KINDS[outcome.status]}|{outcome.status}",
        *_figures(seconds(record), tokens(outcome.usage), outcome.cost_usd, page),
        f"quiet|{scrub(record.prompt_head)}",
    )


def _totals(of: Totals, page: Printer) -> tuple[str, ...]:
    """The last row; a sum that no run contributes to is unknown."""
    figures = _figures(of.took_s, of.tokens, of.cost_usd, page)
    if not page.folds:
        return ("TOTAL", str(of.runs), "-", f"{of.running}-running" if of.running else "-", *figures, "-")
    running = f"name|{of.running} running" if of.running else ""
    return (f"head|{counted(of.runs, 'run')}", "", "", running, *(f"head|{figure}" for figure in figures), "")


def _figures(took_s: float, count: int | None, usd: float | None, page: Printer) -> tuple[str, str, str]:
    """Duration, tokens and cost, short for a person; a dash where one is unknown."""
    if page.folds:
        return _took(took_s), _count(count), "-" if usd is None else dollars(usd).replace("under ", "<")
    return f"{took_s:.3f}", "-" if count is None else str(count), "-" if usd is None else f"{usd:.6f}"


# ── one run ───────────────────────────────────────────────────────────────────────────────────────────────────────


def show_record(record: RunRecord, details: Mapping[str, Any]) -> None:
    """All of one run; ``details`` is its JSON, from ``records.whole``."""
    page = Printer(label=14)
    outcome = record.outcome
    page.heading(record.id, f"{record.tool}, {outcome.status}")
    _about(page, record)
    _conversation(page, details)
    for adjustment in outcome.policy:
        page.row("policy", changed(adjustment), adjustment.action)
    if outcome.error is not None:
        page.row("error", f"{outcome.error.code}: {in_a_shell(outcome.error.message)}", "bad", label_kind="bad")
        page.row("", in_a_shell(outcome.error.fix))
    if outcome.can_continue and not record.running:
        page.row("", f"Continue the answer with `kimi-mcp runs continue {record.id}`.")
    _request(page, record.request)
    _section(page, "Reasoning", outcome.reasoning)
    _section(page, "Answer", outcome.answer)
    if outcome.sources:
        page.line()
        page.heading("Sources")
        for source in outcome.sources:
            page.row(source.title[:80], source.url)
    if outcome.parsed is not None:
        page.line()
        page.heading("Value", "by response_schema")
        page.text(json.dumps(outcome.parsed, indent=2, ensure_ascii=False))
    _steps(page, cast("Sequence[Mapping[str, Any]]", details["steps"]))


def _about(page: Printer, record: RunRecord) -> None:
    outcome = record.outcome
    started = _local(record.started_at).strftime("%Y-%m-%d %H:%M:%S %Z")
    whose = "" if record.caller == LOCAL else f" for {name_of(record.caller)}"
    page.row("started", f"{started}, called by {record.host or 'a host without a name'}{whose}")
    timing = outcome.timing
    first = "" if timing.first_token_s is None else f", the first token after {_took(timing.first_token_s)}"
    attempts = "" if timing.attempts < 2 else f", {requests(outcome)}"
    if record.running:
        state = "its server has died; it can be resumed" if record.orphaned else "it goes on"
        page.row("running", f"for {_took(seconds(record))}: {state}", "name")
    else:
        page.row("took", f"{_took(seconds(record))}{first}{attempts}")
    sent = outcome.model_sent or record.model_id or "no model"
    others = (("asked", outcome.model_asked), ("answered", outcome.model_answered))
    named = "".join(f", {word} {name}" for word, name in others if name not in (None, sent))
    page.row("model", f"{sent} at {outcome.provider or 'no provider'}{named}")
    page.row("mode", f"{outcome.mode or 'not decided'}{_parameters(record.request)}")
    if outcome.finish_reason:
        page.row("finish reason", outcome.finish_reason)
    page.row("tokens", _usage(outcome))
    page.row("cost", dollars(outcome.cost_usd))


def _parameters(request: Mapping[str, Any]) -> str:
    """The parameters of a request, for the end of a line."""
    sampling = cast("Mapping[str, Any]", request.get("sampling") or request.get("said") or {})  # by an earlier version
    named: dict[str, Any] = {"max_tokens": request.get("max_tokens"), **sampling, "effort": request.get("effort")}
    parts = "".join(f", {name} {shown(value)}" for name, value in named.items() if value is not None)
    return parts if request.get("response_schema") is None else f"{parts}, with a response_schema"


def _usage(outcome: Outcome) -> str:
    usage = outcome.usage
    if usage is None:
        return "not reported"
    parts = (
        (usage.prompt_tokens, "sent"),
        (usage.cached_tokens, "of them cached"),
        (usage.completion_tokens, "received"),
        (usage.reasoning_tokens, "of them reasoning"),
    )
    return ", ".join(f"{count:,} {word}" for count, word in parts if count is not None) or "not reported"


def _conversation(page: Printer, details: Mapping[str, Any]) -> None:
    if details["conversation_id"] is None:
        return
    before, after = details["conversation"]["before"], details["conversation"]["after"]
    page.row("conversation", f"{details['conversation_id']}, turn {len(before) + 1}")
    if before:
        page.row("", f"follows {before[-1]}")
    for run_id in after:
        page.row("", f"followed by {run_id}")


def _request(page: Printer, request: Mapping[str, Any]) -> None:
    for turn in request.get("turns") or ():
        page.line()
        page.heading("Asked" if turn["role"] == "user" else turn["role"].capitalize())
        for part in turn.get("parts") or ():
            if "text" in part:
                page.text(shortened(part["text"], TOOL_CHARS) if turn["role"] == "tool" else part["text"])
            else:
                known = f"sha256 {part['sha256']}" if part.get("sha256") else part["url"]
                page.line(f"[{part['kind']}: {known}]", "quiet")
        for call in turn.get("tool_calls") or ():
            page.line(f"→ {call['name']} {call['arguments']}")
    if task := request.get("task"):
        page.line()
        page.heading("Task")
        for name, value in cast("Mapping[str, Any]", task).items():
            label = _TASK.get(name, name.replace("_", " "))
            if value not in (None, [], {}) and label is not None:
                page.row(label, _listed(value))


def _listed(value: Any) -> str:
    """A value of a task; of a list each item's name."""
    if not isinstance(value, list):
        return shown(value)
    items = cast("list[str | Mapping[str, Any]]", value)
    return shown(", ".join(each if isinstance(each, str) else str(each.get("name")) for each in items))


def _section(page: Printer, name: str, text: str | None) -> None:
    if text:
        page.line()
        page.heading(name, f"{len(text):,} characters")
        page.text(text)


def _steps(page: Printer, steps: Sequence[Mapping[str, Any]]) -> None:
    if not steps:
        return
    page.line()
    done = sum(step["result"] is not None for step in steps)
    page.heading("Steps", f"{done} of {len(steps)} finished")
    rows: list[tuple[str, ...]] = []
    for step in steps:
        state, took = "warn|begun", ""
        if ended_at := step["ended_at"]:
            duration = datetime.fromisoformat(ended_at) - datetime.fromisoformat(step["began_at"])
            state, took = "ok|finished", _took(duration.total_seconds())
        rows.append((f"name|{step['key']}", state, took, f"quiet|{_purpose(step['description'])}"))
    page.table(("STEP", "STATE", "TOOK", "WHAT"), rows, right=(2,), cut_last=True)


def _purpose(info: Mapping[str, Any]) -> str:
    """What a step is for: a tool and its arguments, a task at its beginning, else the agent."""
    if info.get("kind") == "tool":
        text = f"{info.get('tool')} {info.get('arguments', '')}"
    else:
        text = ": ".join(filter(None, (str(info.get("name", "")), str(info.get("task", "")))))
    return scrub(" ".join(text.split())[:200])


def arrived(outcome: Outcome) -> str:
    """What had arrived of an answer, in a sentence."""
    if outcome.swarm and (agents := outcome.swarm["agents"]):
        return f"It had {agent_counts(agent['status'] for agent in agents)}; `runs show` has their results."
    if outcome.answer:
        return f"{len(outcome.answer):,} characters of its answer had arrived."
    thought = len(outcome.reasoning or "")
    return f"{thought:,} characters of reasoning had arrived." if thought else "Nothing of an answer had arrived."


# ── numbers for people ────────────────────────────────────────────────────────────────────────────────────────────


def _local(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).astimezone()


def _started(at: float) -> str:
    """The time of today, the day of this year, else the month."""
    then, now = _local(at), datetime.now().astimezone()
    if then.date() == now.date():
        return then.strftime("%H:%M")
    return then.strftime("%b %d" if now - then < timedelta(days=300) else "%Y-%m")


def _took(duration: float) -> str:
    if duration < 0.095:
        return f"{duration * 1000:.0f} ms"
    if duration < 9.95:
        return f"{duration:.1f} s"
    if duration < 99.5:
        return f"{duration:.0f} s"
    if duration < 5_970:
        return f"{duration / 60:.0f} min"
    return f"{duration / 3600:.1f} h"


def _count(count: int | None) -> str:
    if count is None:
        return "-"
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= size * 10:
            return f"{count / size:.1f}{unit}"
    return f"{count:,}"
