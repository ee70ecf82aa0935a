"""``kimi-mcp runs continue``: the whole of an answer that was cut."""

from __future__ import annotations

import json

from kimi_mcp.simulator import Simulator
from tests.cli.commands.shell import kimi, to
from tests.server.requests import chats

WHOLE = "One, two, three, four."
CUT = {"reasoning": "Let me count.", "content": WHOLE[:12], "finish_reason": "length"}


async def test_a_cut_answer_names_the_command_that_continues_it_and_that_prints_all_of_it(sim: Simulator) -> None:
    sim.play(CUT, {"content": WHOLE})
    cut = await kimi("ask", "Count.", settings=to(sim))
    assert (cut.status, cut.out) == (1, WHOLE[:12] + "\n")
    (run_id,) = [word.strip("`.") for word in cut.err.split() if word.startswith("run_")]
    assert f"kimi-mcp runs continue {run_id}" in " ".join(cut.err.split())
    assert f"kimi-mcp runs continue {run_id}" in (await kimi("runs", "show", run_id)).out
    whole = await kimi("runs", "continue", run_id, settings=to(sim))
    assert (whole.status, whole.out) == (0, WHOLE + "\n")
    assert "answer-continued" in whole.err
    again = await kimi("runs", "continue", run_id[:16], "--json", settings=to(sim))
    assert json.loads(again.out)["answer"] == WHOLE
    assert len(chats(sim)) == 2, "what is whole is not asked for again"
