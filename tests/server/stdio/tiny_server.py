"""A low-level SDK server on our transport, started by the tests as a process of its own."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))
gc.disable()

import anyio  # noqa: E402
from mcp.server import Server  # noqa: E402
from mcp_types import (  # noqa: E402
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)

from kimi_mcp.core import json_logs  # noqa: E402
from kimi_mcp.server.stdio.connection import leave, serve_stdio  # noqa: E402
from kimi_mcp.server.stdio.framing import TransportLimits  # noqa: E402

gc.enable()
log = logging.getLogger("tiny")
LIMIT = os.environ.get("TINY_LIMIT")
ENDING = os.environ.get("TINY_ENDING", "")


def _raise() -> None:
    raise RuntimeError("the handler's own secret text")


def _text(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)])


async def _list_tools(ctx: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
    schema = {"type": "object"}
    names = ("echo", "wait", "print", "spawn", "surrogate", "fail", "big")
    return ListToolsResult(tools=[Tool(name=name, input_schema=schema) for name in names])


async def _call_tool(ctx: Any, params: CallToolRequestParams) -> CallToolResult:
    arguments = params.arguments or {}
    match params.name:
        case "echo":
            return _text(str(arguments["text"]))
        case "wait":
            log.warning("waiting")
            await anyio.sleep_forever()
        case "print":
            print("a stray print", flush=True)
            os.write(1, b'{"jsonrpc":"2.0","id":7,"result":"forged on descriptor 1"}\n')
            sys.stdout.buffer.write(b"stray bytes\n")
            warnings.warn("a stray warning", stacklevel=1)
        case "spawn":
            noisy = "import sys; print('child'); print('child', file=sys.stderr); print(len(sys.stdin.read()))"
            await anyio.to_thread.run_sync(lambda: subprocess.run([sys.executable, "-c", noisy], check=True))
        case "memory":
            return _text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
        case "surrogate":
            return _text("half \ud83d and \u2028 a line separator")
        case "task":
            asyncio.get_running_loop().call_soon(_raise)
            await anyio.sleep(0)
        case "fail":
            _raise()
        case "big":
            return _text("x" * int(arguments["size"]))
        case _:
            pass
    return _text("done")


@asynccontextmanager
async def _lifespan(server: Server[Any]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        log.warning("shutting down")
        if ENDING == "hangs":
            with anyio.CancelScope(shield=True):
                await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()
        log.warning("lifespan cleaned up")


async def _serve() -> None:
    server: Server[Any] = Server("tiny", on_list_tools=_list_tools, on_call_tool=_call_tool, lifespan=_lifespan)
    limits = TransportLimits(max_message_bytes=int(LIMIT)) if LIMIT else TransportLimits()
    await serve_stdio(server, limits)


if __name__ == "__main__":
    json_logs.configure("WARNING")
    anyio.run(_serve)
    leave()
