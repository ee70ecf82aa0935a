"""How an HTTP server starts, says that it is ready, and ends."""

from __future__ import annotations

import signal
import sys
from typing import Any

import anyio
import pytest
from mcp import Client

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.http.serving import listen
from kimi_mcp.simulator import Simulator
from tests.cli.commands.shell import kimi_here
from tests.server.clients import connect, wait_until
from tests.server.http.served import error_of, message, served
from tests.server.processes import process_environment
from tests.server.requests import HELD_STEP


async def test_it_is_alive_and_ready_under_any_name(sim: Simulator) -> None:
    async with served(sim) as http:
        for path in ("/healthz", "/readyz"):
            answer = await http.raw.get(path, headers={"Host": "10.1.2.3:8000", "Origin": "null"})
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_it_is_not_ready_where_the_store_can_not_be_opened(tmp_path: Any) -> None:
    async with served(None, KIMI_DATABASE_URL=f"sqlite:///{tmp_path}/none/such/file.db") as http:
        answer = await http.raw.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "not_configured"
        assert (await http.raw.get("/healthz")).status_code == 200


async def test_after_sigterm_it_lets_running_calls_end_and_takes_no_new_ones(sim: Simulator, mode: str) -> None:
    sim.play(HELD_STEP)
    results: list[Any] = []
    async with served(sim) as http, http.client(mode) as kimi, anyio.create_task_group() as tasks:

        async def ask() -> None:
            results.append(await kimi.think())

        await kimi.client.list_tools()  # else the client does, once it has its answer
        tasks.start_soon(ask)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        session = await http.session()
        http.serving.stop()
        await wait_until(lambda: http.serving.app.gate.draining)
        unready = await http.raw.get("/readyz")
        assert (unready.status_code, unready.headers["connection"]) == (503, "close")
        assert (await http.raw.get("/healthz")).status_code == 200
        call = {"name": "kimi_think", "arguments": {"prompt": "another"}}
        refused = await http.post(message("tools/call", call, "late"), session)
        assert (refused.status_code, refused.json()["id"]) == (503, "late")
        assert "about to stop" in error_of(refused)["message"]
        (run,) = http.runs.live.values()
        requested = {"name": "kimi_run", "arguments": {"run_id": run.id, "action": "status"}}
        assert '"running"' in (await http.post(message("tools/call", requested), session)).text
        sim.open_gate("end")
        await wait_until(lambda: results)
        tasks.cancel_scope.cancel()
    assert results[0].status == "completed"


async def test_a_call_that_is_not_a_run_yet_as_the_server_gets_sigterm_is_answered_whole(sim: Simulator) -> None:
    results: list[Any] = []
    arrived, go_on = anyio.Event(), anyio.Event()

    async def hold(ctx: Any, call_next: Any) -> Any:
        if ctx.method == "tools/call":
            arrived.set()
            await go_on.wait()
        return await call_next(ctx)

    async with served(sim) as http, http.client() as kimi, anyio.create_task_group() as tasks:
        http.serving.app.middleware.append(hold)

        async def ask() -> None:
            results.append(await kimi.think())

        await kimi.client.list_tools()
        tasks.start_soon(ask)
        await arrived.wait()
        http.serving.stop()
        await wait_until(lambda: http.serving.app.gate.draining)
        assert http.serving.app.busy
        go_on.set()
    assert results[0].status == "completed"


async def test_a_call_that_outlasts_the_drain_is_answered_with_what_had_arrived(sim: Simulator, mode: str) -> None:
    sim.play(HELD_STEP)
    results: list[Any] = []
    async with served(sim, limits=HttpLimits(last_answers_s=30), KIMI_DRAIN_S="0") as http, http.client(mode) as kimi:

        async def ask() -> None:
            results.append(await kimi.think())
            tasks.cancel_scope.cancel()

        await kimi.client.list_tools()  # else the client does, once it has its answer
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await sim.until(lambda: sim.waiting_at("end") == 1)
            await wait_until(lambda: len(http.state.calls) == 1)
            http.serving.stop()
    assert results[0].status == "partial"
    async with connect(sim, mode) as later:
        for found in (results[0], await later.run(results[0].run_id)):
            assert found.answer == HELD_STEP["content"]
            assert "server was stopped" in found.error["message"]
            assert "goes on" not in found.text


async def test_a_swarm_that_outlasts_the_drain_is_answered_as_running_and_left(sim: Simulator, mode: str) -> None:
    sim.play(HELD_STEP)
    results: list[Any] = []
    async with served(sim, limits=HttpLimits(last_answers_s=30), KIMI_DRAIN_S="0") as http, http.client(mode) as kimi:

        async def ask() -> None:
            results.append(await kimi.call("kimi_swarm", {"prompt": "x"}))
            tasks.cancel_scope.cancel()

        await kimi.client.list_tools()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await sim.until(lambda: sim.waiting_at("end") == 1)
            await wait_until(lambda: len(http.state.calls) == 1)
            http.serving.stop()
    assert (results[0].status, results[0].run_id in http.runs.left) == ("running", True)


