"""Which of the tools that sources list are offered, under which names and descriptions. Pure, no I/O."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import zip_longest
from typing import Any, Final, NamedTuple, cast

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.core.json_schema import schema_fault
from kimi_mcp.core.redaction import clean
from kimi_mcp.policy.schema_dialect import parameters_fault
from kimi_mcp.policy.schema_rewriting import rewritten_parameters
from kimi_mcp.swarm.tools.config import VARIABLE, printable_name
from kimi_mcp.swarm.tools.source import ListedTool, ToolSource

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
class OfferedTool:
    """A tool that sub-agents may call."""

    name: str
    """The function's name on the wire."""
    source: ToolSource
    """The source that lists it."""
    tool: ListedTool
    """As its source lists it."""
    definition: Mapping[str, Any]
    """In the form of ``tools[].function`` on the wire."""


class Selection(NamedTuple):
    """The result of the filters."""

    tools: list[OfferedTool]
    """In the order of the sources, and by name within each: the same tools always give the same request."""
    warnings: list[str]
    """What was left out and why, in our own sentences."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A listed tool on its way through the filters."""

    source: ToolSource
    tool: ListedTool

    def matches(self, *patterns: str) -> bool:
        names = (self.tool.name, f"{self.source.name}.{self.tool.name}")
        return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)

    @property
    def printable(self) -> str:
        return f"{printable_name(self.source.name)}.{printable_name(self.tool.name)}"


def may_match(source: ToolSource, patterns: Sequence[str]) -> bool:
    """Whether patterns can mean a tool of a source, as far as its tools are known before it is started."""
    candidates = [_Candidate(source, tool) for tool in source.tools.values()]
    return not (patterns and candidates) or any(one.matches(*patterns) for one in candidates)


def select_tools(
    sources: Sequence[ToolSource], patterns: Sequence[str], *, moonshot_schemas: bool, lenient: bool
) -> Selection:
    """The tools that are offered. ``patterns``: the caller's; empty: everything that may run.

    ``moonshot_schemas``: whether schemas must be in Moonshot's dialect. Raises ``InvalidArguments`` where the patterns
    match nothing at all, unless ``lenient`` (some source could not be listed).
    """
    listed = [_Candidate(source, tool) for source in sources for tool in source.tools.values()]
    runnable = [one for one in listed if one.tool.read_only or one.matches(*one.source.allow)]
    selected = [one for one in runnable if one.matches(*patterns)] if patterns else runnable
    if patterns and listed and not selected and not lenient:
        raise InvalidArguments(
            "`tools` names no tool that sub-agents may use.", fix=f"Leave `tools` out, or {_there_are(runnable)}"
        )
    tools, left_out = _within_limits(_named(selected), sources, moonshot_schemas)
    return Selection(tools, [*_unmatched(sources, patterns, listed, runnable), *left_out])


def _unmatched(
    sources: Sequence[ToolSource], patterns: Sequence[str], listed: Sequence[_Candidate], runnable: Sequence[_Candidate]
) -> Iterable[str]:
    """A warning for each pattern of the file or of the caller that matches nothing."""
    for source in sources:
        own = [one for one in listed if one.source is source]
        for pattern in source.allow if own else ():
            if not any(one.matches(pattern) for one in own):
                yield (
                    f"`allow` of {printable_name(source.name)} has the pattern `{printable_name(pattern)}`, "
                    "which matches none of its tools."
                )
    for pattern in patterns:
        if any(one.matches(pattern) for one in runnable):
            continue
        start = f"`tools` has `{printable_name(pattern)}`, which names"
        barred = next((one.source.name for one in listed if one.matches(pattern)), None)
        if barred is None:
            yield f"{start} no tool; {_there_are(runnable)}"
        else:
            yield (
                f"{start} only tools of {printable_name(barred)} that are not marked as read-only. "
                f"Whoever runs this server may allow them: `allow` in the file of {VARIABLE}."
            )


def _there_are(runnable: Sequence[_Candidate]) -> str:
    return f"there are: {_some(sorted(one.printable for one in runnable))}." if runnable else "there are none."


