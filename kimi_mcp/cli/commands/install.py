"""``kimi-mcp install`` and ``uninstall``: an entry in a host's file. I/O: that of ``kimi_mcp.cli.install``; prints."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kimi_mcp.cli.console import Printer, print_json
from kimi_mcp.core.errors import InvalidArguments

if TYPE_CHECKING:
    from kimi_mcp.cli.install import HostRow, InstallResult, LaunchCommand, RemoteServer

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_DONE = {
    "written": "{host} has {name} now.",
    "unchanged": "{host} has {name} already: nothing to change.",
    "removed": "{name} was removed from {host}.",
    "absent": "{host} has no server called {name}: nothing to take out.",
}

HostArgument = Annotated[
    str,
    typer.Argument(
        metavar="HOST",
        help="claude-desktop, claude-code, cursor, vscode, codex, gemini, kimi-code, zed, goose, opencode, qwen-code, "
        "copilot, cline or kilo.",
    ),
]
NameOption = Annotated[str, typer.Option("--name", help="The server's name in that host.")]


def install(
    host: HostArgument,
    print_only: Annotated[
        bool, typer.Option("--print", help="Only show what the host's file is to hold; write nothing.")
    ] = False,
    name: NameOption = "kimi",
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="K=V", help="A setting for the server, such as KIMI_PROVIDER=vllm. Repeatable."),
    ] = None,
    defer: Annotated[
        bool,
        typer.Option("--defer", help="Leave the tools to the host's search (Claude Code, Qwen Code, Copilot)."),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="Connect the host to the server there, such as your team's."),
    ] = None,
    token_env: Annotated[
        str | None,
        typer.Option(
            "--token-env",
            metavar="NAME",
            help="With --url: the variable that holds your token. Without it the host has you sign in where it must.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Put kimi-mcp into a host's own settings.

    Writes this command, by its absolute path, into the host's file; with --url a server that runs elsewhere.
    Everything else in it stays, comments too; a copy of it as it was is saved beside it. A key or token is written only
    where the host has no better place for it; else the entry names where the host finds it. Doing it again changes
    nothing.
    """
    from kimi_mcp.cli.install import install as put_in
    from kimi_mcp.cli.install import install_remote, snippet, started_as

    row, file = _host(host, name)
    if defer and row.always_load is None:
        raise typer.BadParameter(f"{row.name} shows all tools to its model.", param_hint="--defer")
    row = row.deferred() if defer else row
    server = None if url is None else _server(row, url, token_env, env, with_token=not print_only)
    if server is None and token_env is not None:
        raise typer.BadParameter("it is for a server that runs elsewhere: add --url.", param_hint="--token-env")
    given, taken = ({}, []) if server else _with_exported(_settings(env or []))
    started: LaunchCommand | RemoteServer = server or started_as(sys.argv[0])
    if print_only:
        print(snippet(row, name, started, given, os.environ), end="")
        _point_to(row, file, given, taken, server)
        return
    if server is not None:
        done = install_remote(row, name, server, file=file, home=Path.home())
    else:
        done = put_in(row, name, started_as(sys.argv[0]), given, environment=os.environ, file=file, home=Path.home())
    _print_result(row, name, done, given, taken, as_json=as_json, server=server)


