"""``Outcome``: the state or the result of a run, as structured content and as text. Pure, no I/O.

An outcome holds no secret, and its two forms no control character (``redaction.clean``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.json_values import to_json
from kimi_mcp.core.profiles import rounded
from kimi_mcp.core.redaction import clean, clean_values, scrub, scrub_cut, scrub_growing, scrub_values
from kimi_mcp.core.types import (
    Adjustment,
    FinishReason,
    Mode,
    Source,
    Status,
    Timing,
    Turn,
    Usage,
    joined_reasoning,
)

ALL_CHARS = 1 << 62
"""Characters of reasoning, where nothing of it is to be cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultPage:
    """A stretch of an answer or of a reasoning, as ``kimi_run`` returns it."""

    of: str
    """``answer`` or ``reasoning``."""
    text: str
    """The stretch itself."""
    offset: int
    """Where it begins, in code points."""
    next_offset: int | None
    """Where the next one begins; None: this was the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run as its caller sees it, whole or so far."""

    status: Status
    """Its state."""
    run_id: str | None = None
    """Its id; None where it was refused before anything ran."""
    conversation_id: str | None = None
    """The conversation it belongs to."""
    answer: str = ""
    """The text, exactly what has arrived."""
    parsed: Any = None
    """The parsed answer, where it fits the ``response_schema`` of the call."""
    reasoning: str | None = None
    """The whole reasoning, exactly what has arrived; None where there is none."""
    model_asked: str | None = None
    """The model that the caller or the setting names."""
    model_sent: str | None = None
    """The id on the wire."""
    model_answered: str | None = None
    """The model that the answer names."""
    provider: str | None = None
    """The provider's id."""
    mode: Mode | None = None
    """Its mode."""
    finish_reason: FinishReason | None = None
    """Why the provider ended it."""
    usage: Usage | None = None
    """Tokens, summed over the run's requests."""
    cost_usd: float | None = None
    """What it cost; None where a price is unknown."""
    policy: tuple[Adjustment, ...] = ()
    """What the policy changed or warned of."""
    timing: Timing = field(default_factory=Timing)
    """How long it took."""
    error: KimiError | None = None
    """Why it is incomplete."""
    can_continue: bool = False
    """Whether its answer was cut by its length, and its provider can continue it."""
    swarm: Mapping[str, Any] | None = None
    """What the agents of a swarm did: the contract's ``swarm`` block, as JSON."""
    sources: tuple[Source, ...] = ()
    """The pages that the web was asked for, in order."""
    page: ResultPage | None = None
    """The stretch that ``kimi_run`` returns."""

    def __post_init__(self) -> None:
        """Take out every secret: an outcome is made without any, so none can leave with it."""
        clean: dict[str, Any] = {name: scrub_values(getattr(self, name)) for name in _FOREIGN}
        clean["policy"] = tuple(map(_without_secrets, self.policy))
        clean["sources"] = tuple(Source(title=scrub(each.title), url=scrub(each.url)) for each in self.sources)
        ended = scrub_growing if self.status == "running" else scrub_cut
        clean["answer"], clean["reasoning"] = ended(self.answer), self.reasoning and ended(self.reasoning)
        for name, value in clean.items():
            object.__setattr__(self, name, value)


_FOREIGN = ("parsed", "model_asked", "model_sent", "model_answered", "swarm")
"""What a provider or a caller wrote, beside the texts."""


def _without_secrets(adjustment: Adjustment) -> Adjustment:
    return replace(adjustment, **{name: scrub_values(getattr(adjustment, name)) for name in ("asked", "sent", "why")})


