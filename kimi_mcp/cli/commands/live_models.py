"""``kimi-mcp models --live``: what the configured providers list now, beside the catalogue. I/O: asks them, prints.

Nothing is sent but ``GET /models``, to each provider with its own key.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import anyio

from kimi_mcp.catalogue import credentials
from kimi_mcp.cli.console import Printer, complain
from kimi_mcp.core.errors import KimiError

if TYPE_CHECKING:
    from kimi_mcp.catalogue import Catalogue, CatalogueRow
    from kimi_mcp.core.profiles import Provider
    from kimi_mcp.core.settings import Settings

FAMILY = "kimi"
"""Part of the ids of the family's models, in any case: a router lists hundreds of others."""

UNKNOWN = "not listed"
"""The state of a model that the catalogue does not have at that provider."""

STYLES = {"same": "ok", "new": "warn", "gone": "bad"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveModel:
    """One model, as its provider and the catalogue have it."""

    id: str
    """The provider's own id."""
    model: str | None
    """The catalogue's; None: it has none there."""
    live: Literal["same", "new", "gone"]
    """``same``: as the catalogue has it. ``new``: listed, and not served by the catalogue. ``gone``: served
    by the catalogue, and not listed."""
    catalogue: str
    """Its state in the catalogue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveList:
    """What one provider answered."""

    provider: str
    base_url: str | None = None
    models: tuple[LiveModel, ...] = ()
    others: int = 0
    """How many models of other families it lists."""
    error: KimiError | None = None
    """Why there is no list."""

    def only(self, model: str) -> LiveList:
        """The list with the one model of that id, the catalogue's or the provider's."""
        named = (each for each in self.models if model.lower() in (each.id.lower(), each.model))
        return replace(self, models=tuple(named), others=0)

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        models = [asdict(model) for model in self.models]
        error = None if self.error is None else self.error.as_json()
        return {"provider": self.provider, "base_url": self.base_url, "error": error, "models": models} | {
            "others": self.others
        }


def compare(rows: Sequence[CatalogueRow], listed: Collection[str], provider: Provider) -> Iterator[LiveModel]:
    """Every model of the family that a provider lists, or that it serves by the catalogue's ``rows`` of it.

    An engine of the user's own serves what it was started with: what it does not list is not gone. And a provider that
    is known to list what it retired has nothing new by that.
    """
    by_id = {id.casefold(): id for id in listed}
    for row in rows:
        listed_as = by_id.pop(row.wire_id.casefold(), None)
        served = not row.state.startswith(("ended", "gone"))
        if listed_as is not None:
            live: Literal["same", "new"] = "same" if served or not provider.lists_models else "new"
            yield LiveModel(id=listed_as, model=row.model, live=live, catalogue=row.state)
        elif served and not provider.self_hosted:
            yield LiveModel(id=row.wire_id, model=row.model, live="gone", catalogue=row.state)
    for folded, id in sorted(by_id.items()):
        if provider.self_hosted or FAMILY in folded:
            yield LiveModel(id=id, model=None, live="new", catalogue=UNKNOWN)


async def ask(settings: Settings, facts: Catalogue, named: str | None) -> list[LiveList]:
    """The lists of the provider that is ``named``, else of the chosen one and of those whose key is set, all at once.

    Raises ``NotConfigured`` where none is configured.
    """
    from kimi_mcp.provider import Upstream

    credentials.check(settings, facts)
    chosen = credentials.chosen_provider(settings, facts)
    providers = [credentials.named_provider(named, facts)] if named else _configured(settings, facts, chosen)
    found: dict[str, LiveList] = {}
    async with aclosing(Upstream()) as upstream, anyio.create_task_group() as tasks:

        async def ask_one(provider: Provider) -> None:
            found[provider.id] = await _ask_one(provider, chosen, settings, facts, upstream)

        for provider in providers:
            tasks.start_soon(ask_one, provider)
    return [found[provider.id] for provider in providers]


def _configured(settings: Settings, facts: Catalogue, chosen: Provider) -> list[Provider]:
    """The providers that a call may go to; of two that share a key the one that it chooses."""
    by_key = [id for name, id in credentials.key_variables(facts).items() if name in settings.possible_keys]
    names = dict.fromkeys((*credentials.allowed_providers(settings, facts, chosen), *by_key))
    return [facts.providers[name] for name in names]


async def _ask_one(
    provider: Provider, chosen: Provider, settings: Settings, facts: Catalogue, upstream: Any
) -> LiveList:
    from kimi_mcp import policy
    from kimi_mcp.pipeline.route import today
    from kimi_mcp.provider import Endpoint

    base_url = None
    try:
        access = credentials.access_to(provider, settings, chosen)
        base_url, day = access.base_url, today()
        if refusal := policy.admit(policy.PolicyContext(day=day, base_url=base_url, allowed_providers=(provider.id,))):
            raise refusal.as_error()
        endpoint = Endpoint(provider=provider, base_url=base_url, key=access.key)
        listed: frozenset[str] = await upstream.list_models(endpoint)
    except KimiError as error:
        return LiveList(provider=provider.id, base_url=base_url, error=error)
    rows = [row for row in facts.rows(day) if row.provider == provider.id]
    models = tuple(compare(rows, listed, provider))
    others = len(listed) - sum(model.live != "gone" for model in models)
    return LiveList(provider=provider.id, base_url=base_url, models=models, others=others)


def show(page: Printer, lists: Sequence[LiveList]) -> None:
    """Print the lists: for a person a table each, in a pipe one table; errors go to stderr."""
    head = ("LIVE", "CATALOGUE", "MODEL")
    if not page.folds:
        rows = [(each.provider, *_cells(model)) for each in lists for model in each.models]
        page.table(("PROVIDER", *head), rows)
    for each in lists:
        if page.folds:
            page.heading(each.provider, each.base_url or "")
            if each.models:
                page.table(head, [_cells(model) for model in each.models], cut_last=True)
            if each.others:
                page.line(f"  and {each.others:,} of other families", "quiet")
        if each.error is not None:
            complain(f"{each.provider}: {each.error.message}", each.error.fix)
        if page.folds:
            page.line()
    if page.folds:
        page.line("new is listed, but not served by the catalogue; gone the other way round.", "quiet")
        page.line("What is wrong in the catalogue can be corrected by files of KIMI_CATALOGUE.", "quiet")


def _cells(model: LiveModel) -> tuple[str, str, str]:
    return f"{STYLES[model.live]}|{model.live}", f"quiet|{model.catalogue}", " ".join(model.id.split()) or "-"
