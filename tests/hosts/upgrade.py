"""For ``make hosts-upgrade``: moves every package of ``tests/npm.py`` to its newest version. I/O: npm, that file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests import npm
from tests.npm import NPM, Program


def newest(package: str) -> str:
    """The package in its newest version; one that is pinned before its release stays."""
    name, _, version = package.rpartition("@")
    if "-" in version:
        return package
    return f"{name}@{NPM.newest(name)}"


def main() -> None:
    """Move the pins, and print each move. What can't be had in its newest version stays as it is."""
    file = Path(npm.__file__)
    for old in [value for value in vars(npm).values() if isinstance(value, Program)]:
        new = replace(old, package=newest(old.package), beside=tuple(map(newest, old.beside)))
        if old == new:
            print(f"{old.package} is the newest")
        elif isinstance(found := NPM.find(new), str):
            print(f"{old.package} stays, since {new.package} can't be had: {found}")
        else:
            text = file.read_text("utf-8")
            for before, after in zip((old.package, *old.beside), (new.package, *new.beside), strict=True):
                print(f"{before} -> {after}")
                text = text.replace(f'"{before}"', f'"{after}"')
            file.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
