"""``kimi-mcp tokens``: who may call the HTTP server. I/O: the file of KIMI_HTTP_TOKENS; prints.

A new token is all that stdout gets, so that a script can take it from there; what is printed about it goes to stderr.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimi_mcp.cli.console import Printer, counted, print_json
from kimi_mcp.server.http.auth.scopes import ADMIN, ALL, CALL, SWARM, USE, Scope

if TYPE_CHECKING:
    from kimi_mcp.server.http.auth.token_file import StoredToken, TokenFile

Whose = Annotated[str, typer.Argument(metavar="NAME", help="Whose it is: a person or a program, such as alice.")]
InJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


def tokens(context: typer.Context, as_json: InJson = False) -> None:
    """Say who may call the HTTP server.

    Without a command it is the same as `tokens list`: the tokens in the file of KIMI_HTTP_TOKENS.
    """
    if context.invoked_subcommand is None:
        list_tokens(as_json)
    elif as_json:
        raise typer.BadParameter(f"put --json behind the command: kimi-mcp tokens {context.invoked_subcommand} …")


def add(
    name: Whose,
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="S",
            help=f"What it allows; may be given several times. {CALL}: the tools but kimi_swarm; {SWARM}: that one; "
            f"{ADMIN}: what operators watch, such as /metrics.  [default: {', '.join(USE)}]",
        ),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Refused after N days. Left out: it never expires.")
    ] = None,
    as_json: InJson = False,
) -> None:
    """Create a token, and show it once.

    Whoever has it calls as NAME, and sees the runs of NAME alone. The file of KIMI_HTTP_TOKENS gets the token's hash,
    so nobody can read the token there. Servers that use the file take it at once.
    """
    from kimi_mcp.server.http.auth.token_file import utc_now

    if any(scope not in ALL for scope in scopes or ()):
        raise typer.BadParameter(f"it is one of {', '.join(ALL)}.", param_hint="--scope")
    chosen: tuple[Scope, ...] = tuple(scope for scope in ALL if scope in (scopes or USE))
    entry, token = _file().add(name, chosen, now=utc_now(), days=days)
    if as_json:
        print_json({"name": entry.name, "token": token} | _as_json(entry, utc_now()))
        return
    page = Printer(sys.stderr, indent=0)
    page.line(f"The token of {name}, shown this once. A client sends it as `Authorization: Bearer TOKEN`:")
    sys.stdout.write(f"{token}\n")
    sys.stdout.flush()
    until = f"expires on {_day(entry.expires)}" if entry.expires else "never expires"
    page.line(f"It allows {', '.join(chosen)}, and {until}. `kimi-mcp tokens revoke {name}` ends it.")


def list_tokens(as_json: InJson = False) -> None:
    """List the tokens: names, scopes and dates.

    An expired one is listed until it is revoked.
    """
    from kimi_mcp.server.http.auth.token_file import utc_now

    now = utc_now()
    found = _file().read()
    if as_json:
        print_json([_as_json(each, now) for each in found])
        return
    page = Printer(indent=0)
    if found:
        rows = [
            (
                f"name|{each.name}",
                " ".join(each.scopes),
                f"quiet|{_day(each.created)}",
                f"bad|expired {_day(each.expires)}" if each.has_expired(now) else _day(each.expires),
            )
            for each in found
        ]
        page.table(("NAME", "SCOPES", "CREATED", "EXPIRES"), rows, optional=(2,))
    if page.folds or not found:
        page.line(f"{counted(len(found), 'token')}. `kimi-mcp tokens add NAME` makes one.")


def revoke(name: Whose, as_json: InJson = False) -> None:
    """Take a token away.

    Servers that use the file refuse it from now on. The runs of NAME stay; a new token of that name sees them.
    """
    from kimi_mcp.server.http.auth.token_file import utc_now

    gone = _file().revoke(name)
    if as_json:
        print_json(_as_json(gone, utc_now()))
    else:
        Printer(indent=0).line(f"The token of {name} is revoked: it is refused from now on.")


def _file() -> TokenFile:
    from kimi_mcp.core.settings import read_settings
    from kimi_mcp.server.http.auth.token_file import TokenFile

    return TokenFile.of(read_settings(os.environ))


def _as_json(entry: StoredToken, now: datetime) -> dict[str, Any]:
    found = entry.model_dump(mode="json", exclude={"sha256"})
    return found | {"expired": entry.has_expired(now)}


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else moment.strftime("%Y-%m-%d")
