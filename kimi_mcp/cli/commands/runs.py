"""``kimi-mcp runs``: what was run, what it cost, and its reasoning. I/O: the store's; prints.

Whoever has this shell is the operator, and sees the runs of every caller. Reading removes nothing and creates no store:
the first call does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from kimi_mcp.cli.commands.arguments import read_environment
from kimi_mcp.cli.commands.signals import ExitSignals, exit_at_once, handled_signals, opened_runs
from kimi_mcp.cli.console import Printer, complain, is_terminal, print_json
from kimi_mcp.core.errors import InvalidArguments, NotConfigured, RunNotFound
from kimi_mcp.core.types import Status

if TYPE_CHECKING:
    from kimi_mcp.core.outcome import Outcome
    from kimi_mcp.core.settings import Settings
    from kimi_mcp.pipeline.pipeline import Pipeline
    from kimi_mcp.runs import Runs
    from kimi_mcp.runs.store.records import RunRecord, StepRecord, Totals
    from kimi_mcp.runs.store.store import RunStore

T = TypeVar("T")

EndOf = Callable[["Runs", "Pipeline", str], Awaitable["Outcome"]]
"""Finds the outcome of a run by its name."""

DAY_S = 86_400

MOST = 20
"""Runs that a person is shown unless ``--most`` is given."""

MOST_MATCHES = 100
"""Runs that are looked up at most whose id begins as given."""

POLL_S = 0.25
"""Seconds between two reads of a run in another server."""


Which = Annotated[str, typer.Argument(metavar="ID", help="Its id, or enough of its beginning to identify it.")]
Most = Annotated[
    int | None,
    typer.Option("--most", "-n", min=1, metavar="N", help="How many to show, the latest first. Left out: 20."),
]
OfStatus = Annotated[Status | None, typer.Option(help="Only those of that status.")]
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
    as_json: EveryAsJson = False,
) -> None:
    """Show what was run, and what it cost.

    Without a command it is the same as `runs list`: the latest runs of every caller, with their totals.
    """
    if context.invoked_subcommand is None:
        list_runs(most, status, today, as_json)
    elif most is not None or status is not None or today or as_json:
        raise typer.BadParameter(f"put the options behind the command: kimi-mcp runs {context.invoked_subcommand} …")


def list_runs(most: Most = None, status: OfStatus = None, today: Today = False, as_json: EveryAsJson = False) -> None:
    """List the latest runs.

    Tool, start, duration, status, tokens and cost. The totals are those of all matching runs, shown or not.
    """
    from kimi_mcp.cli.commands.run_output import show_list
    from kimi_mcp.runs.store import queries
    from kimi_mcp.runs.store.records import in_list

    now = time.time()
    since = now - now % DAY_S if today else None

    async def read(store: RunStore) -> tuple[list[RunRecord], Totals | None, int]:
        listed = await store.overview(None, status=status, since=since, most=most if as_json else most or MOST)
        if as_json:
            return listed, None, 0
        digits = await store.read(queries.unique_prefix_length, [record.id for record in listed])
        return listed, await store.read(queries.totals, now, status=status, since=since), digits

    listed, totals, digits = _from_store(read, missing=([], None, 0))
    if as_json:
        print_json([in_list(record) for record in listed])
    else:
        show_list(listed, totals, digits, every=status is None and not today)


def show(run_id: Which, as_json: AsJson = False, html: AsPage = None) -> None:
    """Show the whole of one run.

    What was asked, what was sent and what the policy changed, reasoning and answer, tokens, cost, steps, and its place
    in its conversation. With --json the structured result, uncut, and all else that is known. With --html a page to
    open in a browser: who worked when, a lane an agent, with each task, reasoning and answer on a click.
    """
    from kimi_mcp.cli.commands.run_output import show_record
    from kimi_mcp.runs.store import queries
    from kimi_mcp.runs.store.records import whole

    async def read(store: RunStore) -> tuple[RunRecord, Sequence[StepRecord], Any]:
        record = await _find(store, run_id)
        steps = await store.steps(record.id).recorded()
        before, after = await store.read(queries.neighbours, record.id)
        return record, steps, whole(record, steps, before=before, after=after)

    record, steps, details = _from_store(read)
    if html is not None:
        _write_page(html, record, steps)
    elif as_json:
        print_json(details)
    else:
        show_record(record, details)


def _write_page(file: Path, record: RunRecord, steps: Sequence[StepRecord]) -> None:
    from kimi_mcp.cli.html import page

    try:
        file.write_text(page(record, steps), "utf-8", newline="\n")
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

    settings = _settings()
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
    from kimi_mcp.runs.registry import CANCEL_WITHIN_S, RecordedRun, Runs
    from kimi_mcp.swarm import recovered_outcome

    async def end(store: RunStore) -> tuple[RunRecord, bool]:
        found = record = await _find(store, run_id)
        async with anyio.create_task_group() as tasks:
            run = RecordedRun(Runs(tasks, store, recover=recovered_outcome), found)
            await run.cancel()
            record = run.record
        return record, found.running

    record, was_running = _from_store(end)
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

    keep = _settings().runs_keep_days if days is None else days
    if not yes and is_terminal(sys.stdout) and sys.stdin.isatty():
        age = f"that ended more than {keep} day{'' if keep == 1 else 's'} ago" if keep else "that has ended"
        typer.confirm(f"Remove every run {age}, with its answer and reasoning?", abort=True)

    async def clear(store: RunStore) -> tuple[list[RunRecord], int]:
        old = await store.overview(None, ended_before=await store.old_before(keep))
        gone = set(await store.prune(keep))
        return [record for record in old if record.id in gone], len(old) - len(gone)

    removed, kept = _from_store(clear, missing=([], 0))
    if as_json:
        print_json([in_list(record) for record in removed])
    else:
        show_pruned(removed, max(kept, 0))


def _settings() -> Settings:
    from kimi_mcp import catalogue
    from kimi_mcp.catalogue import credentials

    settings = read_environment()
    credentials.check(settings, catalogue.load_for(settings))
    if settings.journal == "off":
        raise NotConfigured(
            "KIMI_JOURNAL is off: runs are not recorded, and end with their server.",
            fix="Unset it where the server is started, and here.",
        )
    return settings


def _from_store(work: Callable[[RunStore], Awaitable[T]], missing: T | None = None) -> T:
    """What ``work`` finds; ``missing``, or an error, where there is no store: opening it would create one."""
    import anyio

    from kimi_mcp.runs.store.store import open_store

    settings = _settings()

    async def within() -> T:
        store = open_store(settings)
        try:
            return await work(store)
        finally:
            with anyio.CancelScope(shield=True):
                await store.aclose()

    if _has_store(settings):
        return anyio.run(within)
    if missing is None:
        raise _unknown()
    return missing


def _has_store(settings: Settings) -> bool:
    from kimi_mcp.runs.store.config import FILE, folder_of

    return settings.database_url is not None or (folder_of(settings) / FILE).exists()


async def _find(store: RunStore, name: str) -> RunRecord:
    """A run by its id or by the beginning of its id; the ``run_`` may be left out."""
    from kimi_mcp.runs.store import queries

    prefix = "run_" + name.strip().removeprefix("run_")
    if record := await store.find(prefix, None):
        return record
    found = await store.read(queries.ids_with_prefix, prefix, MOST_MATCHES)
    matches = [each for each in found if each.startswith(prefix)]
    if len(matches) > 1:
        many = f"{len(matches)} or more" if len(matches) == MOST_MATCHES else str(len(matches))
        raise RunNotFound(
            f"{many} runs have an id that begins so: {', '.join(matches[:4])}{', …' if matches[4:] else '.'}",
            fix="Give more of the id.",
        )
    record = await store.find(matches[0], None) if matches else None
    if record is None:
        raise _unknown()
    return record


def _unknown() -> RunNotFound:
    return RunNotFound(
        "No run of that id was recorded here.",
        fix="`kimi-mcp runs` lists them. KIMI_DATA_DIR must be the one of the server that it ran in.",
    )


async def _followed(settings: Settings, name: str, signals: ExitSignals, end_of: EndOf, again: str) -> Outcome:
    """The outcome that ``end_of`` finds; once interrupted, this exits, and names the command that goes on."""
    if not _has_store(settings):
        raise _unknown()
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
    record = await _find(runs.store, name)
    if record.running or record.outcome.status == "completed":
        return await _end_of(runs, pipeline, record.id)
    run = await runs.reopen(record, pipeline.continuation(record))
    await run.wait()
    return await run.current_outcome()


async def _end_of(runs: Runs, pipeline: Pipeline, name: str) -> Outcome:
    """The outcome of a run that is resumed here, or goes on elsewhere."""
    import anyio

    del pipeline  # the runs have it

    while (record := await _find(runs.store, name)).running:
        name = record.id
        if run := await runs.resume(record):
            await run.wait()
            return await run.current_outcome()
        if (await _find(runs.store, name)).orphaned:
            raise NotConfigured(
                f"Nothing here can continue a run of {record.tool} whose server has died.",
                fix="Update kimi-mcp to the version that it was begun with; or end it with "
                f"`kimi-mcp runs cancel {record.id}` and call again.",
            )
        await anyio.sleep(POLL_S)
    return record.outcome
