"""Names and globs become context: what is taken, what is left out, what is refused, and how it stands in a prompt."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.core.errors import ContextTooLong, InvalidArguments, KimiError, MediaRejected, PathRefused
from kimi_mcp.media.roots import find_roots
from kimi_mcp.media.search import Search
from kimi_mcp.media.text_files import TextFile, as_context, gather_files
from tests.media.ways import WAYS, opened

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
Gather = Callable[..., dict[str, str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def way() -> str:
    return "by descriptor"


@pytest.fixture
def gather(root: Path, way: str) -> Gather:
    def gather(*patterns: str, most_tokens: int = 100_000, **limits: Any) -> dict[str, str]:
        roots = opened(find_roots(str(root), working=str(root)), way)
        files = gather_files(patterns, roots, most_tokens=most_tokens, search=Search(roots, **limits)).files()
        return {file.path: file.text for file in files}

    return gather


def write(root: Path, *names: str, **contents: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"<{name}>")


def error_of(gather: Gather, *patterns: str, **options: int) -> KimiError:
    with pytest.raises(KimiError) as refused:
        gather(*patterns, **options)
    return refused.value


# ------------------------------------------------------------------------------------------------ what is taken


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.py", ["a.py"]),
        ("*.py", ["a.py"]),
        ("src/*.py", ["src/b.py"]),
        ("src/**/*.py", ["src/b.py", "src/in/c.py", "src/in/deep/d.py"]),
        ("**/*.py", ["a.py", "src/b.py", "src/in/c.py", "src/in/deep/d.py"]),
        ("**/deep/*", ["src/in/deep/d.py"]),
        ("src/**", ["src/b.py", "src/in/c.py", "src/in/deep/d.py", "src/notes.md"]),
        ("**/in/**/d.py", ["src/in/deep/d.py"]),
        ("./src/../*.{md,toml}", ["one.md", "two.toml"]),
        ("[ao]*.[pm][yd]", ["a.py", "one.md"]),
        ("[!a]ne.md", ["one.md"]),
        ("src/?.py", ["src/b.py"]),
        ("{a,src/b}.py", ["a.py", "src/b.py"]),
        ("{x,y}.tsx", ["{x,y}.tsx"]),
        ("[id].tsx", ["[id].tsx"]),
    ],
)
def test_names_and_globs_take_what_they_say(pattern: str, names: list[str], root: Path, gather: Gather) -> None:
    write(root, "a.py", "src/b.py", "src/in/c.py", "src/in/deep/d.py", "src/notes.md", "one.md", "two.toml", "[id].tsx",
          "i.tsx", "{x,y}.tsx", "x.tsx")  # fmt: skip
    found = gather(pattern)
    assert sorted(found) == sorted(names)
    assert all(text == f"<{name}>" for name, text in found.items())


def test_each_file_comes_once_in_the_order_named(root: Path, gather: Gather) -> None:
    write(root, "b.md", "a.md", "z/c.md")
    os.link(root / "a.md", root / "same.md")
    assert list(gather("z/c.md", "b.md", "*.md", "a.md", "./z/../b.md")) == ["z/c.md", "b.md", "a.md"]


def test_an_absolute_glob_within_the_root_is_a_glob(root: Path, gather: Gather) -> None:
    write(root, "src/a.py")
    assert list(gather(f"{root}/**/*.py")) == ["src/a.py"]


@pytest.mark.parametrize("glob", ["../*", "/etc/*", "/**/*.py", "src/*/../../../*", "{..,src}/*", "~/**"])
def test_a_glob_never_leaves_the_roots(glob: str, root: Path, gather: Gather) -> None:
    write(root, "src/a.py", "../outside.txt")
    error = error_of(gather, glob)
    assert isinstance(error, PathRefused)
    assert "outside" in error.message
    assert "etc" not in error.message


def test_two_roots_with_the_same_path_are_distinguished(tmp_path: Path) -> None:
    write(tmp_path, "one/README.md", "two/README.md", "one/only.md")
    roots = find_roots(f"{tmp_path}/one{os.pathsep}{tmp_path}/two", working=str(tmp_path))
    files = gather_files([f"{tmp_path}/one/*.md", f"{tmp_path}/two/*.md"], roots, most_tokens=1000).files()
    assert [file.path for file in files] == ["one/README.md", "only.md", "two/README.md"]


# ------------------------------------------------------------------------------------------- what is left out


def test_a_glob_leaves_out_hidden_ignored_binary_and_key_like_files_and_links(root: Path, gather: Gather) -> None:
    write(root, "keep.txt", ".hidden.txt", ".config/x.txt", "server.pem", "id_rsa", "credentials", "log/a.log",
          "build/out.txt", "sub/secret.key", "sub/keep.txt", "sub/skip.txt", "../outside/o.txt")  # fmt: skip
    (root / ".gitignore").write_text("*.log\n/build/\n")
    (root / "sub" / ".gitignore").write_text("skip.*\n")
    (root / "shot.png").write_bytes(PNG)
    (root / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    (root / "tail.txt").write_bytes(b"x" * 9000 + b"\xff")
    (root / "key.txt").write_text("-----BEGIN RSA PRIVATE KEY-----\n")
    (root / "link.txt").symlink_to("keep.txt")
    (root / "folder").symlink_to("../outside")
    os.mkfifo(root / "pipe")
    assert list(gather("**/*")) == ["keep.txt", "sub/keep.txt"]
    assert list(gather("**")) == ["keep.txt", "sub/keep.txt"]


def test_a_root_within_a_repository_obeys_the_rules_above_it(tmp_path: Path) -> None:
    write(tmp_path, "top/pkg/a.py", "top/pkg/dist/b.py", "top/pkg/c.log", "top/pkg/d.tmp")
    (tmp_path / ".gitignore").write_text("a.py")
    (tmp_path / "top" / ".gitignore").write_text("dist/\n*.log")
    root = tmp_path / "top" / "pkg"

    def taken() -> list[str]:
        files = gather_files(["**"], find_roots(str(root), working=str(root)), most_tokens=100_000).files()
        return [file.path for file in files]

    assert taken() == ["a.py", "c.log", "d.tmp", "dist/b.py"], "no repository, no rules"
    (tmp_path / "top" / ".git").mkdir()
    assert taken() == ["a.py", "d.tmp"], "up to the top of the repository, and no further"
    write(tmp_path, "top/.git/info/exclude")
    (tmp_path / "top" / ".git" / "info" / "exclude").write_text("/pkg/*.tmp")
    assert taken() == ["a.py"]
    (root / ".gitignore").write_text("!c.log")
    assert taken() == ["a.py", "c.log"], "the innermost rule decides"
    (root / ".git").write_text("gitdir: elsewhere")
    assert taken() == ["a.py", "c.log", "d.tmp", "dist/b.py"], "a repository of its own, as a worktree is"


def test_what_globs_leave_out_can_be_named_unless_it_is_a_key_or_a_link(root: Path, gather: Gather) -> None:
    write(root, ".hidden.txt", ".github/workflows/ci.yml", "out.log", ".env", ".env.example", ".ssh/id_ed25519.pub")
    (root / ".gitignore").write_text("*.log\n")
    (root / "link").symlink_to("out.log")
    assert list(gather(".hidden.txt", "out.log", ".env.example", ".ssh/id_ed25519.pub")) == [
        ".hidden.txt", "out.log", ".env.example", ".ssh/id_ed25519.pub"]  # fmt: skip
    assert list(gather(".github/**/*.yml")) == [".github/workflows/ci.yml"]
    assert isinstance(error_of(gather, ".env"), PathRefused)
    assert "a link" in error_of(gather, "link").message
    assert isinstance(error_of(gather, "link"), PathRefused)


def test_a_glob_that_takes_nothing_says_which_and_what_was_left_out(root: Path, gather: Gather) -> None:
    write(root, "a.log", "b.log", "one.pem", "here.md", ".x.md")
    (root / ".gitignore").write_text("*.log\n")
    (root / "c.png").write_bytes(PNG)
    (root / "k.txt").write_text("-----BEGIN PRIVATE KEY-----\n")
    (root / "l.ln").symlink_to("here.md")
    for glob, left_out in {
        "*.log": "2 git-ignored",
        "*.pem": "1 key-like",
        "*.png": "1 not text",
        "k*": "1 refused",
        "*.ln": "1 links or special files",
        "x*": "1 hidden",
    }.items():
        error = error_of(gather, "here.md", glob)
        assert isinstance(error, InvalidArguments)
        assert error.message == f"`{glob}` in `files` fits no text file (left out: {left_out})."
    assert error_of(gather, "nothing/**/*.py").message == "`nothing/**/*.py` in `files` fits no text file."


def test_a_missing_file_or_a_folder_that_is_named_is_refused(root: Path, gather: Gather) -> None:
    write(root, "src/a.py")
    assert error_of(gather, "b.py").message == "`b.py` is not there."
    error = error_of(gather, "src")
    assert error.message == "`src` is a folder."
    assert "`folder/*`" in error.fix


# --------------------------------------------------------------------------------------------- text or not


@pytest.mark.parametrize(
    "content",
    [
        "Grüße".encode(),
        "Grüße".encode("utf-8-sig"),
        "Grüße".encode("utf-16"),
        b"\xfe\xff" + "Grüße".encode("utf-16-be"),
    ],
)
def test_text_comes_without_its_byte_order_mark(content: bytes, root: Path, gather: Gather) -> None:
    (root / "a.txt").write_bytes(content)
    assert gather("a.txt") == gather("*.txt") == {"a.txt": "Grüße"}


def test_text_is_verbatim_and_a_character_at_the_heads_edge_is_whole(root: Path, gather: Gather) -> None:
    text = "x" * 8191 + "€\r\nand on\r"
    (root / "a.txt").write_bytes(text.encode())
    assert gather("a.txt") == {"a.txt": text}


@pytest.mark.parametrize(
    ("content", "kind", "words", "tool"),
    [
        (PNG, MediaRejected, "a picture", "kimi_vision"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", MediaRejected, "a picture", "kimi_vision"),
        (b"RIFF\x00\x10\x00\x00WEBPVP8 ", MediaRejected, "a picture", "kimi_vision"),
        (b"\x00\x00\x00\x1cftypheic\x00", MediaRejected, "a picture", "kimi_vision"),
        (b"\x00\x00\x00\x1cftypisom\x00", MediaRejected, "a video", "kimi_video"),
        (b"\x1a\x45\xdf\xa3\x01\x00", MediaRejected, "a video", "kimi_video"),
        (b"PK\x03\x04\x14\x00", InvalidArguments, "a ZIP archive", "text file"),
        (b"\x7fELF\x02\x01\x00", InvalidArguments, "a program", "text file"),
        (b"nothing known\x00", InvalidArguments, "not text in UTF-8", "UTF-8"),
        ("Grüße".encode("latin-1"), InvalidArguments, "not text in UTF-8", "UTF-8"),
        (b"x" * 9000 + b"\xff", InvalidArguments, "not text in UTF-8", "UTF-8"),
        (b"\xff\xfe\x00", InvalidArguments, "not text in UTF-8", "UTF-8"),
    ],
)
def test_what_is_no_text_says_what_it_is_and_which_tool_takes_it(
    content: bytes, kind: type[KimiError], words: str, tool: str, root: Path, gather: Gather
) -> None:
    (root / "thing.txt").write_bytes(content)
    error = error_of(gather, "thing.txt")
    assert type(error) is kind
    assert words in error.message
    assert tool in error.fix


# --------------------------------------------------------------------------------------------------- too much


def test_too_much_says_how_far_over_and_names_the_five_largest(root: Path, gather: Gather) -> None:
    for number in range(1, 8):
        (root / f"{number}.txt").write_text("word" * 1000 * number)
    error = error_of(gather, "*.txt", most_tokens=20_000)
    assert isinstance(error, ContextTooLong)
    over = re.search(r"about ([\d,]+) tokens, ([\d,]+) more than the 20,000 that fit", error.message)
    assert over
    total = int(over[1].replace(",", ""))
    assert 28_000 < total < 28_100
    assert int(over[2].replace(",", "")) == total - 20_000
    assert re.findall(r"`(\d).txt`", error.message) == ["7", "6", "5", "4", "3"]
    assert "files" in error.fix


def test_a_sparse_file_is_counted_by_its_size_and_not_read(root: Path, gather: Gather) -> None:
    with (root / "huge.txt").open("wb") as huge:
        huge.write(b"x" * 10_000)
        huge.truncate(10 * 1024**3)
    error = error_of(gather, "huge.txt")
    assert isinstance(error, ContextTooLong)
    assert "`huge.txt` (about 2,684,3" in error.message


def test_what_just_fits_is_taken(root: Path, gather: Gather) -> None:
    (root / "a.txt").write_text("word" * 1000)
    assert gather("a.txt", most_tokens=1010)
    assert isinstance(error_of(gather, "a.txt", most_tokens=1000), ContextTooLong)


def test_a_search_stops_at_its_bounds(root: Path, gather: Gather) -> None:
    write(root, *(f"d{n % 7}/{n}.txt" for n in range(60)))
    assert len(gather("**/*.txt", "**/*.txt", "d1/*.txt", visits=80)) == 60, "folders are listed once"
    with pytest.raises(InvalidArguments, match=r"lead through more than 20,000 names"):
        gather("**/*.txt", visits=40)
    ticks = iter(range(1000))
    with pytest.raises(InvalidArguments, match="could not be followed within 10 seconds"):
        gather("**/*.txt", clock=lambda: float(next(ticks)))


@pytest.mark.parametrize("way", ["by path"])
def test_a_search_does_not_enter_what_the_glob_can_not_reach(
    root: Path, gather: Gather, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, "src/a.py", "other/b.py", "node_modules/c/d.py")
    (root / ".gitignore").write_text("node_modules\n")
    listed: list[str] = []
    listing = os.scandir

    def list_folder(path: str) -> Any:
        listed.append(os.path.relpath(path, root))
        return listing(path)

    monkeypatch.setattr(os, "scandir", list_folder)
    assert list(gather("src/**/*.py")) == ["src/a.py"]
    assert listed == ["src"]
    assert sorted(gather("**/*.py")) == ["other/b.py", "src/a.py"]
    assert not any("node_modules" in name for name in listed)


def test_braces_that_stand_for_too_much_are_refused(gather: Gather) -> None:
    error = error_of(gather, "{a,b}" * 12)
    assert isinstance(error, InvalidArguments)
    assert "braces" in error.fix


# ------------------------------------------------------------------------------------------------ as context


def test_each_file_is_a_block_under_its_path() -> None:
    files = [
        TextFile(path="src/a.py", text="x = 1\n"),
        TextFile(path="b.md", text="no line end"),
        TextFile(path="c", text=""),
    ]
    assert as_context(files) == (
        "## src/a.py\n\n```\nx = 1\n```\n\n## b.md\n\n```\nno line end\n```\n\n## c\n\n```\n```\n"
    )
    assert as_context([]) == ""


def test_no_content_ends_its_own_fence_and_no_name_its_own_line() -> None:
    text = "```\n## fake.py\n```````\nstill inside\n``"
    block = as_context([TextFile(path="a\n## b`.md", text=text)])
    heading, _, fenced = block.partition("\n\n")
    assert heading == "## a\\u000a## b`.md"
    fence = fenced.split("\n", 1)[0]
    assert fence == "`" * 8
    assert fenced == f"{fence}\n{text}\n{fence}\n"
    assert fence not in text
