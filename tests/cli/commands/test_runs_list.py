"""``kimi-mcp runs list`` and ``prune``: what was run is listed and cleared away."""

from __future__ import annotations

import io
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio
import pytest

from kimi_mcp.core.types import Timing, Usage
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.simulator import Simulator
from tests.cli.commands.recorded import (
    CUT,
    DAY,
    FILE,
    HELD,
    NOON,
    begin,
    end,
    half_done,
    keeping,
    kimi,
    number,
    one,
    run_json,
)
from tests.cli.commands.shell import kimi as process
from tests.cli.commands.shell import to
from tests.server.clients import connect


@pytest.mark.parametrize("form", [(), ("list",), ("--json",), ("list", "--json")])
def test_where_nothing_was_run_the_list_says_so_and_begins_no_journal(data_dir: Path, form: Sequence[str]) -> None:
    done = kimi(*form)
    assert done.exit_code == 0
    assert done.stdout == ("[]\n" if "--json" in form else "No run was recorded yet.\n")
    assert not data_dir.exists()


async def test_what_was_asked_from_a_shell_is_listed_with_its_tokens_and_cost(sim: Simulator) -> None:
    requested = await process("ask", "What is 17 * 23?", "--json", settings=to(sim))
    (row,) = (await process("runs", "--json")).json
    assert row["run_id"] == requested.json["run_id"]
    assert (row["tool"], row["status"], row["host"]) == ("kimi_think", "completed", "kimi-mcp ask")
    assert row["usage"] == requested.json["usage"]
    assert row["usage"]["cost_usd"] > 0
    assert row["seconds"] == requested.json["timing"]["total_s"]
    listed = await process("runs")
    head, line, total = listed.out.splitlines()
    assert head.split() == ["ID", "STARTED", "TOOL", "STATUS", "TOOK", "TOKENS", "COST", "PROMPT"]
    assert line.split()[:1] == [requested.json["run_id"]]
    assert line.endswith("What is 17 * 23?")
    assert f" {row['usage']['total_tokens']} " in line
    assert f"{row['usage']['cost_usd']:.6f}" in line
    assert total.split()[:2] == ["TOTAL", "1"]
    assert f"{row['usage']['cost_usd']:.6f}" in total


