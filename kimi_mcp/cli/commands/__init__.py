"""The commands, one thin file each; this one puts them together and sees that no mistake ever shows a traceback.

Only typer is imported to read a command line: what a command needs, it imports when it runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, cast

import typer

from kimi_mcp.cli.commands.ask import ask
from kimi_mcp.cli.commands.demo import demo
from kimi_mcp.cli.commands.doctor import doctor
from kimi_mcp.cli.commands.files import files
from kimi_mcp.cli.commands.install import install, uninstall
from kimi_mcp.cli.commands.models import models
from kimi_mcp.cli.commands.policy import check, rules
from kimi_mcp.cli.commands.route import route
from kimi_mcp.cli.commands.runs import cancel, list_runs, prune, resume, runs, show
from kimi_mcp.cli.commands.selfhost import selfhost
from kimi_mcp.cli.commands.serve import serve
from kimi_mcp.cli.commands.simulator import simulator
from kimi_mcp.cli.console import complain, never_fail_to_encode
from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.version import __version__

__all__ = ["app"]

app = typer.Typer(
    name="kimi-mcp",
    help="Moonshot's Kimi models for other agents. Without a command it is the MCP server on stdio.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
"""Everything that ``kimi-mcp`` can do."""


def _version(asked: bool) -> None:
    if asked:
        print(f"kimi-mcp {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
    never_fail_to_encode()


def _spoken(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose every failure is a sentence and its mend on stderr, with exit status 1."""

    @functools.wraps(command)
    def guarded(*args: Any, **said: Any) -> None:
        try:
            command(*args, **said)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as fault:
            fault = _alone(fault)
            if isinstance(fault, KimiError):
                complain(fault.message, fault.fix)
                raise typer.Exit(1) from None
            if isinstance(fault, BrokenPipeError):
                raise fault from None  # typer ends quietly: nobody reads on
            complain(f"A fault of kimi-mcp's own: {_where(fault)}.", "Please report it with the command that you gave.")
            raise typer.Exit(1) from None

    return guarded


def _alone(fault: Exception) -> Exception:
    """What a task group raises because of one thing is that thing."""
    while len(inner := cast("tuple[Exception, ...]", getattr(fault, "exceptions", ()))) == 1:
        fault = inner[0]
    return fault


def _where(fault: Exception) -> str:
    at = fault.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    place = "" if at is None else f" in {at.tb_frame.f_globals.get('__name__', '?')}, line {at.tb_lineno}"
    return type(fault).__name__ + place


for _command in (serve, demo, ask, simulator, doctor, models, route, files, install, uninstall, selfhost):
    app.command()(_spoken(_command))

_policy = typer.Typer(invoke_without_command=True)
_policy.callback()(_spoken(rules))
_policy.command()(_spoken(check))
app.add_typer(_policy, name="policy")

_runs = typer.Typer(invoke_without_command=True)
_runs.callback()(_spoken(runs))
_runs.command("list")(_spoken(list_runs))
for _command in (show, resume, cancel, prune):
    _runs.command()(_spoken(_command))
app.add_typer(_runs, name="runs")
