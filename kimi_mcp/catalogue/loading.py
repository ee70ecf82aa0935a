"""Reads the catalogue's TOML files, follows ``inherits``, checks them and makes the frozen records. Reads files only.

Every mistake becomes a ``CatalogueError`` that names the file, the key, and what would be allowed.
"""

from __future__ import annotations

import difflib
import tomllib
import types
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from kimi_mcp.catalogue import CatalogueError
from kimi_mcp.catalogue import schema as form
from kimi_mcp.core.profiles import Model, Price, Provider, ServedModel
from kimi_mcp.core.types import Mode

Table = dict[str, Any]
"""A TOML table."""

F = TypeVar("F", form.ModelFile, form.ProviderFile)

INHERITS = "inherits"
"""The one key that stands above a file's tables: the id of the file that this one differs from."""

ROWS = "models"
"""The list of a provider's file; its rows merge by ``ROW_ID``."""

ROW_ID = "model"
"""The key by which rows of ``[[models]]`` are the same."""

_WANTED: Mapping[str, str] = {
    "bool_type": "true, false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "date_type": "a date such as 2026-01-27",
    "date_from_datetime_parsing": "a date such as 2026-01-27",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "string_too_short": "text that is not empty",
    "too_short": "at least one entry",
}
"""For each of pydantic's type errors what the key takes instead."""


def read(folder: Path) -> tuple[Mapping[str, Model], Mapping[str, Provider]]:
    """The records of every file in the folder's ``models`` and ``providers``; providers in their own order."""
    models = {file.stem: _model(file.stem, entry) for file, entry in _files(folder, "models", form.ModelFile)}
    models = dict(sorted(models.items()))
    entries = _files(folder, "providers", form.ProviderFile)
    for file, entry in entries:
        _check_rows(f"providers/{file.name}", entry, models)
    entries.sort(key=lambda entry: (entry[1].about.order, entry[0].stem))
    _check_hosts(entries)
    providers = {file.stem: _provider(file.stem, entry) for file, entry in entries}
    return types.MappingProxyType(models), types.MappingProxyType(providers)


def _files(folder: Path, kind: str, schema: type[F]) -> list[tuple[Path, F]]:
    """Each file of one kind, with everything that it inherits; parents before those that inherit from them."""
    paths = {path.stem: path for path in sorted((folder / kind).glob("*.toml"), key=lambda path: path.stem)}
    if not paths:
        raise CatalogueError(f"{kind}: no *.toml file is there")
    raw = {stem: _parse(f"{kind}/{path.name}", path) for stem, path in paths.items()}
    lines = {stem: _line(kind, stem, raw) for stem in raw}
    checked: dict[str, F] = {}
    for stem in sorted(raw, key=lambda stem: len(lines[stem])):  # a mistake is blamed on its own file
        _check_tables(f"{kind}/{stem}.toml", raw[stem], schema)
        checked[stem] = _validate(f"{kind}/{stem}.toml", _merged([raw[each] for each in lines[stem]]), schema)
    return [(paths[stem], file) for stem, file in checked.items()]


