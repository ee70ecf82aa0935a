"""Scenes on swarms: agents at the same time with tools of a real MCP server, and one that outlives its server. I/O."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio

from kimi_mcp.cli.demo.library import SHELVES
from kimi_mcp.cli.demo.stage import Stage, ToolReply
from kimi_mcp.cli.demo.survival import pipe
from kimi_mcp.simulator import Match, ScriptedCall, Step

TASK = "Compare Rome, Oslo and Lima by their people."
TELL = "What is known of {{item}}?"
TOOL = "library__look_up"


def servers(folder: Path) -> str:
    """A file of MCP servers with the demo's library, as hosts write it; its path."""
    file = folder / "mcp.json"
    library = {"command": sys.executable, "args": ["-m", "kimi_mcp.cli.demo.library"]}
    file.write_text(json.dumps({"mcpServers": {"library": library}}), "utf-8")
    return str(file)


async def led(stage: Stage) -> None:
    """A swarm: a main agent gives out tasks, three agents look things up at the same time."""
    made = [_call("create_subagent", 0, name="reader", system_prompt="You read what the library has.")]
    made += [
        _call("assign_task", n, agent="reader", prompt=f"How large is {city}?") for n, city in enumerate(SHELVES, 1)
    ]
    stage.sim.play(Step(match=Match(system="You lead a swarm", turns=0), tool_calls=tuple(made)))
    for city in SHELVES:
        asks = Match(text=f"How large is {city}?", turns=0)
        stage.sim.play(Step(match=asks, tool_calls=(_call(TOOL, 0, city=city),), gate="all three"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_let_all_begin, stage)
        reply = await stage.call("kimi_swarm", prompt=TASK)
        _show(stage, reply)
        swarm = reply.result["swarm"]
        stage.holds("All three worked at the same time.", len(swarm["agents"]) == len(SHELVES), swarm["agents"])
        sent = json.dumps([request.body for request in stage.chats], ensure_ascii=False)
        stage.holds(
            "Each got what a real MCP server returned.",
            all(fact in sent for fact in SHELVES.values()),
            "something else",
        )
        path = (swarm["steps"], swarm["critical_steps"], len(stage.chats))
        stage.holds("8 requests took as long as 4 in turn.", path == (2, 4, 8), path)


async def goes_on(stage: Stage) -> None:
    """A swarm whose server is killed: the next server goes on with it and asks nothing twice."""
    arguments = {"prompt": TELL, "items": list(SHELVES)}
    stage.sim.play(Step(match=Match(text="What is known of Oslo?"), gate="never"))
    async with pipe(stage) as (process, send):
        stage.show_call("kimi_swarm", arguments)
        await send({"id": 2, "method": "tools/call", "params": {"name": "kimi_swarm", "arguments": arguments}})
        run_id = await _two_done(stage)
        process.kill()
        await process.wait()
        stage.page.row("server", "killed: two agents had answered, Oslo's had not")
    asked = len(stage.chats)
    reply = await stage.call("kimi_run", run_id=run_id)
    _show(stage, reply)
    states = [agent["status"] for agent in reply.result["swarm"]["agents"]]
    stage.holds("It came to its end.", reply.result["status"] == "completed" and set(states) == {"completed"}, states)
    again = len(stage.chats) - asked
    stage.holds("Oslo was asked once more and the results put together: 2 requests.", again == 2, again)


def _call(name: str, number: int, /, **arguments: str) -> ScriptedCall:
    return ScriptedCall(name=name, arguments=json.dumps(arguments), id=f"functions.{name}:{number}")


def _show(stage: Stage, reply: ToolReply) -> None:
    swarm = reply.result["swarm"]
    for agent in swarm["agents"]:
        tools = f", tool calls {agent['tool_calls']}" if agent["tool_calls"] else ""
        stage.page.row(agent["id"], f"{agent['name']}: {agent['status']}, steps {agent['steps']}{tools}", "quiet")
    stage.page.row(
        "swarm", f"critical steps {swarm['critical_steps']}, {swarm['speedup']} × as fast as one agent alone"
    )


async def _let_all_begin(stage: Stage) -> None:
    await stage.sim.until(lambda: stage.sim.waiting_at("all three") == len(SHELVES))
    stage.sim.open_gate("all three")


async def _two_done(stage: Stage) -> str:
    """The id of the swarm's run, once two of its agents' answers are written down."""
    while True:
        latest: Any = await stage.client.call_tool("kimi_run", {})
        lines = [line for line in latest.structured_content["answer"].splitlines() if line.endswith(TELL)]
        answered = sum(request.outcome == "answered" for request in stage.chats)
        if lines and answered == len(SHELVES) - 1:
            await anyio.sleep(0.1)  # what was answered is on disk within that
            return lines[0].split()[0]
        await anyio.sleep(0.05)
