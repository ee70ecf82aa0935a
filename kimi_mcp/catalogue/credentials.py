"""Who sees data and keys: which provider a call goes to, at which URL, with which key. Pure, no I/O.

The operator chooses by environment; a host's model may only name a provider that the operator allowed (the policy's
``provider-allowed``). A provider's own key goes to that provider's own hosts, and to another URL only where
``KIMI_PROVIDER`` names the provider; ``KIMI_API_KEY`` goes to the chosen provider and to no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from kimi_mcp.catalogue import Catalogue
from kimi_mcp.core.errors import InvalidArguments, NotConfigured
from kimi_mcp.core.loopback import is_loopback
from kimi_mcp.core.profiles import Provider
from kimi_mcp.core.settings import OWN_KEY, VARIABLES, Settings, Variable


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where one call goes."""

    provider: Provider
    """How it is served there."""
    base_url: str
    """OpenAI-compatible base URL, without a slash at the end."""
    key: str | None = field(repr=False)
    """What is sent as bearer; None: nothing is."""
    key_variable: str | None
    """Where the key came from; None: there is none."""
    borrowed: bool = False
    """Whether the key is another provider's variable, used because ``KIMI_PROVIDER`` says so (HF_TOKEN at nim)."""


def key_variables(catalogue: Catalogue) -> Mapping[str, str]:
    """For each variable of a provider's own key the provider that it chooses, in the order in which keys choose one."""
    chosen: dict[str, str] = {}
    for provider in catalogue.providers.values():
        for name in () if catalogue.is_added(provider.id) else provider.key_variables:
            chosen.setdefault(name, provider.id)
    return chosen


def _added_keys(catalogue: Catalogue) -> Mapping[str, str]:
    """For each variable of an added provider's own key that provider: such a key chooses none."""
    added = (provider for provider in catalogue.providers.values() if catalogue.is_added(provider.id))
    return {name: provider.id for provider in added for name in provider.key_variables}


def variables(catalogue: Catalogue) -> tuple[Variable, ...]:
    """Every variable that is read, in the order of the README: the settings' and those of providers' own keys."""
    rows: list[Variable] = []
    for row in VARIABLES:
        if row.name == "KIMI_PROVIDER":
            *others, last = catalogue.providers
            row = replace(row, meaning=f"Who answers: {', '.join(others)} or {last}.")
        if row.name == "KIMI_POLICY":  # keys come right before it
            rows.append(Variable(name=OWN_KEY, meaning="Key for whatever provider is chosen.", secret=True))
            for name, provider in (*key_variables(catalogue).items(), *_added_keys(catalogue).items()):
                meaning = (
                    f"The key of {provider}; it goes to that provider's own hosts only, to another base URL only where "
                    "KIMI_PROVIDER names the provider."
                )
                rows.append(Variable(name=name, meaning=meaning, secret=True))
        rows.append(row)
    return tuple(rows)


def keys(settings: Settings, catalogue: Catalogue) -> Mapping[str, str]:
    """Every key that is set, by the name of its variable."""
    return {name: settings.possible_keys[name] for name in _key_names(catalogue) if name in settings.possible_keys}


def _key_names(catalogue: Catalogue) -> tuple[str, ...]:
    names = [OWN_KEY]
    for provider in catalogue.providers.values():
        names += (*provider.key_variables, *provider.borrowed_key_variables)
    return tuple(dict.fromkeys(names))


def unreadable(settings: Settings, catalogue: Catalogue) -> tuple[NotConfigured, ...]:
    """One error for each variable whose value can't be read, keys among them."""
    unusable_keys = [
        NotConfigured(
            f"{name} holds characters that no key has.",
            fix=f"Set {name} to the key alone: printable ASCII without spaces or line ends.",
        )
        for name in _key_names(catalogue)
        if name in settings.impossible_keys
    ]
    return (*settings.unreadable, *unusable_keys)


def check(settings: Settings, catalogue: Catalogue) -> None:
    """Raise the first ``NotConfigured`` of ``unreadable``, so that nothing is sent on half a setting."""
    for error in unreadable(settings, catalogue):
        raise error


def chosen_provider(settings: Settings, catalogue: Catalogue) -> Provider:
    """The provider that the settings choose.

    Raises ``NotConfigured`` where they choose none, one that is not in the catalogue, or a URL that can't be used.
    """
    if settings.provider is not None:
        provider = catalogue.providers.get(settings.provider)
        if provider is None:
            raise NotConfigured(
                "KIMI_PROVIDER names a provider that is not in the catalogue.",
                fix=f"Set KIMI_PROVIDER to one of {_listed(catalogue)}.{_nearest(settings.provider, catalogue)}",
            )
        return provider
    providers = catalogue.providers.values()
    if settings.base_url is not None:
        own_engine = next(provider for provider in providers if provider.self_hosted)
        return catalogue.provider_of_host(_host(settings.base_url)) or own_engine
    by_key = key_variables(catalogue)
    for variable, provider_id in by_key.items():
        if variable in settings.possible_keys:
            return catalogue.providers[provider_id]
    if OWN_KEY in settings.possible_keys:
        return next(iter(providers))
    added = _added_keys(catalogue).items()
    named = next((f"KIMI_PROVIDER={id}, or " for key, id in added if key in settings.possible_keys), "")
    raise NotConfigured(
        "No provider is configured: no key is set and no base URL.",
        fix=f"Set {named}the key of a provider: "
        + ", ".join(f"{variable} for {provider}" for variable, provider in by_key.items())
        + "; or KIMI_BASE_URL for an engine of your own (vLLM, SGLang, KTransformers); or try it without a key: run "
        "`kimi-mcp simulator` and set KIMI_PROVIDER=simulator.",
    )


