"""Globs and ignore rules as questions about names, held against git itself where it is there."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.media.globs import Glob, braces_expanded, has_magic, ignore_rules, verdict
from kimi_mcp.media.roots import Roots, find_roots
from kimi_mcp.media.text_files import gather_files

ROUNDS = int(os.environ.get("RULE_ROUNDS", "15"))
SEED = int(os.environ.get("RULE_SEED", "1"))

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is the oracle")


def taken(roots: Roots) -> list[str]:
    """What `**/*` takes, sorted; nothing where it fits nothing."""
    try:
        return sorted(file.path for file in gather_files(["**/*"], roots, most_tokens=1_000_000).files())
    except InvalidArguments:
        return []


def ignored(rules: str, path: str, *, folder: bool = False) -> bool | None:
    return verdict(ignore_rules(rules), path.split("/"), folder=folder)


@pytest.mark.parametrize(
    ("rules", "path", "outcome"),
    [
        ("*.log", "a/b.log", True),
        ("/*.log", "a/b.log", None),
        ("*.log\n!keep.log", "keep.log", False),
        ("!keep.log\n*.log", "keep.log", True),
        ("# a comment\n\\#kept", "#kept", True),
        ("\\!bang", "!bang", True),
        ("a/b", "a/b", True),
        ("a/b", "x/a/b", None),
        ("**/b", "x/a/b", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**", "a/x", True),
        ("a/**", "a", None),
        ("trail  ", "trail", True),
        ("trail\\ ", "trail ", True),
        ("cr\r", "cr", True),
        ("[a-c]x", "bx", True),
        ("[!a-c]x", "bx", None),
        ("[^a-c]x", "dx", True),
        ("[[:digit:]]", "7", True),
        ("[]a]", "]", True),
        ("[a\\]b]", "]", True),
        ("[z-a]", "m", None),
        ("[open", "[open", None),
        ("end\\", "end\\", None),
        ("a?c", "abc", True),
        ("x" * 1001, "x" * 1001, None),
        ("\n\n/\n", "a", None),
    ],
)
def test_a_rule_says_what_git_says(rules: str, path: str, outcome: bool | None) -> None:
    assert ignored(rules, path) is outcome


def test_a_rule_for_folders_is_about_folders_alone() -> None:
    assert ignored("out/", "out", folder=True) is True
    assert ignored("out/", "out", folder=False) is None


@needs_git
def test_random_rules_leave_out_the_very_files_that_git_leaves_out(tmp_path: Path) -> None:
    seeded = random.Random(SEED)
    names = ["a", "b", "ab", "a.b", "b.log", "c d", "x[1]", "#h"]
    pieces = [
        "a",
        "b",
        "*",
        "?",
        "**",
        "a*",
        "*b",
        "*.log",
        "[ab]",
        "[!a]",
        "a.b",
        "\\#h",
        "x\\[1\\]",
        "c d",
        "[a-b]*",
        "*a*b*",
    ]
    root = tmp_path / "repository"
    for top in names:
        for below in names[:5]:
            for leaf in names:
                path = root / f"d{top}" / f"{below}" / leaf
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{path}")
    for leaf in names:
        (root / leaf).write_text(leaf)
    git = ["git", "-c", "core.excludesFile=", "-C", str(root)]
    subprocess.run(["git", "init", "-q", str(root)], check=True, capture_output=True)
    roots = find_roots(str(root), working=str(root))

    def line() -> str:
        text = "/".join(
            seeded.choice([*pieces, *(f"d{name}" for name in names[:3])]) for _ in range(seeded.randint(1, 3))
        )
        return seeded.choice(["", "", "", "!"]) + seeded.choice(["", "", "/"]) + text + seeded.choice(["", "", "/"])

    for _ in range(ROUNDS):
        (root / ".gitignore").write_text(
            "\n".join(line() for _ in range(seeded.randint(1, 4))) + "\nkept-never-empty\n"
        )
        (root / "da" / ".gitignore").write_text("\n".join(line() for _ in range(seeded.randint(0, 3))))
        (root / ".git" / "info" / "exclude").write_text(line())
        listed = subprocess.run(
            [*git, "ls-files", "-z", "--others", "--exclude-standard"], check=True, capture_output=True
        ).stdout.decode()
        expected = sorted(path for path in listed.split("\0") if path and not path.endswith(".gitignore"))
        found = taken(roots)
        rules = [(root / name).read_text() for name in (".gitignore", "da/.gitignore", ".git/info/exclude")]
        assert found == expected, rules
        if subprocess.run([*git, "check-ignore", "-q", "da"], check=False).returncode:  # else nothing of it is left
            below = [path.removeprefix("da/") for path in expected if path.startswith("da/")]
            assert taken(find_roots(str(root / "da"), working=str(root / "da"))) == below, rules


@pytest.mark.parametrize(
    "line", ["*a" * 200 + "*b", "**/" * 300 + "b", "*" * 900 + "b", "a?" * 400, "[a-z]*" * 150 + "0"]
)
def test_a_hostile_rule_or_glob_takes_no_longer_than_its_length(line: str) -> None:
    name = "a" * 255
    began = time.process_time()
    assert ignored(line, f"{'/'.join([name] * 12)}") is None
    glob = Glob.of(line.split("/"))
    assert not glob.matches("/".join([name] * 12))
    assert time.process_time() - began < 2


def test_a_wildcard_takes_no_hidden_name_but_a_spelled_out_one_may_be_hidden() -> None:
    for pattern, path, fits in [
        ("*", ".a", False),
        ("**/a", ".x/a", False),
        ("?a", ".a", False),
        ("[.]a", ".a", False),
        (".*", ".a", False),
        (".a", ".a", True),
        (".x/*.py", ".x/a.py", True),
        ("**/.x/a", "b/.x/a", True),
    ]:
        assert bool(Glob.of(pattern.split("/")).matches(path)) is fits, pattern


def test_braces_are_taken_apart_in_order() -> None:
    assert braces_expanded("a.{ts,tsx}") == ("a.ts", "a.tsx")
    assert braces_expanded("{a,b}{,c}") == ("a", "ac", "b", "bc")
    assert braces_expanded("{a,{b,c}}") == ("a", "b", "c")
    assert braces_expanded("{a}") == ("{a}",)
    assert not has_magic("{a}.txt")
    assert has_magic("{a,b}.txt")