def test_a_cheap_run_leaves_room_for_its_prompt_in_a_narrow_terminal(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kimi_mcp.cli.commands.runs import list_runs

    async def fill(store: RunStore) -> None:
        await one(store, number(1), usage=Usage(total_tokens=1_234_567), cost_usd=0.00001, timing=Timing(total_s=2.0))

    keeping(data_dir, fill)
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    for name, value in {"COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", screen)
    list_runs()
    assert "What is" in screen.getvalue()
    assert "<0.0001 USD" in screen.getvalue()


def test_the_totals_are_those_of_every_run_shown_or_not(data_dir: Path) -> None:
    async def fill(store: RunStore) -> None:
        for digits in range(30):
            usage = Usage(prompt_tokens=10, completion_tokens=digits, total_tokens=10 + digits)
            await one(store, number(digits), usage=usage, cost_usd=0.25, timing=Timing(total_s=2.0))

    keeping(data_dir, fill)
    _, *lines, total, note = kimi().stdout.splitlines()
    assert len(lines) == 20
    assert total.split() == ["TOTAL", "30", "-", "-", "60.000", str(300 + 435), "7.500000", "-"]
    assert "20 of 30" in note
    assert len(kimi("--most", "3").stdout.splitlines()) == 6
    assert len(kimi("-n", "30").stdout.splitlines()) == 32


def test_as_json_every_run_is_named_unless_fewer_are_asked_for(data_dir: Path) -> None:
    async def fill(store: RunStore) -> None:
        for digits in range(30):
            await begin(store, number(digits), started_at=NOON + digits)
            await end(store, number(digits))

    keeping(data_dir, fill)
    newest_first = [number(digits) for digits in range(29, -1, -1)]
    assert [row["run_id"] for row in run_json()] == newest_first
    assert run_json("list") == run_json()
    assert [row["run_id"] for row in run_json("list", "--most", "2")] == newest_first[:2]


def test_a_list_can_be_of_one_status_or_of_today(data_dir: Path) -> None:
    async def fill(store: RunStore) -> None:
        await one(store, number(1))
        await one(store, number(2), "failed", error=CUT)
        await begin(store, number(3), started_at=time.time() - DAY)
        await end(store, number(3))

    keeping(data_dir, fill)
    assert [row["run_id"] for row in run_json("--status", "failed")] == [number(2)]
    assert {row["run_id"] for row in run_json("--today")} == {number(1), number(2)}
    assert kimi("--status", "cancelled").stdout == "No run matches.\n"
    assert run_json("--status", "failed")[0]["error"] == "answer_cut_off"
    assert kimi("--status", "dead").exit_code == 2


def test_the_runs_of_every_caller_are_listed(data_dir: Path) -> None:
    async def fill(store: RunStore) -> None:
        await begin(store, number(1), caller="somebody over HTTP")
        await end(store, number(1))

    keeping(data_dir, fill)
    assert [row["run_id"] for row in run_json()] == [number(1)]
    assert run_json("show", number(1))["caller"] == "somebody over HTTP"


def test_an_unknown_cost_is_no_zero(data_dir: Path) -> None:
    keeping(data_dir, lambda store: one(store, number(1)))
    assert run_json()[0]["usage"]["cost_usd"] is None
    assert kimi().stdout.splitlines()[1].split()[5:7] == ["-", "-"]


def test_to_look_removes_nothing_however_old(data_dir: Path) -> None:
    async def fill(store: RunStore) -> None:
        await one(store, number(1))

    keeping(data_dir, fill, wall=lambda: time.time() - 900 * DAY)
    for _ in range(2):
        assert [row["run_id"] for row in run_json()] == [number(1)]


def test_options_belong_behind_the_command() -> None:
    done = kimi("--json", "show", number(1))
    assert done.exit_code == 2
    assert "behind the command" in done.stderr


async def test_a_swarm_that_has_not_ended_is_listed_with_what_its_steps_have_used(sim: Simulator) -> None:
    async with half_done(sim) as (server, _):
        with anyio.fail_after(60):
            while not (running := (await process("runs", "--json")).json[0])["usage"]["total_tokens"]:
                pass
        server.process.kill()
        await server.process.wait()
    assert running["status"] == "running"
    assert running["usage"]["total_tokens"] > 0
    assert running["usage"]["cost_usd"] > 0
    assert (await process("runs", "--json")).json[0]["usage"] == running["usage"], "and a dead server too"


def aged(folder: Path, days: float, work: Callable[[RunStore], Awaitable[None]]) -> None:
    """Write something down so many days ago."""
    keeping(folder, work, wall=lambda: time.time() - days * DAY)


def test_prune_removes_what_is_older_than_the_setting_says_and_names_it(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIMI_RUNS_KEEP_DAYS", "10")
    for digits, days in ((1, 20), (2, 11), (3, 9), (4, 0)):
        aged(data_dir, days, lambda store, digits=digits: one(store, number(digits)))
    done = kimi("prune")
    assert done.exit_code == 0, done.stderr
    assert number(1) in done.stdout
    assert number(2) in done.stdout
    assert done.stdout.splitlines()[-1] == "Removed 2 runs."
    assert {row["run_id"] for row in run_json()} == {number(3), number(4)}
    assert kimi("prune").stdout == "Removed 0 runs.\n"


def test_prune_keeps_what_a_kept_conversation_goes_back_to(data_dir: Path) -> None:
    aged(data_dir, 20, lambda store: one(store, number(1), conversation_id="conv_1"))
    aged(data_dir, 15, lambda store: one(store, number(2)))

    async def follow(store: RunStore) -> None:
        await begin(store, number(3), conversation_id="conv_1", follows=number(1))
        await end(store, number(3), conversation_id="conv_1")

    aged(data_dir, 1, follow)
    done = kimi("prune", "--days", "10")
    assert number(2) in done.stdout
    assert number(1) not in done.stdout
    assert "Removed 1 run. 1 run as old stays" in done.stdout
    assert run_json("show", number(3))["conversation"]["before"] == [number(1)]


async def test_prune_keeps_what_still_runs(sim: Simulator) -> None:
    sim.play(HELD)
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.05") as server:
        run_id = (await server.think()).run_id
        await sim.until(lambda: sim.waiting_at("end") == 1)
        ended = await server.run((await server.instant()).run_id, wait_s=30)
        done = await process("runs", "prune", "--days", "0", "--json")
        assert [row["run_id"] for row in done.json] == [ended.run_id]
        sim.open_gate("end")
        assert (await server.run(run_id, wait_s=10)).status == "completed"


@pytest.mark.parametrize("wrong", [["prune", "--days", "-1"], ["show"], ["-n", "0"], ["nonsense"]])
def test_wrong_usage_ends_with_status_2(wrong: list[str]) -> None:
    assert kimi(*wrong).exit_code == 2


@pytest.mark.parametrize(
    "form", [("list",), ("costs",), *((name, "run_1") for name in ("show", "cancel", "resume")), ("prune",)]
)
def test_without_a_journal_the_setting_is_named(monkeypatch: pytest.MonkeyPatch, form: Sequence[str]) -> None:
    monkeypatch.setenv("KIMI_JOURNAL", "off")
    done = kimi(*form)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "KIMI_JOURNAL" in done.stderr


def test_a_journal_of_a_newer_version_is_left_as_it_is(data_dir: Path) -> None:
    keeping(data_dir, lambda store: one(store, number(1)))
    with sqlite3.connect(data_dir / FILE) as connection:
        connection.execute("UPDATE about SET value = '99' WHERE name = 'version'")
    connection.close()
    before = (data_dir / FILE).read_bytes()
    for form in ((), ("show", number(1)), ("prune", "--days", "0")):
        done = kimi(*form)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "newer kimi-mcp" in done.stderr
    assert (data_dir / FILE).read_bytes() == before


def test_a_damaged_journal_is_reported_to_be_kept(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / FILE).write_bytes(b"no database, but somebody's words" * 200)
    done = kimi()
    assert (done.exit_code, done.stdout) == (1, "")
    assert "damaged" in done.stderr
    (kept,) = data_dir.glob(f"{FILE}.damaged-*")
    assert kept.read_bytes().startswith(b"no database")
    assert kimi().stdout == "No run was recorded yet.\n"


def test_a_setting_that_cannot_be_read_removes_nothing(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeping(data_dir, lambda store: one(store, number(1)), wall=lambda: time.time() - 90 * DAY)
    monkeypatch.setenv("KIMI_RUNS_KEEP_DAYS", "a year")
    done = kimi("prune")
    assert done.exit_code == 1
    assert "KIMI_RUNS_KEEP_DAYS" in done.stderr
    monkeypatch.delenv("KIMI_RUNS_KEEP_DAYS")
    assert len(run_json()) == 1
