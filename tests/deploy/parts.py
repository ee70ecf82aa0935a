"""The files in ``deploy/``, read. No I/O but that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"


def compose() -> dict[str, Any]:
    """``compose.yaml``."""
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))


def manifest(path: str) -> dict[str, Any]:
    """A file under ``kubernetes``."""
    return yaml.safe_load((KUBERNETES / path).read_text("utf-8"))


def unit() -> dict[str, str]:
    """The directives of the systemd unit; of one that is repeated the last."""
    text = (DEPLOY / "systemd" / "kimi-mcp.service").read_text("utf-8")
    return dict(re.findall(r"(?m)^(\w+)=(.*)$", text))


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage of the container file, as (name, rest), arguments put in."""
    text = re.sub(r"(?m)^#.*\n", "", (DEPLOY / "Containerfile").read_text("utf-8")).replace("\\\n", " ")
    found: list[list[tuple[str, str]]] = []
    arguments: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, rest = line.split(maxsplit=1)
        if name == "ARG":
            argument, value = rest.split("=", 1)
            arguments[argument] = value
        elif name == "FROM":
            found.append([(name, rest.replace("${BASE}", arguments["BASE"]))])
        else:
            found[-1].append((name, rest))
    return found


def named(stage: list[tuple[str, str]], name: str) -> list[str]:
    """The rests of one instruction."""
    return [rest for each, rest in stage if each == name]


def context() -> Iterator[Path]:
    """What ``.dockerignore`` lets into the build, from the root: it names what is in, and leaves out all else."""
    everything, *lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[0] != "#"]
    assert (everything, lines.pop()) == ("*", "**/__pycache__")
    for line in lines:
        assert line[0] == "!", line
        yield Path(line[1:])
