"""The command line: puts the commands together, and turns every failure into a sentence instead of a traceback.

Short commands are here, the others in a module each. Only typer is imported to read a command line: what a command
needs, it imports when it runs.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from typer.core import TyperGroup

from kimi_mcp.cli.commands.ask import ask
from kimi_mcp.cli.commands.cluster import cluster, drain
from kimi_mcp.cli.commands.files import files
from kimi_mcp.cli.commands.install import install, uninstall
from kimi_mcp.cli.commands.models import models
from kimi_mcp.cli.commands.policy import check, rules
from kimi_mcp.cli.commands.runs import cancel, continue_answer, costs, list_runs, prune, resume, runs, show
from kimi_mcp.cli.commands.selfhost import selfhost
from kimi_mcp.cli.commands.simulator import simulator
from kimi_mcp.cli.commands.tokens import add, list_tokens, revoke, tokens
from kimi_mcp.cli.commands.ui import ui
from kimi_mcp.cli.console import Printer, complain, exit_status, never_fail_to_encode, print_json
from kimi_mcp.core.errors import InvalidArguments, KimiError, NotConfigured
from kimi_mcp.core.version import __version__

__all__ = ["app"]


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Reports every failure as a sentence and its fix on stderr, with the exit status of that."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort):
            raise
        except typer.TyperException as fault:
            place = getattr(fault, "ctx", None) or ctx
            complain(fault.format_message().replace("Value error, ", ""), f"See `{place.command_path} --help`.")
            raise typer.Exit(fault.exit_code) from None
        except Exception as fault:
            # A task group wraps the one exception that it ends by.
            while len(inner := cast("tuple[Exception, ...]", getattr(fault, "exceptions", ()))) == 1:
                fault = inner[0]
            if isinstance(fault, BrokenPipeError):
                raise fault from None  # typer exits quietly: nobody reads on
            if isinstance(fault, KimiError):
                complain(fault.message, fault.fix)
                raise typer.Exit(exit_status(fault)) from None
            *_, (frame, line) = traceback.walk_tb(fault.__traceback__)
            place = f"{frame.f_globals.get('__name__', '?')}, line {line}"
            complain(
                f"A bug of kimi-mcp: {type(fault).__name__} in {place}.",
                "Please report it with the command that you gave.",
            )
            raise typer.Exit(1) from None


app = typer.Typer(
    name="kimi-mcp",
    cls=_Commands,
    help="Moonshot's Kimi models for other agents. Without a command it is the MCP server on stdio.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
"""Everything that ``kimi-mcp`` can do."""


def _version(requested: bool) -> None:
    if requested:
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


def serve(
    transport: Annotated[
        Literal["stdio", "http"], typer.Option(help="stdio: one host starts it. http: clients connect to it.")
    ] = "stdio",
    host: Annotated[
        str | None,
        typer.Option(
            metavar="H", help="http: the address; callers of another one need authentication.  [default: 127.0.0.1]"
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, metavar="P", help="http: the port, 0: any.  [default: 8000]")
    ] = None,
    role: Annotated[
        Literal["all", "http", "worker"] | None,
        typer.Option(
            help="http, with KIMI_CLUSTER=on: answer clients (http), take jobs of swarms (worker), or both.  "
            "[default: all]"
        ),
    ] = None,
) -> None:
    """Serve MCP, on stdin and stdout or over HTTP.

    Without options it is what a host starts, and the same as no command at all. Over HTTP it serves any number of
    clients at http://127.0.0.1:8000/mcp until Ctrl-C or SIGTERM; where KIMI_HTTP_TOKENS or KIMI_OIDC_ISSUER is set,
    only for callers with a token. With KIMI_CLUSTER=on it is one of several replicas on one PostgreSQL; a worker
    among them speaks no MCP, only /healthz, /readyz and /metrics.
    """
    if transport == "http":
        from kimi_mcp.server.entry_point import serve_over_http

        serve_over_http("127.0.0.1" if host is None else host, 8000 if port is None else port, role or "all")
    if host is not None or port is not None or role is not None:
        raise InvalidArguments("--host, --port and --role are for HTTP.", fix="Add --transport http.")
    from kimi_mcp.server.entry_point import serve

    serve()


def demo() -> None:
    """Show every tool at work, without a key.

    Starts a simulator, and the server as a host would; calls every tool on real inputs, and checks each step. Needs
    no key and no network, and ignores the settings of your environment, but needs a checkout of the repository. Exit
    status: 0 only when every step held.
    """
    import anyio

    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / "scripts" / "demo").is_dir():
        raise NotConfigured(
            "The demo is part of the repository, not of the installed package.",
            fix="Run `make demo` in a checkout of it.",
        )
    sys.path.insert(0, str(checkout))
    if not anyio.run(import_module("scripts.demo").play):
        raise typer.Exit(1)


def doctor(
    probe: Annotated[
        bool, typer.Option("--probe", help="Spend a few tokens to compare provider and catalogue; show the balance.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the diagnosis as JSON.")] = False,
) -> None:
    """Say what is wrong, and how to fix it.

    Looks at what is configured, what the provider serves, and whether a call would work. No key is ever shown. Exit
    status: 0 only when a call would work.
    """
    import anyio

    from kimi_mcp.cli.doctor import examine, show
    from kimi_mcp.core import json_logs
    from kimi_mcp.core.settings import read_settings

    settings = read_settings(os.environ)
    json_logs.configure("CRITICAL")
    with nullcontext() if as_json else Printer().waiting("asking the provider …"):
        diagnosis = anyio.run(examine, os.environ, settings, probe)
    if as_json:
        print_json(diagnosis.as_json())
    else:
        show(diagnosis)
    if not diagnosis.works:
        raise typer.Exit(1)


def route(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What somebody asks for. - reads it from stdin.")],
    images: Annotated[int, typer.Option(min=0, metavar="N", help="How many pictures are attached.")] = 0,
    videos: Annotated[int, typer.Option(min=0, metavar="N", help="How many clips are attached.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the routing as JSON.")] = False,
) -> None:
    """Show which tool a sentence means, and why.

    The score is the one by which AIMS, a host that chooses skills by their trigger words, would choose this one;
    0 means that the sentence does not name it. Asks no provider. Only the first 4,000 characters are read.
    """
    from kimi_mcp.skill.routing import route as route_text

    found = route_text(sys.stdin.buffer.read().decode("utf-8", "replace") if text == "-" else text, images, videos)
    if as_json:
        print_json(found.as_json())
        return
    page = Printer(label=9)
    page.heading(found.tool)
    page.row("why", found.why)
    page.row(
        "skill", f"{found.score} points by AIMS's formula" if found.meant else "not named: AIMS would not choose it"
    )
    page.row("triggers", ", ".join(found.matched) or "none")
    points = sorted(found.points.items(), key=lambda row: (row[0] != found.tool, -row[1]))
    page.row("points", ", ".join(f"{tool} {number:g}" for tool, number in points), "quiet")


for _command in (serve, demo, ask, ui, simulator, doctor, models, route, files, install, uninstall, selfhost):
    app.command()(_command)

_policy = typer.Typer(invoke_without_command=True)
_policy.callback()(rules)
_policy.command()(check)
app.add_typer(_policy, name="policy")

_runs = typer.Typer(invoke_without_command=True)
_runs.callback()(runs)
_runs.command("list")(list_runs)
_runs.command("continue")(continue_answer)
for _command in (show, resume, cancel, costs, prune):
    _runs.command()(_command)
app.add_typer(_runs, name="runs")

_tokens = typer.Typer(invoke_without_command=True)
_tokens.callback()(tokens)
_tokens.command("list")(list_tokens)
for _command in (add, revoke):
    _tokens.command()(_command)
app.add_typer(_tokens, name="tokens")

_cluster = typer.Typer(invoke_without_command=True)
_cluster.callback()(cluster)
_cluster.command()(drain)
app.add_typer(_cluster, name="cluster")