def structured(outcome: Outcome, *, reasoning_chars: int) -> dict[str, Any]:
    """The result's ``structuredContent``: the same keys for every tool, on success and on failure."""
    value, usage = to_json(outcome), to_json(outcome.usage or Usage())
    timing, cost = value["timing"], outcome.cost_usd
    result = {
        **{name: value[name] for name in ("status", "run_id", "conversation_id", "answer", "parsed")},
        "reasoning": _reasoning(outcome, reasoning_chars),
        "model": {"asked": outcome.model_asked, "sent": outcome.model_sent, "answered": outcome.model_answered},
        **{name: value[name] for name in ("provider", "mode", "finish_reason")},
        "usage": usage | {"cost_usd": None if cost is None else rounded(cost)},
        "policy": value["policy"],
        "timing": timing | {name: timing[name] and round(timing[name], 3) for name in ("first_token_s", "total_s")},
        **{name: value[name] for name in ("error", "swarm", "sources")},
        "next_step": _next_step(outcome),
        "page": value["page"],
    }
    return clean_values(result, "host")


def _next_step(outcome: Outcome) -> str | None:
    """What a model that sees the structure alone calls next; None where nothing follows, or the error says it."""
    if outcome.run_id is None:
        return None
    page = outcome.page
    if page is not None and page.next_offset is not None:
        wait = "More will come: " if outcome.status == "running" else ""
        return f"{wait}{kimi_run_call(outcome.run_id, page.of, page.next_offset)} reads on."
    if outcome.status == "running":
        return f"Call {kimi_run_call(outcome.run_id, 'wait')} for the answer: the run goes on, and is paid for once."
    if outcome.status == "failed":
        shows = f"{kimi_run_call(outcome.run_id, 'reasoning')} shows the reasoning that had arrived."
        return shows if outcome.reasoning else None
    if outcome.can_continue and outcome.status != "completed":
        return _continuing(outcome)
    if outcome.conversation_id is not None and page is None:
        return f'To go on with this answer, call with conversation_id="{outcome.conversation_id}".'
    return None


def _continuing(outcome: Outcome) -> str:
    """How to go on with an answer that was cut."""
    call = kimi_run_call(str(outcome.run_id), "continue")
    return f"{call} continues the answer where it was cut."


def kimi_run_call(run_id: str, action: str, offset: int | None = None) -> str:
    """The call of ``kimi_run`` that fetches something of a run."""
    return f'kimi_run(run_id="{run_id}", action="{action}"{"" if offset is None else f", offset={offset}"})'


def text(outcome: Outcome, *, names_run: bool = False) -> str:
    """The result's text: the answer, with a short closing line where there is more to say than the answer.

    ``names_run``: whether that line names run, conversation and reasoning, for a model that sees the text alone.
    """
    whole = _text(outcome)
    if names_run and outcome.sources and outcome.page is None:
        whole += "\n\nSources:\n" + "\n".join(f"- {source.title}: {source.url}" for source in outcome.sources)
    if names_run and outcome.run_id is not None:
        parts = [f"run {outcome.run_id}"]
        if outcome.conversation_id is not None:
            parts.append(f"conversation_id {outcome.conversation_id}")
        if outcome.reasoning and outcome.page is None:
            shows = kimi_run_call(outcome.run_id, "reasoning")
            parts.append(f"{len(outcome.reasoning):,} characters of reasoning, which {shows} shows")
        whole += f"\n\n[{'; '.join(parts)}]"
    return clean(whole, "host")


def _text(outcome: Outcome) -> str:
    if outcome.page is not None:
        return _page_text(outcome, outcome.page)
    if outcome.status == "failed":
        return _failure(outcome)
    if outcome.status == "running":
        return _running(outcome)
    lines = [_closing(adjustment) for adjustment in outcome.policy]
    if outcome.status == "cancelled":
        had = "what is above is all that" if outcome.answer else "nothing of the answer"
        lines.append(f"[cancelled: {had} had arrived]")
    elif outcome.error is not None:
        further = f" {_continuing(outcome)}" if outcome.can_continue else ""
        lines.append(f"[incomplete: {outcome.error.message} {outcome.error.fix}{further}]")
    return "\n\n".join(part for part in (outcome.answer, "\n".join(lines)) if part)


def _failure(outcome: Outcome) -> str:
    error = outcome.error
    failure = "The call failed." if error is None else f"{error.code}: {error.message}\n{error.fix}"
    had = f"\n\nWhat had arrived of the answer:\n{outcome.answer}" if outcome.answer else ""
    if not outcome.answer and outcome.reasoning and outcome.run_id:
        had = (
            f"\n\nNo answer had arrived, but {len(outcome.reasoning)} characters of reasoning: "
            f"{kimi_run_call(outcome.run_id, 'reasoning')} shows them."
        )
    return failure + had


