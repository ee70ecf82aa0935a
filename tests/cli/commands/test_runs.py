"""``kimi-mcp runs``: what was run is listed and shown whole, ended, cleared away and gone on with."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from typer.testing import CliRunner, Result

from kimi_mcp.cli.commands import app
from kimi_mcp.cli.console import in_a_shell
from kimi_mcp.core.errors import AnswerCutOff
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.pricing import dollars
from kimi_mcp.core.types import Adjustment, Status, TextPart, Timing, Turn, Usage, user
from kimi_mcp.runs.store.records import RunEntry
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.simulator import Simulator
from tests.cli.commands.shell import kimi as process
from tests.cli.commands.shell import to
from tests.runs.store.stores import opened
from tests.server.clients import connect
from tests.server.processes import raw_server_process
from tests.server.results import RESULT_KEYS
from tests.server.stdio.peer import Peer
from tests.server.test_swarm_end_to_end import file_of_servers, written_down

DAY = 86_400.0
NOON = 1_800_000_000.0 - 1_800_000_000.0 % DAY + DAY / 2
FILE = "journal.sqlite3"


def kimi(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["runs", *arguments])


def run_json(*arguments: str) -> Any:
    """What a command prints as JSON."""
    done = kimi(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def keeping(folder: Path, work: Callable[[RunStore], Awaitable[None]], **more: Any) -> None:
    """Let a server of another process, as it were, write something down."""

    async def within() -> None:
        store = RunStore(folder, keep_days=100_000, **more)
        await work(store)
        await store.aclose(unfinished=True)

    anyio.run(within)


def number(digits: int) -> str:
    """The id of a run, such as no two begin alike."""
    return f"run_{digits:06x}{digits:018x}"


async def begin(store: RunStore, run_id: str, **fields: Any) -> None:
    entry = {
        "id": run_id,
        "caller": "local",
        "host": "a host",
        "tool": "kimi_think",
        "prompt_head": "What is 17 * 23?",
        "call_key": None,
        "started_at": time.time() - 60,
        "conversation_id": f"conv_{run_id}",
        "follows": None,
        "request": {},
        "model_id": "kimi-k2.5",
        "outcome": Outcome(status="running", run_id=run_id, conversation_id=f"conv_{run_id}"),
    }
    await store.begin(RunEntry(**entry | fields), counted_usd=0.0, day_limit_usd=None)


async def end(store: RunStore, run_id: str, status: Status = "completed", **fields: Any) -> None:
    """Let a run end; a completed one leaves turns in its conversation."""
    outcome = Outcome(status=status, run_id=run_id, **{"conversation_id": f"conv_{run_id}", **fields})
    turns = [user("What is 17 * 23?"), Turn(role="assistant", parts=(TextPart(text=outcome.answer),))]
    await store.end(run_id, outcome, turns=turns if status == "completed" else None, counted_usd=0.0)


async def one(store: RunStore, run_id: str, status: Status = "completed", **fields: Any) -> None:
    await begin(store, run_id)
    await end(store, run_id, status, **fields)


CUT = AnswerCutOff("It was cut off.", fix="Raise `max_tokens` to 64000.")


# ── list ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", [(), ("list",), ("--json",), ("list", "--json")])
def test_where_nothing_was_run_the_list_says_so_and_begins_no_journal(data_dir: Path, form: Sequence[str]) -> None:
    done = kimi(*form)
    assert done.exit_code == 0
    assert done.stdout == ("[]\n" if "--json" in form else "No run was recorded yet.\n")
    assert not data_dir.exists()


async def test_what_was_asked_from_a_shell_is_listed_with_its_tokens_and_cost(sim: Simulator) -> None:
    asked = await process("ask", "What is 17 * 23?", "--json", settings=to(sim))
    (row,) = (await process("runs", "--json")).json
    assert row["run_id"] == asked.json["run_id"]
    assert (row["tool"], row["status"], row["host"]) == ("kimi_think", "completed", "kimi-mcp ask")
    assert row["usage"] == asked.json["usage"]
    assert row["usage"]["cost_usd"] > 0
    assert row["seconds"] == asked.json["timing"]["total_s"]
    listed = await process("runs")
    head, line, total = listed.out.splitlines()
    assert head.split() == ["ID", "STARTED", "TOOL", "STATUS", "TOOK", "TOKENS", "COST", "PROMPT"]
    assert line.split()[:1] == [asked.json["run_id"]]
    assert line.endswith("What is 17 * 23?")
    assert f" {row['usage']['total_tokens']} " in line
    assert f"{row['usage']['cost_usd']:.6f}" in line
    assert total.split()[:2] == ["TOTAL", "1"]
    assert f"{row['usage']['cost_usd']:.6f}" in total


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


@asynccontextmanager
async def half_done(sim: Simulator) -> AsyncIterator[tuple[Peer, str]]:
    """A server, and its swarm of two of which one is done and the other one is held."""
    sim.play({"match": {"text": "number 2"}, "gate": "held", "gate_at": "start"})
    async with raw_server_process(sim, KIMI_REPLY_WITHIN_S="0.05") as server:
        await server.initialize()
        await server.call("kimi_swarm", prompt="Look at {{item}}.", items=["number 1", "number 2"])
        run_id = (await server.receive())["result"]["structuredContent"]["run_id"]
        await written_down(run_id, 1)
        yield server, run_id


async def test_a_swarm_that_has_not_ended_is_listed_with_what_its_steps_have_used(sim: Simulator) -> None:
    async with half_done(sim) as (server, _):
        with anyio.fail_after(30):
            while not (running := (await process("runs", "--json")).json[0])["usage"]["total_tokens"]:
                pass
        server.process.kill()
        await server.process.wait()
    assert running["status"] == "running"
    assert running["usage"]["total_tokens"] > 0
    assert running["usage"]["cost_usd"] > 0
    assert (await process("runs", "--json")).json[0]["usage"] == running["usage"], "and a dead server too"


# ── show ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_whole_of_a_run_is_shown(sim: Simulator) -> None:
    sim.play({"reasoning": "Hm, 你好🌍.\n" * 900, "content": "It is\n391."})
    asked = await process("ask", "What is\n17 * 23?", "--temperature", "0.3", "--system", "Be brief.", settings=to(sim))
    assert asked.status == 0, asked.err
    (row,) = (await process("runs", "--json")).json
    shown = await process("runs", "show", row["run_id"])
    assert shown.status == 0, shown.err
    wanted = (
        row["run_id"],
        "kimi_think, completed",
        "What is\n17 * 23?",
        "Be brief.",
        "temperature-fixed",
        "It is\n391.",
    )
    for part in (*wanted, "Hm, 你好🌍.\n" * 900, row["conversation_id"], "kimi-k2.5 at simulator", "thinking"):
        assert part in shown.out, part
    assert dollars(row["usage"]["cost_usd"]) in shown.out


async def test_as_json_the_whole_result_comes_with_all_else_that_is_known(sim: Simulator) -> None:
    sim.play({"reasoning": "Hm. " * 2000, "content": "It is 391."})
    asked = (await process("ask", "What is 17 * 23?", "--json", settings=to(sim))).json
    shown = (await process("runs", "show", asked["run_id"], "--json")).json
    assert list(shown)[: len(RESULT_KEYS)] == list(RESULT_KEYS), "the contract's keys, in its order"
    assert {**asked, "reasoning": None} == {**{key: shown[key] for key in RESULT_KEYS}, "reasoning": None}
    assert shown["reasoning"] == {**asked["reasoning"], "text": "Hm. " * 2000, "truncated": False}
    assert shown["request"]["turns"] == [{"role": "user", "parts": [{"text": "What is 17 * 23?"}]}]
    assert shown["request"]["max_tokens"] == 32_768
    assert shown["conversation"] == {"before": [], "after": []}
    assert (shown["tool"], shown["host"], shown["caller"], shown["steps"]) == (
        "kimi_think",
        "kimi-mcp ask",
        "local",
        [],
    )
    assert shown["started_at"] < shown["ended_at"]


async def test_a_medium_is_shown_by_its_hash(sim: Simulator) -> None:
    shot = Path(__file__).resolve().parents[3] / "examples" / "shot.png"
    asked = await process("ask", "What?", "--image", str(shot), "--json", settings=to(sim))
    shown = await process("runs", "show", asked.json["run_id"])
    assert "[image: " in shown.out
    assert "sha256" in shown.out
    assert len(shown.out) < 3000, "its content is not kept"


async def test_a_run_is_shown_in_its_conversation(sim: Simulator) -> None:
    async with connect(sim) as server:
        first = await server.think("One")
        second = await server.think("Two", conversation_id=first.structured["conversation_id"])
        branch = await server.think("Three", conversation_id=first.run_id)
    shown = (await process("runs", "show", first.run_id, "--json")).json
    assert shown["conversation"] == {"before": [], "after": [second.run_id, branch.run_id]}
    assert (await process("runs", "show", second.run_id, "--json")).json["conversation"]["before"] == [first.run_id]
    text = (await process("runs", "show", second.run_id)).out
    assert f"{first.structured['conversation_id']}, turn 2" in text
    assert f"follows {first.run_id}" in text


def test_an_id_may_be_abbreviated_as_long_as_one_run_is_meant(data_dir: Path) -> None:
    async def fill(store: RunStore) -> None:
        await one(store, "run_abcd11")
        await one(store, "run_abcd22")
        await one(store, "run_abcd2")

    keeping(data_dir, fill)
    for name, meant in (
        ("run_abcd1", "run_abcd11"),
        ("abcd1", "run_abcd11"),
        ("abcd2", "run_abcd2"),
        (" abcd22 ", "run_abcd22"),
    ):
        assert run_json("show", name)["run_id"] == meant
    several = kimi("show", "abcd")
    assert (several.exit_code, several.stdout) == (1, "")
    assert "run_abcd11" in several.stderr
    assert "more of the id" in several.stderr


@pytest.mark.parametrize("command", ["show", "cancel", "resume"])
@pytest.mark.parametrize("begun", [False, True])
def test_an_unknown_id_is_refused_with_where_to_look(data_dir: Path, command: str, begun: bool) -> None:
    if begun:
        keeping(data_dir, lambda store: one(store, number(1)))
    done = kimi(command, "run_ffffff")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "kimi-mcp runs" in done.stderr
    assert data_dir.exists() is begun


def test_an_error_is_shown_with_its_fix(data_dir: Path) -> None:
    keeping(data_dir, lambda store: one(store, number(1), "failed", error=CUT, reasoning="Hm."))
    shown = kimi("show", number(1)).stdout
    assert "answer_cut_off: It was cut off." in shown
    assert CUT.fix in shown
    assert "Hm." in shown


def test_steps_are_shown_with_what_was_reported_of_them(data_dir: Path) -> None:
    async def fill(store: RunStore) -> None:
        await begin(store, number(1))
        steps = store.steps(number(1))
        await steps.begin("main/1", {"kind": "request", "agent": "main", "name": "lead", "task": "make a plan"})
        await steps.finish("main/1", {"answer": "two tasks"})
        await steps.begin("agent-1/1", {"agent": "agent-1"})
        await end(store, number(1))

    keeping(data_dir, fill)
    first, second = run_json("show", number(1))["steps"]
    assert (first["key"], first["told"]["task"], first["result"]) == ("main/1", "make a plan", {"answer": "two tasks"})
    assert (second["result"], second["ended_at"]) == (None, None)
    shown = kimi("show", number(1)).stdout
    assert "1 of 2 finished" in shown
    assert "lead: make a plan" in shown


def test_the_task_of_a_swarm_is_shown_with_the_names_of_its_tools(data_dir: Path) -> None:
    task = {
        "prompt": "Look at {{item}}.",
        "items": ["Rome", "Oslo"],
        "tools": None,
        "known_tools": {"odd__look": "5f0e"},
        "known_definitions": [
            {"name": "odd__look", "description": "Looks.", "parameters": {"type": "object"}},
            {"name": "odd__find", "description": "Finds.", "parameters": {"type": "object"}},
        ],
        "known_servers": ["odd"],
    }
    keeping(data_dir, lambda store: begin(store, number(1), request={"task": task}, resumable=True))
    shown = kimi("show", number(1)).stdout
    rows = [tuple(line.split(None, 2)) for line in shown.partition("Task")[2].splitlines() if line.strip()]
    assert [" ".join(row) for row in rows] == [
        "prompt Look at {{item}}.",
        "items Rome, Oslo",
        "agents' tools odd__look, odd__find",
    ]


def test_the_value_of_a_structured_answer_is_shown_as_json(data_dir: Path) -> None:
    keeping(data_dir, lambda store: one(store, number(1), answer="…", parsed={"wahr": True, "nichts": None}))
    shown = kimi("show", number(1)).stdout
    assert json.loads(shown.partition("by response_schema\n")[2]) == {"wahr": True, "nichts": None}


def test_no_text_acts_on_the_terminal_or_colours_itself(data_dir: Path) -> None:
    evil = "bad|red \x1b[2J\x07\u202e\x9b5n"
    policy = (Adjustment(rule="x", action="warned", field="prompt", asked=None, sent=None, why=evil),)

    async def fill(store: RunStore) -> None:
        request = {"turns": [{"role": "user", "parts": [{"text": evil}]}], "task": {"prompt": evil}}
        await begin(store, number(1), prompt_head=evil, host=evil, request=request)
        await end(store, number(1), answer=evil, reasoning=evil, policy=policy, parsed={"a": evil})

    keeping(data_dir, fill)
    for done in (kimi(), kimi("show", number(1)), kimi("resume", number(1))):
        assert done.exit_code == 0, done.stderr
        assert re.search("bad\\|red \ufffd?\\[2J", done.stdout)
        assert not set("\x1b\x07\u202e\x9b") & set(done.stdout)


async def test_a_key_is_shown_nowhere(data_dir: Path) -> None:
    key = "sk-5up3r-s3cr3t-k3y"
    await anyio.to_thread.run_sync(
        keeping, data_dir, lambda store: one(store, number(1), answer=f"it is {key}", reasoning=key)
    )
    for form in (
        ("show", number(1)),
        ("show", number(1), "--json"),
        ("resume", number(1)),
        ("resume", number(1), "--json"),
    ):
        done = await process("runs", *form, settings={"MOONSHOT_API_KEY": key})
        assert done.status == 0
        assert "[hidden]" in done.out
        assert key not in done.out + done.err


# ── what can be wrong with the store ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", [("list",), ("show", "run_1"), ("cancel", "run_1"), ("resume", "run_1"), ("prune",)])
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


# ── cancel ────────────────────────────────────────────────────────────────────────────────────────────────────────

HELD = {"gate": "end", "gate_at": "finish", "reasoning": "Hm.", "content": "It is"}


async def test_a_run_in_another_server_is_ended_by_that_server(sim: Simulator) -> None:
    sim.play(HELD)
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.05") as server:
        run_id = (await server.think()).run_id
        await sim.until(lambda: sim.waiting_at("end") == 1)
        with anyio.fail_after(20):
            done = await process("runs", "cancel", run_id[:14])
            await sim.client_gone(within=2)
        assert done.status == 0, done.err
        assert done.out.startswith(f"{run_id} is cancelled. 5 characters of its answer")
        found = await server.run(run_id)
    assert (found.status, found.answer) == ("cancelled", "It is")


def test_a_run_that_has_ended_is_reported(data_dir: Path) -> None:
    keeping(data_dir, lambda store: one(store, number(1), answer="391"))
    done = kimi("cancel", number(1))
    assert done.exit_code == 0
    assert "had ended already: it is completed" in done.stdout
    assert run_json("cancel", number(1))["answer"] == "391"
    assert run_json("show", number(1))["status"] == "completed"


def test_a_run_whose_server_has_died_is_ended_here(data_dir: Path) -> None:
    keeping(data_dir, lambda store: begin(store, number(1), resumable=True))
    assert run_json()[0]["status"] == "running"
    assert run_json("show", number(1))["left_behind"]
    done = kimi("cancel", number(1))
    assert done.exit_code == 0, done.stderr
    assert "is cancelled" in done.stdout
    shown = run_json("show", number(1))
    assert (shown["status"], shown["error"]["code"]) == ("cancelled", "cancelled")


def test_what_a_run_of_a_dead_server_cost_counts_for_the_day_when_it_is_ended_here(data_dir: Path) -> None:
    async def spend(store: RunStore) -> None:
        await begin(store, number(1), resumable=True)
        store.append([], {number(1): {"counted_usd": 0.5}}, lambda fault: None)

    keeping(data_dir, spend)
    assert kimi("cancel", number(1)).exit_code == 0
    with opened(data_dir) as file:
        assert file.execute("SELECT status, counted_usd FROM runs").fetchall() == [("cancelled", 0.5)]


async def test_a_swarm_whose_server_has_died_is_ended_with_what_its_steps_had_used(sim: Simulator) -> None:
    async with half_done(sim) as (server, run_id):
        server.process.kill()
        await server.process.wait()
    done = await process("runs", "cancel", run_id)
    assert "is partial. It had 2 agents: 1 done, 1 cancelled; `runs show` has" in done.out
    shown = (await process("runs", "show", run_id, "--json")).json
    assert (shown["status"], shown["error"]["code"]) == ("partial", "cancelled")
    assert "completed:" in shown["answer"], "the answer of the agent that had finished"
    assert [agent["status"] for agent in shown["swarm"]["agents"]] == ["completed", "cancelled"]
    (row,) = (await process("runs", "--json")).json
    assert row["usage"]["total_tokens"] == shown["usage"]["total_tokens"] > 0, "and that is on record"


async def test_a_server_that_does_not_hear_is_reported(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["kimi_mcp.cli.commands.runs"], "CANCEL_WITHIN_S", 0.3)
    deaf = RunStore(data_dir)
    await begin(deaf, number(1))
    done = await anyio.to_thread.run_sync(kimi, "cancel", number(1))
    assert await deaf.cancel_requests() == [number(1)]
    await deaf.aclose()
    assert done.exit_code == 1
    assert "was to be cancelled" in done.stderr


async def test_a_run_whose_server_dies_before_it_hears_is_ended_here(data_dir: Path) -> None:
    deaf = RunStore(data_dir)
    await begin(deaf, number(1), resumable=True)
    done: list[Any] = []

    async def cancel() -> None:
        done.append(await process("runs", "cancel", number(1)))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel)
            while not await deaf.cancel_requests():
                await anyio.sleep(0.01)
            await deaf.aclose(unfinished=True)
    assert (done[0].status, done[0].err) == (0, "")
    assert "is cancelled" in done[0].out


# ── prune ─────────────────────────────────────────────────────────────────────────────────────────────────────────


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
        ended = await server.instant()
        done = await process("runs", "prune", "--days", "0", "--json")
        assert [row["run_id"] for row in done.json] == [ended.run_id]
        sim.open_gate("end")
        assert (await server.run(run_id, wait_s=10)).status == "completed"


@pytest.mark.parametrize("wrong", [["prune", "--days", "-1"], ["show"], ["-n", "0"], ["nonsense"]])
def test_wrong_usage_ends_with_status_2(wrong: list[str]) -> None:
    assert kimi(*wrong).exit_code == 2


# ── resume ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_a_run_that_has_ended_the_result_is_printed(data_dir: Path) -> None:
    keeping(data_dir, lambda store: one(store, number(1), answer="It is 391.", reasoning="Hm. " * 2000))
    done = kimi("resume", number(1))
    assert (done.exit_code, done.stdout) == (0, "It is 391.\n")
    result = run_json("resume", number(1))
    assert list(result) == list(RESULT_KEYS)
    assert result["reasoning"]["text"] == "Hm. " * 2000


def test_a_run_that_failed_is_reported_with_its_fix(data_dir: Path) -> None:
    keeping(data_dir, lambda store: one(store, number(1), "partial", answer="It is", error=CUT))
    done = kimi("resume", number(1), "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["answer"] == "It is"
    assert "The run is partial: It was cut off." in done.stderr
    assert in_a_shell(CUT.fix) in done.stderr


async def test_a_call_whose_server_was_killed_cannot_be_resumed_and_keeps_what_had_come(sim: Simulator) -> None:
    sim.play(HELD)
    async with raw_server_process(sim, KIMI_REPLY_WITHIN_S="0.05") as server:
        await server.initialize()
        await server.call("kimi_think", prompt="What is 17 * 23?")
        run_id = (await server.receive())["result"]["structuredContent"]["run_id"]
        while (await process("runs", "show", run_id, "--json")).json["answer"] != "It is":
            pass
        server.process.kill()
        await server.process.wait()
    done = await process("runs", "resume", run_id)
    assert (done.status, done.out) == (1, "It is\n")
    assert "The run is failed: The server that ran this call was stopped" in done.err
    assert "Call again" in done.err
    (row,) = (await process("runs", "--json")).json
    assert row["status"] == "failed"


async def test_a_run_that_runs_in_another_server_is_waited_for(sim: Simulator) -> None:
    sim.play(HELD)
    ended: list[Any] = []

    async def resume(run_id: str) -> None:
        ended.append(await process("runs", "resume", run_id))

    async with connect(sim, KIMI_REPLY_WITHIN_S="0.05") as server, anyio.create_task_group() as tasks:
        run_id = (await server.think()).run_id
        await sim.until(lambda: sim.waiting_at("end") == 1)
        tasks.start_soon(resume, run_id)
        await anyio.lowlevel.checkpoint()
        sim.open_gate("end")
        await server.run(run_id, wait_s=10)
    assert (ended[0].status, ended[0].out) == (0, "It is\n")


def test_what_nothing_here_can_go_on_with_is_reported_with_what_to_do(data_dir: Path) -> None:
    task = {"task": {"kind": "of a later version"}}
    keeping(data_dir, lambda store: begin(store, number(1), tool="kimi_later", resumable=True, request=task))
    done = kimi("resume", number(1))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "another version" in done.stderr
    assert "kimi-mcp runs cancel" in done.stderr
    assert run_json("show", number(1))["left_behind"], "it is still there to be gone on with"


async def test_a_swarm_whose_server_was_killed_goes_on_behind_its_last_step(sim: Simulator) -> None:
    async with half_done(sim) as (server, run_id):
        await sim.until(lambda: sim.waiting_at("held") == 1)
        server.process.kill()
        await server.process.wait()
    assert (await process("runs", "--json")).json[0]["status"] == "running", "it is only waiting to be gone on with"
    shown = (await process("runs", "show", run_id)).out
    assert "its server has died; it can be resumed" in shown
    assert "Look at {{item}}." in shown
    sim.reset()
    done = await process("runs", "resume", run_id, "--json", settings=to(sim))
    assert done.status == 0, done.err
    assert (done.json["run_id"], done.json["status"]) == (run_id, "completed")
    kept = (await process("runs", "--json")).json[0]
    assert kept["status"] == "completed", "and that is on record"
    asked = [json.dumps(request.body) for request in sim.requests if request.path.endswith("/chat/completions")]
    assert not any("Look at number 1." in body and "number 2" not in body for body in asked), "it was paid for once"
    assert len(asked) == 2, "the one that was in flight, and the synthesis"
    again = await process("runs", "resume", run_id, settings=to(sim))
    assert (again.status, again.out.strip()) == (0, done.json["answer"].strip())
    assert len(asked) == 2


async def test_a_swarm_whose_tools_can_not_be_had_stays_resumable_and_it_is_reported_why(
    sim: Simulator, tmp_path: Path
) -> None:
    file = Path(file_of_servers(tmp_path))
    sim.play({"match": {"text": "number 2"}, "gate": "held", "gate_at": "start", "times": 1})
    async with raw_server_process(sim, KIMI_REPLY_WITHIN_S="0.05", KIMI_SWARM_MCP=str(file)) as server:
        await server.initialize()
        await server.call("kimi_swarm", prompt="Look at {{item}}.", items=["number 1", "number 2"])
        run_id = (await server.receive())["result"]["structuredContent"]["run_id"]
        await written_down(run_id, 1)
        await sim.until(lambda: sim.waiting_at("held") == 1)
        server.process.kill()
        await server.process.wait()
    whole, settings = file.read_text(), to(sim) | {"KIMI_SWARM_MCP": str(file)}
    for wrong, message in (("{", "no JSON: line 1"), ('{"mcpServers": {}}', "`odd`")):
        file.write_text(wrong)
        done = await process("runs", "resume", run_id, settings=settings)
        assert (done.status, done.out) == (1, "")
        assert "KIMI_SWARM_MCP" in done.err
        assert message in done.err
    file.write_text(whole)
    done = await process("runs", "resume", run_id, settings=settings)
    assert done.status == 0, done.err
