"""Tool servers behind a URL, on real sockets: a failure is that of one call."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from kimi_mcp.swarm.tools import CallResult, SwarmTools, open_tools
from tests.loop_time import LoopTime
from tests.swarm.tools.conftest import SHORT, ServersFile, given_up
from tests.swarm.tools.odd_endpoint import odd_endpoint


async def echo(tools: SwarmTools, text: str) -> CallResult:
    with anyio.fail_after(60):
        return await tools.call("far__echo", json.dumps({"text": text}))


def framed_text(result: CallResult) -> str:
    assert not result.is_error, result.text
    return result.text.split("\n", 2)[2].rpartition("\n</tool_output")[0]


@pytest.fixture(params=["events", "json"])
def good_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server by the SDK that listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = Path(__file__).with_name("good_server.py")
    child = subprocess.Popen([sys.executable, str(program), str(port), request.param], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                probe.settimeout(0.1)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            anyio.run(anyio.sleep, 0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        child.kill()
        child.wait()


@pytest.mark.soak
async def test_a_server_by_the_sdk_is_listed_and_called(servers_file: ServersFile, good_url: str) -> None:
    async with open_tools(servers_file(good={"type": "http", "url": good_url}), limits=SHORT) as tools:
        assert not tools.warnings
        assert framed_text(await tools.call("good__add", '{"a": 2, "b": 3}')).startswith("5")


@pytest.mark.parametrize("flags", [(), ("events",)], ids=["json", "events"])
async def test_an_endpoint_gets_its_headers_and_nothing_of_ours(
    servers_file: ServersFile, flags: tuple[str, ...]
) -> None:
    async with odd_endpoint(*flags) as far:
        entry = {"url": far.url, "headers": {"Authorization": "Bearer of-this-server"}}
        async with open_tools(servers_file(far=entry), limits=SHORT) as tools:
            assert framed_text(await echo(tools, "hello")) == "hello"
            assert "of-this-server" not in (await echo(tools, "Bearer of-this-server")).text
    assert all(request["authorization"] == "Bearer of-this-server" for request in far.seen)
    assert all(request["user-agent"].startswith("kimi-mcp/") for request in far.seen)
    assert not any("cookie" in request for request in far.seen)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("reset", "can't be reached just now"),
        ("hang", "did not answer within 60 s"),
        ("500", "answers with HTTP 500"),
        ("redirect", "answers with HTTP 307"),
        ("html", "can't be read"),
        ("no json", "can't be read"),
        ("gzip", "can't be read"),
        ("large", "can't be read"),
        pytest.param("large event", "can't be read", marks=pytest.mark.soak),
    ],
)
async def test_a_call_that_goes_wrong_costs_that_call_alone(
    servers_file: ServersFile, loop_time: LoopTime, text: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "kimi_mcp")
    async with odd_endpoint() as far, open_tools(servers_file(far={"url": far.url}), limits=SHORT) as tools:
        bad = await (
            given_up(tools.call("far__echo", '{"text": "hang"}'), loop_time) if text == "hang" else echo(tools, text)
        )
        assert bad.is_error
        assert why in bad.text
        assert "secret trace" not in bad.text
        assert framed_text(await echo(tools, "x")) == "x"
        assert not tools.warnings


async def test_a_server_that_forgot_its_session_gets_a_new_one(servers_file: ServersFile) -> None:
    async with odd_endpoint() as far, open_tools(servers_file(far={"url": far.url}), limits=SHORT) as tools:
        assert framed_text(await echo(tools, "forget")) == "forget"
        assert "forgotten its session" in (await echo(tools, "x")).text
        assert framed_text(await echo(tools, "x")) == "x"
        assert far.sessions == 2


async def test_an_endpoint_that_refuses_us_says_which_key_to_look_at(servers_file: ServersFile) -> None:
    async with odd_endpoint("unauthorized") as far:
        entry = {"url": far.url, "headers": {"Authorization": "Bearer of-this-server"}}
        async with open_tools(servers_file(far=entry), limits=SHORT) as tools:
            assert (
                tools.warnings[0]
                == "The tools of far are not there: it refuses us with HTTP 401: look at its `headers`."
            )


async def test_an_endpoint_where_nobody_listens_is_named(servers_file: ServersFile) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with open_tools(servers_file(far={"url": f"http://127.0.0.1:{port}/mcp"}), limits=SHORT) as tools:
        assert tools.warnings[0] == "The tools of far are not there: nobody answers at its `url`."


async def test_certificates_that_cannot_be_read_are_named_and_not_the_url(
    servers_file: ServersFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    async with open_tools(servers_file(far={"url": "https://127.0.0.1:9/mcp"}), limits=SHORT) as tools:
        assert "SSL_CERT_FILE" in tools.warnings[0]
        assert "`url`" not in tools.warnings[0]
