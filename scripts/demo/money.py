"""Scenes of the demo about the user's catalogue and about money. I/O: writes a catalogue, runs a command.

A scene's docstring is its heading.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio

from kimi_mcp.core.profiles import dollars
from kimi_mcp.simulator.faults import CHAT_PATH
from scripts.demo.stage import Stage

KEY = "sk-of-the-demo"

SETTINGS = {"KIMI_PROVIDER": "acme", "KIMI_BASE_URL": "", "ACME_API_KEY": KEY}
"""The server's: it calls a provider that only the user's catalogue has."""

PRICES = {"input": 1.0, "cached": 0.1, "output": 5.0}

ACME = """inherits = "simulator"
[about]
name = "Acme"
base_url = "{base_url}"
[key]
needed = true
variables = ["ACME_API_KEY"]
[[models]]
model = "kimi-k3"
wire_id = "kimi-k3"
price = {{ input = 1.00, cached = 0.10, output = 5.00 }}
"""

QUESTION = "How many people live in Iceland, to the nearest thousand?"


def write_catalogue(folder: Path, base_url: str) -> str:
    """A catalogue of the user's, which adds a provider at that URL; its folder."""
    providers = folder / "catalogue" / "providers"
    providers.mkdir(parents=True, exist_ok=True)
    (providers / "acme.toml").write_text(ACME.format(base_url=base_url), encoding="utf-8")
    return str(providers.parent)


async def own_catalogue(stage: Stage) -> None:
    """A provider that only your own catalogue has."""
    stage.page.row("file", "KIMI_CATALOGUE/providers/acme.toml: its URL, key, models and prices; a known dialect")
    reply = await stage.call("kimi_think", prompt=QUESTION)
    key = stage.chats[-1].headers.get("authorization") if stage.chats else None
    own_key = (reply.result["provider"], key) == ("acme", f"Bearer {KEY}")
    stage.check("It was asked with its own key, by its name.", own_key, reply.result["provider"])
    usage = reply.result["usage"]
    spent = (usage["prompt_tokens"] * PRICES["input"] + usage["completion_tokens"] * PRICES["output"]) / 1e6
    stage.page.row("cost", dollars(usage["cost_usd"]))
    stage.check("The call cost what the file says.", abs(usage["cost_usd"] - spent) < 1e-8, usage)


async def dry_run(stage: Stage) -> None:
    """What a call will cost, before it is sent."""
    command = ("ask", QUESTION, "--dry-run", "--json")
    stage.page.row("shell", f"kimi-mcp ask {json.dumps(QUESTION)} --dry-run", "name")
    with stage.page.waiting("ask --dry-run …"):
        done = await anyio.run_process(
            [sys.executable, "-m", "kimi_mcp", *command], env=dict(stage.environment), check=False
        )
    found: dict[str, Any] = json.loads(done.stdout or b"{}")
    least, most = found.get("least_usd", 0.0), found.get("most_usd", 0.0)
    stage.page.row("prompt", f"{found.get('prompt_tokens')} tokens, counted by the {found.get('counted_by')}")
    stage.page.row("cost", f"{dollars(least)} at least, {dollars(most)} at most")
    asked = [request.path for request in stage.sim.requests]
    stage.check(
        "The provider counted the tokens; no answer was requested.", bool(asked) and CHAT_PATH not in asked, asked
    )
    reply = await stage.call("kimi_think", prompt=QUESTION)
    cost = reply.result["usage"]["cost_usd"]
    stage.check("The call itself then cost something in between.", least <= cost <= most, cost)
