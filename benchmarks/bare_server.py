"""The smallest server that the MCP SDK's own documentation would have one write: low level, stdio, one tool."""

from __future__ import annotations

import anyio
import mcp.server.stdio
from mcp import types
from mcp.server import Server, ServerRequestContext


async def list_tools(
    context: ServerRequestContext, params: types.PaginatedRequestParams | None
) -> types.ListToolsResult:
    schema = {"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]}
    return types.ListToolsResult(tools=[types.Tool(name="ask", description="Says it back.", input_schema=schema)])


async def call_tool(context: ServerRequestContext, params: types.CallToolRequestParams) -> types.CallToolResult:
    prompt = (params.arguments or {})["prompt"]
    return types.CallToolResult(content=[types.TextContent(text=prompt)])


async def main() -> None:
    server = Server("bare", on_list_tools=list_tools, on_call_tool=call_tool)
    async with mcp.server.stdio.stdio_server() as (read_stream, write_stream):
        await server.run(read_stream, write_stream, server.create_initialization_options())


if __name__ == "__main__":
    anyio.run(main)
