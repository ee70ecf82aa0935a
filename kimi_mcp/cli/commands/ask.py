"""``kimi-mcp ask``: one call from a shell, along the path of a host's call. I/O: prints, waits, calls the provider.

A terminal sees reasoning and answer as they come; a pipe gets the result's text and nothing else; ``--json`` prints the
structured result. What has arrived is read from the run, some twenty times a second.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimi_mcp.cli.commands.arguments import (
    AskTool,
    chosen_tool,
    read_environment,
    read_json_object,
    read_text,
    with_typed_folders,
)
from kimi_mcp.cli.commands.signals import ExitSignals, exit_at_once, handled_signals, opened_runs
from kimi_mcp.cli.console import OPTIONS, complain, exit_status, is_terminal, print_json
from kimi_mcp.core.errors import Cancelled, KimiError
from kimi_mcp.core.types import Effort, Mode

if TYPE_CHECKING:
    from kimi_mcp.cli.commands.run_progress import LiveWatch, QuietWatch
    from kimi_mcp.core.outcome import Outcome
    from kimi_mcp.core.settings import Settings
    from kimi_mcp.pipeline.pipeline import Pipeline
    from kimi_mcp.runs import Run

    Work = Callable[[Pipeline, Run], Awaitable[Outcome]]

TICK_S = 0.05
"""Seconds between two updates."""


def ask(
    prompt: Annotated[str, typer.Argument(help="What to ask; sent verbatim. - reads it from stdin.")],
    tool: Annotated[
        AskTool | None,
        typer.Option(
            help="think reasons first, instant answers at once, swarm lets many agents work at the same time. Left "
            "out: vision with --image, video with --video, swarm with its own options, else think."
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="P", help="A picture: path, https URL, data URI or ms:// id. May be given again."),
    ] = None,
    video: Annotated[str | None, typer.Option(metavar="P", help="A clip, in the same forms.")] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="P", help="A text or office file, or a PDF, to send along: path or quoted glob. May be given again."
        ),
    ] = None,
    mode: Annotated[Mode | None, typer.Option(help="Of vision and video: thinking unless you say instant.")] = None,
    system: Annotated[str | None, typer.Option(help="System prompt. None is sent by default.")] = None,
    model: Annotated[str | None, typer.Option(help="Such as kimi-k2.5. By default KIMI_MODEL.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="One of KIMI_ALLOWED_PROVIDERS. By default KIMI_PROVIDER.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Bound on reasoning plus answer, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Leave out: the mode fixes it.")] = None,
    web: Annotated[
        bool | None, typer.Option("--web", help="Let the model search the web, by its provider's own tools.")
    ] = None,
    effort: Annotated[
        Effort | None, typer.Option(help="How much to think, of models that have levels; their default is max.")
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="JSON schema that the answer must fit."),
    ] = None,
    conversation: Annotated[
        str | None,
        typer.Option(metavar="ID", help="A conversation to continue, or a run to branch off from."),
    ] = None,
    item: Annotated[
        list[str] | None,
        typer.Option(metavar="X", help="swarm: what {{item}} stands for, a file or a quoted glob. An agent each."),
    ] = None,
    use: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="swarm: tools that agents get, such as files.*; none for none."),
    ] = None,
    max_agents: Annotated[int | None, typer.Option(help="swarm: sub-agents at most.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="swarm: steps of the main agent, 15 at most.")] = None,
    max_agent_steps: Annotated[int | None, typer.Option(help="swarm: steps of a sub-agent, 100 at most.")] = None,
    max_cost_usd: Annotated[float | None, typer.Option(help="swarm: US dollars at most.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the call costs at most and whether it fits; request no answer.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the structured result.")] = False,
) -> None:
    """Ask Kimi from a shell.

    A terminal sees reasoning and answer as they come; a pipe gets the answer alone. Exit status: 0 for a whole
    answer, 1 for an error (on stderr), 2 for wrong usage, 130 after Ctrl-C.

    Files are read from the working directory and from the folders of the paths that you type; where KIMI_ROOTS is
    set, from its folders alone. Keys and .env files are never sent.
    """
    given = locals()
    options = {name: given[option.removeprefix("--").replace("-", "_")] for name, option in OPTIONS.items()}
    arguments: dict[str, Any] = {name: value for name, value in options.items() if value not in (None, [])}
    name = f"kimi_{chosen_tool(tool, arguments)}"
    import anyio

    from kimi_mcp.cli.commands.run_progress import LiveWatch, QuietWatch
    from kimi_mcp.core.outcome import Outcome
    from kimi_mcp.core.settings import read_settings

    prompt = arguments["prompt"] = read_text("-") if prompt == "-" else prompt
    if schema is not None:
        arguments["response_schema"] = read_json_object(
            str(schema), 'Put a JSON schema into it, such as {"type": "object", "properties": {}}.'
        )
    settings = with_typed_folders(read_settings(os.environ), [*(image or ()), *([video] if video else ())], file or ())
    if dry_run:
        _estimate(settings, name, arguments, as_json=as_json)
        return
    watch = QuietWatch(settings.reasoning_inline_chars if as_json else None)
    if is_terminal(sys.stdout) and not as_json:
        watch = LiveWatch()
    try:
        read_environment()
        work = _work(name, arguments)
    except KimiError as error:
        outcome = Outcome(status="failed", error=error)
        watch.end(outcome)
    else:
        with handled_signals() as signals:
            outcome = anyio.run(_run, name, prompt, work, settings, watch, signals)
    if outcome.error is not None:
        further = f" Or continue it: `kimi-mcp runs continue {outcome.run_id}`." if outcome.can_continue else ""
        complain(outcome.error.message, outcome.error.fix + further)
        raise typer.Exit(1 if outcome.timing.attempts else exit_status(outcome.error))


def _estimate(settings: Settings, name: str, arguments: dict[str, Any], *, as_json: bool) -> None:
    """Print what the call will cost; exits with 1 where it does not fit."""
    import anyio

    from kimi_mcp.cli.commands import dry_run

    read_environment()
    try:
        estimate = anyio.run(dry_run.estimate, settings, name, arguments)
    except KimiError as error:
        if as_json:
            print_json({"fits": False, "error": error.as_json()})
        raise
    dry_run.show(estimate, as_json=as_json)
    if not estimate.fits:
        raise typer.Exit(1)


def _work(name: str, arguments: dict[str, Any]) -> Work:
    """What is to be done, once its arguments were validated."""
    from kimi_mcp.server.tools import TOOLS, PromptArguments, SwarmArguments, parse_arguments

    tool = TOOLS[name]
    parsed = parse_arguments(tool, arguments, by_client=False)
    if isinstance(parsed, SwarmArguments):
        from kimi_mcp.swarm import run_swarm

        swarm = parsed.call()
        return lambda pipeline, run: run_swarm(swarm, run, pipeline)
    assert isinstance(parsed, PromptArguments)
    assert tool.mode is not None
    call = parsed.call(tool.mode)
    return lambda pipeline, run: pipeline.run(call, run)


async def _run(
    name: str, prompt: str, work: Work, settings: Settings, watch: LiveWatch | QuietWatch, signals: ExitSignals
) -> Outcome:
    """The outcome of the call, followed to its end; once interrupted, what had arrived is printed, and this exits."""
    import anyio

    from kimi_mcp.runs import Run
    from kimi_mcp.server.callers import LOCAL

    importlib.import_module("kimi_mcp.provider.clients")  # takes a second at times, which is no part of the call
    async with opened_runs(settings) as (tasks, pipeline, runs):
        run = Run(caller=LOCAL, tool=name, prompt=prompt, host="kimi-mcp ask")
        runs.start(run, lambda run: work(pipeline, run))
        try:
            with signals.interruptible():
                await _follow(run, watch)
        finally:
            with anyio.CancelScope(shield=True):
                if signals.signal is None:
                    await run.cancel()  # of no effect on a run that has ended
                else:
                    tasks.cancel_scope.cancel()  # the run is not cancelled: the process ends, as a server's does
                    await run.wait()
            outcome = run.snapshot()
            if runs.left:
                outcome = replace(outcome, status="running", error=None)  # it can be resumed
            watch.end(outcome)
    if signals.signal is not None:
        if runs.left and runs.store.is_persistent:
            complain(
                "The swarm was stopped before its end; the results of its steps are kept.",
                f"Continue with `kimi-mcp runs resume {outcome.run_id}`.",
            )
        elif outcome.error is not None:
            complain(outcome.error.message, outcome.error.fix)
    # A swarm that is cancelled is partial if any of its agents had finished.
    if signals.signal is not None or (outcome.error is not None and outcome.error.code == Cancelled.code):
        exit_at_once(signals.status)
    return outcome


async def _follow(run: Run, watch: LiveWatch | QuietWatch) -> None:
    import anyio

    while not run.done.is_set():
        watch.update(run)
        with anyio.move_on_after(TICK_S):
            await run.done.wait()
