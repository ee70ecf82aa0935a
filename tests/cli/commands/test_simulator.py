"""``kimi-mcp simulator``: its base URL first, then a strict provider until it is terminated."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from anyio.streams.text import TextReceiveStream

from tests.cli.commands.shell import kimi, kimi_process, started

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")


@posix
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
async def test_it_prints_its_base_url_first_serves_and_ends_cleanly(ending: signal.Signals) -> None:
    async with started("simulator", "--port", "0") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        base_url = (await TextReceiveStream(process.stdout).receive()).splitlines()[0]
        hint = await TextReceiveStream(process.stderr).receive()
        assert base_url.startswith("http://127.0.0.1:")
        assert "Simulator" in hint
        requested = await kimi("ask", "Hello", settings={"KIMI_PROVIDER": "simulator", "KIMI_BASE_URL": base_url})
        assert requested.out.startswith("[simulator] ")
        process.send_signal(ending)
        assert await process.wait() == 0


async def test_a_provider_that_there_is_not_is_answered_with_the_names() -> None:
    ended = await kimi("simulator", "--provider", "moonshoot")
    assert ended.status == 2
    assert "moonshot" in ended.err


async def test_a_port_that_is_taken_is_reported_in_a_sentence() -> None:
    from kimi_mcp.simulator import Simulator

    async with Simulator() as taken:
        port = taken.base_url.rpartition(":")[2].removesuffix("/v1")
        ended = await kimi_process("simulator", "--port", port)
    assert (ended.status, ended.out) == (1, "")
    assert "choose another --port" in ended.err


async def test_a_scenario_that_cannot_be_understood_is_reported_in_a_sentence(tmp_path: Path) -> None:
    scenario = tmp_path / "faults.toml"
    scenario.write_text("[[steps]]\nstatos = 429\n")
    ended = await kimi_process("simulator", "--port", "0", "--faults", str(scenario))
    assert (ended.status, ended.out) == (2, "")
    assert "statos" in ended.err
