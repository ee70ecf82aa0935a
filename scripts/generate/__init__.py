"""Generates blocks of the documents, and the manifests, from the code. Writes them, or reports which are stale.

``python -m scripts.generate`` rewrites every block of ``PLACES`` and every file under ``manifests/``; with ``--check``
it changes nothing and exits 1 if one is stale. A block is between ``<!-- generated: NAME -->`` and ``<!-- end -->``, or
in the YAML of a frontmatter between ``# generated: NAME`` and ``# end``. Nothing depends on the day of a run.
``blocks`` and ``codes`` make the contents.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts import manifests
from scripts.generate import blocks, codes, early_replies

__all__ = ["PLACES", "ROOT", "main", "renewed"]

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

PLACES: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("README.md", "registry", blocks.registry),
    ("README.md", "tools", blocks.tools),
    ("README.md", "moonshot", blocks.moonshot),
    ("docs/guides/install.md", "hosts", blocks.hosts),
    ("docs/guides/team-server.md", "remotes", blocks.remote_hosts),
    ("docs/guides/prompts-and-routing.md", "prompts", blocks.offered_prompts),
    ("docs/guides/self-hosting.md", "weights", blocks.weights),
    ("docs/reference/tools.md", "tools", blocks.tools),
    ("docs/reference/tools.md", "arguments", blocks.arguments),
    ("docs/reference/settings.md", "settings", blocks.settings),
    ("docs/reference/policy.md", "rules", blocks.rules),
    ("docs/reference/models.md", "providers", blocks.providers),
    ("docs/reference/models.md", "models", blocks.models),
    ("docs/reference/models.md", "serving", blocks.serving),
    ("docs/reference/facts.md", "facts", blocks.other_facts),
    ("docs/reference/errors.md", "errors", codes.error_codes),
    ("docs/reference/commands.md", "commands", blocks.commands),
    ("skill.md", "keys", blocks.keys),
    ("skill.md", "modes", blocks.modes),
    ("skill.md", "video", blocks.video),
    ("skill.md", "direct", blocks.by_hand),
    ("skill.md", "access", blocks.access),
    ("skill.md", "weights", blocks.weights),
    ("skill.md", "mistakes", blocks.mistakes),
)
"""Every generated block: the document, the block's name, and what makes it."""


def renewed(text: str, file: str) -> str:
    """A document with each of its blocks renewed. Raises ``ValueError`` if one is missing."""
    for name, make in ((name, make) for place, name, make in PLACES if place == file):
        made, times = make(), 0
        for opening, closing, whole in (
            (rf"<!-- generated: {name} -->\n", "<!-- end -->", f"\n{made}\n\n"),
            (rf"^ *# generated: {name}\n", "^ *# end$", f"{made}\n"),
        ):
            block = re.compile(f"({opening}).*?({closing})", re.DOTALL | re.MULTILINE)
            text, found = block.subn(lambda parts, whole=whole: parts[1] + whole + parts[2], text)
            times += found
        if times != 1:
            raise ValueError(f"{file} has {times} blocks between <!-- generated: {name} --> and <!-- end -->, not one.")
    return text


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write what is stale, or with ``--check`` name it; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.generate", description="Renews the generated documents.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something is stale")
    check: bool = parser.parse_args(arguments).check
    try:
        old = {file: (root / file).read_text("utf-8") for file, _, _ in PLACES}
        new = {file: renewed(text, file) for file, text in old.items()}
        made = manifests.files(skill_text=new["skill.md"])
    except (FileNotFoundError, ValueError) as fault:
        print(f"{fault}\nThis needs a complete checkout of the repository.", file=sys.stderr)
        return 1
    present = {
        path.relative_to(root).as_posix(): path for path in (root / manifests.FOLDER).rglob("*") if path.is_file()
    }
    if (file := root / early_replies.FILE).is_file():
        old[early_replies.FILE] = file.read_text("utf-8")
    old |= {name: path.read_text("utf-8", "replace") for name, path in present.items()}
    new |= made | {early_replies.FILE: early_replies.early_replies()}
    stale = [file for file in (*new, *(present.keys() - made.keys())) if old.get(file) != new.get(file)]
    if check and stale:
        print(f"Stale: {', '.join(stale)}. Run: python -m scripts.generate", file=sys.stderr)
        return 1
    for file in stale:
        _put(root / file, new.get(file))
    print(f"Written: {', '.join(stale)}" if stale else "Everything that is generated is up to date.")
    return 0


def _put(path: Path, text: str | None) -> None:
    """Write a file; one that is no longer generated is removed."""
    if text is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8", newline="\n")
