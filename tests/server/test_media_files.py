"""Files as context, and the folders that may be read: from the operator, the host or the working directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.simulator import Simulator
from tests.server.clients import connect
from tests.server.media import CLIP, look, picture, write
from tests.server.requests import body_of, chats, messages

PROMPT = "  Summarise.\n你好 🌍 \u2028 <b>&amp;</b>\n"


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
            assert str(folder) not in text, "paths start at the root"


async def test_a_system_prompt_stands_before_the_files(sim: Simulator, folder: Path) -> None:
    write(folder, notes_md="hello")
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        await kimi.think(PROMPT, files=["notes.md"], system="Be brief.")
    sent = messages(sim)
    assert [sent[0]["content"], sent[-1]["content"]] == ["Be brief.", PROMPT]
    assert "## notes.md" in sent[1]["content"]


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
        message = result.error["message"]
        assert message.index("`largest.md`") < message.index("`large.md`") < message.index("`small.md`")
        assert "more than the 246,141 that fit" in message, (
            "16,000 are left for reasoning and answer, some for the prompt"
        )
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


@pytest.mark.parametrize("files", [None, []])
async def test_files_of_null_and_no_files_count_as_absent(sim: Simulator, mode: str, files: list[str] | None) -> None:
    async with connect(sim, mode) as kimi:
        assert (await kimi.think("What is 17 * 23?", files=files)).status == "completed"
    assert messages(sim) == [{"role": "user", "content": "What is 17 * 23?"}]
