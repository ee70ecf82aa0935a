"""``kimi-mcp runs``: what was run, what it cost, and its reasoning. I/O: the store's; prints.

Whoever has this shell is the operator, and sees the runs of every caller. Reading removes nothing and creates no store:
the first call does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimi_mcp.cli.commands.run_store import find_caller, find_run, from_store, has_store, store_settings, unknown_run
from kimi_mcp.cli.commands.signals import ExitSignals, exit_at_once, handled_signals, opened_runs
from kimi_mcp.cli.console import Printer, complain, is_terminal, print_json
from kimi_mcp.core.errors import InvalidArguments, NotConfigured
from kimi_mcp.core.types import Status

if TYPE_CHECKING:
    from kimi_mcp.core.outcome import Outcome
    from kimi_mcp.core.settings import Settings
    from kimi_mcp.pipeline.pipeline import Pipeline
    from kimi_mcp.runs import Runs
    from kimi_mcp.runs.store.records import RunRecord, Totals
    from kimi_mcp.runs.store.store import RunStore

EndOf = Callable[["Runs", "Pipeline", str], Awaitable["Outcome"]]
"""Finds the outcome of a run by its name."""

DAY_S = 86_400

MOST = 20
"""Runs that a person is shown unless ``--most`` is given."""

POLL_S = 0.25
"""Seconds between two reads of a run in another server."""


Which = Annotated[str, typer.Argument(metavar="ID", help="Its id, or enough of its beginning to identify it.")]
Most = Annotated[
    int | None,
    typer.Option("--most", "-n", min=1, metavar="N", help="How many to show, the latest first. Left out: 20."),
]
OfStatus = Annotated[Status | None, typer.Option(help="Only those of that status.")]
OfPrincipal = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only those of that principal of the HTTP server, by name or id.")
]
Today = Annotated[bool, typer.Option("--today", help="Only today's (UTC), which the day's spending limit counts.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
AsPage = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", dir_okay=False, help="Write it as one page for a browser.")
]
EveryAsJson = Annotated[bool, typer.Option("--json", help="Print them as JSON, every one unless --most says less.")]


def runs(
    context: typer.Context,
    most: Most = None,
    status: OfStatus = None,
    today: Today = False,
    principal: OfPrincipal = None,
    as_json: EveryAsJson = False,
) -> None:
    """Show what was run, and what it cost.

    Without a command it is the same as `runs list`: the latest runs of every caller, with their totals.
    """
    if context.invoked_subcommand is None:
        list_runs(most, status, today, principal, as_json)
    elif most is not None or status is not None or today or principal is not None or as_json:
        raise typer.BadParameter(f"put the options behind the command: kimi-mcp runs {context.invoked_subcommand} …")


def list_runs(
    most: Most = None,
    status: OfStatus = None,
    today: Today = False,
    principal: OfPrincipal = None,
    as_json: EveryAsJson = False,
) -> None:
    """List the latest runs.

    Tool, start, duration, status, tokens and cost; where several principals have runs, also whose they are. The totals
    are those of all matching runs, shown or not.
    """
    from kimi_mcp.cli.commands.run_output import show_list
    from kimi_mcp.core.callers import name_of
    from kimi_mcp.runs.store import queries
    from kimi_mcp.runs.store.costs import callers
    from kimi_mcp.runs.store.records import in_list

    now = time.time()
    since = now - now % DAY_S if today else None

    async def read(store: RunStore) -> tuple[list[RunRecord], Totals | None, int, bool]:
        caller = None if principal is None else await find_caller(store, principal)
        listed = await store.overview(caller, status=status, since=since, most=most if as_json else most or MOST)
        if as_json:
            return listed, None, 0, False
        digits = await store.read(queries.unique_prefix_length, [record.id for record in listed])
        totals = await store.read(partial(queries.totals, caller=caller, status=status, since=since), now)
        return listed, totals, digits, caller is None and len(await store.read(callers)) > 1

    listed, totals, digits, several = from_store(read, missing=([], None, 0, False))
    if as_json:
        print_json([in_list(record) | {"principal": name_of(record.caller)} for record in listed])
    else:
        show_list(listed, totals, digits, every=status is None and principal is None and not today, principals=several)


def costs(
    days: Annotated[int, typer.Option(min=1, metavar="N", help="Today and the days before it, N in all.")] = 30,
    principal: OfPrincipal = None,
    as_json: AsJson = False,
) -> None:
    """Show what was spent, by principal and day.

    Calls, tokens and cost. A day is one of UTC, as for the day's spending limits; a call counts on the day on which it
    began. Calls whose cost is not known are counted apart: no usage was reported, or there is no price.
    """
    from kimi_mcp.cli.commands.run_output import costs_as_json, show_costs
    from kimi_mcp.runs.store.costs import Costs, costs_by_day

    now = time.time()
    since = now - now % DAY_S - (days - 1) * DAY_S

    async def read(store: RunStore) -> list[Costs]:
        caller = None if principal is None else await find_caller(store, principal)
        return await store.read(costs_by_day, since, now, caller)

    found = from_store(read, missing=[])
    if as_json:
        print_json([costs_as_json(each) for each in found])
    else:
        show_costs(found)


def show(run_id: Which, as_json: AsJson = False, html: AsPage = None) -> None:
    """Show the whole of one run.

    What was asked, what was sent and what the policy changed, reasoning and answer, tokens, cost, steps, and its place
    in its conversation. With --json the structured result, uncut, and all else that is known. With --html a page to
    open in a browser, one file that loads nothing: the same, and who worked when, a lane an agent, with each task,
    reasoning and answer on a click.
    """
    from kimi_mcp.cli.commands.run_output import show_record
    from kimi_mcp.runs.store import listing
    from kimi_mcp.runs.store.records import whole

    async def read(store: RunStore) -> tuple[RunRecord, Any]:
        record = await find_run(store, run_id)
        steps = await store.steps(record.id).recorded()
        before, after = await store.read(listing.neighbours, record.id, None)
        return record, whole(record, steps, before=before, after=after)

    if html is not None:
        _write_page(html, from_store(partial(_read_view, run_id=run_id)))
        return
    record, details = from_store(read)
    if as_json:
        print_json(details)
    else:
        show_record(record, details)


async def _read_view(store: RunStore, run_id: str) -> Mapping[str, Any]:
    from kimi_mcp.view.reading import run_view

    record = await find_run(store, run_id)
    return await run_view(store, record.id, None, inline=True)


def _write_page(file: Path, view: Mapping[str, Any]) -> None:
    from kimi_mcp.view.documents import still_document

    try:
        file.write_text(still_document(view), "utf-8", newline="\n")
    except OSError:
        raise InvalidArguments(
            f"{file.name} can't be written.", fix="Name a file in a folder that you may write to with --html."
        ) from None
    print(f"Written: {file}. Open it in a browser.")


def resume(run_id: Which, as_json: AsJson = False) -> None:
    """Continue a run that was interrupted.

    A swarm goes on behind its last finished step, and its result is printed; what it has paid for is not asked again.
    Of a run that has ended the result is printed. One that runs in another server is waited for.
    """
    _print_end(run_id, as_json, _end_of, again="resume")


def continue_answer(run_id: Which, as_json: AsJson = False) -> None:
    """Continue an answer that was cut by its length.

    The provider writes what follows, and the whole answer is printed. Of a run that is complete the answer is printed
    as it is. A swarm's answer can't be continued, nor one that had not begun.
    """
    _print_end(run_id, as_json, _continued_end_of, again="continue")


def _print_end(run_id: str, as_json: bool, end_of: EndOf, *, again: str) -> None:
    import anyio

    from kimi_mcp.cli.commands.run_progress import print_result
    from kimi_mcp.core.outcome import ALL_CHARS

    settings = store_settings()
    with handled_signals() as signals:
        outcome = anyio.run(_followed, settings, run_id, signals, end_of, again)
    print_result(outcome, ALL_CHARS if as_json else None)
    if outcome.error is not None:
        complain(f"The run is {outcome.status}: {outcome.error.message}", outcome.error.fix)
        raise typer.Exit(1)


def cancel(run_id: Which, as_json: AsJson = False) -> None:
    """End a run, in whichever server it runs.

    That server closes the upstream request; what has arrived is kept.
    """
    import anyio

    from kimi_mcp.cli.commands.run_output import arrived
    from kimi_mcp.core.outcome import ALL_CHARS, structured
    from kimi_mcp.runs import Runs
    from kimi_mcp.runs.recorded import CANCEL_WITHIN_S, RecordedRun
    from kimi_mcp.swarm import recovered_outcome

    async def end(store: RunStore) -> tuple[RunRecord, bool]:
        found = record = await find_run(store, run_id)
        async with anyio.create_task_group() as tasks:
            run = RecordedRun(Runs(tasks, store, recover=recovered_outcome), found)
            await run.cancel()
            record = run.record
        return record, found.running

    record, was_running = from_store(end)
    outcome = record.outcome
    if as_json:
        print_json(structured(outcome, reasoning_chars=ALL_CHARS))
    elif not was_running:
        Printer().line(f"{record.id} had ended already: it is {outcome.status}. Nothing was changed.")
    elif not record.running:
        Printer().line(f"{record.id} is {outcome.status}. {arrived(outcome)}")
    if record.running:
        complain(
            f"{record.id} was to be cancelled, and its server has not done so within {CANCEL_WITHIN_S:.0f} seconds.",
            f"End the host that it was called from, or look again with `kimi-mcp runs show {record.id}`.",
        )
        raise typer.Exit(1)


def prune(
    days: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Only what ended more than N days ago. Left out: KIMI_RUNS_KEEP_DAYS."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask in a terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was removed as JSON.")] = False,
) -> None:
    """Remove old runs, with their answers and reasoning.

    Runs stay that a kept conversation goes back to, and those that still run. Servers remove what is older than
    KIMI_RUNS_KEEP_DAYS by themselves, a little at a time in the background. Days count from now or, as the clock may
    be wrong, from the newest run where that is earlier; `--days 0` removes all.
    """
    from kimi_mcp.cli.commands.run_output import show_pruned
    from kimi_mcp.runs.store.records import in_list

    keep = store_settings().runs_keep_days if days is None else days
    if not yes and is_terminal(sys.stdout) and sys.stdin.isatty():
        age = f"that ended more than {keep} day{'' if keep == 1 else 's'} ago" if keep else "that has ended"
        typer.confirm(f"Remove every run {age}, with its answer and reasoning?", abort=True)

    async def clear(store: RunStore) -> tuple[list[RunRecord], int]:
        old = await store.overview(None, ended_before=await store.old_before(keep))
        gone = set(await store.prune(keep))
        return [record for record in old if record.id in gone], len(old) - len(gone)

    removed, kept = from_store(clear, missing=([], 0))
    if as_json:
        print_json([in_list(record) for record in removed])
    else:
        show_pruned(removed, max(kept, 0))


async def _followed(settings: Settings, name: str, signals: ExitSignals, end_of: EndOf, again: str) -> Outcome:
    """The outcome that ``end_of`` finds; once interrupted, this exits, and names the command that goes on."""
    if not has_store(settings):
        raise unknown_run()
    with Printer(sys.stderr).waiting("until it has ended …"):
        async with opened_runs(settings, resuming=True) as (tasks, pipeline, runs):
            with signals.interruptible():
                outcome = await end_of(runs, pipeline, name)
            if signals.exiting:
                tasks.cancel_scope.cancel()  # without a cancellation of the run, which stays resumable
    if signals.exiting:
        complain(
            "The run has not ended; its results so far are kept.", f"Continue with `kimi-mcp runs {again} {name}`."
        )
        exit_at_once(signals.status)
    return outcome


async def _continued_end_of(runs: Runs, pipeline: Pipeline, name: str) -> Outcome:
    """The outcome of a run whose answer is continued here, unless it is complete, or goes on elsewhere."""
    record = await find_run(runs.store, name)
    if record.running or record.outcome.status == "completed":
        return await _end_of(runs, pipeline, record.id)
    run = await runs.reopen(record, pipeline.continuation(record))
    await run.wait()
    return await run.current_outcome()


async def _end_of(runs: Runs, pipeline: Pipeline, name: str) -> Outcome:
    """The outcome of a run that is resumed here, or goes on elsewhere."""
    import anyio

    del pipeline  # the runs have it

    while (record := await find_run(runs.store, name)).running:
        name = record.id
        if run := await runs.resume(record):
            await run.wait()
            return await run.current_outcome()
        if (await find_run(runs.store, name)).orphaned:
            raise NotConfigured(
                f"Nothing here can continue a run of {record.tool} whose server has died.",
                fix="Update kimi-mcp to the version that it was begun with; or end it with "
                f"`kimi-mcp runs cancel {record.id}` and call again.",
            )
        await anyio.sleep(POLL_S)
    return record.outcome
