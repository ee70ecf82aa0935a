"""Files as context, and the folders that may be read: from the operator, the host or the working directory."""

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
from tests.server.clients import KimiClient, ServerOptions, connect, connect_messages, new_server
from tests.server.media import CLIP, contents, picture, write
from tests.server.processes import process_environment
from tests.server.requests import body_of, chats
from tests.server.results import Result, checked
from tests.server.stdio.peer import INITIALIZE

PROMPT = "  Summarise.\n你好 🌍 \u2028 <b>&amp;</b>\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The one root."""
    made = tmp_path / "desk"
    made.mkdir()
    return made


def messages(sim: Simulator) -> list[dict[str, Any]]:
    return body_of(chats(sim)[-1])["messages"]


async def look(kimi: KimiClient, *images: str) -> Result:
    return await kimi.call("kimi_vision", {"prompt": "What is it?", "images": list(images)})


# ── files[] ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_files_stand_under_their_paths_and_the_prompt_is_the_last_message_word_for_word(
    sim: Simulator, mode: str, folder: Path
) -> None:
    (folder / "src").mkdir()
    write(folder, notes_md="# Notes\nhello", other_txt="```\nfenced\n```\n")
    (folder / "src" / "a.py").write_text("print('你好')\n")
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        for tool in ("kimi_think", "kimi_instant"):
            result = await kimi.call(tool, {"prompt": PROMPT, "files": ["notes.md", "src/a.py", "other.txt"]})
            assert result.status == "completed", result.text
            *before, last = messages(sim)
            assert last == {"role": "user", "content": PROMPT}
            (context,) = before
            text = context["content"]
            places = [text.index(one) for one in ("## notes.md\n", "## src/a.py\n", "## other.txt\n")]
            assert places == sorted(places), "in the order named"
            assert "# Notes\nhello\n" in text
            assert "print('你好')\n" in text
            assert "\n````\n```\nfenced\n```\n````\n" in text, "no content ends its own fence"
            assert str(folder) not in text, "paths are told from the root on"


async def test_a_system_prompt_stands_before_the_files(sim: Simulator, folder: Path) -> None:
    write(folder, notes_md="hello")
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        await kimi.think(PROMPT, files=["notes.md"], system="Be brief.")
    said = messages(sim)
    assert [said[0]["content"], said[-1]["content"]] == ["Be brief.", PROMPT]
    assert "## notes.md" in said[1]["content"]


async def test_a_glob_takes_each_file_once_and_leaves_out_what_is_hidden_ignored_binary_or_a_key(
    sim: Simulator, mode: str, folder: Path
) -> None:
    write(folder, a_md="one", b_md="two", binary_md=b"\x00\x01", ignored_md="three", deploy_key="four")
    (folder / ".gitignore").write_text("ignored.md\nbuilt/\n")
    (folder / ".hidden.md").write_text("five")
    (folder / ".env").write_text("SECRET=six")
    for name in ("built", ".git", "sub"):
        (folder / name).mkdir()
        (folder / name / "c.md").write_text(f"in {name}")
    (folder / "again.md").hardlink_to(folder / "a.md")
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        result = await kimi.think("Summarise.", files=["b.md", "**/*", "*.md", "a.md", str(folder / "b.md")])
    assert result.status == "completed", result.text
    text = messages(sim)[0]["content"]
    headings = [one for one in text.splitlines() if one.startswith("## ")]
    assert headings == ["## b.md", "## a.md", "## sub/c.md"], headings
    for secret in ("three", "four", "five", "SECRET", "in built", "in .git"):
        assert secret not in text


@pytest.mark.parametrize("name", [".env", ".env.local", "id_rsa", "server.pem", "key.txt", ".ssh/config"])
async def test_a_key_or_password_file_is_refused_by_name_and_by_content(
    sim: Simulator, mode: str, folder: Path, name: str
) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n")
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        results = [await kimi.think("Read it.", files=[name]), await look(kimi, name)]
    for result in results:
        assert result.code == "path_refused", result.text
        assert name in result.error["message"]
        assert "b3BlbnNzaC1rZXk" not in result.text
    assert chats(sim) == []


async def test_too_much_context_is_refused_with_how_far_over_and_the_largest_files(
    sim: Simulator, mode: str, folder: Path
) -> None:
    write(folder, small_md="x " * 100, large_md="y " * 700_000, largest_md="z " * 900_000)
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        result = await kimi.think("Summarise.", files=["*.md"])
        assert result.code == "context_too_long", result.text
        said = result.error["message"]
        assert said.index("`largest.md`") < said.index("`large.md`") < said.index("`small.md`")
        assert "more than the 246,141 that fit" in said, "16,000 are left for reasoning and answer, some for the prompt"
        assert "files" in result.error["fix"]
        assert chats(sim) == []
        longer = await kimi.think("Summarise.", files=["*.md"], model="kimi-k3")
    assert longer.code is None, "a longer context takes them"


async def test_files_leave_room_for_the_answer_that_was_asked_for(sim: Simulator, folder: Path) -> None:
    write(folder, long_md="words and " * 98_000, longer_md="words and " * 104_000)
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        thought = await kimi.think("Summarise.", files=["long.md"])
        assert thought.code is None
        assert body_of(chats(sim)[-1])["max_completion_tokens"] == 16_000, "less would be used up by the reasoning"
        assert (await kimi.think("Summarise.", files=["longer.md"])).code == "context_too_long"
        assert (await kimi.think("Summarise.", files=["long.md"], max_tokens=32_000)).code == "context_too_long"
        assert (await kimi.think("Sum up. " * 20_000, files=["long.md"])).code == "context_too_long"
        instant = await kimi.call("kimi_instant", {"prompt": "Summarise.", "files": ["longer.md"]})
        assert instant.code is None, "without reasoning an answer may be short"
    assert len(chats(sim)) == 2


