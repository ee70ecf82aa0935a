"""``kimi-mcp models``: the catalogue as it stands today. I/O: prints; the catalogue reads its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from kimi_mcp.cli.console import Printer, print_json

if TYPE_CHECKING:
    from kimi_mcp.catalogue import Catalogue, CatalogueRow
    from kimi_mcp.core.profiles import Price

KINDS: Mapping[str, str] = {
    "served": "ok",
    "until": "warn",
    "ended": "unknown",
    "found": "unknown",
    "unknown": "unknown",
}
"""What a state looks like, by its first word."""

EXTRAS = (("DATE", 92), ("OUTPUT", 100), ("MEDIA", 110))
"""Columns that are shown from that width on."""

PRICE = "IN/CACHED/OUT"


def models(
    provider: Annotated[str | None, typer.Option(help="Only this provider.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model: a catalogue id, or a provider's own.")] = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="In a terminal too, show where each fact is from.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Show who serves which Kimi model today.

    State, modes, limits, prices, media, and whose word each row is. Prices are US dollars per million tokens:
    input, cached input, output.
    """
    from kimi_mcp import catalogue
    from kimi_mcp.pipeline.pipeline import today

    facts = catalogue.load()
    _check(facts, provider, model)
    rows = [row for row in facts.rows(today()) if _asked_for(row, provider, model)]
    if as_json:
        print_json([row.as_json() for row in rows])
        return
    page = Printer(label=26)
    if page.folds:
        _for_people(page, facts, rows, sources=sources)
    else:
        _for_programs(rows)


def _check(facts: Catalogue, provider: str | None, model: str | None) -> None:
    """Every name that is asked for must be one; raises ``BadParameter`` with the nearest."""
    if provider is not None and provider.lower() not in facts.providers:
        near = facts.nearest(provider, facts.providers) or tuple(facts.providers)
        raise typer.BadParameter(f"there is no {provider}; there is {', '.join(near)}.", param_hint="--provider")
    shown = [provider.lower()] if provider else list(facts.providers)
    if model is not None and not any(facts.profile(name, model) for name in shown):
        names = dict.fromkeys(
            name
            for shown_one in shown
            for row in facts.providers[shown_one].models
            for name in (row.model, row.wire_id)
        )
        near = facts.nearest(model, names) or tuple(facts.models)
        where = f" at {provider}" if provider else ""
        raise typer.BadParameter(f"there is no {model}{where}; there is {', '.join(near)}.", param_hint="--model")


def _asked_for(row: CatalogueRow, provider: str | None, model: str | None) -> bool:
    return (provider is None or row.provider == provider.lower()) and (
        model is None or model.lower() in (row.model.lower(), row.wire_id.lower())
    )


def _for_programs(rows: Sequence[CatalogueRow]) -> None:
    head = ("PROVIDER", "MODEL", "WIRE_ID", "STATE", "MODES", "CONTEXT", "OUTPUT", PRICE, "MEDIA", "DATE", "SOURCE")
    cells = [
        (
            row.provider,
            row.model,
            row.wire_id,
            row.state,
            ",".join(row.modes),
            str(row.context_tokens),
            str(row.output_tokens),
            _price(row.price),
            ",".join(row.media) or "-",
            row.checked.isoformat(),
            row.source,
        )
        for row in rows
    ]
    Printer(indent=0).table(head, cells, right=frozenset((5, 6)))


def _for_people(page: Printer, facts: Catalogue, rows: Sequence[CatalogueRow], *, sources: bool) -> None:
    extras = [name for name, width in EXTRAS if page.width >= width and not sources]
    widths = [max(len(cells[place]) for cells in map(_cells, rows)) for place in range(4)]
    for provider, served in groupby(rows, key=lambda row: row.provider):
        about = facts.providers[provider]
        page.heading(provider, f"{about.name} · {about.base_url}")
        for row in served:
            cells = [cell.ljust(width) for cell, width in zip(_cells(row), widths, strict=True)]
            more = {"DATE": row.checked.isoformat(), "OUTPUT": f"out {_tokens(row.output_tokens):<5}",
                    "MEDIA": " ".join(row.media)}  # fmt: skip
            page.columns(
                (cells[0], "name" if KINDS[row.state.split()[0]] != "unknown" else ""),
                (cells[1], KINDS[row.state.split()[0]]),
                *((cell, "") for cell in cells[2:]),
                (_price(row.price).ljust(16 if extras else 0), ""),
                *((more[name], "quiet") for name in extras),
            )
            if sources:
                page.row("", _fine_print(row), "quiet", label_kind="")
        page.line()
    page.line("Prices: US dollars per million tokens, input/cached/output.", "quiet")
    page.line(
        "--sources shows whose word each row is, its wire id, output limit and media; --json has it all.", "quiet"
    )


def _cells(row: CatalogueRow) -> tuple[str, str, str, str]:
    return (
        row.model,
        row.state.replace("found gone", "gone by"),  # 80 columns are narrow
        "both" if len(row.modes) > 1 else " ".join(row.modes),
        _tokens(row.context_tokens),
    )


def _fine_print(row: CatalogueRow) -> str:
    media = " and ".join(row.media) or "no media"
    return (
        f"as {row.wire_id} · {media} · {_tokens(row.output_tokens)} of output at most · "
        f"{row.checked.isoformat()}: {row.source}"
    )


def _tokens(count: int) -> str:
    """262,144 is 256K to everybody who reads it."""
    for size, unit in ((1 << 20, "M"), (1 << 10, "K")):
        if count >= size and count % size == 0:
            return f"{count // size}{unit}"
    return f"{count:,}"


def _price(price: Price | None) -> str:
    if price is None:
        return "unknown"
    return f"{price.input:.2f}/{price.cached:.2f}/{price.output:.2f}"
