"""Example files of every host, and an entry put in and taken out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.cli.install import (
    HostRow,
    InstallResult,
    LaunchCommand,
    install,
    load_hosts,
    uninstall,
)
from kimi_mcp.cli.install.documents import FORMATS, changed

HOSTS = load_hosts()
STARTED = LaunchCommand(command="/opt/kimi mcp/bin/kimi-mcp")
KEY = "sk-5up3r-s3cr3t-k3y"
OTHER = {"command": "/usr/bin/other", "args": ["--é"], "cmd": "/usr/bin/other"}

each_host = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)


def put(
    host: HostRow, file: Path, env: dict[str, str] | None = None, name: str = "kimi", **environment: str
) -> InstallResult:
    return install(host, name, STARTED, env or {}, environment=environment, file=file, home=file.parent)


def take(host: HostRow, file: Path, name: str = "kimi") -> InstallResult:
    return uninstall(host, name, file=file, home=file.parent)


def servers(host: HostRow, file: Path) -> Any:
    value = FORMATS[host.kind].read(file.read_text("utf-8-sig"))
    for step in host.servers:
        value = value[step]
    return value


def with_other(host: HostRow) -> str:
    """A host's file with another server in it, and with comments where the kind has them."""
    text = changed(FORMATS[host.kind], "", put=[((*host.servers, "other"), OTHER)])
    return {"json": "", "jsonc": "// mine\n", "toml": "# mine\n", "yaml": "# mine\n"}[host.kind] + text


def written(file: Path) -> tuple[int, ...]:
    """What changes with each writing; when it was last read is not of it."""
    state = file.stat()
    return state.st_ino, state.st_mtime_ns, state.st_size


def command_of(entry: Any) -> str:
    command = entry.get("command") or entry["cmd"]
    return command[0] if isinstance(command, list) else command