def _parse(name: str, path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise CatalogueError(f"{name}: is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(f"{name}: is not TOML: {error}") from error


def _check_tables(name: str, tables: Table, schema: type[BaseModel]) -> None:
    """What a file itself must state, before anything is inherited: known tables, each with its source and date."""
    allowed = [INHERITS, *schema.model_fields]
    models: list[str] = []
    for key, value in tables.items():
        if key not in allowed:
            raise CatalogueError(f"{name}: {_unknown(key, allowed)}")
        if key == ROWS and isinstance(value, list):
            for number, row in enumerate(cast("list[Any]", value), start=1):
                where = f"{name}: {ROWS}[{number}]"
                models.append(_row_model(where, _sourced(where, row), models))
        elif key != INHERITS:
            _sourced(f"{name}: {key}", value)


def _sourced(where: str, value: object) -> Table:
    """A table that says where its facts come from and of which day they are."""
    if not isinstance(value, dict):
        raise CatalogueError(f"{where} is {_said(value)}; allowed: a table")
    for needed in ("source", "date"):
        if needed not in value:
            raise CatalogueError(
                f"{where} has no {needed}; every table says where its facts come from (source) "
                "and of which day they are (date)"
            )
    return cast("Table", value)


def _row_model(where: str, row: Table, earlier: list[str]) -> str:
    """The model that a row is about; rows of an inheriting file find theirs by it."""
    model = row.get(ROW_ID)
    if not isinstance(model, str):
        said = "missing" if model is None else _said(model)
        raise CatalogueError(f"{where}.{ROW_ID} is {said}; allowed: the id of a file in models")
    if model in earlier:
        raise CatalogueError(f"{where}.{ROW_ID} is {model!r}, which an earlier row has already")
    return model


def _line(kind: str, stem: str, raw: Mapping[str, Table]) -> tuple[str, ...]:
    """The ids that a file inherits from, the first ancestor first, and its own last."""
    line = (stem,)
    while (parent := raw[line[0]].get(INHERITS)) is not None:
        name = f"{kind}/{line[0]}.toml: {INHERITS}"
        if not isinstance(parent, str):
            raise CatalogueError(f"{name} is {_said(parent)}; allowed: the id of another file")
        if parent not in raw:
            hint = _hint(parent, [other for other in raw if other not in line])
            raise CatalogueError(f"{name} is {parent!r}, and {kind} has no such file; {hint}")
        if parent in line:
            raise CatalogueError(f"{name} goes round in a circle: {' → '.join((parent, *line))}")
        line = (parent, *line)
    return line


def _merged(line: list[Table]) -> Table:
    """The tables of a file and of all that it inherits from, the nearer over the farther."""
    merged: Table = {}
    for tables in line:
        merged = _laid_over(merged, {key: value for key, value in tables.items() if key != INHERITS})
    return merged


def _laid_over(below: Table, above: Table) -> Table:
    """Tables merge key by key; rows of ``[[models]]`` merge by their model, new ones come last."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            merged[key] = {**cast("Table", old), **cast("Table", value)}
        elif key == ROWS and isinstance(old, list) and isinstance(value, list):
            rows = {row[ROW_ID]: row for row in cast("list[Table]", old)}
            for row in cast("list[Table]", value):
                rows[row[ROW_ID]] = {**rows.get(row[ROW_ID], {}), **row}
            merged[key] = list(rows.values())
        else:
            merged[key] = value
    return merged


def _validate(name: str, tables: Table, schema: type[F]) -> F:
    try:
        return schema.model_validate(tables)
    except ValidationError as error:
        sentences = [_sentence(found, schema) for found in error.errors(include_url=False)]
        raise CatalogueError(f"{name}: " + "; also ".join(dict.fromkeys(sentences))) from error


def _sentence(error: ErrorDetails, schema: type[BaseModel]) -> str:
    """One finding of pydantic's in our words: the key, what it holds, what it may hold."""
    kind, location, said = error["type"], error["loc"], error.get("ctx", {})
    if location and location[-1] == "[key]":
        return _unknown(_dotted(location[:-1]), list(get_args(form.SamplingName)))
    where = _dotted(location)
    owner, field = _key_at(schema, location)
    if kind == "extra_forbidden":
        return _unknown(where, list(owner.model_fields))
    if kind == "missing":
        return f"{where} is missing"
    if kind == "value_error":
        return f"{where}: {said['error']}" if where else str(said["error"])
    if kind == "literal_error":
        allowed = str(said["expected"]).replace("'", "").replace(" or ", ", ")
    elif kind == "string_pattern_mismatch":
        allowed = form.PATTERNS[said["pattern"]]
    else:
        allowed = _WANTED.get(kind) or error["msg"].removeprefix("Input should ").removeprefix("be ")
    marks = [] if field is None else [mark for mark in field.metadata if isinstance(mark, form.AlsoAllowed)]
    words = (word for mark in marks for word in mark.words)
    return f"{where} is {_said(error['input'])}; allowed: {', '.join((allowed, *words))}"


def _dotted(location: tuple[int | str, ...]) -> str:
    """A place in a file, as in ``models[2].price``; rows count from one, as people do."""
    return "".join(f"[{step + 1}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")


def _key_at(schema: type[BaseModel], location: tuple[int | str, ...]) -> tuple[type[BaseModel], FieldInfo | None]:
    """The table that a place in a file lies in, and the key that the place is, if it is one."""
    owner, field = schema, None
    for step in location:
        if field is not None:
            owner = _table_in(field.annotation) or owner
        field = owner.model_fields.get(step) if isinstance(step, str) else None
    return owner, field


def _table_in(annotation: Any) -> type[BaseModel] | None:
    """The schema of the table within an annotation such as ``list[ProviderModel]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((table for part in get_args(annotation) if (table := _table_in(part)) is not None), None)


def _said(value: object) -> str:
    """A value as its file has it, or nearly, and not too long."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    return str(value) if isinstance(value, date) else repr(value)[:80]


def _unknown(where: str, allowed: list[str]) -> str:
    """``where`` is no key here; the nearest that is, or else all that are."""
    return f"{where} is not a key here; {_hint(where.rpartition('.')[2], allowed)}"


def _hint(name: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(name, allowed, n=1)
    return f"did you mean {near[0]}?" if near else f"allowed: {', '.join(allowed)}"


def _check_rows(name: str, entry: form.ProviderFile, models: Mapping[str, Model]) -> None:
    """Each row names a model that has a file, and a wire id that no other row has."""
    seen: set[str] = set()
    for number, row in enumerate(entry.models, start=1):
        where = f"{name}: {ROWS}[{number}]"
        if row.model not in models:
            hint = _hint(row.model, list(models))
            raise CatalogueError(f"{where}.{ROW_ID} is {row.model!r}, and models has no such file; {hint}")
        if row.wire_id in seen:
            raise CatalogueError(f"{where}.wire_id is {row.wire_id!r}, which an earlier row has already")
        seen.add(row.wire_id)


def _check_hosts(entries: list[tuple[Path, form.ProviderFile]]) -> None:
    """A host belongs to one provider only: its key goes there."""
    owners: dict[str, str] = {}
    for file, entry in entries:
        for host in entry.about.hosts:
            if (owner := owners.setdefault(host, file.name)) != file.name:
                raise CatalogueError(
                    f"providers/{file.name}: about.hosts has {host!r}, which belongs to providers/{owner} already"
                )


def _facts(entry: BaseModel) -> Mapping[str, tuple[str, date]]:
    tables = {key: getattr(entry, key) for key in type(entry).model_fields}
    return types.MappingProxyType(
        {key: (table.source, table.date) for key, table in tables.items() if isinstance(table, form.DatedFacts)}
    )


def _model(stem: str, entry: form.ModelFile) -> Model:
    return Model(
        id=stem,
        name=entry.about.name,
        released=entry.about.released,
        can_stop_thinking=entry.thinking.can_stop,
        efforts=tuple(entry.thinking.efforts),
        default_effort=entry.thinking.default_effort,
        forced_tool_choice_thinking=entry.thinking.forced_tool_choice,
        replays_all_reasoning=entry.thinking.replays_all,
        keeps_reasoning_on_request=entry.thinking.keeps_on_request,
        fixed=_fixed(entry.sampling),
        context_tokens=entry.limits.context_tokens,
        default_output_tokens=entry.limits.default_output_tokens,
        image=entry.media.image is True,
        video=entry.media.video is True,
        facts=_facts(entry),
    )


def _fixed(sampling: form.ModelSampling) -> Mapping[Mode, Mapping[str, float]] | None:
    if sampling.thinking is None:
        return None
    fixed: dict[Mode, Mapping[str, float]] = {"thinking": _numbers(sampling.thinking)}
    if sampling.instant:
        fixed["instant"] = _numbers(sampling.instant)
    return types.MappingProxyType(fixed)


def _numbers(values: Mapping[form.SamplingName, float]) -> Mapping[str, float]:
    return types.MappingProxyType({**values})


def _provider(stem: str, entry: form.ProviderFile) -> Provider:
    return Provider(
        id=stem,
        name=entry.about.name,
        base_url=entry.about.base_url,
        hosts=tuple(entry.about.hosts),
        self_hosted=entry.about.self_hosted,
        key_variables=tuple(entry.key.variables),
        borrowed_key_variables=tuple(entry.key.borrowed),
        needs_key=entry.key.needed,
        switch=entry.dialect.switch,
        reasoning_read=tuple(entry.dialect.reasoning_read),
        reasoning_send=tuple(entry.dialect.reasoning_send),
        says_sampling=entry.dialect.says_sampling,
        output_limit_field=entry.output.limit_field,
        max_output_tokens=entry.output.max_tokens,
        response_format=tuple(entry.output.response_format or ()),
        moonshot_schemas=entry.output.moonshot_schemas,
        takes_image=entry.media.image is True,
        takes_video=entry.media.video is True,
        takes_uploads=entry.media.uploads is True,
        lists_models=entry.features.lists_models is True,
        caches_by_key=entry.features.caches_by_key is True,
        streams_usage=entry.features.streams_usage is True,
        formulas=() if entry.tools is None else tuple(entry.tools.formulas),
        formula_price=0.0 if entry.tools is None else entry.tools.call_price or 0.0,
        models=tuple(_serving(row) for row in entry.models),
        facts=_facts(entry),
    )


def _serving(row: form.ProviderModel) -> ServedModel:
    price = None
    if row.price is not None:
        price = Price(input=row.price.input, cached=row.price.cached, output=row.price.output)
    return ServedModel(
        model=row.model,
        wire_id=row.wire_id,
        until=row.until,
        found_gone=row.found_gone,
        price=price,
        image=row.image,
        video=row.video,
        max_output_tokens=row.max_tokens,
        source=row.source,
        checked=row.date,
    )
