"""``kimi-mcp runs cancel`` and ``resume``: a run is ended, or goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.cli.console import in_a_shell
from kimi_mcp.core.types import Adjustment
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.simulator import Simulator
from tests.cli.commands.recorded import CUT, HELD, begin, half_done, keeping, kimi, number, one, run_json
from tests.cli.commands.shell import kimi as process
from tests.cli.commands.shell import to
from tests.runs.store.stores import opened
from tests.server.clients import connect
from tests.server.processes import raw_server_process
from tests.server.results import RESULT_KEYS
from tests.server.test_swarm_end_to_end import file_of_servers, written_down


async def test_a_run_in_another_server_is_ended_by_that_server(sim: Simulator) -> None:
    sim.play(HELD)
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.05") as server:
        run_id = (await server.think()).run_id
        await sim.until(lambda: sim.waiting_at("end") == 1)
        with anyio.fail_after(60):
            done = await process("runs", "cancel", run_id[:14])
            await sim.client_gone()
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
        await store.append([], {number(1): {"counted_usd": 0.5}})

    keeping(data_dir, spend)
    assert kimi("cancel", number(1)).exit_code == 0
    with opened(data_dir) as file:
        assert file.execute("SELECT status, counted_usd FROM runs").fetchall() == [("cancelled", 0.5)]


@pytest.mark.soak
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


@pytest.mark.soak  # it waits as long as a user does
async def test_a_server_that_does_not_hear_is_reported(data_dir: Path) -> None:
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

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel)
            while not await deaf.cancel_requests():
                await anyio.sleep(0.01)
            await deaf.aclose(unfinished=True)
    assert (done[0].status, done[0].err) == (0, "")
    assert "is cancelled" in done[0].out


def test_of_a_run_that_has_ended_the_result_is_printed(data_dir: Path) -> None:
    keeping(data_dir, lambda store: one(store, number(1), answer="It is 391.", reasoning="Hm. " * 2000))
    done = kimi("resume", number(1))
    assert (done.exit_code, done.stdout) == (0, "It is 391.\n")
    result = run_json("resume", number(1))
    assert list(result) == list(RESULT_KEYS)
    assert result["reasoning"]["text"] == "Hm. " * 2000


def test_what_the_policy_did_to_a_run_is_reported_beside_its_result_in_the_words_of_a_shell(data_dir: Path) -> None:
    note = Adjustment(rule="x", action="adjusted", field="max_tokens", asked=1, sent=2, why="`max_tokens` is low.")
    keeping(data_dir, lambda store: one(store, number(1), answer="It is 391.", policy=(note,)))
    done = kimi("resume", number(1))
    assert (done.stdout, done.stderr) == ("It is 391.\n", "x: --max-tokens 1 → 2. --max-tokens is low.\n")


def test_a_run_that_failed_is_reported_with_its_fix(data_dir: Path) -> None:
    keeping(data_dir, lambda store: one(store, number(1), "partial", answer="It is", error=CUT))
    done = kimi("resume", number(1), "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["answer"] == "It is"
    assert "The run is partial: It was cut off." in done.stderr
    assert in_a_shell(CUT.fix) in done.stderr


@pytest.mark.soak
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


@pytest.mark.soak
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
    requested = [json.dumps(request.body) for request in sim.requests if request.path.endswith("/chat/completions")]
    assert not any("Look at number 1." in body and "number 2" not in body for body in requested), "it was paid for once"
    assert len(requested) == 2, "the one that was in flight, and the synthesis"
    again = await process("runs", "resume", run_id, settings=to(sim))
    assert (again.status, again.out.strip()) == (0, done.json["answer"].strip())
    assert len(requested) == 2


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
