"""What the container file makes, without a container: its own commands, in a folder; and what runs in it. I/O."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.abc
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from kimi_mcp.simulator import Simulator
from tests.deploy.parts import ROOT, context, named, stages
from tests.npm import OWN_PROXIES
from tests.server.http.served import free_port

UNREACHABLE = ("NewConnectionError", "Could not find a version", "Max retries exceeded", "Temporary failure")

READ_ONLY = """
mount --bind "$1" "$1" && mount -t tmpfs none "$2" && mount -o remount,bind,ro / || exit 96
if touch "$3/written" 2>/dev/null; then exit 97; fi
shift 3
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
"""
"""Runs a command on a disk that is read-only but for a folder ($1) and a folder in memory ($2); $3 is on that disk."""


@dataclass(frozen=True, slots=True)
class Image:
    """A folder as the image has it."""

    place: Path

    @property
    def programs(self) -> Path:
        """Where its programs are."""
        return self.place / "opt" / "kimi-mcp" / "bin"

    def variables(self) -> dict[str, str]:
        """The environment that the image sets."""
        (line,) = named(stages()[-1], "ENV")
        found = dict(part.split("=", 1) for part in shlex.split(line))
        return {name: self.moved(value).replace("$PATH", os.defpath) for name, value in found.items()}

    def moved(self, text: str) -> str:
        """A text with this folder's paths in place of the image's."""
        for path in ("/opt/kimi-mcp", "/tmp/wheels", "/data"):
            text = text.replace(path, f"{self.place}{path}")
        return text

    def command(self, *arguments: str, read_only: bool = False) -> list[str]:
        """The image's command, with ``arguments`` instead of its own ones; on a read-only disk if asked to."""
        command = [*json.loads(named(stages()[-1], "ENTRYPOINT")[0]), *arguments]
        command[0] = str(self.programs / command[0])
        if not read_only:
            return command
        temporary = self.place / "tmp-of-its-own"
        temporary.mkdir(exist_ok=True)
        return [
            "unshare",
            "--mount",
            "sh",
            "-c",
            READ_ONLY,
            "sh",
            f"{self.place}/data",
            str(temporary),
            str(self.place),
            *command,
        ]

    def run(self, *arguments: str, **variables: str) -> str:
        """What the image's command prints."""
        ended = subprocess.run(
            self.command(*arguments),
            env=self.variables() | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    @asynccontextmanager
    async def serving(
        self, sim: Simulator, variables: dict[str, str], *, read_only: bool = False
    ) -> AsyncIterator[Serving]:
        """The image's server, as its own command starts it but for the port; ended by SIGTERM."""
        port = free_port()
        started = json.loads(named(stages()[-1], "CMD")[0])
        provider = {"KIMI_PROVIDER": "simulator", "KIMI_BASE_URL": sim.base_url}
        process = await anyio.open_process(
            self.command(*started, "--port", str(port), read_only=read_only),
            env={**self.variables(), **provider, **variables},
            cwd=self.place / "data",
            stderr=sys.stderr,
        )
        serving = Serving(process, port)
        try:
            with anyio.fail_after(60):
                while not await serving.answers("/readyz"):
                    assert process.returncode is None, process.returncode
                    await anyio.sleep(0.05)
            yield serving
            process.terminate()
            with anyio.fail_after(60):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await process.aclose()


@dataclass(frozen=True, slots=True)
class Serving:
    """A server of the image."""

    process: anyio.abc.Process
    port: int

    async def answers(self, path: str) -> bool:
        """Whether it answers 200."""
        try:
            async with httpx2.AsyncClient(trust_env=False) as client:
                return (await client.get(f"http://127.0.0.1:{self.port}{path}")).status_code == 200
        except httpx2.TransportError:
            return False

    @asynccontextmanager
    async def client(self, token: str) -> AsyncIterator[Client]:
        """The SDK's client with a token."""
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http,
            Client(streamable_http_client(f"http://127.0.0.1:{self.port}/mcp", http_client=http)) as client,
        ):
            yield client


def build(place: Path) -> Image:
    """Do what the first stage does, and what the last one takes from it. Skips the test where no package can be had."""
    image = Image(place)
    stage = stages()[0]
    source = place / "src"
    for path in context():
        target = source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, target)
    (place / "data").mkdir(mode=0o700)
    subprocess.run([sys.executable, "-m", "venv", place / "base"], check=True)
    _run(stage, image, source, {"PATH": os.pathsep.join((str(place / "base" / "bin"), os.environ["PATH"]))})
    return image


def _run(stage: list[tuple[str, str]], image: Image, source: Path, variables: dict[str, str]) -> None:
    settings = dict(part.split("=", 1) for line in named(stage, "ENV") for part in shlex.split(line))
    del settings["PIP_NO_CACHE_DIR"]  # what an image must not keep makes this quick
    for command in named(stage, "RUN"):
        ended = subprocess.run(
            ["sh", "-ec", image.moved(command)],
            cwd=source,
            env=os.environ | OWN_PROXIES | settings | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if any(word in ended.stderr for word in UNREACHABLE):
            pytest.skip("the packages of requirements/server.txt can't be had")
        assert ended.returncode == 0, ended.stdout + ended.stderr
