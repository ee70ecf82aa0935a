"""``kimi-mcp files``: uploads at the provider, and their removal. I/O: asks the provider, prints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kimi_mcp.cli.commands.arguments import read_environment
from kimi_mcp.cli.console import Printer, counted, print_json
from kimi_mcp.core.errors import KimiError, NotConfigured

if TYPE_CHECKING:
    from kimi_mcp.core.settings import Settings
    from kimi_mcp.provider import Endpoint, RemoteFile, Upstream

DAY_S = 86_400

NAME_CHARS = 18
"""Characters of a name that a person is shown: ours are a hash, which nobody reads to its end."""


def files(
    action: Annotated[
        Literal["list", "prune"],
        typer.Argument(metavar="list|prune", help="list shows them, prune removes those of kimi-mcp."),
    ] = "list",
    provider: Annotated[str | None, typer.Option(help="One of KIMI_ALLOWED_PROVIDERS. Leave out for yours.")] = None,
    older_than_days: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Only what was uploaded more than N days ago.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the files as JSON.")] = False,
) -> None:
    """Show or remove the media and documents left at the provider.

    Documents, and pictures and clips that are too large for a request, are uploaded, and stay there to be used again.
    prune removes what kimi-mcp uploaded and nothing else; a call that needs it once more uploads it once more.
    """
    import anyio

    endpoint = _endpoint(read_environment(), provider)
    prune = action == "prune"
    with Printer().waiting("asking the provider …"):
        listed, removed, error = anyio.run(_list_and_prune, endpoint, prune, older_than_days)
    if as_json:
        print_json([_as_json(file) for file in (removed if prune else listed)])
    else:
        show_files(endpoint.provider.id, listed, removed if prune else None)
    if error is not None:
        raise error


def is_older(file: RemoteFile, days: int | None, now: float) -> bool:
    """Whether a file was uploaded more than so many days ago; false without a date."""
    return days is None or (file.created > 0 and now - file.created >= days * DAY_S)


def _endpoint(settings: Settings, named: str | None) -> Endpoint:
    """The provider, chosen as for a call; raises where it is not allowed, or keeps no files."""
    from kimi_mcp import catalogue
    from kimi_mcp.pipeline.route import Router, today
    from kimi_mcp.provider import Upstream

    facts = catalogue.load_for(settings)
    endpoint = Router(settings, Upstream(), facts, today).endpoint(named)
    if not endpoint.provider.takes_uploads:
        keep = ", ".join(each.id for each in facts.providers.values() if each.takes_uploads)
        raise NotConfigured(
            f"{endpoint.provider.id} takes no uploads: there is nothing of kimi-mcp.",
            fix=f"Choose a provider that keeps files, with KIMI_PROVIDER or --provider: {keep}.",
        )
    return endpoint


async def _list_and_prune(
    endpoint: Endpoint, prune: bool, days: int | None
) -> tuple[list[RemoteFile], list[RemoteFile], KimiError | None]:
    """The files that are old enough, those of them that were removed, and what stopped the removal."""
    from kimi_mcp.provider import Upstream

    async with aclosing(Upstream()) as upstream:
        listed = [file for file in await upstream.list_files(endpoint) if is_older(file, days, time.time())]
        removed: list[RemoteFile] = []
        for file in listed if prune else ():
            if file.sha256 is None:
                continue
            if error := await _remove(upstream, endpoint, file):
                return listed, removed, error
            removed.append(file)
        return listed, removed, None


async def _remove(upstream: Upstream, endpoint: Endpoint, file: RemoteFile) -> KimiError | None:
    """Remove a file; returns why it is still there, None when it is gone."""
    try:
        await upstream.remove_file(endpoint, file.id)
    except KimiError as error:
        with suppress(KimiError):
            if file.id not in {other.id for other in await upstream.list_files(endpoint)}:
                return None
        return error
    return None


def _as_json(file: RemoteFile) -> dict[str, Any]:
    created = _when(file).isoformat() if file.created else None
    return {**asdict(file), "created": created, "ours": file.sha256 is not None, "sha256": file.sha256}


def show_files(provider: str, listed: Sequence[RemoteFile], removed: Sequence[RemoteFile] | None) -> None:
    """Print the files at a provider, or those that were removed."""
    page = Printer(indent=0)
    if shown := listed if removed is None else removed:
        rows = [_cells(file, whole=not page.folds) for file in shown]
        page.table(("ID", "NAME", "BYTES", "PURPOSE", "CREATED", "OURS"), rows, right=(2,), optional=(3, 4, 1))
    ours = sum(file.sha256 is not None for file in listed)
    if removed is not None:
        others = len(listed) - ours
        kept = f" {counted(others, 'file')} of others {'stays' if others == 1 else 'stay'}." if others else ""
        size = sum(file.size for file in removed)
        page.line(f"Removed {counted(len(removed), 'file')} at {provider}, {size:,} bytes.{kept}")
    elif not listed:
        page.line(f"There is no file at {provider}.")
    elif page.folds:
        page.line(
            f"{counted(len(listed), 'file')} at {provider}, {ours} of them ours: `kimi-mcp files prune` removes those."
        )


def _cells(file: RemoteFile, *, whole: bool) -> tuple[str, ...]:
    ours, name = file.sha256 is not None, _plain(file.name)
    if not whole and len(name) > NAME_CHARS:
        name = f"{name[: NAME_CHARS - 5]}…{name[-4:]}"
    return (
        f"quiet|{_plain(file.id)}",
        f"{'ok' if ours else 'quiet'}|{name}",
        f"{file.size:,}",
        f"quiet|{_plain(file.purpose)}",
        _when(file).strftime("%Y-%m-%d %H:%M" if whole else "%Y-%m-%d") if file.created else "-",
        "yes" if ours else "no",
    )


def _plain(text: str) -> str:
    """A foreign text on one line."""
    return " ".join(text.split()) or "-"


def _when(file: RemoteFile) -> datetime:
    try:
        return datetime.fromtimestamp(file.created, UTC)
    except (OverflowError, OSError, ValueError):
        return datetime.fromtimestamp(0, UTC)
