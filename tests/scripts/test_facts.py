"""Facts that are kept as data: each has a source and a day, and those that are too old are found."""

from __future__ import annotations

import json
import tomllib
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from scripts.facts import FILES, PACKAGE, facts, main

TODAY = date(2026, 11, 29)


def rows_of(path: Path) -> list[dict[str, Any]]:
    values = tomllib.loads(path.read_text("utf-8")).values()
    listed = [value if isinstance(value, list) else [value] for value in values]
    return [row for rows in listed for row in rows if isinstance(row, dict)]


def test_every_row_has_a_source_and_a_day() -> None:
    found = facts()
    assert len(found) > 100
    assert all(fact.source.strip() and date(2026, 1, 1) <= fact.day for fact in found)


def test_every_file_whose_rows_name_a_source_is_read() -> None:
    sourced = {path for path in PACKAGE.rglob("*.toml") if any("source" in row for row in rows_of(path))}
    assert sourced == {path for pattern in FILES for path in PACKAGE.glob(pattern)}


@pytest.mark.parametrize("lacking", ["source", "date"])
def test_a_row_without_its_source_or_day_is_named(tmp_path: Path, lacking: str) -> None:
    row = {"source": '"a page"', "date": "2026-11-01"}
    del row[lacking]
    (tmp_path / "policy").mkdir()
    text = "[a-rule]\n" + "".join(f"{key} = {value}\n" for key, value in row.items())
    (tmp_path / "policy/rules.toml").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=f"policy/rules.toml: a-rule has no {lacking}"):
        facts(tmp_path)


def test_the_oldest_comes_first_with_its_age(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"], TODAY) == 0
    printed = json.loads(capsys.readouterr().out)
    days = [date.fromisoformat(row["date"]) for row in printed]
    assert days == sorted(days)
    assert [row["age_days"] for row in printed] == [(TODAY - day).days for day in days]
    assert not any(row["too_old"] for row in printed)


def test_what_is_older_than_the_given_age_is_marked_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    oldest = facts()[0]
    age = (TODAY - oldest.day).days
    assert main([f"--max-age={age}"], TODAY) == 0
    capsys.readouterr()

    assert main([f"--max-age={age}"], TODAY + timedelta(days=1)) == 1
    printed = capsys.readouterr()
    head, *_ = printed.out.split("read it again")
    assert oldest.file in head
    assert oldest.source in head
    assert "older than" in printed.err