async def test_the_process_serves_and_ends_on_sigterm_with_status_0(sim: Simulator) -> None:
    environment = process_environment(sim)
    command = [sys.executable, "-m", "kimi_mcp", "serve", "--transport", "http", "--port", "0"]
    with anyio.fail_after(120):
        async with await anyio.open_process(command, env=environment, stdin=None) as process:
            assert process.stderr is not None
            text = (await process.stderr.receive()).decode()
            assert "without authentication" in text
            url = next(word for word in text.split() if word.startswith("http://127.0.0.1:")).rstrip(",")
            async with Client(url) as client:
                result = await client.call_tool("kimi_think", {"prompt": "x"})
                assert result.structured_content is not None
                assert result.structured_content["status"] == "completed"
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
            assert process.stdout is not None
            with pytest.raises(anyio.EndOfStream):
                await process.stdout.receive()


@pytest.mark.parametrize(
    ("arguments", "variables", "status", "word"),
    [
        (["--host", "0.0.0.0"], {}, 2, "no authentication"),
        (["--host", "::"], {}, 2, "no authentication"),
        (["--host", "no.such.host.invalid"], {}, 2, "--host"),
        (["--port", "99999"], {}, 2, "--port"),
        ([], {"KIMI_DRAIN_S": "soon"}, 1, "KIMI_DRAIN_S"),
        ([], {"KIMI_HTTP_URL": "kimi.example"}, 1, "KIMI_HTTP_URL"),
        ([], {"KIMI_HTTP_URL": "https://kimi .example"}, 1, "KIMI_HTTP_URL"),
        ([], {"KIMI_HTTP_URL": 'https://kimi.example/a"b'}, 1, "KIMI_HTTP_URL"),
        ([], {"KIMI_HTTP_TOKENS": "${TOKENS}"}, 1, "KIMI_HTTP_TOKENS"),
        ([], {"KIMI_HTTP_ORIGINS": "*"}, 1, "KIMI_HTTP_ORIGINS"),
        ([], {"KIMI_MAX_CONCURRENCY": "0"}, 1, "KIMI_MAX_CONCURRENCY"),
    ],
)
def test_a_start_that_can_not_be_says_why(
    arguments: list[str], variables: dict[str, str], status: int, word: str
) -> None:
    ended = kimi_here("serve", "--transport", "http", *arguments, settings=variables)
    assert (ended.status, ended.out) == (status, "")
    assert word in ended.err


@pytest.mark.parametrize("option", [("--port", "8000"), ("--role", "worker")])
def test_a_port_and_a_role_are_for_http_alone(option: tuple[str, str]) -> None:
    ended = kimi_here("serve", *option)
    assert ended.status == 2
    assert "--transport http" in ended.err


async def test_a_port_in_use_is_named(sim: Simulator) -> None:
    async with served(sim) as http:
        with pytest.raises(NotConfigured, match=f"Port {http.port} .* in use"):
            listen("127.0.0.1", http.port)


async def test_nothing_of_http_is_imported_over_stdio() -> None:
    program = (
        "import sys, kimi_mcp.server.stdio.connection, kimi_mcp.server.app; "
        "print([m for m in sys.modules if m.startswith('kimi_mcp.server.http')])"
    )
    printed = await anyio.run_process([sys.executable, "-c", program])
    assert printed.stdout.strip() == b"[]"


async def test_a_card_is_published_where_it_is_wanted() -> None:
    async with served(None, KIMI_HTTP_CARD="on", KIMI_HTTP_URL="https://kimi.example/mcp") as http:
        headers = {"Origin": "https://anybody.example"}
        for path in ("/.well-known/ai-catalog.json", "/.well-known/mcp/catalog.json"):
            (entry,) = (await http.raw.get(path, headers=headers)).json()["entries"]
            assert entry["url"] == "https://kimi.example/mcp/server-card"
        card = await http.raw.get("/mcp/server-card", headers=headers)
        assert card.headers["content-type"] == "application/mcp-server-card+json"
        assert card.headers["access-control-allow-origin"] == "*"
        assert card.json()["remotes"][0]["url"] == "https://kimi.example/mcp"
        again = await http.raw.get("/mcp/server-card", headers={"If-None-Match": card.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    async with served(None) as http:
        for path in ("/mcp/server-card", "/.well-known/ai-catalog.json"):
            assert (await http.raw.get(path)).status_code == 404
