"""Which of the tools that servers list are offered, under which names, in which words. Pure, no I/O.

Three sieves, one after the other: what may run (marked as read-only, or allowed by the file's entry), what the caller
asked for, and what a request can hold. Nothing falls through one of them without a warning, but for what may not run
and what was not asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import zip_longest
from typing import Any, Final, cast

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.core.json_schema import schema_fault
from kimi_mcp.core.redaction import scrub
from kimi_mcp.policy.schema_dialect import parameters_fault, rewritten_parameters
from kimi_mcp.swarm.tools.config import VARIABLE, printable_name
from kimi_mcp.swarm.tools.output import sanitized

MAX_TOOLS: Final = 128
"""Functions in one request (platform.kimi.ai docs/api/tool-use, 2026-11-24)."""

MAX_FUNCTION_NAME_CHARS: Final = 64
"""Characters of a function's name: ``^[a-zA-Z_][a-zA-Z0-9-_]{2,63}$`` (the same source)."""

MAX_DESCRIPTION_CHARS: Final = 4_000
"""Code points of one description that the model gets to read."""

MAX_SCHEMA_CHARS: Final = 32 * 1024
"""Characters of one tool's parameters as JSON."""

MAX_DEFINITIONS_CHARS: Final = 256 * 1024
"""Characters of all definitions as JSON: every request of every sub-agent carries them, and each is paid for."""

MAX_NAMED_TOOLS: Final = 12
"""How many tools a warning names before it only counts."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{2,63}\Z")
_VALUES = frozenset({"const", "enum", "default", "examples", "required"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTool:
    """A tool as its source lists it."""

    name: str
    """The source's own name for it, whatever that is."""
    description: str
    """The source's words: hostile, until they are cleaned."""
    schema: Mapping[str, Any]
    """The JSON schema of its arguments, as given: calls are held against it."""
    read_only: bool
    """Whether its source says that it changes nothing. A hint: the operator trusts the server, or does not list it."""

    @property
    def fingerprint(self) -> str:
        """A hash of everything that is told about it."""
        told = [self.name, self.description, self.schema, self.read_only]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8", "backslashreplace")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTools:
    """What one source has to offer."""

    source: str
    """The name that patterns know it by."""
    tools: tuple[ListedTool, ...] = ()
    """What it lists."""
    allow: tuple[str, ...] = ()
    """Patterns of tools that may run though they are not marked as read-only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedTool:
    """A tool that sub-agents may call."""

    name: str
    """The function's name on the wire."""
    source: int
    """Which of the offers it is from."""
    tool: ListedTool
    """As its source lists it."""
    definition: Mapping[str, Any]
    """As it stands under ``tools[].function`` on the wire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The outcome of the choice."""

    tools: tuple[OfferedTool, ...]
    """In the order of the sources, and by name within each: the same tools are always told the same way."""
    warnings: tuple[str, ...]
    """What was left out and why, in whole sentences of ours."""


def select_tools(
    offers: Sequence[SourceTools], patterns: Sequence[str], *, moonshot_schemas: bool, lenient: bool
) -> Selection:
    """The tools that are offered. ``patterns``: the caller's; empty: everything that may run.

    ``moonshot_schemas``: whether schemas must be in Moonshot's dialect. Raises ``InvalidArguments`` where the patterns
    name nothing at all, unless ``lenient`` (some source could not be asked).
    """
    warnings: list[str] = []
    may_run = [[tool for tool in offer.tools if _may_run(offer, tool)] for offer in offers]
    for offer in offers:
        warnings += _idle(offer)
    picked = may_run
    if patterns:
        picked = [
            [tool for tool in tools if any(_names(pattern, offer, tool) for pattern in patterns)]
            for offer, tools in zip(offers, may_run, strict=True)
        ]
        warnings += _unheard(offers, may_run, patterns)
        if not any(picked) and not lenient and any(offer.tools for offer in offers):
            raise InvalidArguments(
                "`tools` names no tool that sub-agents may use.",
                fix=f"Leave `tools` out, or {_there_are(offers, may_run)}",
            )
    named = _named(offers, picked)
    found = _within_limits(offers, named, moonshot_schemas, warnings)
    return Selection(tools=tuple(sorted(found, key=lambda one: (one.source, one.name))), warnings=tuple(warnings))


