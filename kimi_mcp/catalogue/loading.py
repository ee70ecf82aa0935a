"""Reads the catalogue's TOML files, follows ``inherits``, and validates them into records. Reads files only.

Every mistake becomes a ``CatalogueError`` that names the file, the key, and what would be allowed.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from kimi_mcp.core.errors import CatalogueError
from kimi_mcp.core.profiles import PATTERNS, FileRecord, Model, Price, Provider, ServedModel, SourcedRecord
from kimi_mcp.core.types import SamplingName

Table = dict[str, Any]
"""A TOML table."""

R = TypeVar("R", Model, Provider)

INHERITS = "inherits"
"""The one key above a file's tables: the id of the file that this one differs from."""

SOURCE = ("source", "date", "doubt")
"""What every table has beside its facts; only the last may be left out."""

ROWS = "models"
"""The list of a provider's file; its rows merge by their ``model``."""

KINDS = ("models", "providers")
"""The folders of a catalogue."""

Above = Mapping[str, Mapping[str, Table]]
"""Tables that are laid over the folder's, by kind and id."""

_ALLOWED: Mapping[str, str] = {
    "bool_type": "true, false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "date_type": "a date such as 2026-01-27",
    "date_from_datetime_parsing": "a date such as 2026-01-27",
    "tuple_type": "a list",
    "mapping_type": "a table",
    "model_type": "a table",
    "string_too_short": "text that is not empty",
    "too_short": "at least one entry",
}
"""For each of pydantic's type errors what the key takes instead."""


def read(folder: Path, above: Above = MappingProxyType({})) -> tuple[Mapping[str, Model], Mapping[str, Provider]]:
    """The records of every file in the folder's ``models`` and ``providers``, with what is laid ``above`` them.

    Providers come in their own order, those that are only above last; such a one inherits no rows of models.
    """
    models = dict(sorted(_records(folder, "models", Model, above).items()))
    records = _records(folder, "providers", Provider, above)
    added = {stem for stem in above.get("providers", ()) if not (folder / f"providers/{stem}.toml").exists()}
    in_order = sorted(records.values(), key=lambda each: (each.id in added, each.order, each.id))
    providers = {each.id: each for each in in_order}
    _check_providers(providers.values(), models)
    return MappingProxyType(models), MappingProxyType(providers)


def _records(folder: Path, kind: str, record: type[R], above: Above) -> dict[str, R]:
    """The record of each file of one kind, by its id; parents before those that inherit from them."""
    layers = {path.stem: [parse(f"{kind}/{path.name}", path)] for path in sorted((folder / kind).glob("*.toml"))}
    if not layers:
        raise CatalogueError(f"{kind}: no *.toml file is there")
    added = above.get(kind, {}).keys() - layers.keys()
    for stem, tables in above.get(kind, {}).items():
        layers.setdefault(stem, []).append(tables)
    files = {stem: tables[0] for stem, tables in layers.items()}
    lines = {stem: _ancestors(kind, stem, files) for stem in files}
    records: dict[str, R] = {}
    for stem in sorted(files, key=lambda stem: len(lines[stem])):  # a mistake is reported for its own file
        for tables in layers[stem]:
            _check_tables(f"{kind}/{stem}.toml", tables, record)
        inherited = [_by_alias(tables) for ancestor in lines[stem][:-1] for tables in layers[ancestor]]
        for values in inherited if stem in added else ():
            values.pop(ROWS, None)
        values = reduce(_merge, (*inherited, *map(_by_alias, layers[stem])))
        try:
            records[stem] = record.model_validate({"id": stem, "ancestors": lines[stem][:-1], **values})
        except ValidationError as error:
            rows = [row.get("model") for row in layers[stem][-1].get(ROWS, ())]
            found = (_in_its_file(each, values, rows) for each in error.errors(include_url=False))
            sentences = [_sentence(each, record) for each in found]
            raise CatalogueError(f"{kind}/{stem}.toml: " + "; also ".join(dict.fromkeys(sentences))) from error
    return records


