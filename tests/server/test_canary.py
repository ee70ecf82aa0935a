"""A key in many spellings, sent through every door by which a text may leave: none of them lets it out.

The upstream answers every request with all spellings, in its reasoning, its answer and its model's name; so do a tool
server and the simulator's errors. What then leaves is searched for the spellings themselves, by this file's own means.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import sys
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import anyio
import pytest

from kimi_mcp.simulator import Simulator
from tests.cli.commands.shell import kimi, started, to
from tests.cli.commands.test_ask import Terminal
from tests.runs.store.stores import everything
from tests.server.processes import server_process
from tests.server.test_swarm_end_to_end import TELL, file_of_servers

CANARY = "sk-Kq7/Zp2+Wm9_Xv4.Rt6~Bn8?Lc3>Hd5Jf1Gs0"
"""Looks like a provider's key, is none."""

RAW = CANARY.encode()
SPELLINGS = {
    "plain": CANARY,
    "upper case": CANARY.upper(),
    "lower case": CANARY.lower(),
    "swapped case": CANARY.swapcase(),
    "backwards": CANARY[::-1],
    "base64": base64.b64encode(RAW).decode(),
    "base64 behind one byte": base64.b64encode(b"u" + RAW + b"\n").decode(),
    "base64 behind two bytes": base64.b64encode(b"u:" + RAW).decode(),
    "URL-safe base64": base64.urlsafe_b64encode(RAW).decode(),
    "URL-safe base64 behind one byte": base64.urlsafe_b64encode(b"u" + RAW).decode(),
    "URL-safe base64 behind two bytes": base64.urlsafe_b64encode(b"u:" + RAW).decode(),
    "base64 in lines": "\n".join(re.findall(".{1,16}", base64.b64encode(RAW).decode())),
    "base64 of UTF-16": base64.b64encode(CANARY.encode("utf-16-le")).decode(),
    "base32": base64.b32encode(RAW).decode(),
    "hex": RAW.hex(),
    "hex in upper case": RAW.hex().upper(),
    "hex in pairs": RAW.hex(" "),
    "hex with colons": RAW.hex(":"),
    "every byte for a URL": "".join(f"%{byte:02x}" for byte in RAW),
    "every byte for a URL in upper case": "".join(f"%{byte:02X}" for byte in RAW),
    "for a URL": quote(CANARY, safe=""),
    "for a URL twice": quote(quote(CANARY, safe=""), safe=""),
    "every byte for a URL twice": "".join(f"%25{byte:02x}" for byte in RAW),
    "escaped for JSON": "".join(f"\\u{byte:04x}" for byte in RAW),
    "escaped for JSON twice": "".join(f"\\\\u{byte:04x}" for byte in RAW),
    "slashes escaped": CANARY.replace("/", "\\/"),
    "escaped for source code": "".join(f"\\x{byte:02x}" for byte in RAW),
    "for HTML": "".join(f"&#{byte};" for byte in RAW),
    "for HTML in hex": "".join(f"&#x{byte:x};" for byte in RAW),
    "with invisible spaces": "\u200b".join(CANARY),
    "with invisible joiners": "\u2060\u200d".join(CANARY),
    "with soft hyphens": "\u00ad".join(CANARY),
    "spaced out": " ".join(CANARY),
    "a letter a line": "\n".join(CANARY),
    "with control characters": "\x1b[0m".join(re.findall(".{1,3}", CANARY)),
    "full width": "".join(chr(ord(letter) + 0xFEE0) if letter.isalnum() else letter for letter in CANARY),
    "in a bold alphabet": "".join(
        chr(ord(letter) - 65 + 0x1D400) if "A" <= letter <= "Z" else letter for letter in CANARY
    ),
}
TEXT = "\n".join(f"{name}:\n{spelling}\n." for name, spelling in SPELLINGS.items())
"""What the upstream says."""


