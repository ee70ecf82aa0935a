"""What each principal over HTTP may use, and how principals share what there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from kimi_mcp.server.http.auth.scopes import USE
from kimi_mcp.server.http.auth.token_file import TokenFile, utc_now
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.server.clients import KimiClient, ServerOptions, wait_until
from tests.server.http.served import bearer, newest, newest_headers, served
from tests.server.requests import HELD_STEP, chats
from tests.server.test_budgets import LONG

SHORT = {"reasoning": "Hm.", "content": "Hi."}
HELD = {**HELD_STEP, "match": {"text": "held"}, "times": "always"}
ALWAYS = {**SHORT, "times": "always"}


@asynccontextmanager
async def two(sim: Simulator, tmp_path: Path, mode: str = "auto", **variables: Any) -> AsyncIterator[list[KimiClient]]:
    """The clients of two principals at one server."""
    file = TokenFile(tmp_path / "tokens.json")
    keys = [file.add(f"{name}-{mode}", USE, now=utc_now())[1] for name in ("ann", "ben")]
    async with AsyncExitStack() as opened:
        http = await opened.enter_async_context(
            served(sim, KIMI_HTTP_TOKENS=str(tmp_path / "tokens.json"), **variables)
        )
        yield [await opened.enter_async_context(http.client(mode, token=key)) for key in keys]


async def test_a_call_beyond_the_minutes_is_refused_with_the_time_of_a_retry(
    sim: Simulator, tmp_path: Path, mode: str
) -> None:
    async with two(sim, tmp_path, mode, KIMI_QUOTA_CALLS_PER_MINUTE="2") as (ann, ben):
        first = await ann.think()
        await ann.call("kimi_swarm", {"prompt": "Look at {{item}}.", "items": ["one", "two", "three"]})
        refused = await ann.think()
        assert refused.code == "rate_limited"
        assert refused.structured["run_id"] is None
        assert refused.error["retryable"] is True
        assert 0 < refused.error["retry_after_s"] <= 60
        assert f"in {refused.error['retry_after_s']} s" in refused.text
        assert (await ann.run(first.run_id)).answer == first.answer, "what is read is not counted"
        assert (await ben.think()).status == "completed"


async def test_a_call_beyond_those_at_once_is_refused_until_one_has_ended(sim: Simulator, tmp_path: Path) -> None:
    sim.play(HELD, ALWAYS)
    async with two(sim, tmp_path, KIMI_QUOTA_CALLS_AT_ONCE="1", KIMI_REPLY_WITHIN_S="0.1") as (ann, ben):
        running = await ann.think("held")
        assert running.status == "running"
        refused = await ann.think()
        assert (refused.code, refused.error["retry_after_s"]) == ("rate_limited", 5)
        assert "KIMI_QUOTA_CALLS_AT_ONCE" in refused.error["fix"]
        assert (await ben.ended(await ben.think())).status == "completed"
        sim.open_gate("end")
        assert (await ann.ended(running)).status == "completed"
        assert (await ann.ended(await ann.think())).status == "completed"


async def test_a_call_that_joins_the_one_its_host_gave_up_on_is_no_second_call(sim: Simulator, tmp_path: Path) -> None:
    sim.play(HELD)
    patient = ServerOptions(timings=Timings(warm_up_after_s=3600, stream_grace_s=3600))
    async with two(sim, tmp_path, options=patient, KIMI_QUOTA_CALLS_PER_MINUTE="1") as (ann, _):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ann.think, "held")
            await sim.until(lambda: sim.waiting_at("end") == 1)
            await wait_until(lambda: ann.state.calls)
            tasks.cancel_scope.cancel()
        await wait_until(lambda: all(run.abandoned for run in ann.runs.live.values()))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_soon, sim, ann)
            joined = await ann.think("held")
            assert joined.status == "completed"
            assert joined.rules == ["run-rejoined"]
        assert (await ann.think("held")).code == "rate_limited"
    assert len(chats(sim)) == 1


async def open_soon(sim: Simulator, kimi: KimiClient) -> None:
    """Open the gate once the run is waited for again."""
    await wait_until(lambda: kimi.state.calls)
    sim.open_gate("end")


async def test_principals_whose_requests_wait_take_turns_agents_of_swarms_too(sim: Simulator, tmp_path: Path) -> None:
    sim.play({**SHORT, "match": {"text": "first"}, "gate": "end"}, ALWAYS)
    async with two(sim, tmp_path, KIMI_MAX_CONCURRENCY="2") as (ann, ben), anyio.create_task_group() as calls:
        for kimi, name, waiting in ((ann, "first", 0), (ann, "second", 1), (ann, "third", 2), (ben, "Ben's", 3)):
            swarm = {"prompt": f"The {name} {{{{item}}}}", "items": ["one", "two"], "tools": ["none"]}
            calls.start_soon(kimi.call, "kimi_swarm", swarm)
            await sim.until(lambda: sim.waiting_at("end") == 1)
            slots = ann.state.pipeline.upstream._yielding  # type: ignore[union-attr]
            await wait_until(lambda slots=slots, waiting=waiting: slots.waiting == waiting)
        sim.open_gate("end")
    sent = [str(chat.body["messages"]) for chat in chats(sim)]  # type: ignore[index]
    assert "The first" in sent[0]
    assert "Ben's" in sent[1] + sent[2], "though two swarms waited before it"


async def test_what_a_principal_spends_a_day_is_its_own_and_outlives_the_server(sim: Simulator, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    keys = [TokenFile(file).add(name, USE, now=utc_now())[1] for name in ("ann", "ben")]
    variables: Any = {"KIMI_HTTP_TOKENS": str(file), "KIMI_BUDGET_USD_PER_PRINCIPAL_DAY": "0.05"}
    sim.play(LONG)
    async with served(sim, **variables) as http, http.client(token=keys[0]) as ann:
        stopped = await ann.think(max_tokens=100_000)
        await sim.client_gone()
    assert (stopped.status, stopped.code) == ("partial", "budget_exceeded")
    assert "Your spending limit of today is reached: about" in stopped.error["message"]
    sim.reset()
    async with served(sim, **variables) as http, http.client(token=keys[0]) as ann, http.client(token=keys[1]) as ben:
        refused = await ann.think()
        assert refused.code == "budget_exceeded"
        assert refused.structured["run_id"] is None
        assert "Your spending limit of today" in refused.error["message"]
        assert "KIMI_BUDGET_USD_PER_PRINCIPAL_DAY" in refused.error["fix"]
        assert 0 < refused.error["retry_after_s"] <= 86_400
        assert (await ben.think()).status == "completed"


async def test_one_principals_large_requests_leave_memory_for_anothers(sim: Simulator, tmp_path: Path) -> None:
    limits = HttpLimits(max_bodies_bytes=300_000, max_principal_bodies_bytes=150_000, uncounted_bytes=0)
    arguments = {"prompt": "held" + "x" * 100_000}
    sim.play(HELD, ALWAYS)
    file = tmp_path / "tokens.json"
    ann, ben = (bearer(TokenFile(file).add(name, USE, now=utc_now())[1]) for name in ("ann", "ben"))
    async with served(sim, limits=limits, KIMI_HTTP_TOKENS=str(file)) as http, anyio.create_task_group() as calls:
        call = newest("tools/call", {"name": "kimi_think", "arguments": arguments})
        headers = newest_headers("tools/call", "kimi_think")
        calls.start_soon(http.post, call, headers | ann)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        refused = await http.post(call, headers | ann)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        calls.start_soon(http.post, call, headers | ben)
        await sim.until(lambda: sim.waiting_at("end") == 2)
        sim.open_gate("end")


async def test_without_authentication_there_are_no_quotas(sim: Simulator) -> None:
    async with served(sim, KIMI_QUOTA_CALLS_PER_MINUTE="1") as http, http.client() as kimi:
        assert [(await kimi.think()).status for _ in range(2)] == ["completed", "completed"]