def parse(name: str, path: Path, *, of_user: bool = False) -> Table:
    """The tables of a file; raises ``CatalogueError``."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise CatalogueError(f"{name}: is not UTF-8 text", of_user=of_user) from error
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(f"{name}: is not TOML: {error}", of_user=of_user) from error
    except RecursionError:
        raise CatalogueError(f"{name}: is nested too deep", of_user=of_user) from None


def _ancestors(kind: str, stem: str, files: Mapping[str, Table]) -> tuple[str, ...]:
    """The ids that a file inherits from, the first ancestor first, and its own last."""
    line = (stem,)
    while (parent := files[line[0]].get(INHERITS)) is not None:
        where = f"{kind}/{line[0]}.toml: {INHERITS}"
        if not isinstance(parent, str):
            raise CatalogueError(f"{where} is {_shown(parent)}; allowed: the id of another file")
        if parent not in files:
            near = hint(parent, [other for other in files if other not in line])
            raise CatalogueError(f"{where} is {parent!r}, and {kind} has no such file; {near}")
        if parent in line:
            raise CatalogueError(f"{where} goes round in a circle: {' → '.join((parent, *line))}")
        line = (parent, *line)
    return line


def _check_tables(name: str, tables: Table, record: type[FileRecord]) -> None:
    """What a file itself must have, before anything is inherited: known tables, each with its source and date."""
    keys = (key.partition(".")[0] for key in _keys(record) if key not in ("id", "ancestors", "facts"))
    allowed = list(dict.fromkeys((INHERITS, *keys)))
    models: list[str] = []
    for key, value in tables.items():
        if key not in allowed:
            raise CatalogueError(f"{name}: {_unknown(key, allowed)}")
        if key == ROWS and isinstance(value, list):
            for number, row in enumerate(cast("list[Any]", value), start=1):
                where = f"{name}: {ROWS}[{number}]"
                models.append(_row_model(where, _sourced(where, row), models))
        elif key == ROWS:
            raise CatalogueError(f"{name}: {ROWS} is {_shown(value)}; allowed: rows, each under [[{ROWS}]]")
        elif key != INHERITS:
            _sourced(f"{name}: {key}", value)


def _sourced(where: str, value: object) -> Table:
    """A table with the source and the day of its facts."""
    if not isinstance(value, dict):
        raise CatalogueError(f"{where} is {_shown(value)}; allowed: a table")
    for needed in SOURCE[:2]:
        if needed not in value:
            raise CatalogueError(
                f"{where} has no {needed}; every table says where its facts come from (source) "
                "and of which day they are (date)"
            )
    return cast("Table", value)


def _row_model(where: str, row: Table, earlier: list[str]) -> str:
    """The model that a row is about; rows of an inheriting file are merged by it."""
    model = row.get("model")
    if not isinstance(model, str):
        found = "missing" if model is None else _shown(model)
        raise CatalogueError(f"{where}.model is {found}; allowed: the id of a file in models")
    if model in earlier:
        raise CatalogueError(f"{where}.model is {model!r}, which an earlier row has already")
    return model


def _by_alias(tables: Table) -> Table:
    """The values of a file by the aliases of its record, such as ``about.name``."""
    facts: Table = {}
    values: Table = {"facts": facts}
    for name, table in tables.items():
        if isinstance(table, dict):
            values |= {f"{name}.{key}": value for key, value in cast("Table", table).items() if key not in SOURCE}
            facts[name] = {key: table[key] for key in SOURCE if key in table}
        elif name != INHERITS:
            values[name] = table
    return values


def _merge(below: Table, above: Table) -> Table:
    """The values of a file over those that it inherits; rows of ``[[models]]`` merge by their model, new ones last."""
    merged = {**below, **above, "facts": {**below["facts"], **above["facts"]}}
    if ROWS in below and ROWS in above:
        rows = {row["model"]: row for row in below[ROWS]}
        for row in above[ROWS]:
            rows[row["model"]] = {**rows.get(row["model"], {}), **row}
        merged[ROWS] = list(rows.values())
    return merged


def _in_its_file(error: ErrorDetails, values: Table, rows: list[Any]) -> ErrorDetails:
    """A finding with the number that its row has among the ``rows`` of its own file, not among all that merged."""
    match error["loc"]:
        case (key, int(number), *rest) if key == ROWS and (model := values[ROWS][number].get("model")) in rows:
            return {**error, "loc": (ROWS, rows.index(model), *rest)}
        case _:
            return error


def _sentence(error: ErrorDetails, record: type[BaseModel]) -> str:
    """One finding of pydantic's in our words: the key, what it holds, what it may hold."""
    kind, location, context = error["type"], error["loc"], error.get("ctx", {})
    if location and location[-1] == "[key]":
        return _unknown(_dotted(location[:-1]), get_args(SamplingName))
    where = _dotted(location)
    owner = _owner(record, location) if location else record
    if kind == "extra_forbidden":
        table = where.rpartition(".")[0] + "." if owner is record else ""
        return _unknown(where, [key.removeprefix(table) for key in _keys(owner) if key.startswith(table)])
    if kind == "missing":
        return f"{where} is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        allowed = str(context["expected"]).replace("'", "").replace(" or ", ", ")
    elif kind == "string_pattern_mismatch":
        allowed = PATTERNS[context["pattern"]]
    else:
        allowed = _ALLOWED.get(kind) or error["msg"].removeprefix("Input should ").removeprefix("be ")
    field = _keys(owner).get(str(location[-1])) if location else None
    words = field.examples or () if field else ()
    return f"{where} is {_shown(error['input'])}; allowed: {', '.join((allowed, *words))}"


