"""``kimi-mcp runs show``: a run is shown whole."""

from __future__ import annotations

import json
import re
from pathlib import Path

import anyio
import pytest

from kimi_mcp.cli.console import in_a_shell
from kimi_mcp.core.profiles import dollars
from kimi_mcp.core.types import Adjustment
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.simulator import Simulator
from tests.cli.commands.recorded import CUT, begin, end, keeping, kimi, number, one, run_json
from tests.cli.commands.shell import kimi as process
from tests.cli.commands.shell import to
from tests.server.clients import connect
from tests.server.results import RESULT_KEYS


async def test_the_whole_of_a_run_is_shown(sim: Simulator) -> None:
    sim.play({"reasoning": "Hm, 你好🌍.\n" * 900, "content": "It is\n391."})
    requested = await process(
        "ask", "What is\n17 * 23?", "--temperature", "0.3", "--system", "Be brief.", settings=to(sim)
    )
    assert requested.status == 0, requested.err
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
    requested = (await process("ask", "What is 17 * 23?", "--json", settings=to(sim))).json
    shown = (await process("runs", "show", requested["run_id"], "--json")).json
    assert list(shown)[: len(RESULT_KEYS)] == list(RESULT_KEYS), "the contract's keys, in its order"
    assert {**requested, "reasoning": None} == {**{key: shown[key] for key in RESULT_KEYS}, "reasoning": None}
    assert shown["reasoning"] == {**requested["reasoning"], "text": "Hm. " * 2000, "truncated": False}
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
    requested = await process("ask", "What?", "--image", str(shot), "--json", settings=to(sim))
    shown = await process("runs", "show", requested.json["run_id"])
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
    assert in_a_shell(CUT.fix) in shown
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
    assert (first["key"], first["description"]["task"], first["result"]) == (
        "main/1",
        "make a plan",
        {"answer": "two tasks"},
    )
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
