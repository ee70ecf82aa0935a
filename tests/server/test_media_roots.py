"""Roots: what may be read, by whose word, and what a path outside of them gets."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.client._memory import InMemoryTransport
from mcp.client.stdio import stdio_client
from mcp_types import ListRootsResult, Root
from pydantic import FileUrl

from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.server.clients import ServerOptions, connect, connect_messages, new_server
from tests.server.media import contents, look, picture, write
from tests.server.processes import process_environment
from tests.server.requests import chats
from tests.server.results import checked
from tests.server.stdio.peer import INITIALIZE


@asynccontextmanager
async def hosted(sim: Simulator, *offered: str, **variables: str) -> AsyncIterator[tuple[Client, list[str]]]:
    """A server and a client of the handshake era that offers roots; how often it was asked for them."""
    requested: list[str] = []

    async def roots(context: Any) -> ListRootsResult:
        del context
        requested.append("roots/list")
        return ListRootsResult(roots=[Root(uri=FileUrl(uri)) for uri in offered])

    server = new_server(sim, **variables)
    async with Client(InMemoryTransport(server), mode="legacy", list_roots_callback=roots) as client:
        yield client, requested


def outside(tmp_path: Path) -> list[str]:
    """Paths that lie elsewhere, as a caller may write them; each holds a name that no other text has."""
    other = tmp_path / "elsewhere-swordfish"
    other.mkdir(exist_ok=True)
    write(other, a_png=picture(1), a_md="secret words")
    evil = tmp_path / "work_swordfish"
    evil.mkdir(exist_ok=True)
    write(evil, a_md="secret words")
    return [
        str(other / "a.png"),
        "../elsewhere-swordfish/a.md",
        (other / "a.md").as_uri(),
        f"{tmp_path / 'work'}/../elsewhere-swordfish/a.md",
        str(evil / "a.md"),
        "/swordfish",
        "~/swordfish",
        "~swordfish/../../../../../../../swordfish",
        "/proc/self/environ",
        str(other / "*.md"),
    ]


async def test_the_items_of_a_swarm_are_files_of_the_hosts_own_roots(sim: Simulator, folder: Path) -> None:
    write(folder, a_md="alpha, whole", b_md="beta, whole")
    async with hosted(sim, folder.as_uri()) as (client, requested):
        call = {"prompt": "Review {{item}}.", "items": ["*.md"]}
        result = checked(await client.call_tool("kimi_swarm", call))
    assert [agent["name"] for agent in result.structured["swarm"]["agents"]] == ["a.md", "b.md"]
    assert requested == ["roots/list"]
    assert any("alpha, whole" in str(request.body) for request in chats(sim))


async def test_a_path_outside_is_refused_and_never_echoed(
    sim: Simulator, mode: str, folder: Path, tmp_path: Path
) -> None:
    write(folder, a_png=picture(1))
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        for path in outside(tmp_path):
            results = [await look(kimi, path), await kimi.think("Read it.", files=[path])]
            results += [await kimi.call("kimi_video", {"prompt": "Look.", "video": path})]
            results += [await look(kimi, "a.png", path), await look(kimi, f"path:{path}")]
            for result in results:
                assert result.code in ("path_refused", "invalid_arguments"), (path, result.text)
                for text in (result.text, str(result.structured)):
                    assert "swordfish" not in text.replace("~swordfish", ""), (path, text)
                    assert str(tmp_path) not in text
                    assert "/proc" not in text
        assert "swordfish" not in (await kimi.run()).text
    assert chats(sim) == []


async def test_a_link_out_of_the_roots_is_refused(sim: Simulator, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere-swordfish"
    elsewhere.mkdir()
    write(elsewhere, a_png=picture(1), a_md="secret")
    (folder / "link.png").symlink_to(elsewhere / "a.png")
    (folder / "folder").symlink_to(elsewhere)
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        for result in (
            await look(kimi, "link.png"),
            await look(kimi, "folder/a.png"),
            await kimi.think("Read it.", files=["folder/a.md"]),
            await kimi.think("Read it.", files=["**/*.md"]),
        ):
            assert result.code in ("path_refused", "invalid_arguments")
            assert "swordfish" not in result.text
    assert chats(sim) == []


@pytest.mark.parametrize("source", ["a\0.png", "\0", "a.png\0.jpg"])
async def test_a_path_with_nul_is_refused_as_a_path(sim: Simulator, mode: str, folder: Path, source: str) -> None:
    write(folder, a_png=picture(1))
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        result = await look(kimi, source)
    assert result.code == "path_refused", result.text
    assert "\0" not in result.text
    assert chats(sim) == []


async def test_a_relative_path_counts_from_the_working_directory_within_any_root_else_from_the_first(
    sim: Simulator, mode: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    write(folder, a_png=picture(1), only_png=picture(3))
    write(second, a_png=picture(2))
    roots = f"{folder}:{second}"
    monkeypatch.chdir(tmp_path)
    async with connect(sim, mode, KIMI_ROOTS=roots) as kimi:
        await look(kimi, "a.png", str(second / "a.png"), "only.png")
        assert contents(sim) == [picture(1), picture(2), picture(3)]
        monkeypatch.chdir(second)
        await look(kimi, "a.png", f"../{folder.name}/only.png", "./a.png")
        assert contents(sim) == [picture(2), picture(3), picture(2)]
        refused = await look(kimi, "only.png")
    assert refused.code == "path_refused"


async def test_the_operators_roots_stand_above_the_hosts(sim: Simulator, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    write(folder, a_png=picture(1))
    write(other, b_png=picture(2))
    async with hosted(sim, other.as_uri(), KIMI_ROOTS=str(folder)) as (client, requested):
        shown = await client.call_tool("kimi_vision", {"prompt": "Look.", "images": ["a.png"]})
        refused = await client.call_tool("kimi_vision", {"prompt": "Look.", "images": [str(other / "b.png")]})
    assert checked(shown).status == "completed"
    assert checked(refused).code == "path_refused"
    assert requested == [], "nobody asks the host"


async def test_the_roots_that_a_host_offers_are_read_from(sim: Simulator, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "a folder ü"
    other.mkdir()
    write(folder, a_png=picture(1))
    write(other, b_png=picture(2), n_md="words")
    async with hosted(sim, folder.as_uri(), other.as_uri()) as (client, requested):
        images = ["a.png", str(other / "b.png"), (other / "b.png").as_uri()]
        shown = checked(await client.call_tool("kimi_vision", {"prompt": "Look.", "images": images}))
        assert shown.status == "completed", shown.text
        assert contents(sim) == [picture(1), picture(2), picture(2)]
        read = checked(await client.call_tool("kimi_think", {"prompt": "Read.", "files": [str(other / "n.md")]}))
        assert read.status == "completed", read.text
        refused = checked(await client.call_tool("kimi_vision", {"prompt": "Look.", "images": [__file__]}))
        assert refused.code == "path_refused"
        assert "host" in refused.error["fix"]
        assert len(requested) == 3
        checked(await client.call_tool("kimi_think", {"prompt": "What is 17 * 23?"}))
        assert len(requested) == 3, "a call that names no file asks for no roots"


@pytest.mark.parametrize("offered", ["file:///", "file:///etc", "file:///root", "file://elsewhere.example/work"])
async def test_a_host_that_offers_everything_offers_nothing(sim: Simulator, folder: Path, offered: str) -> None:
    write(folder, a_png=picture(1))
    async with hosted(sim, offered) as (client, _):
        refused = checked(await client.call_tool("kimi_vision", {"prompt": "Look.", "images": [str(folder / "a.png")]}))
    assert refused.code == "path_refused"
    assert "KIMI_ROOTS" in refused.error["fix"]
    assert chats(sim) == []


ROOTS_INITIALIZE = {**INITIALIZE["params"], "capabilities": {"roots": {}}}

ODD = {
    "an error": {"error": {"code": -32601, "message": "Method not found"}},
    "no roots at all": {"result": {}},
    "text": {"result": {"roots": "everything"}},
    "a root that is no file": {"result": {"roots": [{"uri": "https://pictures.example/"}]}},
    "a root without a URI": {"result": {"roots": [{"name": "mine"}]}},
    "nothing": {"result": None},
}


@pytest.mark.parametrize("case", ODD)
async def test_a_host_that_answers_oddly_when_asked_for_its_roots_costs_no_call(
    sim: Simulator, folder: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, a_png=picture(1))
    monkeypatch.chdir(folder)
    monkeypatch.setitem(INITIALIZE, "params", ROOTS_INITIALIZE)
    with anyio.fail_after(60):
        async with connect_messages(sim) as host:
            await host.call("kimi_vision", {"prompt": "Look.", "images": ["a.png"]}, "call")
            question = await host.receive()
            assert question["method"] == "roots/list"
            await host.answer(question["id"], ODD[case])
            reply = await host.receive()
    assert reply["id"] == "call"
    assert "result" in reply, reply
    result = reply["result"]["structuredContent"]
    if case == "a root that is no file":
        assert result["error"] is None or result["error"]["code"] == "path_refused"
    else:
        assert result["status"] == "completed", "the working directory stands in"
        assert contents(sim) == [picture(1)]


async def test_a_host_that_never_names_its_roots_is_not_waited_for(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = ServerOptions(timings=Timings(warm_up_after_s=3600, roots_s=0.05))
    write(folder, a_png=picture(1))
    monkeypatch.chdir(folder)
    monkeypatch.setitem(INITIALIZE, "params", ROOTS_INITIALIZE)
    with anyio.fail_after(60):
        async with connect_messages(sim, options=impatient) as host:
            await host.call("kimi_vision", {"prompt": "Look.", "images": ["a.png"]}, "call")
            while (reply := await host.receive()).get("id") != "call":
                pass
    assert reply["result"]["structuredContent"]["status"] == "completed"


async def test_without_roots_the_working_directory_is_read_from(
    sim: Simulator, mode: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, a_png=picture(1))
    monkeypatch.chdir(folder)
    async with connect(sim, mode) as kimi:
        assert (await look(kimi, "a.png", str(folder / "a.png"))).status == "completed"
        refused = await look(kimi, __file__)
    assert contents(sim) == [picture(1)] * 2
    assert refused.code == "path_refused"
    assert "KIMI_ROOTS" in refused.error["fix"]


@pytest.mark.soak
async def test_a_process_in_the_root_folder_reads_nothing_and_says_which_variable_would_allow_it(
    sim: Simulator, mode: str, folder: Path
) -> None:
    write(folder, a_png=picture(1))
    started = StdioServerParameters(
        command=sys.executable, args=["-m", "kimi_mcp"], env=process_environment(sim), cwd="/"
    )
    async with Client(stdio_client(started), mode=mode) as client:
        for arguments in ({"images": [str(folder / "a.png")]}, {"images": ["etc/hostname"]}):
            refused = checked(await client.call_tool("kimi_vision", {"prompt": "Look.", **arguments}))
            assert refused.code == "path_refused", refused.text
            assert "KIMI_ROOTS" in refused.error["fix"]
            assert "working directory" in refused.error["message"]
            assert str(folder) not in refused.text
        read = checked(await client.call_tool("kimi_think", {"prompt": "Read.", "files": ["etc/host*"]}))
        assert read.code == "path_refused"
        assert "KIMI_ROOTS" in read.error["fix"]
        answered = checked(await client.call_tool("kimi_think", {"prompt": "What is 17 * 23?"}))
        assert answered.status == "completed", "what needs no file works"
    assert len(chats(sim)) == 1