def _may_run(offer: SourceTools, tool: ListedTool) -> bool:
    return tool.read_only or any(_names(pattern, offer, tool) for pattern in offer.allow)


def _names(pattern: str, offer: SourceTools, tool: ListedTool) -> bool:
    return fnmatchcase(tool.name, pattern) or fnmatchcase(f"{offer.source}.{tool.name}", pattern)


# ── patterns that name nothing ────────────────────────────────────────────────────────────────────────────────────


def _idle(offer: SourceTools) -> list[str]:
    """The patterns of the file that no tool of their server has."""
    if not offer.tools:
        return []
    return [
        f"`allow` of {printable_name(offer.source)} has the pattern `{printable_name(pattern)}`, "
        "which matches none of its tools."
        for pattern in offer.allow
        if not any(_names(pattern, offer, tool) for tool in offer.tools)
    ]


def _unheard(
    offers: Sequence[SourceTools], may_run: Sequence[Sequence[ListedTool]], patterns: Sequence[str]
) -> list[str]:
    """The patterns of the caller that name no tool that may run."""
    told: list[str] = []
    for pattern in patterns:
        pairs = list(zip(offers, may_run, strict=True))
        if any(_names(pattern, offer, tool) for offer, tools in pairs for tool in tools):
            continue
        barred = next(
            (offer for offer in offers for tool in offer.tools if _names(pattern, offer, tool)),
            None,
        )
        if barred is None:
            told.append(f"`tools` has `{printable_name(pattern)}`, which names no tool; {_there_are(offers, may_run)}")
        else:
            told.append(
                f"`tools` has `{printable_name(pattern)}`, which names only tools of {printable_name(barred.source)} "
                f"that are not marked as read-only. Whoever runs this server may allow them: `allow` in the file of "
                f"{VARIABLE}."
            )
    return told


def _there_are(offers: Sequence[SourceTools], may_run: Sequence[Sequence[ListedTool]]) -> str:
    names = [
        f"{printable_name(offer.source)}.{printable_name(tool.name)}"
        for offer, tools in zip(offers, may_run, strict=True)
        for tool in tools
    ]
    return f"there are: {_some(sorted(names))}." if names else "there are none."


