"""``kimi-mcp runs costs`` and ``--principal``: who has spent what, and on which day."""

from __future__ import annotations

import time
from pathlib import Path

from kimi_mcp.core.types import Usage
from kimi_mcp.runs.store.store import RunStore
from tests.cli.commands.recorded import CUT, DAY, begin, end, keeping, kimi, number, run_json

ALICE, BOB = "kimi-mcp#alice", "https://id.example.com#bob"
BOBS_NAME = "bob (https://id.example.com)"


async def costing(store: RunStore, digits: int, caller: str, usd: float | None, *, days_ago: int = 0) -> None:
    """A run of a caller that has cost so much, and ten tokens where that is known."""
    midnight = time.time() // DAY * DAY
    await begin(store, number(digits), caller=caller, started_at=midnight - days_ago * DAY)
    if usd is None:
        await end(store, number(digits), "failed", error=CUT)
    else:
        await end(store, number(digits), cost_usd=usd, usage=Usage(total_tokens=10))


async def team(store: RunStore) -> None:
    """Two calls of Alice's today, one of unknown cost; one of Bob's that runs; yesterday one of each."""
    await costing(store, 1, ALICE, 0.5)
    await costing(store, 2, ALICE, None)
    await begin(store, number(3), caller=BOB, started_at=time.time() // DAY * DAY)
    await costing(store, 4, ALICE, 0.25, days_ago=1)
    await costing(store, 5, BOB, 2.0, days_ago=1)
    await costing(store, 6, BOB, 4.0, days_ago=40)


def test_costs_are_summed_by_principal_and_day_and_an_unknown_one_is_counted_and_no_zero(data_dir: Path) -> None:
    keeping(data_dir, team)
    today, yesterday = (time.strftime("%Y-%m-%d", time.gmtime(time.time() - ago * DAY)) for ago in (0, 1))
    names = ("day", "principal", "calls", "running", "tokens", "cost_usd", "cost_unknown")
    assert [tuple(row[name] for name in names) for row in run_json("costs")] == [
        (today, BOBS_NAME, 1, 1, None, None, 0),
        (today, "alice", 2, 0, 10, 0.5, 1),
        (yesterday, BOBS_NAME, 1, 0, 10, 2.0, 0),
        (yesterday, "alice", 1, 0, 10, 0.25, 0),
    ]
    assert [row["caller"] for row in run_json("costs", "--days", "1")] == [BOB, ALICE]
    assert len(run_json("costs", "--days", "41")) == 5
    head, *lines = (line.split("  ") for line in kimi("costs", "--principal", "alice").stdout.splitlines())
    cells = [[cell.strip() for cell in line if cell.strip()] for line in (head, *lines)]
    assert cells == [
        ["DAY", "PRINCIPAL", "CALLS", "TOKENS", "COST", "UNKNOWN"],
        [today, "alice", "2", "10", "0.500000", "1"],
        [yesterday, "alice", "1", "10", "0.250000", "0"],
        ["TOTAL", "-", "3", "20", "0.750000", "1"],
    ]


def test_where_nothing_was_run_there_are_no_costs_and_no_store_is_made(data_dir: Path) -> None:
    assert kimi("costs").stdout == "Nothing was run in that time.\n"
    assert run_json("costs") == []
    assert not data_dir.exists()
    assert kimi("costs", "--days", "0").exit_code == 2


def test_runs_of_one_principal_are_found_by_its_name_or_its_id_and_the_totals_are_theirs(data_dir: Path) -> None:
    keeping(data_dir, team)
    for name, found in (("alice", {1, 2, 4}), (BOBS_NAME, {3, 5, 6}), (BOB, {3, 5, 6})):
        rows = run_json("--principal", name)
        assert {row["run_id"] for row in rows} == set(map(number, found))
        assert {row["principal"] for row in rows} == {"alice" if name == "alice" else BOBS_NAME}
    assert kimi("--principal", "alice").stdout.splitlines()[-1].split()[:2] == ["TOTAL", "3"]
    assert len(run_json("--principal", "alice", "--today")) == 2
    for command in ("list", "costs"):
        unknown = kimi(command, "--principal", "carol")
        assert unknown.exit_code == 1
        assert f"{BOBS_NAME}, alice" in unknown.stderr


def test_the_list_says_whose_each_run_is_where_several_principals_have_some(data_dir: Path) -> None:
    async def alone(store: RunStore) -> None:
        await costing(store, 1, ALICE, 0.5)

    keeping(data_dir, alone)
    assert "PRINCIPAL" not in kimi().stdout

    async def another(store: RunStore) -> None:
        await costing(store, 5, BOB, 2.0)

    keeping(data_dir, another)
    head, *lines, total = kimi().stdout.splitlines()
    assert head.split()[:3] == ["ID", "PRINCIPAL", "STARTED"]
    assert all(("alice" in line) is (number(1) in line) for line in lines)
    assert total.split() == ["TOTAL", "-", "2", "-", "-", "0.000", "20", "2.500000", "-"]
    assert "PRINCIPAL" not in kimi("--principal", "alice").stdout
    assert "for alice" in kimi("show", number(1)).stdout
