"""The server as its image has it: on a disk that it can't write, and on PostgreSQL, through restarts of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from kimi_mcp.simulator import Simulator
from tests.deploy.images import Image, build
from tests.deploy.parts import named, stages
from tests.postgres import PASSWORD, Postgres, postgres

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the image is one of Linux"),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build(tmp_path_factory.mktemp("image"))


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    with anyio.fail_after(300):
        async with Simulator(provider="simulator") as simulator:
            yield simulator


@pytest.fixture
def database() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    found = (await client.call_tool(tool, arguments)).structured_content
    assert found is not None
    assert found["error"] is None, found["error"]
    return found


def token_for(image: Image, name: str, folder: Path) -> tuple[str, dict[str, str]]:
    """A token, and the variable that names its file."""
    variables = {"KIMI_HTTP_TOKENS": str(folder / "tokens.json")}
    return image.run("tokens", "add", name, **variables).strip(), variables


def test_the_image_has_all_that_it_imports_and_nothing_that_installs(image: Image) -> None:
    assert image.run("--help")
    python = image.programs / "python"
    imported = [python, "-c", "import kimi_mcp.server.app, psycopg, sqlalchemy; print(psycopg.pq.__impl__)"]
    assert subprocess.check_output(imported, text=True).strip() == "binary"
    for tool in ("pip", "hatchling", "setuptools"):
        assert subprocess.run([python, "-c", f"import {tool}"], capture_output=True, check=False).returncode != 0
    uncompiled = [
        path
        for path in image.programs.parent.rglob("*.py")
        if "site-packages" in str(path) and not any((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"))
    ]
    assert uncompiled == []


async def test_it_serves_on_a_disk_that_it_can_not_write(image: Image, sim: Simulator) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a disk read-only")
    data = image.place / "data"
    token, variables = token_for(image, "alice", data)
    async with image.serving(sim, variables, read_only=True) as serving:
        (health,) = named(stages()[-1], "HEALTHCHECK")
        check = json.loads(health.partition("CMD ")[2].replace("8000", str(serving.port)))
        assert subprocess.run(check, env=image.variables(), check=False).returncode == 0
        async with serving.client(token) as client:
            assert (await call(client, "kimi_instant", prompt="What is 17 * 23?"))["status"] == "completed"
    assert serving.process.returncode == 0
    assert (data / "kimi-mcp" / "journal.sqlite3").stat().st_size > 0
    assert subprocess.run(check, env=image.variables(), capture_output=True, check=False).returncode != 0


async def test_on_postgresql_runs_and_conversations_outlive_the_server(
    image: Image, sim: Simulator, database: Postgres, tmp_path: Path
) -> None:
    token, variables = token_for(image, "alice", tmp_path)
    variables |= {"KIMI_DATABASE_URL": database.url, "PGPASSWORD": PASSWORD, "KIMI_DATA_DIR": str(tmp_path / "data")}
    async with image.serving(sim, variables) as serving, serving.client(token) as client:
        first = await call(client, "kimi_think", prompt="What is 17 * 23?")
        swarm = await call(client, "kimi_swarm", prompt="What does {{item}} do?", items=["a.py", "b.py"])
        while swarm["status"] == "running":
            swarm = await call(client, "kimi_run", run_id=swarm["run_id"], wait_s=30)
        assert (first["status"], swarm["status"]) == ("completed", "completed")
    async with image.serving(sim, variables) as serving, serving.client(token) as client:
        again = await call(client, "kimi_run", run_id=swarm["run_id"])
        assert again["answer"] == swarm["answer"]
        second = await call(client, "kimi_think", prompt="And of that?", conversation_id=first["conversation_id"])
        assert second["conversation_id"] == first["conversation_id"]
    listed = json.loads(image.run("runs", "--json", **variables))
    assert {run["run_id"] for run in listed} == {first["run_id"], swarm["run_id"], second["run_id"]}
    assert database.query("select count(*) from runs") == "3"


async def test_without_its_postgresql_it_lives_and_is_not_ready_until_that_is_back(
    image: Image, sim: Simulator, database: Postgres, tmp_path: Path
) -> None:
    token, variables = token_for(image, "alice", tmp_path)
    variables |= {"KIMI_DATABASE_URL": database.url, "PGPASSWORD": PASSWORD, "KIMI_DATA_DIR": str(tmp_path / "data")}
    async with image.serving(sim, variables) as serving, serving.client(token) as client:
        await call(client, "kimi_instant", prompt="What is 17 * 23?")
        database.stop()
        assert not await serving.answers("/readyz")
        assert await serving.answers("/healthz")
        refused = (await client.call_tool("kimi_instant", {"prompt": "hi"})).structured_content
        assert refused["error"]["code"] == "not_configured"
        database.start()
        with anyio.fail_after(60):
            while not await serving.answers("/readyz"):
                await anyio.sleep(0.05)
        await call(client, "kimi_instant", prompt="What is 17 * 23?")
