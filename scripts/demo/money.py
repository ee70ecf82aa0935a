"""Scenes of the demo about the user's catalogue and about money. I/O: writes a catalogue, runs a command.

A scene's docstring is its heading.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kimi_mcp.core.profiles import dollars
from kimi_mcp.simulator.faults import CHAT_PATH
from kimi_mcp.simulator.routes import BALANCE
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
    stage.check("The request had its own key.", own_key, reply.result["provider"])
    usage = reply.result["usage"]
    spent = (usage["prompt_tokens"] * PRICES["input"] + usage["completion_tokens"] * PRICES["output"]) / 1e6
    stage.page.row("cost", dollars(usage["cost_usd"]))
    stage.check("The call cost what the file says.", abs(usage["cost_usd"] - spent) < 1e-8, usage)


async def dry_run(stage: Stage) -> None:
    """What a call will cost, before it is sent."""
    found = await stage.shell("ask", QUESTION, "--dry-run")
    least, most = found["least_usd"], found["most_usd"]
    stage.page.row("prompt", f"{found['prompt_tokens']} tokens, counted by the {found['counted_by']}")
    stage.page.row("cost", f"{dollars(least)} at least, {dollars(most)} at most")
    requested = [request.path for request in stage.sim.requests]
    stage.check(
        "The provider counted the tokens; no answer was requested.",
        bool(requested) and CHAT_PATH not in requested,
        requested,
    )
    reply = await stage.call("kimi_think", prompt=QUESTION)
    cost = reply.result["usage"]["cost_usd"]
    stage.check("The call itself then cost something in between.", least <= cost <= most, cost)


async def live_models(stage: Stage) -> None:
    """What a provider lists now, beside what the catalogue says."""
    lists = await stage.shell("models", "--live")
    found = {model["id"]: model["live"] for each in lists for model in each["models"]}
    stage.page.row("listed", ", ".join(f"{name}: {state}" for name, state in found.items()))
    requested = {(request.method, request.path) for request in stage.sim.requests}
    stage.check("The provider got one request, for its list.", requested == {("GET", "/v1/models")}, requested)
    stage.check("What the catalogue has is there.", found.get("kimi-k3") == "same", found)
    stage.check("What it does not have is new.", "new" in found.values(), found)


async def balance(stage: Stage) -> None:
    """What the account has left."""
    found = await stage.shell("doctor", "--probe")
    left: dict[str, Any] = found["balance"]
    stage.page.row("balance", f"{left['available']} {left['currency']}")
    requested = any(request.path == BALANCE for request in stage.sim.requests)
    stage.check(
        "The provider got a request, and the probe has cost little.", requested and left["available"] > 49, left
    )


async def cache_time(stage: Stage) -> None:
    """An hour in the provider's cache, as KIMI_CACHE_TTL asks."""
    reply = await stage.call("kimi_think", prompt=QUESTION, model="kimi-k3")
    requested = stage.body.get("prompt_cache_options")
    stage.check("The request wants an hour.", requested == {"ttl": "1h"}, requested)
    stage.page.row("cost", dollars(reply.result["usage"]["cost_usd"]))
