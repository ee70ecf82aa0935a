"""The tool that one would write first: the MCP SDK's low-level server and the openai SDK's typed stream."""

from __future__ import annotations

import os

import anyio
import mcp.server.stdio
from mcp import types
from mcp.server import Server, ServerRequestContext
from openai import AsyncOpenAI

client = AsyncOpenAI(base_url=os.environ["PLAIN_BASE_URL"], api_key="none")


async def list_tools(
    context: ServerRequestContext, params: types.PaginatedRequestParams | None
) -> types.ListToolsResult:
    schema = {"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]}
    return types.ListToolsResult(tools=[types.Tool(name="ask", description="Asks Kimi.", input_schema=schema)])


async def call_tool(context: ServerRequestContext, params: types.CallToolRequestParams) -> types.CallToolResult:
    prompt = (params.arguments or {})["prompt"]
    stream = await client.chat.completions.create(
        model="kimi-k2.5", messages=[{"role": "user", "content": prompt}], stream=True
    )
    answer = ""
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            answer += chunk.choices[0].delta.content
    return types.CallToolResult(content=[types.TextContent(text=answer)])


async def main() -> None:
    server = Server("plain", on_list_tools=list_tools, on_call_tool=call_tool)
    async with mcp.server.stdio.stdio_server() as (read_stream, write_stream):
        await server.run(read_stream, write_stream, server.create_initialization_options())


if __name__ == "__main__":
    anyio.run(main)