def named_provider(name: str, catalogue: Catalogue) -> Provider:
    """The provider that an argument names; ``InvalidArguments`` with the nearest names where there is none."""
    provider = catalogue.providers.get(name.strip().lower())
    if provider is None:
        raise InvalidArguments(
            "The argument `provider` names no provider of the catalogue.",
            fix=f"Leave `provider` out, or name one of {_listed(catalogue)}.{_nearest(name, catalogue)}",
        )
    return provider


def _listed(catalogue: Catalogue) -> str:
    return ", ".join(catalogue.providers)


def _nearest(name: str, catalogue: Catalogue) -> str:
    near = catalogue.nearest(name, catalogue.providers)
    return f" The nearest: {', '.join(near)}." if near else ""


def access_to(provider: Provider, settings: Settings, chosen: Provider) -> Access:
    """How a call reaches a provider: URL and key by the rules above.

    Raises ``NotConfigured`` where the provider wants a key and none may go there, or where the URL can't be used.
    """
    is_chosen = provider.id == chosen.id
    base_url = ((settings.base_url if is_chosen else None) or provider.base_url).rstrip("/")
    host = _host(base_url)
    named = settings.provider == provider.id
    may_go = named or host in provider.hosts or base_url == provider.base_url
    own = provider.key_variables if may_go else ()
    if is_chosen:
        # KIMI_API_KEY is meant for this server alone and goes first, unless it was another key that chose the provider:
        # then it is unknown whose KIMI_API_KEY is.
        by_setting = settings.provider is not None or settings.base_url is not None
        own = (OWN_KEY, *own) if by_setting else (*own, OWN_KEY)
    borrowed = provider.borrowed_key_variables if named else ()
    variable = next((name for name in (*own, *borrowed) if name in settings.possible_keys), None)
    key = None if variable is None else settings.possible_keys[variable]
    if key is None and provider.needs_key:
        raise _no_key(provider, settings, is_chosen=is_chosen, may_go=may_go)
    if key is not None and urlsplit(base_url).scheme != "https" and not is_loopback(host):
        raise NotConfigured(
            f"{variable} would travel in clear: the base URL of {provider.id} is plain http and not on this machine.",
            fix="Set KIMI_BASE_URL to an https URL, or unset the key where the engine wants none.",
        )
    return Access(provider=provider, base_url=base_url, key=key, key_variable=variable, borrowed=variable in borrowed)


def _host(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port  # a port that is no number raises, too
    except ValueError:
        parts, host = urlsplit(""), None
    if (
        parts.scheme not in ("http", "https")
        or not host
        or parts.username is not None
        or parts.query
        or parts.fragment
        or not host.isascii()  # it would be turned into other letters on the way
        or "%" in host
    ):
        raise NotConfigured(
            "KIMI_BASE_URL is no usable URL.",
            fix="Set KIMI_BASE_URL to something like https://api.moonshot.ai/v1 or http://127.0.0.1:8000/v1: http or "
            "https, a host, no user name, no query.",
        )
    return host.rstrip(".").lower()


def _no_key(provider: Provider, settings: Settings, *, is_chosen: bool, may_go: bool) -> NotConfigured:
    own = [name for name in provider.key_variables if name in settings.possible_keys]
    names = " or ".join((*provider.key_variables, *((OWN_KEY,) if is_chosen else ())))
    if own and not may_go:
        return NotConfigured(
            f"{own[0]} is set, but KIMI_BASE_URL is not one of {provider.id}'s own hosts, so the key stays here.",
            fix=f"Set KIMI_PROVIDER={provider.id} to send it there, or set KIMI_API_KEY.",
        )
    has_own = OWN_KEY in settings.possible_keys
    kept = f" {OWN_KEY} belongs to the provider that the settings choose." if has_own else ""
    return NotConfigured(f"The provider {provider.id} wants a key and none is set for it.{kept}", fix=f"Set {names}.")


def allowed_providers(settings: Settings, catalogue: Catalogue, chosen: Provider) -> tuple[str, ...]:
    """The providers that the ``provider`` argument may name, the chosen one first. Raises ``NotConfigured``."""
    for name in settings.allowed_providers:
        if name not in catalogue.providers:
            raise NotConfigured(
                "KIMI_ALLOWED_PROVIDERS names a provider that is not in the catalogue.",
                fix=f"Name only {_listed(catalogue)} in KIMI_ALLOWED_PROVIDERS.{_nearest(name, catalogue)}",
            )
    return tuple(dict.fromkeys((chosen.id, *settings.allowed_providers)))
