"""A store that never answers: its host is answered within its patience all the same, and nothing is left half done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import ResourceTemplateReference

from kimi_mcp.runs.store.records import RunRecord
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.server.resources import RUN
from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.server.clients import KimiClient, ServerOptions, connect, wait_until
from tests.server.requests import HELD_STEP, chats
from tests.server.test_left_swarms import begun_here, comes_to
from tests.server.test_rejoining import AGAIN, gives_up

IMPATIENT: dict[str, Any] = {"KIMI_REPLY_WITHIN_S": "0.2", "options": ServerOptions(timings=Timings(store_s=0.2))}


async def never(*given: Any, **named: Any) -> None:
    await anyio.sleep_forever()


async def refused(requested: Awaitable[Any]) -> None:
    result = await requested
    assert (result.status, result.code) == ("failed", "not_configured")
    assert "did not answer in time" in result.error["message"]


async def unreadable(requested: Awaitable[Any]) -> None:
    with pytest.raises(MCPError, match="did not answer in time"):
        await requested


async def nothing_offered(requested: Awaitable[Any]) -> None:
    assert (await requested).completion.values == []


async def complete(kimi: KimiClient, run_id: str) -> Any:
    return await kimi.client.complete(ResourceTemplateReference(uri=RUN), {"name": "id", "value": ""})


Ask = Callable[[KimiClient, str], Awaitable[Any]]

ASKED: dict[str, tuple[str, Ask, Callable[[Awaitable[Any]], Awaitable[None]]]] = {
    "a call": ("find_abandoned", lambda kimi, run_id: kimi.think("another"), refused),
    "the list": ("overview", lambda kimi, run_id: kimi.run(), refused),
    "a run's status": ("find", lambda kimi, run_id: kimi.run(run_id, "status"), refused),
    "a wait": ("find", lambda kimi, run_id: kimi.run(run_id, "wait", wait_s=0), refused),
    "a cancellation": ("find", lambda kimi, run_id: kimi.run(run_id, "cancel"), refused),
    "the runs": ("overview", lambda kimi, run_id: kimi.client.read_resource("kimi://runs"), unreadable),
    "a run": ("find", lambda kimi, run_id: kimi.client.read_resource(f"kimi://runs/{run_id}"), unreadable),
    "ids of runs": ("overview", complete, nothing_offered),
}
"""What is asked, which question to the store it waits for, and what its host hears."""


@pytest.mark.parametrize("case", ASKED)
async def test_who_waits_for_a_store_that_never_answers_hears_so(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    waits_for, ask, hears = ASKED[case]
    async with connect(sim) as kimi:
        run_id = (await kimi.think()).run_id
    async with connect(sim, **IMPATIENT) as kimi:
        await kimi.run()
        monkeypatch.setattr(RunStore, waits_for, never)
        with anyio.fail_after(60):
            await hears(ask(kimi, run_id))


@pytest.mark.soak
@pytest.mark.parametrize("ends", ["ends", "runs on"])
async def test_a_call_that_joins_a_run_is_not_kept_waiting_until_that_is_written_down(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    sim.play(HELD_STEP)
    async with connect(sim, KIMI_REPLY_WITHIN_S="2") as kimi:
        await gives_up(sim, kimi)
        if ends == "ends":
            sim.open_gate("end")
            await wait_until(lambda: not kimi.runs.live)
        monkeypatch.setattr(RunStore, "abandon", never)
        with anyio.fail_after(60):
            joined = await kimi.think(**AGAIN)
    assert joined.status == ("completed" if ends == "ends" else "running")
    assert joined.rules == ["run-rejoined"]
    assert len(chats(sim)) == 1


async def test_a_cancellation_that_another_server_does_not_get_is_not_waited_for(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim.play(HELD_STEP)
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.2") as owner, connect(sim, **IMPATIENT) as kimi:
        run_id = (await owner.think()).run_id
        await sim.until(lambda: sim.waiting_at("end") == 1)
        monkeypatch.setattr(RunStore, "request_cancel", never)
        with anyio.fail_after(60):
            assert (await kimi.run(run_id, "cancel")).status == "running"


@pytest.mark.parametrize(("action", "end"), [("status", "completed"), ("cancel", "partial")])
async def test_a_run_that_is_taken_over_when_nobody_waits_any_more_comes_to_its_end(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, action: str, end: str
) -> None:
    async with begun_here(sim) as run_id:
        pass
    taken, go_on, adopt = anyio.Event(), anyio.Event(), RunStore.adopt

    async def slow(store: RunStore, record: RunRecord) -> bool:
        found = await adopt(store, record)
        taken.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(RunStore, "adopt", slow)
    async with connect(sim, **IMPATIENT) as kimi:
        with anyio.fail_after(60):
            while not taken.is_set():
                await kimi.run(run_id, action)
        go_on.set()
        await comes_to(run_id, end)
