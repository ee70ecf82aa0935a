"""Weights, engines and what they need, read from the catalogue's ``selfhosting.toml``. Reads that one file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, cast

from kimi_mcp import catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One set of files that holds the model."""

    id: str
    """Its name in the table."""
    name: str
    """Its name for people."""
    model: str
    """The model's catalogue id."""
    repo: str
    """Where it lies on Hugging Face."""
    patterns: tuple[str, ...]
    """Which files of it; empty: all."""
    folder: str
    """Where it is downloaded to, relative."""
    size_gb: int
    """How large it is, GB."""
    source: str
    """Where these facts come from."""
    date: date
    """The day of these facts."""
    doubt: str | None = None
    """What speaks against the row, and what to look at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a machine must have at least for weights in an engine; of several one is enough."""

    weights: str
    """The weights' id."""
    ram_gb: int = 0
    """Main memory, GB."""
    gpu_gb: int = 0
    """Memory of all GPUs, GB."""
    gpus: int = 0
    """How many GPUs."""
    together_gb: int = 0
    """Main memory and memory of all GPUs, GB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOption:
    """One engine, and the weights that it runs."""

    engine: str
    """Its name."""
    weights: tuple[str, ...]
    """Ids of weights, the best first."""
    provider: str
    """The catalogue's row that speaks to it."""
    base_url: str
    """Where it listens."""
    install: tuple[str, ...]
    """How it is installed."""
    launch: str
    """How it is started; places in braces are filled in."""
    note: str
    """What else is to be known."""
    needs: tuple[Needs, ...]
    """What they need."""
    source: str
    """Where these facts come from."""
    date: date
    """The day of these facts."""


@cache
def load() -> tuple[Mapping[str, Weights], tuple[EngineOption, ...]]:
    """All weights by their id, and all ways in the order in which they are to be preferred."""
    file = Path(catalogue.__file__).with_name("selfhosting.toml")
    rows = tomllib.loads(file.read_text("utf-8"))
    weights = [Weights(**_frozen(row)) for row in rows["weights"]]
    return {each.id: each for each in weights}, tuple(_way(row) for row in rows["ways"])


def _way(row: dict[str, Any]) -> EngineOption:
    needs = tuple(Needs(**each) for each in row.pop("needs"))
    row.setdefault("base_url", catalogue.load().providers[row["provider"]].base_url)
    return EngineOption(needs=needs, **_frozen(row))


def _frozen(row: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(cast("list[Any]", value)) if isinstance(value, list) else value for name, value in row.items()}
