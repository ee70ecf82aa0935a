"""The processes that are measured: an MCP server spoken to in raw JSON lines, the source of tokens, and their figures.

A server's CPU and memory are the kernel's own figures for its process (``/proc``): user and system time together, all
threads. The client's own work is in another process and never counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from benchmarks import certificate, tokens

ROOT = Path(__file__).resolve().parent.parent

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")

NEWEST, OLDER = "2026-07-28", "2025-11-25"
"""The two eras of the protocol."""

ABOUT = {"name": "bench", "version": "1"}

NEWEST_META = {
    "io.modelcontextprotocol/protocolVersion": NEWEST,
    "io.modelcontextprotocol/clientInfo": ABOUT,
    "io.modelcontextprotocol/clientCapabilities": {},
}
"""What every request of the newest era says for itself."""


class Process:
    """A process of ours and what the kernel says of it."""

    def __init__(self, *command: str, environment: Mapping[str, str] | None = None, quiet: bool = False) -> None:
        """``quiet``: what it writes to stderr is thrown away."""
        # No variable of the user's own may change what is measured: no proxy, no key, no setting.
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=kept | dict(environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
        )
        self.input: IO[bytes] = _there(self._process.stdin)
        self.output: IO[bytes] = _there(self._process.stdout)

    def cpu_s(self) -> float:
        """CPU seconds that it has used so far."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(text[11]) + int(text[12])) / _TICKS

    def memory_mb(self) -> float:
        """Megabytes of memory that it holds (resident)."""
        return self._status_mb("VmRSS:")

    def peak_mb(self) -> float:
        """Megabytes of memory that it has held at most so far (resident)."""
        return self._status_mb("VmHWM:")

    def _status_mb(self, field: str) -> float:
        text = Path(f"/proc/{self._process.pid}/status").read_text("utf-8")
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(field)) * 1024 / 1e6

    def close(self) -> None:
        """Close its stdin and wait until it has gone."""
        self.input.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.output.close()

    def end(self) -> None:
        """Terminate a program that does not read its stdin, and wait."""
        self.terminate()
        self.close()

    def terminate(self) -> None:
        """Tell it to end."""
        self._process.terminate()


def _there(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


class Server(Process):
    """An MCP server on stdio, and its client."""

    def __init__(
        self, *command: str, tool: str, environment: Mapping[str, str] | None = None, newest: bool = False
    ) -> None:
        """``newest``: speak the newest era, which has no handshake."""
        super().__init__(*command, environment=environment)
        self._tool = tool
        self._meta = {"_meta": NEWEST_META} if newest else {}
        self._id = 0
        self.folder: TemporaryDirectory[str] | None = None
        """A folder of its own, which goes when it goes."""

    def close(self) -> None:
        """Close its stdin, wait until it has gone, and remove its folder."""
        super().close()
        if self.folder is not None:
            self.folder.cleanup()

    def connect(self) -> None:
        """Initialize, as a host does where its era has that, and list the tools."""
        if not self._meta:
            self._request("initialize", {"protocolVersion": OLDER, "capabilities": {}, "clientInfo": ABOUT})
            self._answer()
            self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self._request("tools/list", {})
        tools = self._answer()["tools"]
        assert self._tool in [tool["name"] for tool in tools], tools

    def calls(self, prompt: str, number: int, *, in_flight: int) -> None:
        """Call the tool so many times, so many calls at once, and see that each of them succeeded."""
        sent = 0
        for answered in range(number):
            while sent < number and sent - answered < in_flight:
                self._request("tools/call", {"name": self._tool, "arguments": {"prompt": prompt}})
                sent += 1
            result = self._answer()
            assert not result.get("isError"), result
            assert result["content"][0]["text"], result

    def call(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool once; the answer, after seeing that it succeeded."""
        self._request("tools/call", {"name": tool, "arguments": arguments})
        result = self._answer()
        assert not result.get("isError"), str(result)[:1_000]
        return result["content"][0]["text"]

    def _request(self, method: str, params: Mapping[str, Any]) -> None:
        self._id += 1
        self._write({"jsonrpc": "2.0", "id": self._id, "method": method, "params": {**params, **self._meta}})

    def _write(self, message: Mapping[str, Any]) -> None:
        self.input.write(json.dumps(message).encode() + b"\n")
        self.input.flush()

    def _answer(self) -> dict[str, Any]:
        while line := self.output.readline():
            message = json.loads(line)
            if "id" in message:
                assert "result" in message, message
                return message["result"]
        raise EOFError("the server has gone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where tokens come from."""

    base_url: str = "http://127.0.0.1:9/v1"
    """Its URL; by default nobody listens there: enough to list tools."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """What its readers need to know besides: whose certificates to trust."""


def ours(
    source: Source = Source(), *, at_once: int = 16, module: str = "kimi_mcp", newest: bool = False, **more: str
) -> Server:
    """``kimi-mcp serve``, pointed there, with a data folder of its own; ``more`` are variables besides."""
    folder, environment = our_environment(source, at_once, **more)
    server = Server("-m", module, tool="kimi_think", environment=environment, newest=newest)
    server.folder = folder
    return server


def our_environment(source: Source, at_once: int, **more: str) -> tuple[TemporaryDirectory[str], dict[str, str]]:
    """A data folder, and the variables of a server of ours that is pointed there."""
    folder = TemporaryDirectory(prefix="kimi-mcp-bench-")
    return folder, {
        "KIMI_DATA_DIR": folder.name,
        **source.environment,
        "KIMI_PROVIDER": "simulator",
        "KIMI_BASE_URL": source.base_url,
        "KIMI_MODEL": tokens.MODEL,
        "KIMI_MAX_CONCURRENCY": str(at_once),
        "KIMI_REPLY_WITHIN_S": "600",
        **more,
    }


def plain(source: Source) -> Server:
    """The plain tool on both SDKs."""
    environment = {**source.environment, "PLAIN_BASE_URL": source.base_url}
    return Server("-m", "benchmarks.plain_server", tool="ask", environment=environment)


def bare() -> Server:
    """The bare server with a tool that does nothing."""
    return Server("-m", "benchmarks.bare_server", tool="ask")


@contextmanager
def token_source(*, secure: bool = False) -> Generator[Source]:
    """A source of tokens: by HTTP, or by HTTPS."""
    with TemporaryDirectory() as folder:
        files = [str(path) for path in certificate.write(Path(folder))] if secure else []
        source = Process("-m", "benchmarks.tokens", *files)
        try:
            base_url = source.output.readline().decode().strip()
            yield Source(base_url=base_url, environment={"SSL_CERT_FILE": files[0]} if secure else {})
        finally:
            source.close()


@contextmanager
def provider(name: str) -> Generator[Source]:
    """The simulator as that provider, in a process of its own."""
    simulator = Process("-m", "kimi_mcp", "simulator", "--provider", name, "--port", "0")
    try:
        yield Source(base_url=simulator.output.readline().decode().strip())
    finally:
        simulator.end()


@contextmanager
def closing(servers: Iterable[Process]) -> Generator[None]:
    """See to it that they have gone afterwards."""
    try:
        yield
    finally:
        for server in servers:
            server.close()