def _some(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED_TOOLS
    return ", ".join(names[:MAX_NAMED_TOOLS]) + (f" and {more:,} more" if more > 0 else "")


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _named(offers: Sequence[SourceTools], picked: Sequence[Sequence[ListedTool]]) -> list[list[tuple[str, ListedTool]]]:
    """Each tool with its name on the wire: ``server__tool``, with some digits of a hash where that is not enough.

    A name depends on its own server and tool alone, unless two would have the same: then both carry their hash.
    """
    wanted = [
        [(_plain_name(offer.source, tool.name), tool) for tool in tools] for offer, tools in _pairs(offers, picked)
    ]
    seen: dict[str, int] = {}
    for tools in wanted:
        for name, _ in tools:
            seen[name] = seen.get(name, 0) + 1
    return [
        [(name if seen[name] == 1 else _hashed(name, offer.source, tool.name), tool) for name, tool in tools]
        for offer, tools in zip(offers, wanted, strict=True)
    ]


def _pairs(
    offers: Sequence[SourceTools], picked: Sequence[Sequence[ListedTool]]
) -> zip[tuple[SourceTools, Sequence[ListedTool]]]:
    return zip(offers, picked, strict=True)


def _plain_name(source: str, tool: str) -> str:
    joined = f"{source}__{tool}"
    name = re.sub(r"[^A-Za-z0-9_-]", "_", joined)
    name = name if re.match(r"[A-Za-z_]", name) else f"_{name}"
    return name if name == joined and _NAME.match(name) else _hashed(name, source, tool)


def _hashed(name: str, source: str, tool: str) -> str:
    digits = hashlib.sha256(f"{source}\0{tool}".encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{name[: MAX_FUNCTION_NAME_CHARS - 9]}_{digits}"


# ── definitions ───────────────────────────────────────────────────────────────────────────────────────────────────


def _within_limits(
    offers: Sequence[SourceTools],
    named: Sequence[Sequence[tuple[str, ListedTool]]],
    moonshot_schemas: bool,
    warnings: list[str],
) -> list[OfferedTool]:
    """As many tools as one request holds, the sources taking turns: no source crowds out another."""
    found: list[OfferedTool] = []
    unfit: dict[str, list[str]] = {}
    over: list[int] = [0] * len(offers)
    size = 0
    ordered = [sorted(tools, key=lambda one: one[0]) for tools in named]
    for turn in zip_longest(*ordered):
        for at, one in enumerate(turn):
            if one is None:
                continue
            name, tool = one
            if len(found) >= MAX_TOOLS or size >= MAX_DEFINITIONS_CHARS:
                over[at] += 1
                continue
            definition = _definition(name, tool, moonshot_schemas)
            if isinstance(definition, str):
                unfit.setdefault(definition, []).append(
                    f"{printable_name(offers[at].source)}.{printable_name(tool.name)}"
                )
                continue
            length = len(json.dumps(definition))
            if size + length > MAX_DEFINITIONS_CHARS:
                over[at] += 1
                continue
            size += length
            found.append(OfferedTool(name=name, source=at, tool=tool, definition=definition))
    for why, names in unfit.items():
        warnings.append(f"Left out, because {why}: {_some(names)}.")
    if any(over):
        where = ", ".join(
            f"{count:,} of {printable_name(offer.source)}" for offer, count in zip(offers, over, strict=True) if count
        )
        warnings.append(
            f"{sum(over):,} tools are left out ({where}): a request holds at most {MAX_TOOLS} tools, and "
            f"{MAX_DEFINITIONS_CHARS // 1024} kB of them. Name the ones that matter in `tools`."
        )
    return found


def _definition(name: str, tool: ListedTool, moonshot_schemas: bool) -> dict[str, Any] | str:
    """The function as the wire has it, or why it can't be offered."""
    parameters = _cleaned_schema(tool.schema)
    written = json.dumps(parameters, ensure_ascii=False)
    if len(written) > MAX_SCHEMA_CHARS:
        return f"its schema is larger than {MAX_SCHEMA_CHARS // 1024} kB"
    if scrub(written) != written or sanitized(written) != written:
        return "its schema holds what no schema should"
    if schema_fault(tool.schema) is not None:
        return "its schema is not a valid JSON schema"
    if moonshot_schemas and parameters_fault(parameters) is not None:
        mended = rewritten_parameters(parameters)
        if mended is None:
            return "its schema can't be said in Moonshot's dialect"
        parameters = mended
    description = scrub(sanitized(tool.description[: MAX_DESCRIPTION_CHARS * 2]))[:MAX_DESCRIPTION_CHARS]
    return {"name": name, "description": description, "parameters": parameters}


def _cleaned_schema(schema: Any, *, names: bool = False) -> Any:
    """The schema with every description in it cleaned; ``names``: its keys are names of properties."""
    match schema:
        case dict():
            new: dict[str, Any] = {}
            for key, inner in cast(dict[str, Any], schema).items():
                if not names and key in ("description", "title") and isinstance(inner, str):
                    new[key] = scrub(sanitized(inner))[:MAX_DESCRIPTION_CHARS]
                elif not names and key in _VALUES:
                    new[key] = inner
                elif key != "$schema":  # the dialect knows none, and the model needs none
                    below = not names and key in ("properties", "patternProperties", "$defs", "definitions")
                    new[key] = _cleaned_schema(inner, names=below)
            return new
        case list():
            return [_cleaned_schema(inner) for inner in cast(list[Any], schema)]
        case _:
            return schema
