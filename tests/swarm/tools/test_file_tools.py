"""The tools by which sub-agents list, search and read files: what they return, and that nothing outside is read."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.media.roots import find_roots
from kimi_mcp.swarm.tools import CallResult, SwarmTools, open_tools
from kimi_mcp.swarm.tools.files import LINE_CHARS, MOST_MATCHES, PAGE_CHARS, FileTools

OUTSIDE = "what stands outside"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    for name, text in {
        "a.py": "import os\n\ndef f():\n    return 'Ä'\n",
        "src/b.py": "class B:\r\n    pass\r\n",
        "src/deep/c.txt": "def g(): ...",
        ".hidden/d.py": "def h(): ...",
        "ignored.py": "def i(): ...",
        ".gitignore": "ignored.py\n",
        ".env": "KEY=def",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    (folder / "blob.bin").write_bytes(b"def\0\1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "outside.txt").write_text(OUTSIDE)
    (folder / "link.txt").symlink_to(tmp_path / "elsewhere" / "outside.txt")
    (folder / "way").symlink_to(tmp_path / "elsewhere")
    return folder


@pytest.fixture
async def tools(root: Path) -> AsyncIterator[SwarmTools]:
    with anyio.fail_after(300):
        async with open_tools(None, builtin=[FileTools(lambda: find_roots(str(root), working=str(root)))]) as opened:
            yield opened


async def call(tools: SwarmTools, tool: str, **arguments: Any) -> CallResult:
    return await tools.call(f"files__{tool}", json.dumps(arguments))


async def lines(tools: SwarmTools, tool: str, **arguments: Any) -> list[str]:
    """The lines of a result, without those of its frame."""
    result = await call(tools, tool, **arguments)
    assert not result.is_error, result.text
    return result.text.split("\n")[2:-1]


async def test_a_folder_and_a_glob_are_listed_without_what_globs_skip(tools: SwarmTools) -> None:
    assert tools.names == ["files__list", "files__read", "files__search"]
    assert tools.warnings == []
    top = await lines(tools, "list")
    assert top[:3] == ["a.py", "blob.bin", "src/"]
    assert "git-ignored" in top[3]
    assert await lines(tools, "list", folder="src") == ["src/b.py", "src/deep/"]
    assert (await lines(tools, "list", glob="**/*.py"))[:2] == ["a.py", "src/b.py"]
    assert await lines(tools, "list", folder="src", glob="*/*") == ["src/deep/c.txt"]
    assert await lines(tools, "list", glob="*.rs") == ["(nothing)"]


async def test_a_search_finds_lines_by_number(tools: SwarmTools) -> None:
    found = await lines(tools, "search", regex=r"^\s*(def|class) \w+")
    assert found[:3] == ["a.py:3: def f():", "src/b.py:1: class B:", "src/deep/c.txt:1: def g(): ..."]
    assert "[3 text files were searched]" in found
    assert (await lines(tools, "search", regex="(?i)IMPORT", glob="*.py"))[0] == "a.py:1: import os"
    assert (await lines(tools, "search", regex="nowhere"))[0] == "(no line matches)"


async def test_a_search_returns_so_many_lines_and_says_that_there_are_more(root: Path, tools: SwarmTools) -> None:
    (root / "long.txt").write_text("match\n" * 500 + "x" * LINE_CHARS + "end\n")
    found = await lines(tools, "search", regex="match")
    assert sum(line.startswith("long.txt:") for line in found) == MOST_MATCHES
    assert any("cut after" in line for line in found)
    assert (await lines(tools, "search", regex="end$"))[0].startswith("long.txt:501: xxx")


@pytest.mark.parametrize("regex", ["(a+)+$", "(a|a)*b", r"(\w+\s?)+:$", "(.*)*x", "a{1,500}" * 4])
async def test_a_pattern_that_backtracks_for_ever_elsewhere_holds_nothing_up(
    root: Path, tools: SwarmTools, regex: str
) -> None:
    (root / "evil.txt").write_text(("a" * 100_000 + "!\n") * 5)
    with anyio.fail_after(60):
        result = await call(tools, "search", regex=regex, glob="evil.txt")
    assert "text files were searched" in result.text or "can't be used" in result.text


@pytest.mark.parametrize("regex", ["(?=a)", r"(a)\1", "(", "[a&&b]", "a{1000}{1000}", "x" * 5_000])
async def test_a_pattern_that_can_not_be_used_is_refused(tools: SwarmTools, regex: str) -> None:
    result = await call(tools, "search", regex=regex)
    assert result.is_error
    assert "`regex` can't be used" in result.text


async def test_a_search_ends_when_its_time_is_over(root: Path) -> None:
    (root / "many.txt").write_text("line\n" * 1_000)
    ticks = iter(range(1_000))  # each look at the clock is a second later
    source = FileTools(lambda: find_roots(str(root), working=str(root)), clock=lambda: float(next(ticks)))
    async with open_tools(None, builtin=[source]) as tools:
        result = await call(tools, "search", regex="nowhere", glob="many.txt")
    assert "stopped" in result.text


async def test_folders_and_files_whose_names_look_like_globs_are_found(root: Path, tools: SwarmTools) -> None:
    (root / "app" / "[id]").mkdir(parents=True)
    (root / "app" / "[id]" / "page.tsx").write_text("export\n")
    assert await lines(tools, "list", folder="app/[id]", glob="*.tsx") == ["app/[id]/page.tsx"]
    for meant in ("app/[id]/page.tsx", "app/[id]", "app"):
        assert (await lines(tools, "search", regex="export", glob=meant))[0] == "app/[id]/page.tsx:1: export"


async def test_arguments_that_are_empty_or_whole_numbers_with_a_point_count_as_meant(tools: SwarmTools) -> None:
    assert await lines(tools, "list", folder="src", glob="") == ["src/b.py", "src/deep/"]
    assert (await lines(tools, "read", path="a.py", line=3.0, offset=4.0))[1] == "f():"


async def test_a_file_is_read_in_pages_that_join_to_the_whole(root: Path, tools: SwarmTools) -> None:
    text = "".join(f"line {number} " + "ä" * 40 + "\n" for number in range(1_500)) + "y" * 60_000 + "\nlast"
    (root / "long.txt").write_text(text)
    where: dict[str, int] = {}
    pages: list[str] = []
    while True:
        head, *body = await lines(tools, "read", path="long.txt", **where)
        joint = "" if not pages or where.get("offset") else "\n"
        pages.append(joint + "\n".join(body))
        assert len(pages[-1]) <= PAGE_CHARS + 1
        if "read on with" not in head:
            break
        where = {
            key: int(value) for key, value in (part.split("=") for part in head[:-1].split("with ")[1].split(", "))
        }
    assert "".join(pages) == text
    assert await lines(tools, "read", path="a.py", line=3) == [
        "[a.py: lines 3 to 4 of 4]",
        "def f():",
        "    return 'Ä'",
    ]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("none.py", "is not there"),
        (".env", "keys or passwords"),
        ("link.txt", "is a link"),
        ("way/outside.txt", "is a link"),
        ("../elsewhere/outside.txt", "outside the folders"),
        ("src", "is a folder"),
        ("blob.bin", "is not text"),
        ("", "The path is empty"),
    ],
)
async def test_what_may_not_be_read_is_refused_with_the_reason(tools: SwarmTools, path: str, words: str) -> None:
    result = await call(tools, "read", path=path)
    assert result.is_error
    assert words in result.text
    assert not result.ran


async def test_without_roots_there_are_no_tools_and_a_warning_has_why() -> None:
    source = FileTools(lambda: find_roots(None, working="/"))
    async with open_tools(None, builtin=[source]) as tools:
        assert tools.names == []
        (fault, _) = tools.warnings
    assert "The tools of files are not there: no folder may be read" in fault
    assert "KIMI_ROOTS" in fault


def hostile(draw: random.Random, top: Path) -> str:
    """A path that tries to lead out of ``top / "allowed"``."""
    ways = ("..", "../", "..\\", "./", "//", "/", "~", "~/", "%2e%2e/", "․․/", "way/", "src/../", "\0", "*", "?", " ")
    targets = (
        "elsewhere/outside.txt",
        "outside.txt",
        "link.txt",
        "way/outside.txt",
        str(top / "elsewhere/outside.txt"),
    )
    targets += ("/etc/passwd", "/proc/self/environ", "file:///etc/passwd", ".env", "C:\\Windows\\win.ini", "**/*.txt")
    start = "".join(draw.choice(ways) for _ in range(draw.randrange(6)))
    end = draw.choice(("", "", "", "/", "/.", "\0.py", "%00", ".", " ", "/*", "*"))
    return start + draw.choice(targets) + end


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.soak)])
async def test_no_hostile_path_leads_outside_the_roots(root: Path, tools: SwarmTools, count: int) -> None:
    draw = random.Random(17)
    for number in range(count):
        path = hostile(draw, root.parent)
        tool, argument = (("read", "path"), ("list", "folder"), ("list", "glob"), ("search", "glob"))[number % 4]
        more = {"regex": "."} if tool == "search" else {}
        result = await call(tools, tool, **{argument: path}, **more)
        for word in (OUTSIDE, "root:", "outside.txt\n", "KEY=def", "PATH="):
            assert word not in result.text, (tool, path, result.text)
