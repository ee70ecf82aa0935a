"""Runs of every status and of every tool, made by a real server from a simulator. I/O: loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kimi_mcp.simulator import Match, Simulator, Step
from tests.server.clients import KimiClient, connect
from tests.server.media import CLIP, data_uri, picture

MARKDOWN = """# Three cities

They differ in **size**, and `Rome` is the largest.

| city | people |
|---|---:|
| Rome | 2,755,309 |
| Oslo | 717,710 |

1. Rome
2. Oslo

> Counted in 2024.

```python
largest = max(cities, key=people)
```

See [the census](https://example.org/census).
"""

REASONING = "They want a comparison. Rome is larger than Oslo."

PROMPTS = {
    "completed": "Compare Rome and Oslo.",
    "partial": "Tell me all of it.",
    "failed": "What is refused?",
    "cancelled": "What takes too long?",
    "running": "What goes on?",
}
"""The prompt of a run of each status, all of ``kimi_think``."""

OTHERS = {
    "kimi_instant": "What is 2 + 2?",
    "kimi_vision": "What is on it?",
    "kimi_video": "What happens?",
    "kimi_swarm": "What is known of {{item}}?",
}
"""The prompt of a completed run of each other tool."""

CITIES = ("Rome", "Oslo", "Lima")


def _steps() -> list[Step]:
    def of(name: str) -> Match:
        return Match(text=PROMPTS[name])

    return [
        Step(match=of("completed"), reasoning=REASONING, content=MARKDOWN),
        Step(match=of("partial"), content="This is the beginning", finish_reason="content_filter"),
        Step(match=of("failed"), status=400, error_message="It is refused."),
        Step(match=of("cancelled"), gate="never", gate_at="finish", content="Half of it", times="always"),
        Step(match=of("running"), gate="go on", gate_at="finish", reasoning="Hm, let me see.", content="It goes"),
    ]


@asynccontextmanager
async def real_runs(folder: Path) -> AsyncIterator[tuple[Simulator, KimiClient]]:
    """A server on a folder, which has made all of them; one of them goes on until the gate ``go on`` opens."""
    where = str(folder)
    async with (
        Simulator(provider="simulator") as sim,
        connect(sim, KIMI_DATA_DIR=where) as kimi,
        connect(sim, KIMI_DATA_DIR=where, KIMI_REPLY_WITHIN_S="0.2") as quick,
    ):
        sim.play(*_steps())
        for name in ("completed", "partial", "failed"):
            result = await kimi.think(PROMPTS[name])
            assert result.status == name, result.text
        await kimi.instant(OTHERS["kimi_instant"])
        image = data_uri(picture(1))
        await kimi.call("kimi_vision", {"prompt": OTHERS["kimi_vision"], "images": [image]})
        clip = data_uri(CLIP, "video/mp4")
        await kimi.call("kimi_video", {"prompt": OTHERS["kimi_video"], "video": clip})
        await kimi.call("kimi_swarm", {"prompt": OTHERS["kimi_swarm"], "items": list(CITIES)})
        cancelled = await quick.think(PROMPTS["cancelled"])
        assert (await quick.run(cancelled.run_id, "cancel")).status == "cancelled"
        running = await quick.think(PROMPTS["running"])
        assert running.status == "running", running.text
        yield sim, quick
        sim.open_gate("go on")