def _some(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED_TOOLS
    return ", ".join(names[:MAX_NAMED_TOOLS]) + (f" and {more:,} more" if more > 0 else "")


def _named(selected: Sequence[_Candidate]) -> list[tuple[str, _Candidate]]:
    """Each tool with its name on the wire: ``server__tool``, with a hash where that is no name or not unique."""
    plain: list[str] = []
    for one in selected:
        joined = f"{one.source.name}__{one.tool.name}"
        name = re.sub(r"[^A-Za-z0-9_-]", "_", joined)
        name = name if re.match(r"[A-Za-z_]", name) else f"_{name}"
        plain.append(name if name == joined and _NAME.match(name) else _hashed(name, one))
    count = Counter(plain)
    return [(name if count[name] == 1 else _hashed(name, one), one) for name, one in zip(plain, selected, strict=True)]


def _hashed(name: str, one: _Candidate) -> str:
    origin = f"{one.source.name}\0{one.tool.name}".encode("utf-8", "backslashreplace")
    return f"{name[: MAX_FUNCTION_NAME_CHARS - 9]}_{hashlib.sha256(origin).hexdigest()[:8]}"


def _within_limits(
    named: Sequence[tuple[str, _Candidate]], sources: Sequence[ToolSource], moonshot_schemas: bool
) -> Selection:
    """As many tools as one request holds, the sources taking turns, and a warning of the others."""
    by_name = sorted(named, key=lambda pair: pair[0])
    turns = zip_longest(*([pair for pair in by_name if pair[1].source is source] for source in sources))
    offered: dict[ToolSource, list[OfferedTool]] = {source: [] for source in sources}
    unusable: dict[str, list[str]] = {}
    excess: Counter[str] = Counter()
    count = size = 0
    for name, one in (pair for turn in turns for pair in turn if pair is not None):
        if count >= MAX_TOOLS or size >= MAX_DEFINITIONS_CHARS:
            excess[one.source.name] += 1
            continue
        definition = _definition(name, one.tool, moonshot_schemas)
        if isinstance(definition, str):
            unusable.setdefault(definition, []).append(one.printable)
        elif size + (length := len(json.dumps(definition))) > MAX_DEFINITIONS_CHARS:
            excess[one.source.name] += 1
        else:
            count, size = count + 1, size + length
            tool = OfferedTool(name=name, source=one.source, tool=one.tool, definition=definition)
            offered[one.source].append(tool)
    warnings = [f"Left out, because {why}: {_some(names)}." for why, names in unusable.items()]
    if excess:
        where = ", ".join(f"{count:,} of {printable_name(name)}" for name, count in excess.items())
        warnings.append(
            f"{excess.total():,} tools are left out ({where}): a request holds at most {MAX_TOOLS} tools, and "
            f"{MAX_DEFINITIONS_CHARS // 1024} kB of them. Name the ones that matter in `tools`."
        )
    return Selection([tool for group in offered.values() for tool in group], warnings)


def _definition(name: str, tool: ListedTool, moonshot_schemas: bool) -> dict[str, Any] | str:
    """The function as the wire has it, or why it can't be offered."""
    parameters = _cleaned_schema(tool.schema)
    written = json.dumps(parameters, ensure_ascii=False)
    if len(written) > MAX_SCHEMA_CHARS:
        return f"its schema is larger than {MAX_SCHEMA_CHARS // 1024} kB"
    if clean(written, "model") != written:
        return "its schema holds what no schema should"
    if schema_fault(tool.schema) is not None:
        return "its schema is not a valid JSON schema"
    if moonshot_schemas and parameters_fault(parameters) is not None:
        rewritten = rewritten_parameters(parameters)
        if rewritten is None:
            return "its schema can't be written in Moonshot's dialect"
        parameters = rewritten
    description = clean(tool.description[: MAX_DESCRIPTION_CHARS * 2], "model")[:MAX_DESCRIPTION_CHARS]
    return {"name": name, "description": description, "parameters": parameters}


def _cleaned_schema(schema: Any, *, names: bool = False) -> Any:
    """The schema with every description in it cleaned; ``names``: its keys are names of properties."""
    match schema:
        case dict():
            new: dict[str, Any] = {}
            for key, inner in cast(dict[str, Any], schema).items():
                if not names and key in ("description", "title") and isinstance(inner, str):
                    new[key] = clean(inner, "model")[:MAX_DESCRIPTION_CHARS]
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
