"""``kimi-mcp ask``: the very same path, seen from a terminal, a pipe and a program."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from typer.testing import CliRunner

from kimi_mcp.cli.commands import app
from kimi_mcp.runs.store.config import FILE
from kimi_mcp.simulator import Simulator, Step
from tests.cli.commands.shell import kimi, kimi_process, started, to

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")


async def test_a_pipe_gets_the_text_and_nothing_else(sim: Simulator) -> None:
    ended = await kimi("ask", "What is 17 * 23? 你好", settings=to(sim))
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("[simulator] kimi-k2.5 in thinking mode was asked: What is 17 * 23? 你好\n")
    chat = sim.requests[-1].body
    assert chat is not None
    assert chat["messages"] == [{"role": "user", "content": "What is 17 * 23? 你好"}]


async def test_every_option_reaches_the_provider(sim: Simulator, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}')
    options = ["--tool", "instant", "--system", "Be brief.", "--model", "kimi-k2.6", "--provider", "simulator"]
    options += ["--max-tokens", "900", "--temperature", "0.6", "--schema", str(schema), "--json"]
    ended = await kimi("ask", "How many?", *options, settings=to(sim))
    assert ended.status == 0, ended.err
    assert ended.json["parsed"].keys() == {"n"}
    assert ended.json["mode"] == "instant"
    assert ended.json["model"]["answered"] == "kimi-k2.6"
    chat = sim.requests[-1].body
    assert chat is not None
    assert chat["messages"][0] == {"role": "system", "content": "Be brief."}  # type: ignore[index]
    assert 900 in (chat.get("max_completion_tokens"), chat.get("max_tokens"))


async def test_an_effort_reaches_the_model(sim: Simulator) -> None:
    ended = await kimi("ask", "Why?", "--effort", "low", "--model", "kimi-k3", settings=to(sim))
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("[simulator] kimi-k3 in thinking mode, effort low was asked: Why?")


async def test_a_pipe_gets_an_answer_from_the_web_and_json_its_sources(sim: Simulator) -> None:
    prompt = "What changed in Kimi's prices this year?"
    piped = await kimi("ask", prompt, "--web", settings=to(sim))
    assert (piped.status, piped.err) == (0, "")
    assert "From the web: https://web.simulator.example/kimi/prices-2026" in piped.out
    as_json = await kimi("ask", prompt, "--web", "--json", settings=to(sim))
    assert [source["title"] for source in as_json.json["sources"]] == [
        "Kimi's prices in 2026",
        "What a web search of Kimi costs",
    ]
    shown = (await kimi("runs", "show", as_json.json["run_id"], settings=to(sim))).out
    assert f'→ web_search {{"query": "{prompt}"}}' in shown
    assert "Kimi's prices in 2026" in shown
    assert "https://web.simulator.example/kimi/web-search" in shown
    refused = await kimi("ask", prompt, "--web", "--tool", "vision", "--image", "x.png", settings=to(sim))
    assert refused.status == 2
    assert "it belongs to --tool think or instant" in refused.err


async def test_a_dash_reads_the_prompt_from_stdin(sim: Simulator) -> None:
    ended = await kimi("ask", "-", settings=to(sim), stdin="Grüße\n".encode())
    assert ended.status == 0
    chat = sim.requests[-1].body
    assert chat is not None
    assert chat["messages"] == [{"role": "user", "content": "Grüße\n"}]


async def test_what_the_policy_changed_is_reported_on_stderr(sim: Simulator) -> None:
    ended = await kimi("ask", "Hello", "--temperature", "0.3", settings=to(sim))
    assert ended.status == 0
    assert ended.err.startswith("temperature-fixed: --temperature 0.3 → left out.")
    assert "temperature-fixed" not in ended.out


async def test_without_a_key_one_sentence_and_its_fix_come_on_stderr() -> None:
    ended = await kimi("ask", "Hello")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("kimi-mcp: No provider is configured")
    assert "MOONSHOT_API_KEY" in ended.err


async def test_a_failure_as_json_is_a_result_and_a_sentence() -> None:
    ended = await kimi("ask", "Hello", "--json")
    assert ended.status == 1
    assert (ended.json["status"], ended.json["error"]["code"]) == ("failed", "not_configured")
    assert ended.err.startswith("kimi-mcp: ")


async def test_an_argument_that_is_refused_is_reported_in_a_sentence(sim: Simulator) -> None:
    ended = await kimi("ask", " ", settings=to(sim))
    assert (ended.status, ended.out) == (2, "")
    assert "The prompt is empty" in ended.err
    assert not sim.requests


async def test_an_answer_that_is_cut_off_ends_with_status_1_and_keeps_what_came(sim: Simulator) -> None:
    sim.play(Step(reset_at=2400))
    ended = await kimi("ask", "Hello", "--json", settings=to(sim))
    assert ended.status == 1
    assert ended.json["reasoning"]["chars"] > 0
    assert ended.err


@pytest.mark.parametrize(
    "wrong",
    [
        ["ask"],
        ["ask", "x", "--tool", "dream"],
        ["ask", "x", "--tool", "swarm", "--temperature", "1"],
        ["ask", "x", "--max-tokens", "many"],
        ["oracle"],
    ],
)
def test_wrong_usage_ends_with_status_2(wrong: list[str]) -> None:
    ended = CliRunner().invoke(app, wrong)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "--help`" in ended.stderr


async def test_a_schema_that_is_none_is_reported_to_be(sim: Simulator, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text("[1")
    ended = await kimi("ask", "Hello", "--schema", str(schema), settings=to(sim))
    assert ended.status == 2
    assert "schema.json is no JSON: " in ended.err
    assert str(tmp_path) not in ended.err


async def test_ctrl_c_closes_the_upstream_request_and_prints_what_had_arrived(sim: Simulator) -> None:
    sim.play(Step(gate="never", gate_at="content"))
    async with started("ask", "Hello", "--json", settings=to(sim)) as process:
        await sim.until(lambda: sim.waiting_at("never") == 1)
        process.send_signal(signal.SIGINT)
        await sim.client_gone()
        assert await process.wait() == 130
        assert process.stdout is not None
        result = json.loads(await process.stdout.receive())
    assert (result["status"], result["error"]["code"]) == ("cancelled", "cancelled")


class Terminal:
    """A pseudo terminal, read by a test."""

    def __init__(self) -> None:
        import pty

        self._ours, self.theirs = pty.openpty()
        self.seen = ""

    async def until(self, text: str) -> None:
        """Read until that text was seen, or until nobody writes any more."""
        while text not in self.seen:
            try:
                read = await anyio.to_thread.run_sync(os.read, self._ours, 65536, abandon_on_cancel=True)
            except OSError:  # on Linux the end of a pseudo terminal is an error
                read = b""
            if not read:
                break
            self.seen += read.decode("utf-8", "replace")
        assert text in self.seen

    def close(self) -> None:
        os.close(self._ours)


@posix
async def test_a_terminal_sees_the_reasoning_before_the_answer_is_there(sim: Simulator) -> None:
    sim.play(Step(gate="answer", gate_at="content", content="I answer \x1b[2Jat last."))
    terminal = Terminal()
    settings = to(sim, TERM="xterm-256color", COLUMNS="160")
    try:
        streams = {"stdin": terminal.theirs, "stdout": terminal.theirs, "stderr": terminal.theirs}
        async with started("ask", "Hello", "--temperature", "0.3", settings=settings, **streams) as process:
            os.close(terminal.theirs)
            await terminal.until("Nothing here was thought by a model")
            assert "at last" not in terminal.seen
            assert "\x1b[2m" in terminal.seen, "the reasoning is dim"
            sim.open_gate("answer")
            await terminal.until("at last.")
            await terminal.until("the first after")
            assert await process.wait() == 0
    finally:
        terminal.close()
    (row,) = (await kimi("runs", "--json")).json
    assert f"{row['usage']['total_tokens']:,} tokens in " in terminal.seen
    assert "waiting for the provider" not in terminal.seen, "it waits for nobody before the request is there"
    assert "temperature-fixed: --temperature 0.3 → left out" in terminal.seen
    assert "\x1b[2J" not in terminal.seen, "an answer does not act on the terminal"


@posix
async def test_a_terminal_sees_each_search_and_the_sources_below_the_answer(sim: Simulator) -> None:
    fibers = "/v1/formulas/moonshot/web-search:latest/fibers"
    sim.play({"match": {"path": fibers}, "gate": "search"}, {"match": {"tool": "", "turns": 2}, "content": "Dearer."})
    terminal = Terminal()
    settings = to(sim, TERM="xterm-256color", COLUMNS="160")
    try:
        streams = {"stdin": terminal.theirs, "stdout": terminal.theirs, "stderr": terminal.theirs}
        async with started("ask", "Prices of Kimi?", "--web", settings=settings, **streams) as process:
            os.close(terminal.theirs)
            await terminal.until("web_search “Prices of Kimi?”")
            sim.open_gate("search")
            await terminal.until("the first after")
            assert await process.wait() == 0
    finally:
        terminal.close()
    answer, sources = terminal.seen.rindex("Dearer."), terminal.seen.rindex(" 1 Kimi's prices in 2026")
    assert answer < sources < terminal.seen.rindex("https://web.simulator.example/kimi/web-search")


@posix
async def test_a_terminal_sees_what_is_waited_for(sim: Simulator) -> None:
    sim.play(Step(gate="headers", content="At last."))
    terminal = Terminal()
    settings = to(sim, TERM="xterm-256color", COLUMNS="160")
    try:
        streams = {"stdin": terminal.theirs, "stdout": terminal.theirs, "stderr": terminal.theirs}
        async with started("ask", "Hello", settings=settings, **streams) as process:
            os.close(terminal.theirs)
            await terminal.until("waiting for ")
            sim.open_gate("headers")
            await terminal.until("At last.")
            assert await process.wait() == 0
    finally:
        terminal.close()


@posix
async def test_no_color_means_no_color(sim: Simulator) -> None:
    terminal = Terminal()
    settings = to(sim, TERM="xterm-256color", COLUMNS="160", NO_COLOR="1")
    try:
        streams = {"stdin": terminal.theirs, "stdout": terminal.theirs, "stderr": terminal.theirs}
        async with started("ask", "Hello", "--temperature", "0.3", settings=settings, **streams) as process:
            os.close(terminal.theirs)
            await terminal.until("the first after")
            assert await process.wait() == 0
    finally:
        terminal.close()
    assert "\x1b[3" not in terminal.seen


async def test_a_conversation_goes_on_from_a_shell(sim: Simulator) -> None:
    first = await kimi("ask", "What is 2 + 2?", "--json", settings=to(sim))
    known = first.json["conversation_id"]
    second = await kimi("ask", "And twice that?", "--tool", "instant", "--conversation", known, settings=to(sim))
    assert second.status == 0, second.err
    body: Any = sim.requests[-1].body
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]


async def test_instant_mode_for_text_names_the_tool_that_has_it() -> None:
    ended = await kimi("ask", "hi", "--mode", "instant")
    assert ended.status == 2
    assert "--tool instant" in " ".join(ended.err.split())


def _newer(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE)) as file:
        file.executescript("CREATE TABLE about (name TEXT, value TEXT); INSERT INTO about VALUES ('version', '99')")


def _damaged(folder: Path) -> None:
    (folder / FILE).write_bytes(b"no database at all" * 500)


def _folder_in_its_place(folder: Path) -> None:
    (folder / FILE).mkdir()


@pytest.mark.soak
@pytest.mark.parametrize("spoil", [_newer, _damaged, _folder_in_its_place])
async def test_a_journal_that_can_not_be_used_is_one_clear_error(
    sim: Simulator, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(tmp_path)
    refused = await kimi_process("ask", "hi", settings=to(sim, KIMI_DATA_DIR=str(tmp_path)))
    assert refused.status == 1
    assert refused.out == ""
    assert refused.err.startswith("kimi-mcp: The store ")
    assert refused.err.count("\n") == 2, refused.err


@pytest.mark.parametrize(
    ("url", "package"),
    [("postgresql://", "psycopg[binary]"), ("postgresql+pg8000://", "pg8000"), ("mysql+pymysql://", "pymysql")],
)
@pytest.mark.parametrize("command", [["ask", "hi"], ["runs"]])
async def test_a_driver_that_is_not_installed_is_one_clear_error(
    sim: Simulator, command: list[str], url: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as where it is not installed
    named = f"{url}me:s3cr3t-w0rd@127.0.0.1:1/kimi"
    refused = await kimi(*command, settings=to(sim, KIMI_DATABASE_URL=named))
    assert refused.status == 1
    assert refused.out == ""
    message, fix = refused.err.splitlines()
    assert "KIMI_DATABASE_URL" in message
    assert f"pip install '{package}'" in fix
    assert "s3cr3t-w0rd" not in refused.err
