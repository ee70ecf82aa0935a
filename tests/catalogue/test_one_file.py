"""One file is enough to add a provider, and a mistake in one is reported with the file and the key everywhere."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError

import kimi_mcp
from kimi_mcp.simulator import Simulator

pytestmark = pytest.mark.soak

PACKAGE = Path(kimi_mcp.__file__).parent
CHECKOUT = PACKAGE.parent
KEY = "acme-key-5b1f0c"
ACME = """\
# Acme, which speaks Moonshot's dialect.

inherits = "moonshot"

[about]
name = "Acme"
order = 5
base_url = "BASE_URL"
hosts = ["127.0.0.1"]
source = "a test"
date = 2026-11-23

[key]
variables = ["ACME_API_KEY"]
source = "a test"
date = 2026-11-23
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A copy of the package, whose files a test may add to."""

    root: Path

    async def run(self, *arguments: str, **environment: str) -> CompletedProcess[str]:
        """Run a module of the copy to its end."""
        with anyio.fail_after(60):
            done = await anyio.run_process(
                [sys.executable, "-m", *arguments],
                cwd=self.root,  # Python looks there first
                env=os.environ | {"PYTHONUTF8": "1"} | environment,
                check=False,
                stdin=None,
                input=b"",
            )
        return CompletedProcess(arguments, done.returncode, done.stdout.decode(), done.stderr.decode())

    @asynccontextmanager
    async def served(self, **environment: str) -> AsyncIterator[Client]:
        """The copy's server as a host starts it."""
        command = StdioServerParameters(
            command=sys.executable, args=["-m", "kimi_mcp"], cwd=self.root, env={**os.environ, **environment}
        )
        with anyio.fail_after(60):
            async with Client(stdio_client(command)) as client:
                yield client

    def put(self, text: str, file: str = "kimi_mcp/catalogue/providers/acme.toml") -> None:
        (self.root / file).write_text(text, "utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    root = tmp_path / "copy"
    shutil.copytree(PACKAGE, root / "kimi_mcp")
    shutil.copytree(CHECKOUT / "scripts", root / "scripts")
    for file in ("skill.md", "README.md", "pyproject.toml"):
        shutil.copy(CHECKOUT / file, root / file)
    for folder in ("manifests", "docs"):
        shutil.copytree(CHECKOUT / folder, root / folder)
    return Copy(root=root)


async def test_a_provider_added_as_one_file_is_chosen_by_its_key_and_answers(copy: Copy) -> None:
    async with Simulator(provider="moonshot", require_key=KEY) as sim:
        copy.put(ACME.replace("BASE_URL", sim.base_url))
        done = await copy.run("kimi_mcp", "ask", "--json", "hi", ACME_API_KEY=KEY, MOONSHOT_API_KEY="sk-another")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert (result["provider"], result["status"]) == ("acme", "completed")
        assert sim.requests
        assert result["answer"]


async def test_its_key_is_hidden_where_a_result_would_echo_it(copy: Copy) -> None:
    async with Simulator(provider="moonshot") as sim:
        copy.put(ACME.replace("BASE_URL", sim.base_url))
        async with copy.served(ACME_API_KEY=KEY) as client:
            result = await client.call_tool("kimi_think", {"prompt": f"my key is {KEY}"})
        assert result.structured_content is not None
        assert "my key is [hidden]" in result.structured_content["answer"]
        assert KEY not in result.model_dump_json()


async def test_its_key_that_can_not_be_one_is_named(copy: Copy) -> None:
    copy.put(ACME.replace("BASE_URL", "https://api.acme.example/v1"))
    done = await copy.run("kimi_mcp", "ask", "hi", ACME_API_KEY="two words")
    assert done.returncode == 1
    assert "ACME_API_KEY holds characters that no key has." in done.stderr


async def test_the_documents_and_manifests_follow_from_the_file(copy: Copy) -> None:
    copy.put(ACME.replace("BASE_URL", "https://api.acme.example/v1"))
    done = await copy.run("scripts.generate")
    assert done.returncode == 0, done.stderr
    for file in (
        "docs/reference/settings.md",
        "skill.md",
        "manifests/mcp-registry/server.json",
        "manifests/aims/kimi-k2.5.skill.md",
    ):
        assert "ACME_API_KEY" in (copy.root / file).read_text("utf-8"), file
    (env,) = (line for line in (copy.root / "skill.md").read_text("utf-8").splitlines() if line.startswith("  env: "))
    assert "ACME_API_KEY" in env
    assert (await copy.run("scripts.generate", "--check")).returncode == 0


async def test_the_commands_know_its_key(copy: Copy) -> None:
    copy.put(ACME.replace("BASE_URL", "https://api.acme.example/v1"))
    doctor = await copy.run("kimi_mcp", "doctor", "--json", ACME_API_KEY="two words")
    assert {"name": "ACME_API_KEY", "state": "unreadable"} in json.loads(doctor.stdout)["variables"]
    shown = await copy.run("kimi_mcp", "install", "codex", "--print", ACME_API_KEY=KEY)
    assert 'env_vars = ["ACME_API_KEY"]' in shown.stdout
    assert KEY not in shown.stdout + shown.stderr


# ── a mistake in a file ───────────────────────────────────────────────────────────────────────────────────────────

MISTAKE = (
    "A file of the catalogue is wrong: providers/acme.toml: about.base_urls is not a key here; did you mean base_url?"
)


@pytest.fixture
def broken(copy: Copy) -> Copy:
    copy.put(ACME.replace("base_url =", "base_urls ="))
    return copy


@pytest.mark.parametrize(
    "command",
    [
        ("ask", "hi"),
        ("models",),
        ("policy", "check", "body.json"),
        pytest.param(("doctor",), marks=pytest.mark.soak),
        pytest.param(("files",), marks=pytest.mark.soak),
        pytest.param(("selfhost",), marks=pytest.mark.soak),
        pytest.param(("install", "codex", "--print"), marks=pytest.mark.soak),
        pytest.param(("simulator", "--port", "0"), marks=pytest.mark.soak),
        pytest.param(("runs", "list"), marks=pytest.mark.soak),
    ],
    ids=" ".join,
)
async def test_a_command_says_which_file_and_key_are_wrong(broken: Copy, command: tuple[str, ...]) -> None:
    (broken.root / "body.json").write_text('{"model": "kimi-k2.6", "messages": [{"role": "user", "content": "hi"}]}')
    done = await broken.run("kimi_mcp", *command)
    assert done.returncode == 1
    assert MISTAKE in " ".join((done.stdout + done.stderr).split())
    assert "a bug of kimi-mcp" not in (done.stdout + done.stderr).lower()


async def test_a_result_in_json_says_it_too(broken: Copy) -> None:
    done = await broken.run("kimi_mcp", "ask", "--json", "hi")
    error = json.loads(done.stdout)["error"]
    assert (error["code"], error["message"]) == ("not_configured", MISTAKE)
    done = await broken.run("kimi_mcp", "doctor", "--json")
    (check,) = [check for check in json.loads(done.stdout)["checks"] if check["state"] == "bad"]
    assert (check["about"], check["message"]) == ("catalogue", MISTAKE)


async def test_a_tools_result_and_a_resource_say_it_too(broken: Copy) -> None:
    async with broken.served() as client:
        assert (await client.list_tools()).tools
        assert not (await client.call_tool("kimi_run", {})).is_error, "earlier runs can be read all the same"
        for tool in ("kimi_think", "kimi_swarm"):
            result = await client.call_tool(tool, {"prompt": "hi"})
            assert result.is_error
            assert result.structured_content is not None
            error = result.structured_content["error"]
            assert (error["code"], error["message"]) == ("not_configured", MISTAKE)
        with pytest.raises(MCPError, match="did you mean base_url"):
            await client.read_resource("kimi://catalogue")
