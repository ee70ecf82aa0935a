"""``kimi-mcp runs``: what was run, what it cost, and its reasoning. I/O: the journal's; prints.

Whoever has this shell is the operator, and sees the runs of every caller. A look clears nothing away and begins no
journal: the first call does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from kimi_mcp.cli.commands.signals import ExitSignals, heard, leave_at_once
from kimi_mcp.cli.console import Printer, complain, is_terminal, print_json
from kimi_mcp.core.errors import InvalidArguments, NotConfigured, RunNotFound

if TYPE_CHECKING:
    from kimi_mcp.core.outcome import Outcome
    from kimi_mcp.core.settings import Settings
    from kimi_mcp.runs import Runs
    from kimi_mcp.runs.store.records import RunRecord, StepRecord
    from kimi_mcp.runs.store.store import RunStore
    from kimi_mcp.runs.store.totals import Totals

T = TypeVar("T")

MOST = 20
"""Runs that a person is shown unless more are asked for."""

MOST_FITTING = 100
"""Runs that are looked for whose id begins as a person said."""

CANCEL_WITHIN_S = 10.0
"""Seconds within which a run in another server must have ended after it was told to."""

LOOK_EVERY_S = 0.25
"""Seconds between two looks at a run in another server."""


class StatusFilter(StrEnum):
    """How a run stands."""

    completed = "completed"
    running = "running"
    partial = "partial"
    failed = "failed"
    cancelled = "cancelled"


Which = Annotated[str, typer.Argument(metavar="ID", help="Its id, or enough of its beginning to tell it apart.")]
Most = Annotated[
    int | None, typer.Option("--most", "-n", min=1, metavar="N", help="How many to show, the latest first. Unsaid: 20.")
]
OfStatus = Annotated[StatusFilter | None, typer.Option(help="Only those that stand so.")]
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

    Which tool, when, how long, how it stands, tokens and cost. The totals are those of all runs that fit, shown or not.
    """
    from kimi_mcp.cli.commands.run_output import show_list
    from kimi_mcp.runs.store.serializers import in_list

    since = _midnight(time.time()) if today else None
    state = None if status is None else status.value

    async def look(store: RunStore) -> tuple[list[RunRecord], Totals | None, int]:
        shown = await store.overview(None, status=state, since=since, most=most if as_json else most or MOST)
        if as_json:
            return shown, None, 0
        digits = await store.unique_prefix_length([record.id for record in shown])
        return shown, await store.totals(status=state, since=since), digits

    nothing: tuple[list[RunRecord], Totals | None, int] = ([], None, 0)
    shown, totals, digits = _looked(look, nothing=nothing)
    if as_json:
        print_json([in_list(record) for record in shown])
    else:
        show_list(shown, totals, digits, every=status is None and not today)


def show(run_id: Which, as_json: AsJson = False, html: AsPage = None) -> None:
    """Show the whole of one run.

    What was asked, what was sent and what the policy changed, reasoning and answer, tokens, cost, steps, and its place
    in its conversation. With --json the structured result, uncut, and all else that is known. With --html a page to
    open in a browser: who worked when, a lane an agent, with each task, reasoning and answer on a click.
    """
    from kimi_mcp.cli.commands.run_output import show_record
    from kimi_mcp.runs.store.serializers import whole

    async def look(store: RunStore) -> tuple[RunRecord, Sequence[StepRecord], Any]:
        record = await _find(store, run_id)
        steps = await store.steps_of(record.id)
        before, after = await store.neighbours(record.id)
        return record, steps, whole(record, steps, before=before, after=after)

    record, steps, told = _looked(look)
    if html is not None:
        _write_page(html, record, steps)
    elif as_json:
        print_json(told)
    else:
        show_record(record, told)


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
    """Go on with a run that was cut off.

    A swarm goes on behind its last finished step, and its result is printed; what it had paid for is not asked again.
    Of a run that has ended the result is printed. One that lives in another server is waited for.
    """
    import anyio

    settings = _settings()
    with heard() as told:
        outcome = anyio.run(_resumed, settings, run_id, told)
    _print_result(outcome, as_json=as_json)
    if outcome.error is not None:
        complain(f"The run is {outcome.status}: {outcome.error.message}", outcome.error.fix)
        raise typer.Exit(1)