def _running(outcome: Outcome) -> str:
    arrived = f"{outcome.answer}\n\n" if outcome.answer else ""
    counts = agent_counts(agent["status"] for agent in outcome.swarm["agents"]) if outcome.swarm else ""
    agents = f" ({counts})" if counts else ""
    return (
        f"{arrived}[still running after {outcome.timing.total_s:.0f} s{agents}; it goes on and is paid for once. "
        f"Fetch it with {kimi_run_call(str(outcome.run_id), 'wait')}]"
    )


def agent_counts(statuses: Iterable[str]) -> str:
    """``12 agents: 3 running, 8 done, 1 failed``; nothing where there is none."""
    counts = Counter("done" if status in ("completed", "partial") else status for status in statuses)
    parts = ", ".join(f"{counts[word]} {word}" for word in ("running", "done", "failed", "cancelled") if counts[word])
    return f"{counts.total()} agent{'' if counts.total() == 1 else 's'}: {parts}" if parts else ""


def _closing(adjustment: Adjustment) -> str:
    if adjustment.action == "warned":
        return f"[{adjustment.rule}: {adjustment.why}]"
    sent = "left out" if adjustment.sent is None else _shown(adjustment.sent)
    change = f"{adjustment.field} {_shown(adjustment.asked)} → {sent}"
    return f"[{adjustment.rule}: {change}. {adjustment.why}]"


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _page_text(outcome: Outcome, page: ResultPage) -> str:
    lines: list[str] = []
    if outcome.status == "running":
        lines.append(f"[still running, more will come: call kimi_run again with offset={page.next_offset}]")
    elif page.next_offset is not None:
        lines.append(f"[more: call kimi_run again with offset={page.next_offset}]")
    if outcome.error is not None:
        lines.append(f"[the run is {outcome.status}: {outcome.error.message} {outcome.error.fix}]")
    return "\n\n".join(part for part in (page.text, "\n".join(lines)) if part)


def cut_answer(outcome: Outcome, most: int) -> Outcome:
    """The outcome with an answer that hosts take: a longer one ends visibly, and says how to read on."""
    if len(outcome.answer) <= most or outcome.run_id is None:
        return outcome
    call = kimi_run_call(outcome.run_id, "answer", most)
    marked = f"{outcome.answer[:most]}\n\n[cut here, of {len(outcome.answer)} characters in all: {call} reads on]"
    return replace(outcome, answer=marked)


def _reasoning(outcome: Outcome, limit: int) -> dict[str, Any] | None:
    whole = outcome.reasoning
    if not whole:
        return None
    return {
        "text": shortened(whole, limit),
        "chars": len(whole),
        "truncated": len(whole) > limit,
        "uri": outcome.run_id and reasoning_uri(outcome.run_id),
    }


def last_reasoning(whole: str | None, turns: Iterable[Turn]) -> str | None:
    """Of a run's reasoning what belongs to its answer: what comes behind that of the turns that call tools."""
    earlier: str | None = None
    for turn in turns:
        earlier = joined_reasoning(earlier, turn.reasoning) if turn.tool_calls else earlier
    before = scrub(earlier or "")
    if not whole or not before or not whole.startswith(before):
        return whole
    return whole.removeprefix(before).removeprefix("\n\n")


def reasoning_uri(run_id: str) -> str:
    """Where the whole reasoning of a run can be read."""
    return f"kimi://runs/{run_id}/reasoning"


def shortened(whole: str, limit: int) -> str:
    """Head and tail of a text, ``limit`` code points in all, with the gap marked; the whole where it fits."""
    if len(whole) <= limit:
        return whole
    gap = f"\n[… {len(whole)} characters in all …]\n"
    available = limit - len(gap)
    if available < 2:
        return whole[:limit]
    head = available - available // 3
    return whole[:head] + gap + whole[len(whole) - available // 3 :]
