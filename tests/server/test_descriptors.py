"""A real server with few file descriptors: calls that wait for their turn hold none for their pictures."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from kimi_mcp.simulator import Simulator
from tests.server.media import picture
from tests.server.processes import process_environment

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs ulimit")
LIMIT, CALLS, PICTURES = 256, 60, 8


@pytest.mark.soak
@posix
@pytest.mark.parametrize("pictures", [PICTURES, 0], ids=["with pictures", "first calls at once"])
async def test_a_server_with_few_descriptors_answers_many_calls_at_once(
    sim: Simulator, tmp_path: Path, pictures: int
) -> None:
    calls = CALLS if pictures else 300
    for number in range(pictures):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    arguments = {"images": [f"{number}.png" for number in range(pictures)]} if pictures else {}
    tool = "kimi_vision" if pictures else "kimi_instant"
    environment = process_environment(sim, KIMI_ROOTS=str(tmp_path), KIMI_REPLY_WITHIN_S="100")
    command = f'ulimit -n {LIMIT}; exec "{sys.executable}" -m kimi_mcp'
    server = StdioServerParameters(command="/bin/sh", args=["-c", command], env=environment)
    results = Counter[tuple[str, str]]()
    with anyio.fail_after(90), Path(os.devnull).open("w") as log:
        async with Client(stdio_client(server, errlog=log)) as client:

            async def call(number: int) -> None:
                result = await client.call_tool(tool, {"prompt": f"Number {number}", **arguments})
                structured = result.structured_content or {}
                results[structured["status"], str(structured["error"])] += 1

            async with anyio.create_task_group() as tasks:
                for number in range(calls):
                    tasks.start_soon(call, number)
    assert results == {("completed", "None"): calls}
