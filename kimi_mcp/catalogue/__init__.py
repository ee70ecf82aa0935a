"""The catalogue: what each Kimi model is and how each provider serves it, kept as TOML files. Reads package data."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, get_args

from kimi_mcp.catalogue import overlay
from kimi_mcp.catalogue.loading import KINDS, read
from kimi_mcp.catalogue.overlay import UserFile
from kimi_mcp.core.errors import CatalogueError
from kimi_mcp.core.profiles import CatalogueRecord, Model, Price, Profile, Provider, ServedModel
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.types import MediaKind, Mode

__all__ = ["Catalogue", "CatalogueError", "CatalogueRow", "load", "load_for"]

_PACKAGE = Path(__file__).parent


class CatalogueRow(CatalogueRecord):
    """One model at one provider, as ``kimi-mcp models`` shows it."""

    provider: str
    """Provider's id."""
    model: str
    """Model's catalogue id."""
    wire_id: str
    """The provider's own id for the model."""
    state: str
    """``served``, ``until <day>``, ``ended <day>`` (the first day without it), ``gone by <day>`` (it ended on that
    day or before), or ``unknown``: an engine that the user runs serves what it was started with."""
    modes: tuple[Mode, ...]
    """The available modes."""
    context_tokens: int
    """Prompt, reasoning and answer together."""
    output_tokens: int
    """The largest limit on reasoning plus answer."""
    price: Price | None
    """US dollars per million tokens; None: unknown."""
    media: tuple[MediaKind, ...]
    """What can be sent besides text."""
    source: str
    """Where the row's facts come from."""
    checked: date
    """The day of those facts."""
    doubt: str | None
    """What casts doubt on them; None: nothing is known that does."""
    yours: tuple[str, ...] = ()
    """The files of ``KIMI_CATALOGUE`` that say anything about it."""

    def as_json(self) -> dict[str, Any]:
        """The row as ``kimi-mcp models --json`` prints it."""
        return self.model_dump(mode="json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All models and all providers."""

    models: Mapping[str, Model]
    """Models by their id."""
    providers: Mapping[str, Provider]
    """Providers by their id, in the order in which the first one with a key is chosen; those of the user's last."""
    user_files: Mapping[str, UserFile] = field(default_factory=dict[str, UserFile])
    """The files of ``KIMI_CATALOGUE`` by their name, such as ``providers/moonshot.toml``."""

    def __hash__(self) -> int:
        return id(self)

    def profile(self, provider_id: str, model: str) -> Profile | None:
        """One model at one provider; None where the provider does not list it.

        ``model`` is a catalogue id or that provider's own id; an exact match comes before one that differs in case.
        """
        provider = self.providers.get(provider_id)
        if provider is None:
            return None
        for alike in (str, str.casefold):
            for row in provider.models:
                if alike(model) in (alike(row.model), alike(row.wire_id)):
                    return self._profile(provider, row)
        return None

    def profiles(self, provider_id: str, day: date) -> tuple[Profile, ...]:
        """What a provider serves on that day, the preferred first: what ``auto`` goes through."""
        provider = self.providers.get(provider_id)
        rows = () if provider is None else provider.models
        return tuple(self._profile(provider, row) for row in rows if provider and row.served_on(day))

    def is_added(self, provider_id: str) -> bool:
        """Whether a provider is the user's own: it is used where it is named, never for its key alone."""
        file = self.user_files.get(f"providers/{provider_id}.toml")
        return file is not None and file.adds

    @property
    def user_changes(self) -> str:
        """What the files of ``KIMI_CATALOGUE`` do, in a line."""
        return ", ".join(f"{name} {'adds' if file.adds else 'changes'}" for name, file in self.user_files.items())

    def user_files_on(self, profile: Profile) -> tuple[str, ...]:
        """The files of ``KIMI_CATALOGUE`` that say anything about a model at a provider."""
        if not self.user_files:
            return ()
        provider, model = profile.provider, profile.model
        names = [f"providers/{id}.toml" for id in (*provider.ancestors, provider.id)]
        names += [f"models/{id}.toml" for id in (*model.ancestors, model.id)]
        return tuple(name for name in names if name in self.user_files and self.user_files[name].bears_on(model.id))

    def provider_of_host(self, host: str) -> Provider | None:
        """The provider whose own host this is (a port is ignored); None for any other."""
        name = host.strip().casefold().partition(":")[0].rstrip(".")
        return next((provider for provider in self.providers.values() if name in provider.hosts), None)

    def nearest(self, name: str, among: Iterable[str]) -> tuple[str, ...]:
        """Up to three of ``among`` that ``name`` may have meant, the likeliest first."""
        by_small = {candidate.casefold(): candidate for candidate in among}
        return tuple(by_small[near] for near in difflib.get_close_matches(name.casefold(), by_small, n=3))

    @property
    def highest_price(self) -> Price:
        """The highest of all prices, each component by itself: what a budget counts where a price is unknown."""
        return _highest_price(self)

    def video_offers(self, day: date) -> tuple[tuple[str, str], ...]:
        """Which provider takes video for which model on that day, as pairs of ids."""
        return _offers(self, day, "video")

    def instant_offers(self, day: date) -> tuple[tuple[str, str], ...]:
        """Which provider answers without thinking with which model on that day, as pairs of ids."""
        return _offers(self, day, "instant")

    def effort_offers(self, day: date) -> tuple[tuple[str, str], ...]:
        """Which provider takes an effort for which model on that day, as pairs of ids."""
        return _offers(self, day, "effort")

    @property
    def web_offers(self) -> tuple[str, ...]:
        """The providers that search the web themselves."""
        return tuple(each.id for each in self.providers.values() if each.formulas or each.builtin_search)

    def rows(self, day: date) -> tuple[CatalogueRow, ...]:
        """Every model at every provider on that day."""
        return tuple(
            CatalogueRow(
                provider=profile.provider.id,
                model=profile.serving.model,
                wire_id=profile.serving.wire_id,
                state=_state(profile, day),
                modes=profile.modes,
                context_tokens=profile.model.context_tokens,
                output_tokens=profile.output_ceiling,
                price=profile.price,
                media=tuple(kind for kind in get_args(MediaKind) if profile.takes(kind)),
                source=profile.serving.source,
                checked=profile.serving.checked,
                doubt=profile.serving.doubt,
                yours=self.user_files_on(profile),
            )
            for profile in self.every_profile()
        )

    def every_profile(self) -> Iterator[Profile]:
        """Every model at every provider, on any day."""
        for provider in self.providers.values():
            for serving in provider.models:
                yield self._profile(provider, serving)

    def _profile(self, provider: Provider, serving: ServedModel) -> Profile:
        return Profile(model=self.models[serving.model], provider=provider, serving=serving)


@lru_cache(maxsize=8)
def _highest_price(facts: Catalogue) -> Price:
    prices = [row.price for provider in facts.providers.values() for row in provider.models if row.price]
    return Price(
        input=max((price.input for price in prices), default=0.0),
        cached=max((price.cached for price in prices), default=0.0),
        output=max((price.output for price in prices), default=0.0),
    )


@lru_cache(maxsize=8)
def _offers(facts: Catalogue, day: date, what: str) -> tuple[tuple[str, str], ...]:
    """Cached: every call needs them."""
    served = (each for each in facts.every_profile() if each.serving.served_on(day))
    return tuple((each.provider.id, each.model.id) for each in served if _OFFERS[what](each))


_OFFERS: Mapping[str, Callable[[Profile], bool]] = {
    "video": lambda profile: profile.takes("video"),
    "instant": lambda profile: profile.can_stop_thinking,
    "effort": lambda profile: bool(profile.efforts),
}
"""What is looked for among the profiles."""


def load(folder: Path | None = None) -> Catalogue:
    """The catalogue of a folder with ``models`` and ``providers``; without one the package's own, read only once."""
    if folder is None:
        return _packaged()
    models, providers = read(folder)
    return Catalogue(models=models, providers=providers)


@cache
def _packaged() -> Catalogue:
    return load(_PACKAGE)


def load_for(settings: Settings) -> Catalogue:
    """The catalogue of a process: the package's, with the user's laid over it where ``KIMI_CATALOGUE`` names one.

    Read once; one that is wrong is read again the next time. Raises ``CatalogueError`` and ``NotConfigured``.
    """
    return _packaged() if settings.catalogue is None else _overlaid(settings.catalogue)


@lru_cache(maxsize=4)
def _overlaid(folder: str) -> Catalogue:
    files, package = overlay.read_files(folder, _PACKAGE), _packaged()
    above = {kind: {file.id: file.tables for file in files if file.kind == kind} for kind in KINDS}
    try:
        models, providers = read(_PACKAGE, above)
    except CatalogueError as error:  # without the user's files there is none
        raise CatalogueError(error.found, of_user=True) from None
    overlay.check_keys(files, package.providers, providers)
    return Catalogue(models=models, providers=providers, user_files={file.name: file for file in files})


def _state(profile: Profile, day: date) -> str:
    until, found_gone = profile.serving.until, profile.serving.found_gone
    if until is not None and until <= day:
        return f"ended {until.isoformat()}"
    if found_gone is not None and found_gone <= day:
        return f"gone by {found_gone.isoformat()}"
    if until is not None:
        return f"until {until.isoformat()}"
    return "unknown" if profile.provider.self_hosted else "served"
