"""The files' form: every table is sourced, an inheriting file states what differs, what is open stays open."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

import kimi_mcp.catalogue
from kimi_mcp.catalogue import load

PACKAGE = Path(kimi_mcp.catalogue.__file__).parent
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.glob("*/*.toml"))

K25, K3 = "models/kimi-k2.5.toml", "models/kimi-k3.toml"
MOONSHOT, VLLM, SGLANG = "providers/moonshot.toml", "providers/vllm.toml", "providers/sglang.toml"

Edit = Callable[[str, str, str], Path]


def tables_of(file: str) -> list[tuple[str, dict[str, Any]]]:
    """Every group of facts in a file, as it stands there."""
    content = tomllib.loads((PACKAGE / file).read_text(encoding="utf-8"))
    groups: list[tuple[str, dict[str, Any]]] = []
    for key, value in content.items():
        if key != "inherits":
            rows = value if isinstance(value, list) else [value]
            groups += [(key, row) for row in rows]
    return groups


@pytest.mark.parametrize("file", FILES)
def test_every_table_says_where_its_facts_come_from_and_of_which_day(file: str) -> None:
    for key, table in tables_of(file):
        assert table["source"].strip(), key
        assert date(2026, 1, 1) <= table["date"] <= datetime.now(UTC).date(), (
            f"{key}: no fact is of a day that is still to come"
        )
        assert "facts.md" not in table["source"], key


@pytest.mark.parametrize("file", FILES)
def test_every_file_begins_with_a_sentence_and_fits_the_page(file: str) -> None:
    text = (PACKAGE / file).read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert max(map(len, text.splitlines())) <= 120
    assert "/work" not in text


@pytest.mark.parametrize("file", FILES)
def test_every_file_becomes_a_record_that_keeps_its_sources(file: str) -> None:
    catalogue = load()
    stem = Path(file).stem
    record = catalogue.models[stem] if file.startswith("models") else catalogue.providers[stem]
    assert record.id == stem
    assert record.name
    for key, table in tables_of(file):
        if key != "models":
            assert (record.facts[key].source, record.facts[key].checked) == (table["source"], table["date"])


def test_a_copy_of_the_files_makes_the_same_catalogue(edit: Edit) -> None:
    assert load(edit(K25, "# Kimi K2.5", "# Kimi K2.5")) == load()


# ------------------------------------------------------------------------------------------------------ inheritance


def test_an_inheriting_file_states_only_what_differs() -> None:
    catalogue = load()
    older, newer = catalogue.models["kimi-k2.5"], catalogue.models["kimi-k2.6"]
    assert newer.thinking_sampling == older.thinking_sampling
    assert newer.instant_sampling == older.instant_sampling
    assert newer.facts["sampling"] == older.facts["sampling"]
    assert newer.facts["about"] != older.facts["about"]
    assert "sampling" not in dict(tables_of("models/kimi-k2.6.toml"))


def test_a_change_reaches_the_grandchildren(edit: Edit) -> None:
    catalogue = load(edit(VLLM, "sends_sampling = true", "sends_sampling = false"))
    assert not catalogue.providers["ktransformers"].sends_sampling


def test_rows_are_merged_by_their_model_and_keep_their_order(edit: Edit) -> None:
    moonshot, simulator = (load().providers[name] for name in ("moonshot", "simulator"))
    assert [row.model for row in simulator.models] == [row.model for row in moonshot.models]
    assert simulator.models[0].price == moonshot.models[0].price
    assert simulator.models[0].until is None
    catalogue = load(edit(MOONSHOT, "cached = 0.10", "cached = 0.11"))
    profile = catalogue.profile("simulator", "kimi-k2.5")
    assert profile is not None
    assert profile.price is not None
    assert profile.price.cached == 0.11


def test_a_new_row_of_an_inheriting_file_comes_last(edit: Edit) -> None:
    row = '[[models]]\nmodel = "kimi-k3.1-pro-highspeed"\nwire_id = "x/y"\nprice = "unknown"\n'
    row += 'source = "z"\ndate = 2026-11-01\n'
    catalogue = load(edit(SGLANG, "[features]", row + "\n[features]"))
    assert catalogue.providers["sglang"].models[-1].wire_id == "x/y"
    assert catalogue.providers["ktransformers"].models[-1].wire_id == "x/y"
    assert len(catalogue.providers["vllm"].models) == len(load().providers["vllm"].models)


# ----------------------------------------------------------------------------------------------------- what is open


def test_unknown_becomes_none(edit: Edit) -> None:
    assert load(edit(K25, "released = 2026-01-27", 'released = "unknown"')).models["kimi-k2.5"].released is None
    assert load(edit(VLLM, "image = true", 'image = "unknown"')).providers["vllm"].takes_image is False
    response = 'response_format = ["json_object", "json_schema"]'
    assert load(edit(VLLM, response, 'response_format = "unknown"')).providers["vllm"].response_format == ()


def test_sampling_that_was_not_published_is_none(edit: Edit) -> None:
    values = "{ temperature = 1.0, top_p = 0.95, n = 1, presence_penalty = 0, frequency_penalty = 0 }"
    assert load(edit(K3, values, '"unknown"')).models["kimi-k3"].thinking_sampling is None
