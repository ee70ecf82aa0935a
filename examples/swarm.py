"""Runs the swarm of docs/swarm.png against the simulator and writes its page: ``python examples/swarm.py swarm.html``.

What the agents say is scripted below; what they look up comes from the library of the demo, slowed to be visible.
Everything else is real: the command, the swarm, the tool server, the journal, the page.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TASK = "Compare Rome, Oslo and Lima by their people."
PACE = {"Rome": (1.0, 0.5, 1.1), "Oslo": (0.8, 0.3, 0.9), "Lima": (1.2, 0.4, 1.4)}
"""Seconds of an agent's first request, of its look into the library, and of its second request."""
ANSWER = """\
Lima is the largest with 10,000,000 people, then Rome with 2,800,000, then Oslo with 720,000.
Each number was looked up by one agent and checked by another."""

KIMI = Path(sys.executable).with_name("kimi-mcp")


def call(tool: str, number: int, /, **arguments: str) -> dict[str, Any]:
    return {"name": tool, "arguments": json.dumps(arguments), "id": f"functions.{tool}:{number}"}


def look_up(number: int, city: str) -> dict[str, Any]:
    return call("library__look_up", number, city=city)


def scenario() -> list[dict[str, Any]]:
    """What the simulator answers to whom, in the form of ``kimi-mcp simulator --faults``."""
    lead, check = {"system": "You lead a swarm"}, {"text": "Check all three"}
    begin = [call("create_subagent", n, name=city, system_prompt=f"You know {city}.") for n, city in enumerate(PACE)]
    begin += [
        call("assign_task", n, agent=city, prompt=f"How many people live in {city}?") for n, city in enumerate(PACE, 3)
    ]
    doubt = [
        call("create_subagent", 6, name="checker", system_prompt="You doubt every number."),
        call("assign_task", 7, agent="checker", prompt="Check all three numbers against the library."),
    ]
    every = [look_up(n, city) for n, city in enumerate(PACE)]
    steps: list[dict[str, Any]] = [
        {"match": lead | {"turns": 0}, "delay": 0.7, "tool_calls": begin},
        {"match": lead | {"turns": 1}, "delay": 0.8, "tool_calls": doubt},
        {"match": lead | {"turns": 2}, "delay": 0.7, "content": ANSWER},
        {"match": check | {"turns": 0}, "delay": 0.7, "tool_calls": every},
        {"match": check | {"turns": 1}, "delay": 0.7, "content": "All three hold."},
    ]
    for city, (first, _, second) in PACE.items():
        cities = {"text": f"live in {city}"}
        steps.append({"match": cities | {"turns": 0}, "delay": first, "tool_calls": [look_up(0, city)]})
        steps.append({"match": {"tool": f"{city}: "}, "delay": second, "content": f"{city}: as the library says."})
    return steps


def library() -> None:
    """The demo's library, in no hurry."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from scripts.demo import library as shelves

    at_once = shelves.answer

    def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "tools/call":
            time.sleep(PACE[params["arguments"]["city"]][1])
        return at_once(method, params)

    shelves.answer = answer
    shelves.main()


def main(page: str) -> None:
    sys.stderr.write("A swarm of four agents works for about twenty seconds …\n")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "faults.json").write_text(json.dumps(scenario()), "utf-8")
        server = {"command": sys.executable, "args": [str(Path(__file__).resolve()), "--library"]}
        (folder / "mcp.json").write_text(json.dumps({"mcpServers": {"library": server}}), "utf-8")
        simulator = subprocess.Popen(  # noqa: S603 - the command is ours, here and below
            [KIMI, "simulator", "--port", "0", "--faults", folder / "faults.json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert simulator.stdout
            environment = {name: value for name, value in os.environ.items() if not name.startswith("KIMI_")} | {
                "KIMI_PROVIDER": "simulator",
                "KIMI_BASE_URL": simulator.stdout.readline().strip(),
                "KIMI_SWARM_MCP": str(folder / "mcp.json"),
                "KIMI_DATA_DIR": str(folder / "data"),
            }
            command = [KIMI, "ask", TASK, "--tool", "swarm", "--json"]
            started = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
            run_id = json.loads(started.stdout)["run_id"]
            subprocess.run([KIMI, "runs", "show", run_id, "--html", page], env=environment, check=True)  # noqa: S603
        finally:
            simulator.terminate()
            simulator.wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["--library"]:
        library()
    elif len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        sys.exit("usage: python examples/swarm.py PAGE.html")
