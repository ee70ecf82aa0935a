"""What may be offered while an argument is typed, by what it belongs to: a prompt's name or a resource's template.

A completer is one row of ``completers``. The catalogue is read by the first who asks for a model, the journal by the
first who asks for a run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.settings import Settings
from kimi_mcp.server.client_quirks import LOCAL
from kimi_mcp.server.prompts import Prompt
from kimi_mcp.server.resources import RUN, RUN_REASONING

MOST_IDS = 1_000
"""Ids that are offered for completion, the newest."""

Completer = Callable[[Any, Mapping[str, str]], Awaitable[Sequence[str]]]
"""Every value there is, the likeliest first, for a server's house and the arguments that were given so far."""

MOST_VALUES = 100
"""How many values the protocol lets one completion offer."""


async def modes(house: Any, said: Mapping[str, str]) -> Sequence[str]:
    """The two modes."""
    del house, said
    return ("thinking", "instant")


async def models(house: Any, said: Mapping[str, str]) -> Sequence[str]:
    """What the provider serves today, the preferred first; then every other model of the catalogue."""
    del said
    from kimi_mcp import catalogue
    from kimi_mcp.pipeline.pipeline import today

    facts = catalogue.load()
    served = [profile.model.id for profile in facts.profiles(_provider(house.settings), today())]
    return tuple(dict.fromkeys((*served, *facts.models)))


def _provider(settings: Settings) -> str:
    """The provider that a call would ask; nobody's name where none is configured."""
    from kimi_mcp import catalogue
    from kimi_mcp.catalogue import credentials

    try:
        return credentials.chosen_provider(settings, catalogue.load()).id
    except KimiError:
        return ""


async def run_ids(house: Any, said: Mapping[str, str]) -> Sequence[str]:
    """The ids of the caller's runs, the newest first; none where the journal can't be read."""
    del said
    try:
        return await (await house.opened()).runs.journal.ids(LOCAL, MOST_IDS)
    except KimiError:
        return ()


SOURCES: Mapping[str, Completer] = {"modes": modes, "models": models}
"""Sources of values, by the name that ``prompts.toml`` gives them."""


def completers(prompts: Mapping[str, Prompt]) -> dict[str, Mapping[str, Completer]]:
    """For each prompt, by its name, and each template of a resource, by its address: a completer for each argument."""
    offered: dict[str, Mapping[str, Completer]] = {address: {"id": run_ids} for address in (RUN, RUN_REASONING)}
    return offered | {
        prompt.name: {
            argument.name: SOURCES[argument.completes]
            if isinstance(argument.completes, str)
            else _listed(argument.completes)
            for argument in prompt.arguments
            if argument.completes
        }
        for prompt in prompts.values()
    }


def _listed(values: Sequence[str]) -> Completer:
    async def completer(house: Any, said: Mapping[str, str]) -> Sequence[str]:
        del house, said
        return values

    return completer


def fitting(values: Sequence[str], typed: str) -> list[str]:
    """The values that what was typed may become: those that begin so, then those that hold it."""
    small = typed.strip().casefold()
    held = [value for value in values if small in value.casefold()]
    return sorted(held, key=lambda value: not value.casefold().startswith(small))