def cancel(run_id: Which, as_json: AsJson = False) -> None:
    """End a run, wherever it lives.

    The server that it lives in closes its upstream request; what has arrived is kept.
    """
    from kimi_mcp.cli.commands.run_output import arrived

    async def end(store: RunStore) -> tuple[RunRecord, bool]:
        record = await _find(store, run_id)
        return await _ended(store, record), record.running

    record, was_running = _looked(end)
    outcome = record.outcome
    if as_json:
        _print_result(outcome, as_json=True)
    elif not was_running:
        print(f"{record.id} had ended already: it is {outcome.status}. Nothing was changed.")
    elif not record.running:
        print(f"{record.id} is {outcome.status}. {arrived(outcome)}")
    if record.running:
        complain(
            f"{record.id} was told to end, and its server has not done so within {CANCEL_WITHIN_S:.0f} seconds.",
            "End the host that it was called from, or look again with: kimi-mcp runs show " + record.id,
        )
        raise typer.Exit(1)


def prune(
    days: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Only what ended more than N days ago. Unsaid: KIMI_RUNS_KEEP_DAYS."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask in a terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was removed as JSON.")] = False,
) -> None:
    """Remove old runs, with their answers and reasoning.

    What a kept conversation goes back to stays, and so does what still runs. Servers remove what is older than
    KIMI_RUNS_KEEP_DAYS by themselves, a little at a time behind their calls.
    """
    from kimi_mcp.cli.commands.run_output import show_pruned
    from kimi_mcp.runs.store.serializers import in_list

    keep = _settings().runs_keep_days if days is None else days
    if not yes and is_terminal(sys.stdout) and sys.stdin.isatty():
        age = f"that ended more than {keep} day{'' if keep == 1 else 's'} ago" if keep else "that has ended"
        typer.confirm(f"Remove every run {age}, with its answer and reasoning?", abort=True)

    async def clear(store: RunStore) -> tuple[list[RunRecord], int]:
        before = time.time() - keep * 86_400
        old = await store.overview(None, ended_before=before)
        gone = set(await store.prune(keep))
        return [record for record in old if record.id in gone], len(old) - len(gone)

    nothing: tuple[list[RunRecord], int] = ([], 0)
    removed, kept = _looked(clear, nothing=nothing)
    if as_json:
        print_json([in_list(record) for record in removed])
    else:
        show_pruned(removed, max(kept, 0))


# ── the journal, opened for one command ───────────────────────────────────────────────────────────────────────────


def _settings() -> Settings:
    from kimi_mcp import catalogue
    from kimi_mcp.catalogue import credentials
    from kimi_mcp.core import json_logs
    from kimi_mcp.core.settings import read_settings

    settings, facts = read_settings(os.environ), catalogue.load()
    json_logs.configure(settings.log_level)
    json_logs.hide(*credentials.keys(settings, facts).values())
    credentials.check(settings, facts)
    if settings.journal == "off":
        raise NotConfigured(
            "KIMI_JOURNAL is off: runs are written down nowhere, and end with the server that they live in.",
            fix="Unset it where the server is started, and here.",
        )
    return settings


def _looked(look: Callable[[RunStore], Awaitable[T]], *, nothing: T | None = None) -> T:
    """What is found in the journal; ``nothing`` where none was begun (None: then there is no such run)."""
    import anyio

    settings = _settings()
    if not _begun(settings):
        if nothing is None:
            raise _unknown()
        return nothing

    async def within() -> T:
        async with _opened(settings) as store:
            return await look(store)

    return anyio.run(within)


def _begun(settings: Settings) -> bool:
    """Whether there is a journal: to open one makes it."""
    from kimi_mcp.runs.store.paths import FILE, folder_of

    return settings.database_url is not None or (folder_of(settings) / FILE).exists()


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[RunStore]:
    import anyio

    from kimi_mcp.runs.store.store import open_store

    store = open_store(settings)
    try:
        yield store
    finally:
        with anyio.CancelScope(shield=True):
            await store.aclose()


