"""``kimi-mcp models``: the catalogue of today. I/O: prints; the catalogue reads its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from kimi_mcp.cli.console import Printer, print_json

if TYPE_CHECKING:
    from kimi_mcp.catalogue import Catalogue, CatalogueRow
    from kimi_mcp.core.profiles import Price

KINDS: Mapping[str, str] = {"served": "ok", "until": "warn"}
"""The style of a state by its first word; of any other it is ``unknown``."""

EXTRAS = (("DATE", 92), ("OUTPUT", 100), ("MEDIA", 110))
"""Columns that are shown from that width of the terminal on."""

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

    State, modes, limits, prices, media, and the source of each row. Prices are US dollars per million tokens:
    input, cached input, output.
    """
    from kimi_mcp import catalogue
    from kimi_mcp.pipeline.route import today

    facts = catalogue.load()
    _check(facts, provider, model)
    rows = [row for row in facts.rows(today()) if _matches(row, provider, model)]
    if as_json:
        print_json([row.as_json() for row in rows])
        return
    page = Printer(label=26)
    if page.folds:
        _show(page, facts, rows, sources=sources)
    else:
        _print_table(rows)


def _check(facts: Catalogue, provider: str | None, model: str | None) -> None:
    """Raise ``BadParameter``, with the nearest names, where a name is unknown."""
    if provider is not None and provider.lower() not in facts.providers:
        near = facts.nearest(provider, facts.providers) or tuple(facts.providers)
        raise typer.BadParameter(f"there is no {provider}; there is {', '.join(near)}.", param_hint="--provider")
    shown = [provider.lower()] if provider else list(facts.providers)
    if model is not None and not any(facts.profile(name, model) for name in shown):
        served = [row for name in shown for row in facts.providers[name].models]
        near = facts.nearest(model, dict.fromkeys(name for row in served for name in (row.model, row.wire_id)))
        near = near or tuple(facts.models)
        where = f" at {provider}" if provider else ""
        raise typer.BadParameter(f"there is no {model}{where}; there is {', '.join(near)}.", param_hint="--model")


def _matches(row: CatalogueRow, provider: str | None, model: str | None) -> bool:
    return (provider is None or row.provider == provider.lower()) and (
        model is None or model.lower() in (row.model.lower(), row.wire_id.lower())
    )


def _print_table(rows: Sequence[CatalogueRow]) -> None:
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
    Printer(indent=0).table(head, cells, right=(5, 6))


def _show(page: Printer, facts: Catalogue, rows: Sequence[CatalogueRow], *, sources: bool) -> None:
    extras = [name for name, width in EXTRAS if page.width >= width and not sources]
    widths = [max(len(cells[place]) for cells in map(_cells, rows)) for place in range(4)]
    for provider, served in groupby(rows, key=lambda row: row.provider):
        about = facts.providers[provider]
        page.heading(provider, f"{about.name} · {about.base_url}")
        for row in served:
            kind = KINDS.get(row.state.split()[0], "unknown")
            cells = [cell.ljust(width) for cell, width in zip(_cells(row), widths, strict=True)]
            kinds = ("name" if kind != "unknown" else "", kind, "", "")
            more = {"DATE": row.checked.isoformat(), "OUTPUT": f"out {_tokens(row.output_tokens):<5}",
                    "MEDIA": " ".join(row.media)}  # fmt: skip
            page.columns(
                *zip(cells, kinds, strict=True),
                (_price(row.price).ljust(16 if extras else 0), ""),
                *((more[name], "quiet") for name in extras),
            )
            if sources:
                media = f"{' and '.join(row.media) or 'no media'} · {_tokens(row.output_tokens)} of output at most"
                source = f"as {row.wire_id} · {media} · {row.checked.isoformat()}: {row.source}"
                page.row("", source, "quiet", label_kind="")
        page.line()
    page.line("Prices: US dollars per million tokens, input/cached/output.", "quiet")
    page.line(
        "--sources shows the source of each row, its wire id, output limit and media; --json has it all.", "quiet"
    )


def _cells(row: CatalogueRow) -> tuple[str, str, str, str]:
    return (
        row.model,
        row.state,
        "both" if len(row.modes) > 1 else " ".join(row.modes),
        _tokens(row.context_tokens),
    )


def _tokens(count: int) -> str:
    """262,144 is shown as 256K."""
    for size, unit in ((1 << 20, "M"), (1 << 10, "K")):
        if count >= size and count % size == 0:
            return f"{count // size}{unit}"
    return f"{count:,}"


def _price(price: Price | None) -> str:
    if price is None:
        return "unknown"
    return f"{price.input:.2f}/{price.cached:.2f}/{price.output:.2f}"
