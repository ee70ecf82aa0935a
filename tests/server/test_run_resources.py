"""Runs as resources: listed, read whole, completed while their id is typed, and linked to where reasoning was cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import ResourceTemplateReference

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs.store.records import RunEntry
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.server.callers import LOCAL
from kimi_mcp.simulator import Simulator
from tests.server.clients import KimiClient, connect, connect_messages

LONG = "Hm, 你好🌍. " * 500
"""A reasoning that is cut inline."""

RUN, REASONING = "kimi://runs/{id}", "kimi://runs/{id}/reasoning"


async def read(kimi: KimiClient, uri: str) -> str:
    """The text of a resource."""
    (contents,) = (await kimi.client.read_resource(uri)).contents
    return getattr(contents, "text")  # noqa: B009 - it is one of two kinds


async def refused(kimi: KimiClient, uri: str) -> MCPError:
    """The error of reading a resource; the server goes on."""
    with pytest.raises(MCPError) as caught:
        await kimi.client.read_resource(uri)
    assert (await kimi.client.list_tools()).tools
    return caught.value


async def offered(kimi: KimiClient, typed: str, template: str = RUN, name: str = "id") -> Any:
    """What is offered for a place in an address."""
    reference = ResourceTemplateReference(uri=template)
    return (await kimi.client.complete(reference, {"name": name, "value": typed})).completion


async def somebody_elses(folder: Path, count: int = 1, caller: str = "somebody else") -> list[str]:
    """Runs that another server wrote down, the newest first."""
    journal, ids = RunStore(folder), [f"run_{number:024x}" for number in range(count)]
    for number, run_id in enumerate(ids):
        outcome = Outcome(status="completed", run_id=run_id, answer="theirs", reasoning="secretly")
        entry = RunEntry(
            id=run_id,
            caller=caller,
            host=None,
            tool="kimi_think",
            prompt_head="theirs",
            call_key=None,
            started_at=1_700_000_000 + number,
            conversation_id=None,
            follows=None,
            request={},
            model_id=None,
            outcome=outcome,
        )
        await journal.record(entry, counted_usd=0.0)
    await journal.aclose(unfinished=True)
    return ids[::-1]


async def test_the_forms_of_run_addresses_are_listed(mode: str) -> None:
    async with connect(None, mode) as kimi:
        templates = (await kimi.client.list_resource_templates()).resource_templates
    assert {template.uri_template: template.mime_type for template in templates}.items() >= {
        RUN: "application/json",
        REASONING: "text/plain",
    }.items()
    assert all(template.name and template.title and template.description for template in templates)


async def test_the_latest_runs_are_a_resource(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        assert json.loads(await read(kimi, "kimi://runs")) == []
        first, second = await kimi.think(), await kimi.instant("Another\nprompt")
        newest, oldest = json.loads(await read(kimi, "kimi://runs"))
    assert (newest["run_id"], oldest["run_id"]) == (second.run_id, first.run_id)
    assert (newest["tool"], newest["status"], newest["prompt"]) == ("kimi_instant", "completed", "Another prompt")
    assert newest["usage"] == second.structured["usage"]
    assert newest["conversation_id"] == second.structured["conversation_id"]
    assert newest["started_at"].endswith("+00:00")


async def test_a_run_is_read_whole_however_little_came_inline(sim: Simulator, mode: str) -> None:
    sim.play({"reasoning": LONG, "content": "It is 391."})
    async with connect(sim, mode) as kimi:
        result = await kimi.think()
        resource = json.loads(await read(kimi, f"kimi://runs/{result.run_id}"))
        assert await read(kimi, result.structured["reasoning"]["uri"]) == LONG
    assert resource["reasoning"] == {**result.structured["reasoning"], "text": LONG, "truncated": False}
    assert {**resource, "reasoning": None} == {**result.structured, "reasoning": None}


async def test_a_running_run_is_read_as_it_stands(sim: Simulator, mode: str) -> None:
    sim.play({"gate": "end", "gate_at": "finish", "reasoning": "Hm.", "content": "It is"})
    async with connect(sim, mode, KIMI_REPLY_WITHIN_S="0.05") as kimi:
        run_id = (await kimi.think()).run_id
        await sim.until(lambda: sim.waiting_at("end") == 1)
        while json.loads(await read(kimi, f"kimi://runs/{run_id}"))["answer"] != "It is":
            pass
        assert await read(kimi, f"kimi://runs/{run_id}/reasoning") == "Hm."
        (listed,) = json.loads(await read(kimi, "kimi://runs"))
        assert (listed["run_id"], listed["status"]) == (run_id, "running")
        sim.open_gate("end")
        await kimi.run(run_id)


async def test_a_run_of_another_server_is_read_too(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as other:
        result = await other.think()
    async with connect(sim, mode) as kimi:
        assert json.loads(await read(kimi, f"kimi://runs/{result.run_id}")) == result.structured


@pytest.mark.parametrize("ending", ["", "/reasoning"])
async def test_an_unknown_run_is_an_error_that_says_where_to_look(mode: str, ending: str) -> None:
    async with connect(None, mode) as kimi:
        for run_id in ("run_0123456789", "%2e%2e", "run_%00", "r" * 5000):
            error = await refused(kimi, f"kimi://runs/{run_id}{ending}")
            assert error.error.code == (-32002 if mode == "legacy" else -32602)
            assert "kimi://runs" in str(error)
            assert run_id not in str(error)


async def test_the_runs_of_another_caller_are_nowhere_to_be_seen(sim: Simulator, mode: str, data_dir: Path) -> None:
    (theirs,) = await somebody_elses(data_dir)
    async with connect(sim, mode) as kimi:
        own = (await kimi.instant()).run_id
        assert [row["run_id"] for row in json.loads(await read(kimi, "kimi://runs"))] == [own]
        assert (await offered(kimi, "run_")).values == [own]
        for uri in (f"kimi://runs/{theirs}", f"kimi://runs/{theirs}/reasoning"):
            assert "No run of that id" in str(await refused(kimi, uri))


@pytest.mark.parametrize("template", [RUN, REASONING])
async def test_an_id_is_completed_from_its_beginning(sim: Simulator, mode: str, template: str) -> None:
    async with connect(sim, mode) as kimi:
        ids = [(await kimi.instant(f"number {number}")).run_id for number in range(3)]
        every = await offered(kimi, "", template)
        assert (every.values, every.total, every.has_more) == (ids[::-1], 3, False), "the newest first"
        assert (await offered(kimi, ids[1][:12].upper(), template)).values == [ids[1]]
        assert (await offered(kimi, ids[1][4:14], template)).values == [ids[1]], "the run_ may be left out"
        assert (await offered(kimi, "nothing like it", template)).values == []


async def test_of_many_ids_a_hundred_are_offered(mode: str, data_dir: Path) -> None:
    ids = await somebody_elses(data_dir, 130, LOCAL)
    async with connect(None, mode) as kimi:
        found = await offered(kimi, "run_")
    assert (found.values, found.total, found.has_more) == (ids[:100], 130, True)


async def test_where_there_is_nothing_to_offer_nothing_is_offered(mode: str) -> None:
    async with connect(None, mode) as kimi:
        assert (await offered(kimi, "", "kimi://nothing/{id}")).values == []
        assert (await offered(kimi, "", RUN, "text")).values == []


async def test_a_journal_that_cannot_be_read_says_so(mode: str, data_dir: Path) -> None:
    data_dir.write_text("no folder")
    async with connect(None, mode) as kimi:
        error = await refused(kimi, "kimi://runs")
        assert "KIMI_DATA_DIR" in str(error)
        assert str(data_dir) not in str(error)
        assert (await offered(kimi, "run_")).values == []


async def test_without_a_journal_runs_are_read_as_long_as_the_server_runs(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode, KIMI_JOURNAL="off") as kimi:
        result = await kimi.think()
        assert json.loads(await read(kimi, f"kimi://runs/{result.run_id}")) == result.structured
        assert (await offered(kimi, "")).values == [result.run_id]


# ── the link ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_reasoning_that_was_cut_is_linked_to(sim: Simulator, mode: str) -> None:
    sim.play({"reasoning": LONG, "content": "It is 391."})
    async with connect(sim, mode) as kimi:
        result = await kimi.think()
        assert result.text == "It is 391.", "the text stays the answer"
        assert result.link is not None
        assert (result.link.mime_type, result.link.size) == ("text/plain", len(LONG.encode()))
        assert result.link.annotations is None, "one host fails over a priority of 0.5"
        assert await read(kimi, str(result.link.uri)) == LONG
        again = await kimi.run(result.run_id)
        assert again.link == result.link
        page = await kimi.run(result.run_id, "reasoning")
        assert page.link is None, "a page is the reasoning"


async def test_a_failed_call_links_to_its_reasoning_too(sim: Simulator, mode: str) -> None:
    sim.play({"reasoning": LONG, "length_in_reasoning": True, "reasoning_tokens": 3000})
    async with connect(sim, mode) as kimi:
        result = await kimi.think()
        assert result.is_error
        assert result.link is not None
        assert len(await read(kimi, str(result.link.uri))) == result.structured["reasoning"]["chars"]


async def test_what_came_whole_is_not_linked_to(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        assert (await kimi.think()).link is None
        assert (await kimi.instant()).link is None
        assert (await kimi.think(temperature=9)).link is None


async def test_a_host_that_fails_over_links_gets_none(sim: Simulator, mode: str) -> None:
    sim.play({"reasoning": LONG, "content": "It is 391."})
    async with connect(sim, mode, host="codex-mcp-client") as kimi:
        result = await kimi.think()
    assert result.structured["reasoning"]["truncated"]
    assert result.link is None


@pytest.mark.parametrize(("protocol", "blocks"), [("2024-11-05", 1), ("2025-03-26", 1), ("2025-06-18", 2)])
async def test_only_protocols_that_know_links_get_one(sim: Simulator, protocol: str, blocks: int) -> None:
    sim.play({"reasoning": LONG, "content": "It is 391."})
    async with connect_messages(sim, protocol=protocol) as bare:
        await bare.call("kimi_think", {"prompt": "What is 17 * 23?"}, "asked")
        content = (await bare.receive())["result"]["content"]
    assert [block["type"] for block in content] == ["text", "resource_link"][:blocks]
