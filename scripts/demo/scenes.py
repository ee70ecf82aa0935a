"""The scenes of the demo: what a host does, compared with what the simulator received. No I/O of its own.

Nothing here waits by the clock: what must come first is a gate of the simulator. A scene's docstring is its heading.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from typing import Any, cast

import anyio

from kimi_mcp.server.tools import TOOLS
from kimi_mcp.simulator import Step
from scripts.demo.stage import Stage

SCENE_S = 60.0
"""Seconds after which a scene counts as failed; each takes a fraction of a second, or what a process takes to start."""

PATIENCE_S = 0.4
"""Seconds that the impatient host of the demo waits."""

TALE = "Tell me the tale of the ferryman, slowly."
TALE_BEGINNING = "There was a ferryman who counted his passengers."
ASKED_OF_THE_WEB = "What changed in Kimi's prices this year?"
RIDDLE = "A bat and a ball cost 1.10 together; the bat costs 1.00 more than the ball. What does the ball cost?"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "born": {"type": "integer"}},
    "required": ["name", "born"],
    "additionalProperties": False,
}


async def introduction(stage: Stage) -> None:
    """A host starts the server and asks what it can do."""
    listed = await stage.client.list_tools()
    names = [tool.name for tool in listed.tools]
    size = len(listed.model_dump_json(by_alias=True, exclude_none=True))
    server = stage.client.server_info
    name = "no name" if server is None else f"{server.name} {server.version}"
    stage.page.row("server", f"{name}, protocol {stage.client.protocol_version}")
    stage.page.row("tools", ", ".join(names))
    stage.check("Every tool that is built is listed, within 12 kB.", names == list(TOOLS) and size < 12_000, names)


async def thinking(stage: Stage) -> None:
    """A question that needs thought."""
    reply = await stage.call("kimi_think", prompt=RIDDLE)
    messages = stage.body.get("messages")
    only_prompt = messages == [{"role": "user", "content": RIDDLE}]
    stage.check("The prompt arrived verbatim, as the only message.", only_prompt, messages)
    stage.check("It was streamed, by one request.", stage.body.get("stream") is True and len(stage.chats) == 1)
    stage.check("The model thought before it answered.", bool(reply.reasoning), reply.result["status"])
    stage.check("The text is the answer, and nothing else.", reply.text == reply.result["answer"] != "", reply.text)


async def instant(stage: Stage) -> None:
    """A question that needs none."""
    reply = await stage.call("kimi_instant", prompt="Translate to French: good morning", system="Answer in one line.")
    sent = stage.body.get("thinking")
    stage.check("Thinking was switched off upstream.", sent == {"type": "disabled"}, sent)
    roles = [message["role"] for message in stage.body.get("messages", ())]
    stage.check("The system prompt went along, because the call wants it.", roles == ["system", "user"], roles)
    stage.check("It answered at once, without reasoning.", not reply.reasoning, reply.reasoning)


async def adjusted(stage: Stage) -> None:
    """A temperature that the model does not take."""
    reply = await stage.call("kimi_think", prompt="Name three uses of a paperclip.", temperature=0.3)
    sent = stage.body.get("temperature", 1.0)
    stage.check("0.3 never went upstream; the provider would have answered HTTP 400.", sent == 1.0, sent)
    stage.check("The change is reported, not silent.", reply.rules == ["temperature-fixed"], reply.rules)
    stage.check("The text says so too.", "temperature-fixed" in reply.text, reply.text)


async def structured(stage: Stage) -> None:
    """An answer that must fit a schema."""
    reply = await stage.call("kimi_instant", prompt="Who wrote Middlemarch?", response_schema=PERSON)
    parsed = cast("object", reply.result["parsed"])
    fits = isinstance(parsed, dict) and {*cast("dict[str, Any]", parsed)} == {"name", "born"}
    stage.check("The answer came as a value that fits the schema.", fits, reply.text)
    form = stage.body.get("response_format", {}).get("type")
    stage.check("The request has that form.", form == "json_schema", form)


async def effort(stage: Stage) -> None:
    """Less thought, at a model that has efforts and at one that has none."""
    reply = await stage.call("kimi_think", prompt="Is 91 a prime?", effort="low", model="kimi-k3")
    sent = stage.body.get("reasoning_effort")
    stage.check("The request wants little thinking.", sent == "low" and not reply.rules, sent)
    reply = await stage.call("kimi_think", prompt="Is 91 a prime?", effort="low", model="kimi-k2.5")
    left_out = "reasoning_effort" not in stage.body and reply.rules == ["effort-known"]
    stage.check("K2.5 knows no effort: it was left out, and reported.", left_out, reply.rules)


async def web(stage: Stage) -> None:
    """A question whose answer is in the web."""
    command = [sys.executable, "-m", "kimi_mcp", "ask", ASKED_OF_THE_WEB, "--web", "--json"]
    stage.page.row("asked", f'kimi-mcp ask "{ASKED_OF_THE_WEB}" --web', "name")
    ended = await anyio.run_process(command, env={**stage.environment}, check=False)
    result = cast("dict[str, Any]", json.loads(ended.stdout or b"{}"))
    sources = cast("list[dict[str, str]]", result.get("sources", []))
    for number, source in enumerate(sources, 1):
        stage.page.row(f"source {number}", f"{source['title']}: {source['url']}", "quiet")
    requested = [request.path.split("/")[4] for request in stage.sim.requests if request.path.endswith("/fibers")]
    looked = requested == ["web-search:latest", "fetch:latest"]
    stage.check("The provider searched, then fetched what it had found.", looked, requested)
    stage.check("The answer comes with its sources.", ended.returncode == 0 and len(sources) == 2, ended.stderr)
    kept = [each for each in stage.body.get("messages", ()) if each["role"] == "assistant"]
    exact = len(kept) == 2 and all(each.get("reasoning_content") for each in kept)
    stage.check("Each turn went back with its reasoning.", exact, len(kept))
    cost = result.get("usage", {}).get("cost_usd") or 0
    stage.check("The search is part of the cost.", cost > 0.005, cost)


async def refused(stage: Stage) -> None:
    """A provider that the operator did not allow."""
    reply = await stage.call("kimi_think", prompt="Summarise our payroll.", provider="openrouter")
    error = reply.error
    stage.check("The policy refused it.", error.get("rule") == "provider-allowed" and reply.is_error, error)
    stage.check("Not a byte of it left this machine.", not stage.sim.requests, len(stage.sim.requests))


async def cut_off(stage: Stage) -> None:
    """A thought so long that no tokens were left for the answer."""
    stage.sim.play(Step(length_in_reasoning=True))
    reply = await stage.call("kimi_think", prompt="Count every prime below a million.", max_tokens=20_000)
    error, reasoning = reply.error, reply.reasoning
    stage.check("It is no success, and says why.", error.get("code") == "answer_cut_off" and reply.is_error, error)
    stage.check("The reasoning that was paid for is kept.", reasoning.get("chars", 0) > 0, reasoning)
    stage.check("The fix names the argument.", "max_tokens" in error.get("fix", ""), error)


async def cut_answer(stage: Stage) -> None:
    """An answer that is cut in the middle, and continued without a seam."""
    stage.sim.play(
        Step(content=TALE_BEGINNING, finish_reason="length"), Step(content=f"{TALE_BEGINNING} One was missing.")
    )
    cut = await stage.call("kimi_think", prompt=TALE)
    stage.check("It is partial, and names the call that continues it.", "continue" in cut.result["next_step"], cut.text)
    reply = await stage.call("kimi_run", run_id=cut.result["run_id"], action="continue")
    last = stage.body["messages"][-1]
    sent = last.get("partial") is True and last["content"] == TALE_BEGINNING and bool(last.get("reasoning_content"))
    stage.check("The answer so far went back as a partial turn, with its reasoning.", sent, last)
    whole = reply.result["answer"] == f"{TALE_BEGINNING} One was missing." and not reply.is_error
    stage.check("The result is one text.", whole, reply.result["answer"])
    costs = [each.result["usage"]["cost_usd"] for each in (cut, reply)]
    stage.check("It cost what both requests cost together.", costs[1] > costs[0] and len(stage.chats) == 2, costs)


async def retried(stage: Stage) -> None:
    """An overloaded provider: 429, then an answer."""
    stage.sim.play(Step(status=429, error_type="engine_overloaded_error", retry_after=0.05))
    reply = await stage.call("kimi_instant", prompt="Is it still there?")
    statuses = [request.status for request in stage.chats]
    stage.page.row("upstream", " then ".join(f"HTTP {status}" for status in statuses))
    attempts = reply.result["timing"]["attempts"]
    same = statuses == [429, 200] and stage.chats[0].body == stage.chats[1].body
    stage.check("It was sent again, once, with the very same body.", same, statuses)
    stage.check("The result counts both attempts.", attempts == 2 and not reply.is_error, attempts)


async def impatient(stage: Stage) -> None:
    """A host that stops waiting while the model still thinks."""
    from mcp import MCPError

    gate, prompt = "a slow thought", "Why is there something rather than nothing?"
    stage.sim.play(Step(gate=gate, gate_at="reasoning"))
    stage.show_call("kimi_think", {"prompt": prompt})
    with suppress(MCPError):
        await stage.client.call_tool("kimi_think", {"prompt": prompt}, read_timeout_seconds=PATIENCE_S)
    stage.page.row("host", f"gives up after {PATIENCE_S} s and cancels the request")
    await stage.sim.until(lambda: stage.sim.waiting_at(gate) == 1, SCENE_S)
    latest = await stage.call("kimi_run")
    run_id, state, *_ = latest.text.split()
    stage.check("The run goes on without its host.", state == "running", latest.text)
    stage.sim.open_gate(gate)
    reply = await stage.call("kimi_run", run_id=run_id)
    whole = reply.result["status"] == "completed" and prompt in reply.result["answer"]
    stage.check("The whole answer was fetched afterwards.", whole, reply.result["status"])
    stage.check("It was requested, and paid for, once.", len(stage.chats) == 1, len(stage.chats))


async def cancelled(stage: Stage) -> None:
    """A user who changes their mind."""
    gate, prompt = "a long answer", "Write me a novel."
    stage.sim.play(Step(gate=gate, gate_at="content"))
    stage.show_call("kimi_think", {"prompt": prompt})
    run_id, cancelled_at = "", 0.0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stage.client.call_tool, "kimi_think", {"prompt": prompt})
        await stage.sim.until(lambda: stage.sim.waiting_at(gate) == 1, SCENE_S)
        run_id = await stage.run_id(prompt, lambda status: bool(status["answer"]))
        cancelled_at = time.monotonic()
        tasks.cancel_scope.cancel()
    stage.page.row("user", "cancels in the middle of the answer")
    await stage.sim.client_gone(within=SCENE_S)
    took = time.monotonic() - cancelled_at
    stage.check("The upstream request was closed within a second.", took < 1, f"{took:.1f} s")
    reply = await stage.call("kimi_run", run_id=run_id, action="status")
    kept = reply.result["status"] == "cancelled" and bool(reply.reasoning) and reply.result["answer"] != ""
    stage.check("What had arrived until then is kept.", kept, reply.result["status"])


async def continued(stage: Stage) -> None:
    """A question, and one that follows on it."""
    first = await stage.call("kimi_think", prompt="Name a prime between 20 and 30.")
    whole = await stage.call("kimi_run", run_id=first.result["run_id"], action="reasoning")
    reply = await stage.call("kimi_think", prompt="And the next one?", conversation_id=first.result["conversation_id"])
    roles = [message["role"] for message in stage.body["messages"]]
    stage.check("The first turn was sent along.", roles == ["user", "assistant", "user"], roles)
    replayed = stage.body["messages"][1].get("reasoning_content")
    exact = replayed == whole.result["page"]["text"]
    stage.check("With it went its exact reasoning, byte for byte.", exact, replayed)
    same = reply.result["conversation_id"] == first.result["conversation_id"]
    stage.check("Both are turns of one conversation.", same, reply.result["conversation_id"])


async def server_killed(stage: Stage) -> None:
    """A server that is killed in the middle of an answer."""
    stage.sim.play(Step(reasoning="Where to begin …", content=TALE_BEGINNING, gate="the rest", gate_at="finish"))
    async with stage.killed_server("kimi_think", {"prompt": TALE}, "it had no time to clean up"):
        run_id = await stage.run_id(TALE, lambda status: status["status"] == "running" and bool(status["answer"]))
    reply = await stage.call("kimi_run", run_id=run_id)
    error = reply.error
    stage.check("The next server knows that it was stopped.", error.get("code") == "answer_cut_off", error)
    kept = reply.result["answer"] == TALE_BEGINNING and bool(reply.reasoning)
    stage.check("What had arrived of answer and reasoning is kept.", kept, reply.result["answer"])
    stage.check("It was requested, and paid for, once.", len(stage.chats) == 1, len(stage.chats))


async def strict(stage: Stage) -> None:
    """An older host, at a server that refuses instead of adjusting."""
    stage.page.row("server", f"KIMI_POLICY=strict, protocol {stage.client.protocol_version}")
    reply = await stage.call("kimi_instant", prompt="Say hello.", temperature=1.0)
    error = reply.error
    refused = error.get("rule") == "temperature-fixed" and "0.6" in error.get("fix", "")
    stage.check("The wrong temperature was refused, and the fix says which is right.", refused, error)
    stage.check("The simulator got no request.", not stage.chats, len(stage.chats))
    reply = await stage.call("kimi_instant", prompt="Say hello.", temperature=0.6)
    stage.check("The right one passes.", reply.result["status"] == "completed", reply.result["status"])