def letters(text: str) -> str:
    """What is left of a text whose escapes are undone and whose marks are left out."""
    for _ in range(4):
        text = re.sub(r"\\+(?:u|x(?=.{2}))([0-9a-fA-F]{2}(?:(?<=u..)..)?)", lambda found: chr(int(found[1], 16)), text)
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = unquote(html.unescape(text.replace("\\n", "\n")))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\ufffd\[0m", "", unicodedata.normalize("NFKC", text))
    return "".join(letter for letter in text.lower() if letter.isascii() and letter.isalnum())


_CORE = {name: letters(spelling)[4:-4] for name, spelling in SPELLINGS.items()}
"""The middle of each spelling: base64 and base32 share their ends with what stands beside the key."""


def found(text: str) -> list[str]:
    """The spellings that a text lets out."""
    plain = letters(text)
    raw = letters("".join(letter for letter in text if letter not in "%\\&"))
    return [name for name, core in _CORE.items() if SPELLINGS[name] in text or core in plain or core in raw]


def held(door: str, text: str | bytes) -> None:
    """Hold what came out of a door against the spellings, and that there was a text at all."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    assert text, f"nothing came out of {door}"
    assert found(text) == [], f"{door} lets it out"


def test_each_spelling_is_found_where_it_stands() -> None:
    for name, spelling in SPELLINGS.items():
        assert name in found(f"It is {spelling}, is it not?")
        assert name in found(json.dumps({"text": f"It is {spelling}, is it not?"}))
    assert found("An ordinary text about nothing.") == []
    assert len(SPELLINGS) >= 28


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    with anyio.fail_after(120):
        async with Simulator(provider="simulator") as simulator:
            yield simulator


ECHO: dict[str, Any] = {"reasoning": TEXT, "content": TEXT, "answer_model": f"kimi {CANARY}", "event_tokens": 1}
KEYED = {"KIMI_API_KEY": CANARY}


def whole(value: Any) -> str:
    """A model of the SDK as it goes over the wire."""
    return value.model_dump_json(by_alias=True)


@pytest.mark.soak
async def test_no_door_of_the_server_lets_a_key_out(sim: Simulator, data_dir: Path, tmp_path: Path) -> None:
    log = tmp_path / "stderr"
    phases: list[str] = []
    run_id = ""

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        del progress, total
        phases.append(str(message))

    swarm_file = file_of_servers(tmp_path)
    settings = {**KEYED, "KIMI_LOG_LEVEL": "DEBUG", "KIMI_SWARM_MCP": swarm_file, "KIMI_REASONING_INLINE_CHARS": "9999"}
    async with server_process(sim, stderr=log, **settings) as client:
        sim.play(ECHO, ECHO, {"status": 400, "error_message": TEXT}, {"status": 401, "echo_key": True})
        sim.play({"status": 500, "body": TEXT, "times": 1}, {**ECHO, "truncate_at": 5000}, {**ECHO, "no_finish": True})
        results = [await client.call_tool("kimi_think", {"prompt": "Hello"}) for _ in range(6)]
        sim.reset()
        sim.play({**ECHO, "gate": "on", "gate_at": "finish"})
        async with anyio.create_task_group() as tasks:

            async def waited() -> None:
                results.append(await client.call_tool("kimi_think", {"prompt": "Wait"}, progress_callback=on_progress))

            tasks.start_soon(waited)
            await sim.until(lambda: sim.waiting_at("on") == 1)
            run_id = str((await client.call_tool("kimi_run", {})).content[0]).split("run_")[1].split()[0]
            for action in ("status", "answer", "reasoning"):
                held(action, whole(await client.call_tool("kimi_run", {"run_id": f"run_{run_id}", "action": action})))
            with anyio.fail_after(60):
                while not phases:
                    await anyio.lowlevel.checkpoint()
            sim.open_gate("on")
        for result in results:
            held("a tool", whole(result))
        for text in phases:
            held("progress", text)
        for action in ("status", "answer", "reasoning"):
            held(action, whole(await client.call_tool("kimi_run", {"run_id": f"run_{run_id}", "action": action})))
        for uri in ("kimi://runs", f"kimi://runs/run_{run_id}", f"kimi://runs/run_{run_id}/reasoning"):
            held(uri, whole(await client.read_resource(uri)))
        schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
        sim.play({**ECHO, "content": json.dumps({"a": TEXT})})
        fitted = await client.call_tool("kimi_think", {"prompt": "Fit", "response_schema": schema})
        assert fitted.structured_content is not None
        assert fitted.structured_content["parsed"] is not None
        held("parsed", whole(fitted))
        echo = {"name": "odd__echo", "arguments": {"text": TEXT}}
        sim.play({"match": {"text": "Tell me about Oslo.", "turns": 0}, "tool_calls": [echo]})
        sim.play({**ECHO, "times": "always"})
        swarm = await client.call_tool("kimi_swarm", {**TELL, "tools": ["odd.*"]})
        held("a swarm", whole(swarm))
        sim.reset()
        agent = {"name": CANARY[:30], "system_prompt": TEXT}
        task = {"agent": CANARY[:30], "prompt": TEXT}
        calls = [{"name": "create_subagent", "arguments": agent}, {"name": "assign_task", "arguments": task}]
        sim.play({"match": {"turns": 0}, "tool_calls": calls}, {**ECHO, "times": "always"})
        held("a swarm with agents of its own", whole(await client.call_tool("kimi_swarm", {"prompt": "Go."})))
    held("the store", everything(data_dir))
    held("stderr", log.read_bytes() or b"no line")


@pytest.mark.soak
async def test_no_command_lets_a_key_out(sim: Simulator, data_dir: Path, tmp_path: Path) -> None:
    sim.play({**ECHO, "times": "always"})
    settings = to(sim, **KEYED, KIMI_LOG_LEVEL="DEBUG", COLUMNS="100")

    async def output(*arguments: str) -> str:
        ended = await kimi(*arguments, settings=settings)
        held(" ".join(arguments), ended.out or ended.err)
        held("stderr", ended.err or "no line")
        return ended.out

    await output("ask", "Hello")
    requested = json.loads(await output("ask", "Hello", "--json"))
    await output("ask", "Tell me about {{item}}.", "--tool", "swarm", "--item", "Rome", "--item", "Oslo", "--json")
    await output("runs")
    await output("runs", "list", "--most", "9", "--json")
    await output("runs", "show", requested["run_id"])
    await output("runs", "show", requested["run_id"], "--json")
    await output("runs", "resume", requested["run_id"])
    page = tmp_path / "page.html"
    await output("runs", "show", requested["run_id"], "--html", str(page))
    held("a page", page.read_text("utf-8"))
    await output("doctor")
    await output("doctor", "--json")
    sim.reset()
    sim.play({"status": 400, "error_message": TEXT, "times": "always"})
    await output("ask", "Hello")
    await output("doctor", "--probe")
    held("the store", everything(data_dir))


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
@pytest.mark.parametrize("command", [["ask", "Hello"], ["ask", "Hello", "--json"]], ids=["live", "json"])
async def test_no_terminal_is_shown_a_key_while_it_comes(sim: Simulator, command: list[str]) -> None:
    sim.play({**ECHO, "gate": "half", "gate_at": 60})
    terminal = Terminal()
    settings = to(sim, **KEYED, TERM="xterm-256color", COLUMNS="160")
    try:
        streams = {"stdin": terminal.theirs, "stdout": terminal.theirs, "stderr": terminal.theirs}
        async with started(*command, settings=settings, **streams) as running:
            os.close(terminal.theirs)
            await sim.until(lambda: sim.waiting_at("half") == 1)
            sim.open_gate("half")
            await terminal.until("in a bold alphabet:" if command[-1] != "--json" else '"page"')
            assert await running.wait() == 0
    finally:
        terminal.close()
    held("a terminal", terminal.seen)
    assert "[hidden]" in terminal.seen
