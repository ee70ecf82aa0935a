"""A network namespace whose ways to the database and to the provider can be cut, one by one. I/O: ``ip``, as root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import anyio
import pytest
from anyio.abc import ByteReceiveStream, ByteSendStream, SocketStream

WAYS = ("database", "provider")
"""Each is a pair of interfaces with a network of its own."""


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, timeout=30)


@dataclass(frozen=True, slots=True)
class Network:
    """A namespace; what runs in it reaches the database and the provider at ``hosts``."""

    name: str
    hosts: dict[str, str]
    ports: dict[str, int]

    @property
    def within(self) -> Sequence[str]:
        """The beginning of a command that runs in it."""
        return ("ip", "netns", "exec", self.name)

    def cut(self, way: str, *, cut: bool = True) -> None:
        """Let every packet of one way be lost, or none any more; nobody is notified."""
        done = _ip("link", "set", self._interface(way), "down" if cut else "up")
        assert done.returncode == 0, done.stderr

    def _interface(self, way: str) -> str:
        return f"{self.name}{way[0]}0"


@asynccontextmanager
async def network(targets: dict[str, int]) -> AsyncIterator[Network]:
    """A namespace; ``targets`` are the ports of this machine that its ways lead to. Skips where that is not allowed."""
    name = f"kimi{os.getpid() % 100_000}"
    if shutil.which("ip") is None or _ip("netns", "add", name).returncode != 0:
        pytest.skip("network namespaces can't be made here: that takes Linux, root and `ip`")
    try:
        async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
            assert _ip("-n", name, "link", "set", "lo", "up").returncode == 0
            found = Network(name, {}, {})
            for number, way in enumerate(WAYS):
                here, there = f"{name}{way[0]}0", f"{name}{way[0]}1"
                made = _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
                if made.returncode != 0:
                    pytest.skip(f"no pair of interfaces can be made here: {made.stderr.strip()}")
                address = f"10.213.{number}"
                for command in (
                    ("addr", "add", f"{address}.1/30", "dev", here),
                    ("link", "set", here, "up"),
                    ("-n", name, "addr", "add", f"{address}.2/30", "dev", there),
                    ("-n", name, "link", "set", there, "up"),
                ):
                    done = _ip(*command)
                    assert done.returncode == 0, done.stderr
                listener = await stack.enter_async_context(await anyio.create_tcp_listener(local_host=f"{address}.1"))
                found.hosts[way], found.ports[way] = (
                    f"{address}.1",
                    listener.extra(anyio.abc.SocketAttribute.local_port),
                )
                tasks.start_soon(listener.serve, _Forwarding(targets[way]))
            yield found
            tasks.cancel_scope.cancel()
    finally:
        _ip("netns", "del", name)


class _Forwarding:
    """Passes on what comes to a port of this machine: the servers listen on loopback alone."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __call__(self, outside: SocketStream) -> None:
        async with (
            outside,
            await anyio.connect_tcp("127.0.0.1", self._port) as inside,
            anyio.create_task_group() as tasks,
        ):
            for source, target in ((outside, inside), (inside, outside)):
                tasks.start_soon(self._pass, source, target, tasks.cancel_scope)

    async def _pass(self, source: ByteReceiveStream, target: ByteSendStream, both: anyio.CancelScope) -> None:
        try:
            async for data in source:
                await target.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        both.cancel()
