"""The values that completion offers while an argument is typed. Reads the catalogue and the store when asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from kimi_mcp.core.errors import KimiError
from kimi_mcp.server.client_quirks import LOCAL
from kimi_mcp.server.resources import RUN, RUN_REASONING
from kimi_mcp.server.state import ServerState

if TYPE_CHECKING:
    from kimi_mcp.server.prompts import Prompt

MOST_IDS = 1_000
"""Run ids that are offered at most, the newest."""

MOST_VALUES = 100
"""Values in one completion at most, as the protocol says."""

Completer = Callable[[ServerState], Awaitable[Sequence[str]]]
"""Returns every value there is, the likeliest first."""


async def _models(state: ServerState) -> Sequence[str]:
    """The models that the provider serves today, the preferred first, then the rest of the catalogue."""
    from kimi_mcp import catalogue
    from kimi_mcp.catalogue import credentials
    from kimi_mcp.pipeline.route import today

    facts = catalogue.load()
    try:
        provider = credentials.chosen_provider(state.settings, facts).id
    except KimiError:
        provider = ""
    served = [profile.model.id for profile in facts.profiles(provider, today())]
    return tuple(dict.fromkeys((*served, *facts.models)))


async def _run_ids(state: ServerState) -> Sequence[str]:
    """The ids of the caller's runs, the newest first; none where the store can't be read."""
    try:
        return [run.id for run in await (await state.open_runs()).latest(LOCAL, MOST_IDS)]
    except KimiError:
        return ()


def _constant(values: Sequence[str]) -> Completer:
    async def completer(state: ServerState) -> Sequence[str]:
        return values

    return completer


SOURCES: Mapping[str, Completer] = {"modes": _constant(("thinking", "instant")), "models": _models}
"""Sources of values, by the name that ``prompts.toml`` gives them."""


def completers(prompts: Mapping[str, Prompt]) -> dict[str, Mapping[str, Completer]]:
    """The completer of each argument, by prompt name or resource template, then by argument."""
    table: dict[str, Mapping[str, Completer]] = {address: {"id": _run_ids} for address in (RUN, RUN_REASONING)}
    for prompt in prompts.values():
        table[prompt.name] = {
            argument.name: SOURCES[argument.completes]
            if isinstance(argument.completes, str)
            else _constant(argument.completes)
            for argument in prompt.arguments
            if argument.completes
        }
    return table


def matches(values: Sequence[str], typed: str) -> list[str]:
    """The values that contain what was typed; those that begin with it come first."""
    typed = typed.strip().casefold()
    found = [value for value in values if typed in value.casefold()]
    return sorted(found, key=lambda value: not value.casefold().startswith(typed))
