"""Replicas that join, as real processes: whatever imports come first, each shares what all of them share."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import httpx2
import pytest

from tests.cluster.harness import cluster

pytestmark = [pytest.mark.soak, pytest.mark.skipif(sys.platform == "win32", reason="signals")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_each_of_six_replicas_that_start_at_once_takes_its_share(tmp_path: Path) -> None:
    with anyio.fail_after(240):
        async with cluster(tmp_path, KIMI_MAX_CONCURRENCY="60") as made, httpx2.AsyncClient(trust_env=False) as http:
            replicas = await made.start(6)
            for replica in replicas:
                page = ""
                while "kimi_upstream_slots 10.0" not in page:
                    page = (await http.get(replica.url.removesuffix("/mcp") + "/metrics")).text
                    await anyio.sleep(0.05)
                assert "kimi_replicas 6.0" in page
                assert "ERROR" not in replica.log