@pytest.mark.parametrize(
    ("named", "code", "words"),
    [
        (["a.png"], "media_rejected", "kimi_vision"),
        (["a.mp4"], "media_rejected", "kimi_video"),
        (["a.bin"], "invalid_arguments", "UTF-8"),
        (["nowhere.md"], "path_refused", "nowhere.md"),
        (["*.nothing"], "invalid_arguments", "*.nothing"),
        (["sub"], "path_refused", "folder/*"),
        ([""], "invalid_arguments", "files"),
        ([], "invalid_arguments", "files"),
        ("a.md", "invalid_arguments", "files"),
        (["a\0.md"], "path_refused", "NUL"),
        (["x" * 5_000], "path_refused", "too long"),
    ],
)
async def test_a_file_that_is_no_text_is_refused_with_what_takes_it(
    sim: Simulator, mode: str, folder: Path, named: Any, code: str, words: str
) -> None:
    write(folder, a_png=picture(1), a_mp4=CLIP, a_bin=bytes(range(256)), a_md="fine")
    (folder / "sub").mkdir()
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        result = await kimi.think("Summarise.", files=named)
    assert result.code == code, result.text
    assert words in result.text
    assert chats(sim) == []


async def test_files_of_null_are_none(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        assert (await kimi.think("What is 17 * 23?", files=None)).status == "completed"
    assert messages(sim) == [{"role": "user", "content": "What is 17 * 23?"}]


@asynccontextmanager
async def hosted(sim: Simulator, *offered: str, **variables: str) -> AsyncIterator[tuple[Client, list[str]]]:
    """A server and a client of the handshake era that offers roots; how often it was asked for them."""
    asked: list[str] = []

    async def roots(context: Any) -> ListRootsResult:
        del context
        asked.append("roots/list")
        return ListRootsResult(roots=[Root(uri=FileUrl(uri)) for uri in offered])

    server = new_server(sim, **variables)
    async with Client(InMemoryTransport(server), mode="legacy", list_roots_callback=roots) as client:
        yield client, asked


# ── roots ─────────────────────────────────────────────────────────────────────────────────────────────────────────


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
        f"{tmp_path}/desk/../elsewhere-swordfish/a.md",
        str(evil / "a.md"),
        "/swordfish",
        "~/swordfish",
        "~swordfish/../../../../../../../swordfish",
        "/proc/self/environ",
        str(other / "*.md"),
    ]


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
                for said in (result.text, str(result.structured)):
                    assert "swordfish" not in said.replace("~swordfish", ""), (path, said)
                    assert str(tmp_path) not in said
                    assert "/proc" not in said
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
        await look(kimi, "a.png", "../desk/only.png", "./a.png")
        assert contents(sim) == [picture(2), picture(3), picture(2)]
        refused = await look(kimi, "only.png")
    assert refused.code == "path_refused"


async def test_the_operators_roots_stand_above_the_hosts(sim: Simulator, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    write(folder, a_png=picture(1))
    write(other, b_png=picture(2))
    async with hosted(sim, other.as_uri(), KIMI_ROOTS=str(folder)) as (client, asked):
        shown = await client.call_tool("kimi_vision", {"prompt": "Look.", "images": ["a.png"]})
        refused = await client.call_tool("kimi_vision", {"prompt": "Look.", "images": [str(other / "b.png")]})
    assert checked(shown).status == "completed"
    assert checked(refused).code == "path_refused"
    assert asked == [], "nobody asks the host"


async def test_the_roots_that_a_host_offers_are_read_from(sim: Simulator, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "a folder ü"
    other.mkdir()
    write(folder, a_png=picture(1))
    write(other, b_png=picture(2), n_md="words")
    async with hosted(sim, folder.as_uri(), other.as_uri()) as (client, asked):
        images = ["a.png", str(other / "b.png"), (other / "b.png").as_uri()]
        shown = checked(await client.call_tool("kimi_vision", {"prompt": "Look.", "images": images}))
        assert shown.status == "completed", shown.text
        assert contents(sim) == [picture(1), picture(2), picture(2)]
        read = checked(await client.call_tool("kimi_think", {"prompt": "Read.", "files": [str(other / "n.md")]}))
        assert read.status == "completed", read.text
        refused = checked(await client.call_tool("kimi_vision", {"prompt": "Look.", "images": [__file__]}))
        assert refused.code == "path_refused"
        assert "host" in refused.error["fix"]
        assert len(asked) == 3
        checked(await client.call_tool("kimi_think", {"prompt": "What is 17 * 23?"}))
        assert len(asked) == 3, "a call that names no file asks for no roots"


@pytest.mark.parametrize("offered", ["file:///", "file:///etc", "file:///root", "file://elsewhere.example/work"])
async def test_a_host_that_offers_everything_offers_nothing(sim: Simulator, folder: Path, offered: str) -> None:
    write(folder, a_png=picture(1))
    async with hosted(sim, offered) as (client, _):
        refused = checked(await client.call_tool("kimi_vision", {"prompt": "Look.", "images": [str(folder / "a.png")]}))
    assert refused.code == "path_refused"
    assert "KIMI_ROOTS" in refused.error["fix"]
    assert chats(sim) == []


ROOTS_HELLO = {**INITIALIZE["params"], "capabilities": {"roots": {}}}

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
    monkeypatch.setitem(INITIALIZE, "params", ROOTS_HELLO)
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
    monkeypatch.setitem(INITIALIZE, "params", ROOTS_HELLO)
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
