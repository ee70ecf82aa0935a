"""``kimi-mcp ask --dry-run``: what a call will cost, and whether it fits. I/O: the store, the provider's count; prints.

The call goes the way of any other up to its request, which is not sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kimi_mcp.cli.commands.signals import opened_runs
from kimi_mcp.cli.console import Printer, changed, option, print_json
from kimi_mcp.core.errors import KimiError, internal_error
from kimi_mcp.core.profiles import dollars

if TYPE_CHECKING:
    from kimi_mcp.core.outcome import Outcome
    from kimi_mcp.core.settings import Settings
    from kimi_mcp.pipeline.estimate import Estimate
    from kimi_mcp.runs import Run

STATES = {"fits": "ok", "may stop it": "warn", "refuses it": "bad"}
"""The mark of what a limit does."""


async def estimate(settings: Settings, name: str, arguments: dict[str, Any]) -> Estimate:
    """The estimate of a call of the tool of that name; raises what refuses the call."""
    from kimi_mcp.core.outcome import Outcome
    from kimi_mcp.pipeline.estimate import estimate_call
    from kimi_mcp.runs import Run
    from kimi_mcp.server.callers import LOCAL
    from kimi_mcp.server.tools import TOOLS, PromptArguments, SwarmArguments, parse_arguments
    from kimi_mcp.swarm import estimate_swarm

    tool = TOOLS[name]
    parsed = parse_arguments(tool, arguments, by_client=False)
    found: list[Estimate | KimiError] = []
    async with opened_runs(settings) as (_, pipeline, runs):

        async def work(run: Run) -> Outcome:
            try:
                if isinstance(parsed, SwarmArguments):
                    found.append(await estimate_swarm(parsed.call(), run, pipeline))
                else:
                    assert isinstance(parsed, PromptArguments)
                    assert tool.mode is not None
                    found.append(await estimate_call(parsed.call(tool.mode), run, pipeline))
            except KimiError as error:
                found.append(error)
            return Outcome(status="cancelled")  # nothing was sent: it is no run, and its conversation is as it was

        run = Run(caller=LOCAL, tool=name, prompt=arguments["prompt"], host="kimi-mcp ask --dry-run")
        await runs.start(run, work).wait()
    estimate = found[0] if found else internal_error()
    if isinstance(estimate, KimiError):
        raise estimate.with_traceback(None)
    return estimate


def show(estimate: Estimate, *, as_json: bool) -> None:
    """Print an estimate."""
    if as_json:
        print_json(estimate.as_json())
        return
    page = Printer(label=10)
    page.heading("Dry run", "no answer was requested")
    page.row("to", f"{estimate.model} at {estimate.provider}, {estimate.mode}", "name")
    by = "counted by the provider" if estimate.counted_by == "provider" else "estimated by their size"
    each = "" if estimate.requests == 1 else " each"
    page.row("prompt", f"{estimate.prompt_tokens:,} tokens, {by}")
    page.row("answer", f"{estimate.max_tokens:,} tokens{each} at most, reasoning included")
    if estimate.requests != 1:
        page.row(
            "requests", "as many as the limits allow" if estimate.requests is None else f"{estimate.requests} at most"
        )
    if estimate.least_usd is None or estimate.most_usd is None:
        page.row("cost", "unknown: the price is not published; limits count the catalogue's highest", "warn")
    else:
        page.row("cost", f"{dollars(estimate.least_usd)} at least, {dollars(estimate.most_usd)} at most")
    for what in estimate.uncounted:
        page.row("", f"and {what}, which nobody knows beforehand", "quiet")
    for entry in estimate.policy:
        page.row("policy", changed(entry), entry.action)
    size = f"prompt and answer in the {estimate.context_tokens:,} tokens of its context"
    page.mark(
        "ok" if estimate.fits_context else "bad", f"{'It fits' if estimate.fits_context else 'Too long for'}: {size}."
    )
    for limit in estimate.limits:
        spent = f", {dollars(limit.spent_usd)} of it spent" if limit.spent_usd else ""
        page.mark(
            STATES[limit.state], f"{option(limit.name)}, {dollars(limit.limit_usd)}{spent}: {_effect(limit.state)}."
        )
    if estimate.fits:
        page.mark("ok", "The call would be sent.", "ok")
    else:
        page.mark("bad", "The call would be refused, before it costs anything.")


def _effect(state: str) -> str:
    return {"fits": "the call stays below it", "may stop it": "it may stop the call"}.get(state, "it refuses the call")
