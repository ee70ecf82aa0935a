"""``kimi-mcp models``: the catalogue of today. I/O: prints; the catalogue reads its files; ``--live`` asks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from kimi_mcp.cli.console import Printer, print_json

if TYPE_CHECKING:
    from kimi_mcp.catalogue import Catalogue, CatalogueRow
    from kimi_mcp.core.settings import Settings

STYLES: Mapping[str, str] = {"served": "ok", "until": "warn"}
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
    live: Annotated[
        bool, typer.Option("--live", help="Ask the providers that you have configured what they list now.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Show who serves which Kimi model today.

    State, modes, limits, prices, media, and the source of each row. Prices are US dollars per million tokens:
    input, cached input, output.

    With --live the providers that you have configured are asked what they list now, beside what the catalogue says:
    new, gone, same. Nothing else is sent, and nothing costs. Exit status: 0 when all of them have answered.
    """
    from kimi_mcp import catalogue
    from kimi_mcp.core.settings import read_settings
    from kimi_mcp.pipeline.route import today

    settings = read_settings(os.environ)
    facts = catalogue.load_for(settings)
    if live:
        _show_live(settings, facts, provider, model, as_json=as_json)
        return
    rows = _matching(facts, facts.rows(today()), provider, model)
    if as_json:
        print_json([row.as_json() for row in rows])
        return
    page = Printer(label=26)
    if page.folds:
        _show(page, facts, rows, sources=sources)
    else:
        cells = [_cells(row) | ({"YOURS": ",".join(row.yours) or "-"} if facts.user_files else {}) for row in rows]
        Printer(indent=0).table(tuple(cells[0]), [tuple(row.values()) for row in cells], right=(5, 6))


def _show_live(settings: Settings, facts: Catalogue, provider: str | None, model: str | None, *, as_json: bool) -> None:
    import anyio

    from kimi_mcp.cli.commands import live_models
    from kimi_mcp.cli.commands.arguments import read_environment

    read_environment()
    page = Printer(indent=2)
    with nullcontext() if as_json else page.waiting("asking the providers …"):
        lists = anyio.run(live_models.ask, settings, facts, provider)
    if model is not None:
        lists = [each.only(model) for each in lists]
    if as_json:
        print_json([each.as_json() for each in lists])
    else:
        live_models.show(page, lists)
    if any(each.error for each in lists):
        raise typer.Exit(1)


def _matching(
    facts: Catalogue, rows: Sequence[CatalogueRow], provider: str | None, model: str | None
) -> Sequence[CatalogueRow]:
    """The rows of that provider and model; raises ``BadParameter``, with the nearest names, where one is unknown."""
    if provider is not None and provider.lower() not in facts.providers:
        near = facts.nearest(provider, facts.providers) or tuple(facts.providers)
        raise typer.BadParameter(f"there is no {provider}; there is {', '.join(near)}.", param_hint="--provider")
    served = [row for row in rows if provider is None or row.provider == provider.lower()]
    if model is None:
        return served
    if found := [row for row in served if model.lower() in (row.model.lower(), row.wire_id.lower())]:
        return found
    near = facts.nearest(model, dict.fromkeys(name for row in served for name in (row.model, row.wire_id)))
    where = f" at {provider}" if provider else ""
    names = ", ".join(near or facts.models)
    raise typer.BadParameter(f"there is no {model}{where}; there is {names}.", param_hint="--model")


def _cells(row: CatalogueRow) -> dict[str, str]:
    price = row.price
    return {
        "PROVIDER": row.provider,
        "MODEL": row.model,
        "WIRE_ID": row.wire_id,
        "STATE": row.state,
        "MODES": ",".join(row.modes),
        "CONTEXT": str(row.context_tokens),
        "OUTPUT": str(row.output_tokens),
        PRICE: f"{price.input:.2f}/{price.cached:.2f}/{price.output:.2f}" if price else "unknown",
        "MEDIA": ",".join(row.media) or "-",
        "DATE": row.checked.isoformat(),
        "SOURCE": row.source + (f" (in doubt: {row.doubt})" if row.doubt else ""),
    }


def _short_cells(row: CatalogueRow) -> dict[str, str]:
    """The cells as a person reads them: they fit 80 columns, without the ``EXTRAS``."""
    return {
        **_cells(row),
        "MODES": "both" if len(row.modes) > 1 else " ".join(row.modes),
        "CONTEXT": _tokens(row.context_tokens),
        "OUTPUT": f"out {_tokens(row.output_tokens):<5}",
        "MEDIA": " ".join(row.media),
    }


def _show(page: Printer, facts: Catalogue, rows: Sequence[CatalogueRow], *, sources: bool) -> None:
    extras = [name for name, width in EXTRAS if page.width >= width and not sources]
    table = [_short_cells(row) for row in rows]
    widths = {name: max(len(cells[name]) for cells in table) for name in ("MODEL", "STATE", "MODES", "CONTEXT")}
    widths[PRICE] = 16 if extras else 0
    for provider, served in groupby(zip(rows, table, strict=True), key=lambda pair: pair[0].provider):
        page.heading(provider, f"{facts.providers[provider].name} · {facts.providers[provider].base_url}")
        for row, cells in served:
            style = STYLES.get(row.state.split()[0], "unknown")
            styles = {"MODEL": "name" if style != "unknown" else "", "STATE": style}
            page.columns(
                *((cells[name].ljust(width), styles.get(name, "")) for name, width in widths.items()),
                *((cells[name], "quiet") for name in extras),
            )
            if sources:
                media = f"{' and '.join(row.media) or 'no media'} · {_tokens(row.output_tokens)} of output at most"
                source = f"as {row.wire_id} · {media} · {row.checked.isoformat()}: {row.source}"
                page.row("", source, "quiet", label_kind="")
                if row.doubt:
                    page.row("", f"in doubt: {row.doubt}", "warn", label_kind="")
            if row.yours:
                page.row("", f"yours: {', '.join(row.yours)}", "warn", label_kind="")
        page.line()
    if facts.user_files:
        page.line(f"Yours, by KIMI_CATALOGUE: {facts.user_changes}.", "warn")
    page.line("Prices: US dollars per million tokens, input/cached/output.", "quiet")
    page.line(
        "--sources shows the source of each row, its wire id, output limit and media; --json has it all.", "quiet"
    )


def _tokens(count: int) -> str:
    """262,144 is shown as 256K."""
    for size, unit in ((1 << 20, "M"), (1 << 10, "K")):
        if count >= size and count % size == 0:
            return f"{count // size}{unit}"
    return f"{count:,}"
