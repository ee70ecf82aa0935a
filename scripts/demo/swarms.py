"""Scenes with swarms: agents that work at the same time with tools of a real MCP server, and a swarm that is resumed.

I/O: the stage's. A scene's docstring is its heading.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

import anyio

from kimi_mcp.simulator import Match, ScriptedCall, Step
from scripts.demo import library
from scripts.demo.library import SHELVES
from scripts.demo.stage import Stage, ToolReply

TASK = "Compare Rome, Oslo and Lima by their people."
ITEM_PROMPT = "What is known of {{item}}?"
TOOL = "library__look_up"


def tool_servers(folder: Path) -> str:
    """Write an ``mcpServers`` file with the demo's library, and return its path."""
    file = folder / "mcp.json"
    server = {"command": sys.executable, "args": [library.__file__]}
    file.write_text(json.dumps({"mcpServers": {"library": server}}), "utf-8")
    return str(file)


async def parallel(stage: Stage) -> None:
    """A swarm: a main agent gives out tasks, three agents look things up at the same time."""
    calls = [_call("create_subagent", 0, name="reader", system_prompt="You read what the library has.")]
    for number, city in enumerate(SHELVES, 1):
        calls.append(_call("assign_task", number, agent="reader", prompt=f"How large is {city}?"))
        asks = Match(text=f"How large is {city}?", turns=0)
        stage.sim.play(Step(match=asks, tool_calls=(_call(TOOL, 0, city=city),), gate="all three"))
    stage.sim.play(Step(match=Match(system="You lead a swarm", turns=0), tool_calls=tuple(calls)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_open_when_all_wait, stage)
        reply = await stage.call("kimi_swarm", prompt=TASK)
        _show(stage, reply)
        swarm = reply.result["swarm"]
        stage.check("All three worked at the same time.", len(swarm["agents"]) == len(SHELVES), swarm["agents"])
        sent = json.dumps([request.body for request in stage.chats], ensure_ascii=False)
        got_all = all(fact in sent for fact in SHELVES.values())
        stage.check("Each got what a real MCP server returned.", got_all, "something else")
        path = (swarm["steps"], swarm["critical_steps"], len(stage.chats))
        stage.check("8 requests took as long as 4 in turn.", path == (2, 4, 8), path)


async def files(stage: Stage) -> None:
    """A swarm over what lies here: an agent for each file, who looks around in the others."""
    modules = {name: f"def {name}():\n    return {number}\n" for number, name in enumerate(("alpha", "beta", "gamma"))}
    for name, text in modules.items():
        (stage.folder / f"{name}.py").write_text(text, "utf-8")
    search = ScriptedCall(name="files__search", arguments=json.dumps({"regex": r"^def \w+"}))
    outside = ScriptedCall(name="files__read", arguments=json.dumps({"path": "/etc/passwd"}), id="functions.read:1")
    stage.sim.play(Step(match=Match(text="beta.py", turns=0), tool_calls=(search, outside)))
    folder = str(stage.folder)
    reply = await stage.call("kimi_swarm", prompt="Find the flaw in {{item}}.", items=[f"{folder}/*.py"])
    _show(stage, reply)
    messages = [each for request in stage.chats for each in cast("Any", request.body)["messages"]]
    tasks = [str(each["content"]) for each in messages if each["role"] == "user"]
    whole = all(any(text in task for task in tasks) for text in modules.values())
    stage.check("Each agent got its file whole.", whole and len(reply.result["swarm"]["agents"]) == 3, tasks)
    found, refused = (str(each["content"]) for each in messages if each["role"] == "tool")
    stage.check("One searched all of them by a regular expression.", "gamma.py:1: def gamma():" in found, found)
    stage.check("Nothing outside the folder is read.", "outside the folders" in refused, refused)


async def resumed(stage: Stage) -> None:
    """A swarm whose server is killed: the next server goes on with it and asks nothing twice."""
    stage.sim.play(Step(match=Match(text="What is known of Oslo?"), gate="never"))

    def two_answered(status: Any) -> bool:
        return sum(request.outcome == "answered" for request in stage.chats) == len(SHELVES) - 1

    arguments = {"prompt": ITEM_PROMPT, "items": list(SHELVES)}
    async with stage.killed_server("kimi_swarm", arguments, "two agents had answered, Oslo's had not"):
        run_id = await stage.run_id(ITEM_PROMPT, two_answered)
        await anyio.sleep(0.1)  # what was answered is on disk within that
    requests = len(stage.chats)
    reply = await stage.call("kimi_run", run_id=run_id)
    _show(stage, reply)
    states = [agent["status"] for agent in reply.result["swarm"]["agents"]]
    stage.check("It was completed.", reply.result["status"] == "completed" and set(states) == {"completed"}, states)
    again = len(stage.chats) - requests
    stage.check("Oslo was requested once more and the results put together: 2 requests.", again == 2, again)


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


async def _open_when_all_wait(stage: Stage) -> None:
    await stage.sim.until(lambda: stage.sim.waiting_at("all three") == len(SHELVES))
    stage.sim.open_gate("all three")
