"""Tool servers as real processes, good and bad: whatever one does costs its own tools and nothing else."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.core.errors import InvalidArguments, NotConfigured
from kimi_mcp.swarm.tools import CallResult, SwarmTools, ToolLimits, open_tools
from kimi_mcp.swarm.tools.stdio_client import MARK
from tests.loop_time import LoopTime
from tests.swarm.tools.conftest import SHORT, ServersFile, given_up, odd

GOOD = {"command": sys.executable, "args": [str(Path(__file__).with_name("good_server.py"))]}


async def echo(tools: SwarmTools, text: str, name: str = "odd__echo") -> CallResult:
    with anyio.fail_after(60):
        return await tools.call(name, json.dumps({"text": text}))


def framed_text(result: CallResult) -> str:
    """What stands in the frame."""
    assert not result.is_error, result.text
    return result.text.split("\n", 2)[2].rpartition("\n</tool_output")[0]


def names(tools: SwarmTools) -> list[str]:
    return [definition["name"] for definition in tools.definitions]


# ── servers as they should be ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_server_by_the_sdk_is_listed_and_called(servers_file: ServersFile) -> None:
    async with open_tools(servers_file(good=GOOD), limits=SHORT) as tools:
        assert names(tools) == ["good__add", "good__environment", "good__greet"]
        assert not tools.warnings
        result = await tools.call("good__add", '{"a": 2, "b": 3}')
        assert framed_text(result).startswith("5")
        wrong = await tools.call("good__add", '{"a": 2, "b": "3"}')
    assert (wrong.is_error, wrong.repairable, wrong.ran) == (True, True, False)
    assert '`b` breaks the rule `type: "integer"`' in wrong.text


@pytest.mark.parametrize("era", [(), ("modern-only",)], ids=["handshake", "modern"])
async def test_both_eras_of_the_protocol_are_spoken(servers_file: ServersFile, era: tuple[str, ...]) -> None:
    async with open_tools(servers_file(odd=odd(*era)), limits=SHORT) as tools:
        assert framed_text(await echo(tools, "hello")) == "hello"


async def test_a_result_is_the_same_for_the_same_answer(servers_file: ServersFile) -> None:
    async with open_tools(servers_file(odd=odd()), limits=SHORT) as tools:
        one, other = await echo(tools, "x"), await echo(tools, "x")
    assert one == other


async def test_many_agents_call_at_once(servers_file: ServersFile) -> None:
    results: list[str] = []

    async def agent(number: int) -> None:
        results.append(framed_text(await echo(tools, f"agent {number}")))

    async with open_tools(servers_file(odd=odd()), limits=SHORT) as tools, anyio.create_task_group() as agents:
        for number in range(100):
            agents.start_soon(agent, number)
    assert sorted(results) == sorted(f"agent {number}" for number in range(100))


async def test_structured_results_pictures_and_resources_are_described(servers_file: ServersFile) -> None:
    async with open_tools(servers_file(odd=odd()), limits=SHORT) as tools:
        assert framed_text(await echo(tools, "structured")) == '{"a": [1, 2]}'
        assert framed_text(await echo(tools, "both")) == '{"a": 1}'
        text = framed_text(await echo(tools, "picture"))
    assert "[image of type image/png, 3000 bytes: not shown to you]" in text
    assert "[the resource file:///b]\ninside" in text
    assert "QUJD" not in text


async def test_without_a_file_there_are_no_tools_and_a_warning_says_so() -> None:
    async with open_tools(None) as tools:
        assert list(tools.definitions) == []
        assert list(tools.warnings) == ["Sub-agents have no tools: KIMI_SWARM_MCP names no file."]
        refused = await tools.call("anything", "{}")
    assert (refused.is_error, refused.ran, refused.repairable) == (True, False, False)


async def test_an_exception_of_the_swarms_own_leaves_as_it_is(servers_file: ServersFile) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_tools(servers_file(odd=odd()), limits=SHORT):
            raise ZeroDivisionError


async def test_a_wrong_file_and_patterns_that_name_nothing_are_refused(servers_file: ServersFile) -> None:
    with pytest.raises(NotConfigured):
        async with open_tools(servers_file(odd={}), limits=SHORT):
            pass
    with pytest.raises(InvalidArguments):
        async with open_tools(servers_file(odd=odd()), patterns=["nothing"], limits=SHORT):
            pass


# ── only what is listed runs ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["odd__write", "write", "echo", "odd.echo", "late", "odd__late", "", "\x1b[31m", "x" * 9999]
)
async def test_nothing_runs_but_what_is_offered_whatever_a_model_calls(servers_file: ServersFile, name: str) -> None:
    async with open_tools(servers_file(odd=odd()), limits=SHORT) as tools:
        result = await tools.call(name, '{"text": "x"}')
    assert (result.is_error, result.ran, result.repairable) == (True, False, True)
    assert "There are: odd__echo." in result.text
    assert len(result.text) < 300
    assert "\x1b" not in result.text


async def test_arguments_with_more_than_the_schema_takes_do_not_reach_the_tool(servers_file: ServersFile) -> None:
    async with open_tools(servers_file(odd=odd("count")), limits=SHORT) as tools:
        refused = await tools.call("odd__echo", '{"text": "x", "key": "y"}')
        assert (refused.repairable, refused.ran) == (True, False)
        assert framed_text(await echo(tools, "x")) == "x (1)"


async def test_a_definition_that_changes_in_mid_run_is_disabled_and_new_tools_are_not_there(
    servers_file: ServersFile,
) -> None:
    for era in ((), ("modern-only",)):
        async with open_tools(servers_file(odd=odd(*era, allow=["write"])), limits=SHORT) as tools:
            before = tools.definitions
            assert framed_text(await echo(tools, "change")) == "changed"
            with anyio.fail_after(60):
                while not tools.warnings:
                    await anyio.sleep(0)
            refused = await echo(tools, "x")
            assert refused.text == (
                "This tool is disabled: its server changed its definition while the swarm was running."
            )
            assert not refused.ran
            assert framed_text(await echo(tools, "still here", "odd__write")) == "still here"
            assert (await echo(tools, "x", "odd__late")).ran is False
            assert tools.definitions == before


async def test_a_definition_that_changes_with_a_restart_is_disabled(servers_file: ServersFile, tmp_path: Path) -> None:
    entry = odd("once", f"mark={tmp_path / 'mark'}", "changes-at-restart", allow=["write"])
    async with open_tools(servers_file(odd=entry), limits=SHORT) as tools:
        assert (await echo(tools, "die")).is_error
        assert (await echo(tools, "x")).text.startswith("This tool is disabled")
        assert framed_text(await echo(tools, "x", "odd__write")) == "x"


async def test_a_swarm_that_is_resumed_gets_no_other_tools_than_it_began_with(servers_file: ServersFile) -> None:
    file = servers_file(odd=odd(allow=["write"]))
    async with open_tools(file, limits=SHORT) as tools:
        recorded = tools.fingerprints
    assert set(recorded) == {"odd__echo", "odd__write"}
    async with open_tools(file, recorded=recorded, limits=SHORT) as tools:
        assert framed_text(await echo(tools, "x")) == "x"
    before = {"odd__echo": "another"}
    async with open_tools(file, recorded=before, limits=SHORT) as tools:
        assert names(tools) == ["odd__echo"]
        assert "another one than when this swarm began" in (await echo(tools, "x")).text


async def test_hostile_descriptions_reach_no_request_and_no_warning_raw(servers_file: ServersFile) -> None:
    async with open_tools(servers_file(odd=odd("hostile", "odd-names", "odd-schemas")), limits=SHORT) as tools:
        sent = json.dumps(tools.definitions, ensure_ascii=False) + json.dumps(tools.warnings, ensure_ascii=False)
    assert "odd__echo" in sent
    for raw in ("<|im_end|>", "<|tool_calls", "\\u001b", "\u202e", "x" * 5000):
        assert raw not in sent


# ── servers as they should not be ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (odd("die-at-start"), "its process ended before it was ready"),
        (odd("junk-list"), "its answers do not keep to MCP"),
        ({"command": "no-such-command-anywhere"}, "its `command` or its `cwd` is not there"),
        ({"command": sys.executable, "cwd": "/no/such/folder"}, "its `command` or its `cwd` is not there"),
        ({"command": "/"}, "its `command` may not be run"),
    ],
    ids=["dies", "junk", "no-command", "no-folder", "not-allowed"],
)
async def test_a_server_that_does_not_start_costs_its_own_tools_alone(
    servers_file: ServersFile, entry: dict[str, Any], why: str
) -> None:
    with anyio.fail_after(120):
        async with open_tools(servers_file(bad=entry, odd=odd()), limits=SHORT) as tools:
            (warning,) = tools.warnings
            assert f"The tools of bad are not there: {why}" in warning
            assert names(tools) == ["odd__echo"]
            assert framed_text(await echo(tools, "x")) == "x"


NOISE = {"command": sys.executable, "args": ["-c", "print('no JSON'); import sys; sys.stdin.read()"]}


@pytest.mark.parametrize("entry", [odd("hang-at-initialize"), NOISE], ids=["hangs", "noise"])
async def test_a_server_that_does_not_get_ready_is_not_waited_for(
    servers_file: ServersFile, entry: dict[str, Any]
) -> None:
    limits = ToolLimits(start_within_s=1)
    async with open_tools(servers_file(bad=entry), limits=limits) as tools:
        assert any("The tools of bad are not there: it was not ready within 1 s" in each for each in tools.warnings)
        assert names(tools) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("surrogate", "The tool's answer can't be read"),
        ("wrong types", "The tool's answer can't be read"),
        ("100 MB", "larger than 8 MB"),
        ("hang", "did not answer within 60 s"),
    ],
)
async def test_a_call_that_goes_wrong_costs_that_call_alone(
    servers_file: ServersFile, loop_time: LoopTime, text: str, why: str
) -> None:
    async with open_tools(servers_file(odd=odd()), limits=SHORT) as tools:
        bad = await (
            given_up(tools.call("odd__echo", '{"text": "hang"}'), loop_time) if text == "hang" else echo(tools, text)
        )
        assert bad.is_error
        assert bad.ran
        assert why in bad.text
        assert framed_text(await echo(tools, "x")) == "x"
        assert not tools.warnings


async def test_a_tools_own_error_is_in_the_frame(servers_file: ServersFile) -> None:
    async with open_tools(servers_file(odd=odd()), limits=SHORT) as tools:
        for text, words in (("error", "no such file"), ("protocol error", "out of \ufffd[31mink")):
            result = await echo(tools, text)
            assert result.is_error
            assert not result.repairable
            assert result.text.startswith("<tool_output")
            assert words in result.text


async def test_a_flood_is_read_slowly_and_holds_up_nobody_else(servers_file: ServersFile, loop_time: LoopTime) -> None:
    async with open_tools(servers_file(odd=odd(), other=odd("count")), limits=SHORT) as tools:
        flooded: list[str] = []

        async def flood() -> None:
            flooded.append((await tools.call("odd__echo", '{"text": "flood"}')).text)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood)
            for number in range(20):
                assert framed_text(await echo(tools, "x", "other__echo")) == f"x ({number + 1})"
            assert flooded == []
            await loop_time.until(lambda: flooded)
        assert "did not answer" in flooded[0]


@pytest.mark.soak
async def test_ten_thousand_tools_are_cut_to_what_a_request_holds(servers_file: ServersFile) -> None:
    async with open_tools(servers_file(odd=odd("many"), other=odd()), limits=SHORT) as tools:
        assert len(tools.definitions) == 128
        assert "other__echo" in names(tools)
        assert any("left out (9,8" in warning for warning in tools.warnings)


async def test_schemas_that_are_bombs_hang_nobody(servers_file: ServersFile) -> None:
    async with open_tools(servers_file(odd=odd("bombs")), moonshot_schemas=False, limits=SHORT) as tools:
        assert {"odd__doubling", "odd__wild", "odd__output"} <= set(names(tools))
        doubling = await echo(tools, "x", "odd__doubling")
        assert "too intricate" in doubling.text
        assert not doubling.repairable
        assert "breaks the rule `pattern" in (await echo(tools, "a" * 39, "odd__wild")).text
        assert framed_text(await echo(tools, "a" * 40, "odd__wild")) == "a" * 40
        assert framed_text(await echo(tools, "a" * 39, "odd__output")) == "a" * 39


async def test_a_server_that_dies_is_started_once_more_and_then_gone(servers_file: ServersFile) -> None:
    async with open_tools(servers_file(odd=odd(), other=odd()), limits=SHORT) as tools:
        dead = await echo(tools, "die")
        assert "ended during the call" in dead.text
        assert dead.ran
        assert framed_text(await echo(tools, "x")) == "x"
        await echo(tools, "die")
        gone = await echo(tools, "x")
        assert gone.text == "The server of this tool is gone: it ended, was started again, and ended again."
        assert not gone.ran
        assert "The tools of odd are gone" in tools.warnings[0]
        assert framed_text(await echo(tools, "x", "other__echo")) == "x"


async def test_the_last_answer_of_a_server_is_still_received(servers_file: ServersFile) -> None:
    async with open_tools(servers_file(odd=odd()), limits=SHORT) as tools:
        assert framed_text(await echo(tools, "answer and die")) == "last words"


# ── secrets, logs, and the end ────────────────────────────────────────────────────────────────────────────────────


async def test_a_childs_environment_holds_no_key_but_what_its_entry_names(
    servers_file: ServersFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MOONSHOT_API_KEY", "KIMI_API_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "ANY"):
        monkeypatch.setenv(name, f"sk-value-of-{name}")
    entry = odd(env={"GIVEN": "${ANY}", "MODE": "fast"})
    async with open_tools(servers_file(odd=entry), limits=ToolLimits()) as tools:
        seen = json.loads(framed_text(await echo(tools, "environment")))
    assert seen["MODE"] == "fast"
    assert seen["GIVEN"]
    assert set(seen) <= {
        "HOME",
        "LOGNAME",
        "PATH",
        "SHELL",
        "TERM",
        "USER",
        "GIVEN",
        "MODE",
        "LC_CTYPE",
        "PWD",
        MARK,
    }
    assert "sk-value-of-MOONSHOT_API_KEY" not in json.dumps(seen)


async def test_what_the_operator_gave_a_server_comes_back_hidden(servers_file: ServersFile) -> None:
    entry = odd(env={"API_TOKEN": "token-of-this-test"})
    async with open_tools(servers_file(odd=entry), limits=ToolLimits()) as tools:
        seen = await echo(tools, "environment")
        again = await echo(tools, "so token-of-this-test it is")
    assert '"API_TOKEN": "[hidden]"' in seen.text
    assert "token-of-this-test" not in seen.text + again.text


async def test_a_noisy_child_writes_to_our_log_alone_and_not_without_bound(
    servers_file: ServersFile, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "kimi_mcp")
    async with open_tools(servers_file(odd=odd("noisy")), limits=SHORT) as tools:
        assert framed_text(await echo(tools, "x")) == "x"
    lines = [record for record in caplog.records if record.message == "a tool server wrote to stderr"]
    assert 0 < len(lines) < 60
    assert getattr(lines[0], "line") == "a line on stderr"  # noqa: B009 - an extra field
    written = capfd.readouterr()
    assert written.out == ""
    for line in written.err.splitlines():  # nothing, or our own log's lines where an earlier test has configured it
        assert json.loads(line)["logger"].startswith("kimi_mcp")


@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
@pytest.mark.parametrize("how", ["closed", "cancelled", "failed"])
async def test_closing_the_tools_ends_all_that_their_servers_started(
    servers_file: ServersFile, tmp_path: Path, how: str
) -> None:
    pids = tmp_path / "pids"
    entry = odd("grandchild", "stays", f"pids={pids}")
    with anyio.fail_after(60), anyio.CancelScope() as scope:
        try:
            async with open_tools(servers_file(odd=entry), limits=SHORT) as tools:
                assert framed_text(await echo(tools, "x")) == "x"
                if how == "cancelled":
                    scope.cancel()
                    await anyio.sleep_forever()
                if how == "failed":
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass
    with anyio.fail_after(60):  # they were killed; how soon the kernel is done with that is its own affair
        while not all(ended(pid) for pid in map(int, pids.read_text().split())):
            await anyio.sleep(0.01)


def ended(pid: int) -> bool:
    """Whether a process is gone, or nothing but an entry that nobody has collected."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return True
    return state == "Z"


async def test_a_cancelled_call_leaves_at_once(servers_file: ServersFile) -> None:
    async with open_tools(servers_file(odd=odd()), limits=SHORT) as tools:
        with anyio.move_on_after(0.2) as scope:
            await tools.call("odd__echo", '{"text": "hang"}')
        assert scope.cancelled_caught
        assert framed_text(await echo(tools, "x")) == "x"