async def _find(store: RunStore, said: str) -> RunRecord:
    """A run by its id or by what its id begins with; the ``run_`` may be left out."""
    beginning = "run_" + said.strip().removeprefix("run_")
    if record := await store.find(beginning, None):
        return record
    fitting = [each for each in await store.ids_with_prefix(beginning, MOST_FITTING) if each.startswith(beginning)]
    if len(fitting) > 1:
        many = f"{len(fitting)} or more" if len(fitting) == MOST_FITTING else str(len(fitting))
        raise InvalidArguments(
            f"{many} runs have an id that begins so: {', '.join(fitting[:4])}{', …' if fitting[4:] else ''}.",
            fix="Give more of the id.",
        )
    record = await store.find(fitting[0], None) if fitting else None
    if record is None:
        raise _unknown()
    return record


def _unknown() -> RunNotFound:
    return RunNotFound(
        "No run of that id was written down here.",
        fix="`kimi-mcp runs` lists them. KIMI_DATA_DIR must be the one of the server that it ran in.",
    )


async def _ended(store: RunStore, record: RunRecord) -> RunRecord:
    """The record of a run that was told to end; it still runs where its server did not hear in time."""
    import anyio

    if record.running:
        await store.request_cancel(record.id)  # of a dead server's too: somebody may go on with it at this moment
    with anyio.move_on_after(CANCEL_WITHIN_S):
        while record.running:
            if record.orphaned:  # from the first, or its server has died before it heard
                from kimi_mcp.swarm import recovered_outcome

                record = await store.cancel_orphan(record, recovered_outcome)
            else:
                await anyio.sleep(LOOK_EVERY_S)
                record = await store.find(record.id, None) or record
    return record


async def _resumed(settings: Settings, said: str, told: ExitSignals) -> Outcome:
    import anyio

    from kimi_mcp.pipeline.pipeline import Pipeline
    from kimi_mcp.runs import open_runs
    from kimi_mcp.swarm import prepare_resume, recovered_outcome

    if not _begun(settings):
        raise _unknown()
    ended: list[Outcome] = []
    pipeline, runs = Pipeline(settings), None
    try:
        with Printer(sys.stderr).waiting("until it has ended …"):
            async with anyio.create_task_group() as tasks:
                runs = open_runs(tasks, settings, lambda task: prepare_resume(task, pipeline), recovered_outcome)
                with told.may_cut_off():
                    ended.append(await _gone_on_with(runs, said))
    finally:
        with anyio.move_on_after(1, shield=True):
            await pipeline.aclose()
            if runs is not None:
                await runs.store.aclose(unfinished=not ended)
        if told.ends:
            complain("The run has not ended; what it has brought is kept.", f"Go on: kimi-mcp runs resume {said}")
            leave_at_once(told.status)
    return ended[0]


async def _gone_on_with(runs: Runs, said: str) -> Outcome:
    """How a run ended that was taken up here, or goes on elsewhere."""
    import anyio

    record = await _find(runs.store, said)
    while record.running:
        run = await runs.resume(record)
        if run is not None:
            await run.wait()
            return await run.current_outcome()
        record = await _find(runs.store, record.id)
        if record.orphaned:
            raise InvalidArguments(
                f"Nothing here can go on with a run of {record.tool} whose server has died.",
                fix="Update kimi-mcp to the version that it was begun with; or end it with "
                f"`kimi-mcp runs cancel {record.id}` and call again.",
            )
        await anyio.sleep(LOOK_EVERY_S)
        record = await _find(runs.store, record.id)
    return record.outcome


# ── what is printed ───────────────────────────────────────────────────────────────────────────────────────────────


def _print_result(outcome: Outcome, *, as_json: bool) -> None:
    from kimi_mcp.core.outcome import WHOLE, structured, text

    if as_json:
        print_json(structured(outcome, reasoning_chars=WHOLE))
    elif told := outcome.answer if outcome.status == "failed" else text(outcome):
        Printer(indent=0).line(told)


def _midnight(now: float) -> float:
    """When the day began, UTC."""
    return now - now % 86_400
