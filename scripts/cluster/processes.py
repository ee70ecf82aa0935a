"""The processes of a cluster on this machine: replicas, and the balancer before them. I/O: starts and ends them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.postgres import PASSWORD

ROOT = Path(__file__).resolve().parents[2]

START_WITHIN_S = 60.0
"""Seconds until a process must be ready, on a busy machine."""

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH")


def free_ports(number: int) -> list[int]:
    """So many ports of this machine, each of which nobody used a moment ago."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in held]


class Program:
    """A process that listens, with its log in a file. It leads a group, which ends with it: nothing is left behind."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        folder: Path,
        environment: Mapping[str, str],
        probe: str,
        cwd: Path = ROOT,
    ) -> None:
        """``folder``: of its log; ``probe``: the URL that answers 200 once it is ready.

        No setting of the user's own reaches it.
        """
        self.name = name
        """What it is called, here and in its log's name."""
        self.started_at = 0.0
        """When it was started, by the monotonic clock."""
        self._command, self._folder, self._probe, self._cwd = command, folder, probe, cwd
        kept = {variable: os.environ[variable] for variable in _INHERITED if variable in os.environ}
        self._environment = {**kept, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the latest start."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def status(self) -> int | None:
        """How it ended: its exit status, or the negative number of the signal; None: it runs, or was never started."""
        return None if self._process is None else self._process.poll()

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self.status is None

    @property
    def log(self) -> str:
        """What it has written to stdout and stderr, each time that it ran."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    @property
    def _log(self) -> Path:
        return self._folder / f"{self.name}.log"

    def start(self) -> None:
        """Start it, without waiting."""
        assert not self.is_running, f"{self.name} is running"
        self.started_at = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in self._command],
                cwd=self._cwd,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Return once it is ready; raises RuntimeError with its log where it has ended instead, TimeoutError."""
        end = time.monotonic() + START_WITHIN_S
        while not self.ready():
            if not self.is_running:
                raise RuntimeError(f"{self.name} has ended with {self.status} instead of starting:\n{self.log[-2000:]}")
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name} is not ready after {START_WITHIN_S:.0f} s:\n{self.log[-2000:]}")
            time.sleep(0.1)

    def ready(self) -> bool:
        """Whether it answers its probe."""
        with suppress(OSError, urllib.error.HTTPError), urllib.request.urlopen(self._probe, timeout=5) as response:
            return response.status == 200
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.is_running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without any warning (SIGKILL), and wait."""
        self.signal(signal.SIGKILL)
        self._ended(30)

    def end(self, within_s: float = 60) -> None:
        """Ask it to end (SIGTERM), and wait; kill it where that takes longer."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        self._ended(within_s)

    def wait(self, within_s: float) -> int:
        """Its exit status, once it has ended; raises ``subprocess.TimeoutExpired``."""
        assert self._process is not None
        return self._process.wait(within_s)

    def _ended(self, within_s: float) -> None:
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        with suppress(ProcessLookupError):  # it, or what it started and left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def replica_environment(database_url: str, provider_url: str, **variables: str) -> dict[str, str]:
    """The variables of a replica of that database and provider; ``variables`` are more of them."""
    return {
        "KIMI_CLUSTER": "on",
        "KIMI_DATABASE_URL": database_url,
        "PGPASSWORD": PASSWORD,
        "KIMI_PROVIDER": "simulator",
        "KIMI_BASE_URL": provider_url,
        "KIMI_BUDGET_USD_PER_SWARM": "1000",
        "KIMI_QUOTA_CALLS_AT_ONCE": "1000",
        "KIMI_QUOTA_CALLS_PER_MINUTE": "100000",
        "KIMI_MAX_CONCURRENCY": "300",
        **variables,
    }


class Replica(Program):
    """A process of ``kimi-mcp serve --transport http`` on a port of its own; each start of it is another replica.

    ``environment`` holds what all replicas of a cluster have. Its key for the provider is its name, by which the
    provider's log tells who sent a request.
    """

    def __init__(
        self,
        name: str,
        *,
        folder: Path,
        environment: Mapping[str, str],
        role: str | None = "all",
        port: int | None = None,
        module: str = "kimi_mcp",
        within: Sequence[str] = (),
        cwd: Path = ROOT,
    ) -> None:
        """``role`` None: of a version that has none. ``module``: another program that serves alike.

        ``within``: the beginning of a command that runs it elsewhere. ``cwd``: where Python finds the package.
        """
        self.port = port or free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        """Its own endpoint."""
        data = folder / name
        own = {"KIMI_DATA_DIR": str(data), "KIMI_API_KEY": name}
        command = [*within, sys.executable, "-m", module, "serve", "--transport", "http", "--port", str(self.port)]
        super().__init__(
            name,
            [*command, *([] if role is None else ["--role", role])],
            folder=folder,
            environment={**own, **environment},
            probe=f"http://127.0.0.1:{self.port}/readyz",
            cwd=cwd,
        )

    def cpu_s(self) -> float:
        """CPU seconds that it has used so far, without its children. Linux."""
        return cpu_s(self.pid)


def cpu_s(pid: int, *, of_ended: bool = False) -> float:
    """CPU seconds that a process has used so far, or its children did that have ended. Linux."""
    text = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    first = 13 if of_ended else 11
    return (int(text[first]) + int(text[first + 1])) / os.sysconf("SC_CLK_TCK")


def received_from(headers: Mapping[str, str]) -> str:
    """The name of the replica that sent a request to the provider."""
    return headers.get("authorization", "").removeprefix("Bearer ")


class Balancer(Program):
    """Caddy: a request goes to a replica that is ready, to the next one where that takes no connection."""

    def __init__(self, ports: Sequence[int], *, folder: Path) -> None:
        port, _ = own = free_ports(2)
        self.url = f"http://127.0.0.1:{port}/mcp"
        """The endpoint of all."""
        config = folder / "Caddyfile"
        config.write_text(_CADDYFILE.format(*own, replicas=" ".join(f"127.0.0.1:{each}" for each in ports)), "utf-8")
        super().__init__(
            "balancer",
            [Path(sys.executable).parent / "caddy", "run", "--adapter", "caddyfile", "--config", config],
            folder=folder,
            environment={"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
            probe=f"http://127.0.0.1:{own[1]}/",
        )


_CADDYFILE = """{{
    admin off
    persist_config off
    auto_https off
    log {{
        level WARN
    }}
}}
http://127.0.0.1:{0} {{
    bind 127.0.0.1
    reverse_proxy {replicas} {{
        lb_policy round_robin
        lb_try_duration 10s
        lb_try_interval 50ms
        fail_duration 1s
        health_uri /readyz
        health_interval 250ms
        health_timeout 5s
        flush_interval -1
    }}
}}
http://127.0.0.1:{1} {{
    bind 127.0.0.1
    respond 200
}}
"""
