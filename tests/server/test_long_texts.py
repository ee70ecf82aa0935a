"""Long texts: they come whole, in pages, from any server, and cost a bounded memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import anyio
import pytest

from kimi_mcp.core.outcome import shortened
from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import opened
from tests.server.clients import connect
from tests.server.processes import server_process
from tests.server.results import checked

MEGABYTES = 5

ANSWER = "".join(f"{number:07} 你好🌍 and so on\n" for number in range(MEGABYTES * 40_000))
"""Of about so many megabytes."""


@pytest.mark.parametrize(
    "chars", [400_000, pytest.param(2_000_000, marks=pytest.mark.soak, id="two million characters")]
)
async def test_a_long_answer_is_kept_whole_and_paged_by_any_server(sim: Simulator, data_dir: Path, chars: int) -> None:
    answer, reasoning = ANSWER[:chars], ANSWER[: min(chars, 1_000_000)]
    sim.play({"content": answer, "reasoning": reasoning, "event_tokens": 200, "ignore_limit": True})
    async with server_process(sim) as client:
        with anyio.fail_after(60):
            result = checked(await client.call_tool("kimi_think", {"prompt": "hi"}))
        assert result.status == "completed", result.text[-500:]
        assert len(result.answer) < 210_000
        assert answer.startswith(result.answer[:199_000])
        assert f'kimi_run(run_id="{result.run_id}", action="answer", offset=200000)' in result.text
        assert result.structured["reasoning"]["chars"] == len(reasoning)
        assert result.reasoning == shortened(reasoning, 2_000)
    async with connect(sim) as later:
        assert await later.full_text(result.run_id, "reasoning") == reasoning
        page = (await later.run(result.run_id, "answer", offset=len(answer) - 50)).structured["page"]
        assert page["text"] == answer[-50:]
        assert page["next_offset"] is None
    with opened(data_dir) as file:
        assert file.execute("SELECT answer FROM runs").fetchone() == (answer,)


@pytest.mark.soak
async def test_many_long_answers_leave_a_bounded_memory(sim: Simulator) -> None:
    if sys.platform != "linux":
        pytest.skip("memory is read from /proc")
    async with connect(sim) as kimi:

        async def ask(number: int) -> None:
            sim.play({"content": ANSWER[:1_500_000], "event_tokens": 400, "ignore_limit": True})
            assert (await kimi.instant(f"call {number}")).status == "completed"

        for number in range(5):
            await ask(number)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(15):
            await ask(number)
            await kimi.run()
        more_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert more_kb < 60_000, f"{more_kb} kB more for 15 answers of 2 MB each"
