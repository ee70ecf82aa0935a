"""Which model a call is for: a name or ``auto`` becomes the profile that the policy then judges. Pure, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kimi_mcp.catalogue import Catalogue
from kimi_mcp.core.errors import InvalidArguments, KimiError, NotConfigured
from kimi_mcp.core.profiles import Profile, Provider

AUTO = "auto"
"""The first of the provider's list that it serves today."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a call is for, before the policy checks whether it is served."""

    profile: Profile
    """The requested model; under ``auto`` the provider's most preferred."""
    successors: tuple[Profile, ...] = ()
    """Under ``auto`` the provider's other models, in order of preference."""
    stands_in: bool = False
    """Whether the id is unknown to the catalogue and the profile is the preferred model's."""


def choose(
    requested: str,
    provider: Provider,
    catalogue: Catalogue,
    *,
    served: frozenset[str] | None,
    by_setting: bool,
    preferred: str | None = None,
) -> Choice:
    """The profile for a model that a caller (or the setting ``KIMI_MODEL``) named.

    ``served`` are the ids that the provider lists now, None where that is not known. An engine of the user's own may
    serve under any name: a name that it lists is taken for the catalogue's model whose id it contains, else for the
    provider's preferred one. Under ``auto`` the model of the id ``preferred`` comes first where the provider lists it:
    a conversation goes on with the model that it began with. Raises ``InvalidArguments`` (``NotConfigured`` for the
    setting) with the nearest names.
    """
    known = tuple(profile for row in provider.models if (profile := catalogue.profile(provider.id, row.model)))
    if requested.lower() == AUTO:
        first, *others = known = tuple(sorted(known, key=lambda profile: profile.model.id != preferred))
        if not provider.self_hosted or not served or any(profile.serving.wire_id in served for profile in known):
            return Choice(profile=first, successors=tuple(others))
        aliases = _aliases(served, known)
        for profile in known:
            if profile.model.id in aliases:
                return aliases[profile.model.id]
        if len(served) == 1:
            return _under_its_own_name(next(iter(served)), known)
        return Choice(profile=first, successors=tuple(others))
    if profile := catalogue.profile(provider.id, requested):
        if provider.self_hosted and served and profile.serving.wire_id not in served:
            return _aliases(served, known).get(profile.model.id, Choice(profile=profile))
        return Choice(profile=profile)
    if provider.self_hosted and (requested in served if served else by_setting and served is None):
        return _under_its_own_name(requested, known)  # the setting counts where the engine lists nothing
    if routed := catalogue.profile(provider.id, requested.partition(":")[0]):
        return Choice(profile=_renamed(routed, requested))  # such as …:free
    raise _unknown_model(provider, catalogue, requested, by_setting)


def _aliases(served: frozenset[str], known: tuple[Profile, ...]) -> dict[str, Choice]:
    """The names that an engine serves under which contain a catalogue id, the shortest for each id."""
    choices = [_under_its_own_name(name, known) for name in sorted(served, key=lambda name: (-len(name), name))]
    return {choice.profile.model.id: choice for choice in choices if not choice.stands_in}


def _under_its_own_name(wire_id: str, known: tuple[Profile, ...]) -> Choice:
    """A profile for an engine that serves a model under a name of its operator's."""
    name = wire_id.lower()
    longest_first = sorted(known, key=lambda profile: -len(profile.model.id))
    named = next((profile for profile in longest_first if profile.model.id in name), None)
    return Choice(profile=_renamed(named or known[0], wire_id), stands_in=named is None)


def _renamed(profile: Profile, wire_id: str) -> Profile:
    return replace(profile, serving=profile.serving.model_copy(update={"wire_id": wire_id}))


def _unknown_model(provider: Provider, catalogue: Catalogue, requested: str, by_setting: bool) -> KimiError:
    names = tuple(dict.fromkeys(name for row in provider.models for name in (row.model, row.wire_id)))
    near = catalogue.nearest(requested, names)
    ids = ", ".join(row.model for row in provider.models)
    elsewhere = ", ".join(other.id for other in catalogue.providers.values() if catalogue.profile(other.id, requested))
    variable = "KIMI_MODEL" if by_setting else "`model`"
    message = f"{variable} names a model that {provider.id} does not list."
    fix = (
        f"Leave {variable} out, or name one of {ids}."
        + (f" The nearest: {', '.join(near)}." if near else "")
        + (f" Others list it: {elsewhere}." if elsewhere else "")
    )
    return NotConfigured(message, fix=fix) if by_setting else InvalidArguments(message, fix=fix)
