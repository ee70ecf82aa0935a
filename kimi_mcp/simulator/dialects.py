"""Owns what each provider's dialect is and which models it serves when. Reads ``dialects.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any, Literal, cast

FACTS_DAY = date(2026, 11, 28)
"""The day of the latest fact; what is served is judged as of this day unless another day is given."""

Switch = Literal["thinking", "chat_template_kwargs", "reasoning", "enable_thinking"]
"""The top-level field of a request that switches thinking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPrice:
    """US dollars per million tokens, by Moonshot's price list."""

    input: float
    hit: float
    """Of the prompt, read from the cache."""
    output: float
    write_1h: float | None = None
    """Of the prompt, written to the cache for an hour; None: not sold (assumed where no source has a price)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedModel:
    """What a model is, wherever it is served."""

    name: str
    """Its name in Moonshot's family, such as `kimi-k2.6`."""
    always_thinks: bool = False
    """Thinking can't be switched off."""
    keeps: bool = False
    """Takes `thinking.keep: null|"all"` (K2.6; platform docs, third-party OpenAPI copy)."""
    efforts: tuple[str, ...] = ()
    """Levels of a top-level `reasoning_effort`."""
    forced_tools: bool = False
    """`tool_choice: "required"` is allowed while thinking."""
    loads_tools: bool = False
    """System messages may declare tools (platform.kimi.ai use-dynamic-tool-loading)."""
    context: int = 262_144
    """Tokens of prompt and answer together."""
    default_max_tokens: int = 32_768
    """Tokens of an answer where the request names no limit."""
    price: ListPrice | None = None
    """What Moonshot takes for it."""
    media: tuple[str, ...] = ("image", "video")
    """What it sees, where the provider takes it."""
    call_id: str = "functions.{name}:{index}"
    """Its id of a tool call, by the tool's name and the call's number within the turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model under the id that one provider gives it, with the days it is served."""

    id: str
    model: SimulatedModel
    since: date | None = None
    """First day; None: as long as anyone remembers."""
    until: date | None = None
    """Last day; None: no end known."""
    redirected_since: date | None = None
    """From this day on another model answers in its place."""
    redirected_to: str | None = None
    """The id of that other model."""

    def live(self, day: date) -> bool:
        """Whether the provider answers its id on that day."""
        return (self.since is None or self.since <= day) and (self.until is None or day <= self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one provider's chat-completions API differs from the others."""

    name: str
    serves: tuple[Served, ...]
    moonshot: bool = False
    """Moonshot's own strict API: fixed sampling values, files, balance, `ms://` ids."""
    moonshot_schemas: bool = False
    """Schemas of tools and answers must be in Moonshot's dialect."""
    switches: tuple[Switch, ...] = ("chat_template_kwargs",)
    """Every field that a public source documents there for switching thinking; another is an unknown field,
    which Moonshot ignores. Empty: no switch is documented, and what can think always does."""
    reasoning_field: str = "reasoning_content"
    """The field with the reasoning, in answers and in assistant messages; any other name is silently dropped."""
    needs_key: bool = True
    retired_status: int = 404
    """Status for a model that is no longer served."""
    lists_retired: bool = False
    """`/models` still names retired models."""
    video: bool = True
    """Takes video for models that see it."""
    video_status: int = 400
    """Status for video where it can't be taken."""
    max_tokens_limit: int | None = None
    """Largest `max_tokens` that is taken."""
    extra_fields: frozenset[str] = frozenset()
    """Top-level fields of a request beyond those that everyone takes."""
    reports_reasoning_tokens: bool = False
    """Usage carries `completion_tokens_details.reasoning_tokens`."""

    def find(self, model_id: str) -> Served | None:
        """The row of that id, live or not."""
        return next((row for row in self.serves if row.id == model_id), None)

    def takes(self, kind: str, model: SimulatedModel) -> bool:
        """Whether that kind of media may be sent to that model."""
        return kind in model.media and (self.video or kind != "video")


def _read() -> Iterator[Dialect]:
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    models: dict[str, SimulatedModel] = {}
    for name, row in table["models"].items():
        if "price" in row:
            row["price"] = ListPrice(**row["price"])
        base = models[row.pop("inherits")] if "inherits" in row else SimulatedModel(name=name)
        models[name] = replace(base, name=name, **_as_tuples(row))
    found: dict[str, Dialect] = {}
    for row in table["dialects"]:
        if "serves" in row:
            row["serves"] = [_served(each, models) for each in row["serves"]]
        if "extra_fields" in row:
            sets = (table["fields"][each[1:]] if each[0] == "@" else [each] for each in row["extra_fields"])
            row["extra_fields"] = frozenset(chain.from_iterable(sets))
        base = found[row.pop("inherits")] if "inherits" in row else Dialect(name="", serves=())
        found[row["name"]] = replace(base, **_as_tuples(row))
    yield from found.values()


def _served(row: dict[str, Any], models: Mapping[str, SimulatedModel]) -> Served:
    model = models[row["model"]]
    if "media" in row:
        model = replace(model, media=tuple(row.pop("media")))
    values: dict[str, Any] = {**row, "model": model}
    return Served(**values)


def _as_tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(cast(list[Any], value)) if isinstance(value, list) else value for name, value in row.items()}


DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in _read()}
"""Every dialect by its provider's name. `simulator` has Moonshot's and serves the whole family, K2.5 included."""
