"""For ``make hosts-upgrade``: moves every package of ``tests/npm.py`` to its newest version. I/O: npm, that file."""

from __future__ import annotations

import re
from pathlib import Path

from tests import npm

PIN = re.compile(r'(?<=")((?:@[\w.-]+/)?[\w.-]+)@(\d[\w.-]*)(?=")')


def main() -> None:
    """Move the pins, and print each move."""
    file = Path(npm.__file__)
    text = file.read_text("utf-8")
    for name, version in PIN.findall(text):
        newest = npm.NPM.newest(name)
        print(f"{name}: {version}" + (" is the newest" if newest == version else f" -> {newest}"))
        text = text.replace(f'"{name}@{version}"', f'"{name}@{newest}"')
    file.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