def uninstall(
    host: HostArgument,
    name: NameOption = "kimi",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Take kimi-mcp out of a host's settings again.

    Everything else in the host's file stays; a copy of it as it was is saved beside it. An entry of that name that
    starts something else is left alone.
    """
    from kimi_mcp.cli.install import uninstall as take_out

    row, file = _host(host, name)
    done = take_out(row, name, file=file, home=Path.home())
    _print_result(row, name, done, {}, (), as_json=as_json)


def _host(name: str, server: str) -> tuple[HostRow, Path]:
    """The host of that name and its file. Raises ``BadParameter``, also where no server may be called so."""
    from kimi_mcp.cli.install import load_hosts, place_of, this_system

    hosts = load_hosts()
    if (host := hosts.get(name.lower())) is None:
        hint = _near(name.lower(), hosts) or f"; there is {', '.join(hosts)}."
        raise typer.BadParameter(f"{name} is no known host{hint}", param_hint="HOST")
    if not _NAME.fullmatch(server):
        raise typer.BadParameter(
            "a name begins with a letter and has up to 32 letters, digits, - and _: hosts make tools' names of it.",
            param_hint="--name",
        )
    return host, place_of(host, this_system(), Path.home(), os.environ)


def _server(
    host: HostRow, url: str, variable: str | None, env: Sequence[str] | None, *, with_token: bool
) -> RemoteServer:
    """The server at a URL. Raises ``BadParameter`` and ``InvalidArguments``."""
    from kimi_mcp.cli.install import RemoteServer, checked_token, checked_url

    if host.remote is None:
        raise typer.BadParameter(f"not for {host.name}. {host.no_remote}", param_hint="--url")
    if env:
        message = "the settings of a server that runs elsewhere are its operator's: leave out --env, or --url."
        raise typer.BadParameter(message, param_hint="--env")
    if variable is not None and (not _VARIABLE.fullmatch(variable) or (len(variable) > 40 and not variable.isupper())):
        message = "name the variable that holds the token, such as MY_KIMI_TOKEN; a token is never an argument."
        raise typer.BadParameter(message, param_hint="--token-env")
    server = RemoteServer(url=checked_url(url), variable=variable)
    if variable is None or host.remote.way != "plain" or not with_token:
        return server
    token = os.environ.get(variable, "").strip()
    if not token and sys.stdin.isatty():
        token = typer.prompt(f"Your token for {server.url} (it is not shown)", hide_input=True, err=True).strip()
    if not token:
        raise InvalidArguments(
            f"{host.name}'s file is the only place for the token, and {variable} is not set here.",
            fix=f"Set {variable} to your token in this shell, then try again.",
        )
    return RemoteServer(url=server.url, variable=variable, token=checked_token(token, variable))


def _near(name: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _settings(pairs: Sequence[str]) -> dict[str, str]:
    """The settings of ``--env``. Those of kimi-mcp must exist and be valid; an error does not repeat their value."""
    from kimi_mcp import catalogue
    from kimi_mcp.catalogue import credentials
    from kimi_mcp.core.settings import read_settings

    given: dict[str, str] = {}
    known = [row.name for row in credentials.variables(catalogue.load())]
    for pair in pairs:
        variable, equals, value = pair.partition("=")
        if not equals or not _VARIABLE.fullmatch(variable):
            raise typer.BadParameter("write NAME=VALUE.", param_hint="--env")
        if variable.startswith("KIMI_") and variable not in known:
            raise typer.BadParameter(f"kimi-mcp has no setting {variable}{_near(variable, known)}", param_hint="--env")
        given[variable] = value
    settings = read_settings(given)
    if unreadable := credentials.unreadable(settings, catalogue.load_for(settings)):
        raise typer.BadParameter(f"{unreadable[0].message} {unreadable[0].fix}", param_hint="--env")
    return given


_PROVIDER_SETTINGS = ("KIMI_PROVIDER", "KIMI_BASE_URL", "KIMI_MODEL")
"""The server in the host is to ask the same provider and model as commands in this shell do."""


def _with_exported(given: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """The settings with those of the provider that are exported here, and the names of these.

    None is added where ``--env`` itself chooses the provider, by one of them or by a provider's own key.
    """
    from kimi_mcp.cli.install.entry import is_key
    from kimi_mcp.core.settings import OWN_KEY

    if any(name in _PROVIDER_SETTINGS or (is_key(name) and name != OWN_KEY) for name in given):
        return given, []
    exported = {
        name: value
        for name in (*_PROVIDER_SETTINGS, "KIMI_CATALOGUE")
        if (value := os.environ.get(name, "").strip()) and "${" not in value
    }
    if "KIMI_CATALOGUE" in exported:  # the host starts the server in another folder
        exported["KIMI_CATALOGUE"] = str(Path(exported["KIMI_CATALOGUE"]).expanduser().absolute())
    return {**exported, **given}, list(exported)


def _print_result(
    host: HostRow,
    name: str,
    done: InstallResult,
    given: Mapping[str, str],
    taken: Sequence[str],
    *,
    as_json: bool,
    server: RemoteServer | None = None,
) -> None:
    removing = done.action in ("removed", "absent")
    following = [] if removing else _next(host, done, given, server)
    if as_json:
        print_json(
            {
                "host": host.id,
                "name": name,
                "action": done.action,
                "file": str(done.file),
                "backup": done.backup and str(done.backup),
                "url": server and server.url,
                "keys": list(done.keys),
                "keys_in_clear": list(done.in_clear),
                "kept": list(done.kept),
                "next": following,
            }
        )
        return
    page = Printer(label=8)
    page.mark("ok", _DONE[done.action].format(host=host.name, name=name))
    page.row("file", done.shown + (", which is new" if done.new_file else ""))
    if server is not None:
        page.row("server", server.url)
    if host.always_load and host.always_load not in done.kept and not removing:
        shown = "its model always has them; --defer leaves them to its tool search"
        searched = "its model has to search for them"
        page.row("tools", shown if host.always_load in host.entry else searched, "quiet")
    if host.waits and not done.kept and not removing:
        page.row("waits", host.waits, "quiet")
    if done.kept:
        page.row("kept", f"{', '.join(done.kept)}, as this file has it", "quiet")
    if taken:
        page.row("takes", f"{', '.join(taken)}, as exported here; --env NAME=VALUE overrides it", "quiet")
    if done.backup:
        page.row("backup", done.backup.name, "quiet")
    where = "still in that copy; delete it when all is well" if removing else "in that file in clear text"
    for variable in done.in_clear:
        page.mark("warn", f"The value of {variable} is {where}.")
    for number, step in enumerate(following):
        page.row("next" if number == 0 else "", step)


def _point_to(
    host: HostRow, file: Path, given: Mapping[str, str], taken: Sequence[str], server: RemoteServer | None
) -> None:
    """Print on stderr where the snippet belongs, and what is no part of it."""
    from kimi_mcp.cli.install import withheld
    from kimi_mcp.cli.install.files import shown

    page = Printer(sys.stderr, indent=0)
    if taken:
        page.line(f"Taken from this shell: {', '.join(taken)}. --env NAME=VALUE overrides it.", "quiet")
    for variable in withheld(host, given):
        page.line(_key_hint(host, variable, given), "quiet")
    for step in () if server is None else _access(host, server):
        page.line(step, "quiet")
    page.line(f"Put this into {shown(file, Path.home())}. {host.next}", "quiet")


def _next(host: HostRow, done: InstallResult, given: Mapping[str, str], server: RemoteServer | None) -> list[str]:
    """What a person does now."""
    if server is not None:
        return [*([] if done.in_clear else _access(host, server)), host.next]
    steps: list[str] = []
    for variable in done.keys:
        if host.keys.way == "plain" and variable not in done.in_clear:
            steps.append(f"No key was written. `kimi-mcp install {host.id} --env {variable}=YOUR_KEY` puts it there.")
        steps.append(_key_hint(host, variable, given))
    return [*steps, host.next]


def _access(host: HostRow, server: RemoteServer) -> list[str]:
    """What a person does to be let in by a server."""
    assert host.remote is not None, "its server is at a URL"
    if server.variable is not None:
        return [host.remote.hint.replace("NAME", server.variable)]
    return [
        f"If the server wants a token, add --token-env NAME. If it has you sign in: {host.remote.login}",
    ]


def _key_hint(host: HostRow, variable: str, given: Mapping[str, str]) -> str:
    """What a person does for a key; says so if its given value was not written."""
    from kimi_mcp.cli.install import withheld

    hint = host.keys.hint.replace("NAME", variable)
    if variable not in withheld(host, given):
        return hint
    return f"The value of {variable} was not written: {host.name}'s file is no place for it. {hint}"