def _dotted(location: tuple[int | str, ...]) -> str:
    """A place in a file, as in ``models[2].price``; rows count from one, as people do."""
    steps = location[1:] if location[:1] == ("facts",) else location
    return "".join(f"[{step + 1}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def _keys(record: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """A record's fields by their names in a file."""
    return {field.alias or name: field for name, field in record.model_fields.items()}


def _owner(record: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """The record that the key at a place in a file belongs to."""
    if location[0] == "facts":
        return SourcedRecord
    return record if len(location) == 1 else Price if "price" in location[:-1] else ServedModel


def _shown(value: object) -> str:
    """A value as its file has it, or nearly, and not too long."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    return str(value) if isinstance(value, date) else repr(value)[:80]


def _unknown(where: str, allowed: Iterable[str]) -> str:
    """``where`` is no key here; the nearest that is, or else all that are."""
    return f"{where} is not a key here; {hint(where.rpartition('.')[2], list(allowed))}"


def hint(name: str, allowed: list[str]) -> str:
    """The nearest of the names that are allowed; where none is near, all of them."""
    near = difflib.get_close_matches(name, allowed, n=1)
    return f"did you mean {near[0]}?" if near else f"allowed: {', '.join(allowed)}"


def _check_providers(providers: Iterable[Provider], models: Mapping[str, Model]) -> None:
    """Each row names a model that has a file, and a wire id that no other row of its provider has.

    A host belongs to one provider only: its key goes there.
    """
    owners: dict[str, str] = {}
    for provider in providers:
        name, seen = f"providers/{provider.id}.toml", set[str]()
        for number, row in enumerate(provider.models, start=1):
            where = f"{name}: {ROWS}[{number}]"
            if row.model not in models:
                near = hint(row.model, list(models))
                raise CatalogueError(f"{where}.model is {row.model!r}, and models has no such file; {near}")
            if row.wire_id in seen:
                raise CatalogueError(f"{where}.wire_id is {row.wire_id!r}, which an earlier row has already")
            seen.add(row.wire_id)
        for host in provider.hosts:
            if (owner := owners.setdefault(host, provider.id)) != provider.id:
                raise CatalogueError(
                    f"{name}: about.hosts has {host!r}, which belongs to providers/{owner}.toml already"
                )
