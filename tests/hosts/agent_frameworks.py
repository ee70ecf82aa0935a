"""An agent of one framework with our server and a scripted model. Run by the Python of ``.venv/agents``, not by pytest.

``agent_frameworks.py NAME`` reads ``{"command": [...], "env": {...}, "calls": [[tool, arguments], ...]}`` from stdin.
The model makes the calls one after the other. Printed is, as JSON, what it was offered (each tool with its schema), and
what it got for each call.
"""

import asyncio
import json
import sys
from typing import Any

Call = tuple[str, dict[str, Any]]


class Script:
    """The model's part: which call comes next, and what it has seen."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self.offered: dict[str, Any] = {}
        self.got: list[str] = []

    def next(self, offered: dict[str, Any], got: list[Any]) -> Call | None:
        """The call to make, after a request that offered these tools and held these results; None at the end."""
        self.offered = offered or self.offered
        self.got = [each if isinstance(each, str) else json.dumps(each, default=str) for each in got]
        return self.calls[len(got)] if len(got) < len(self.calls) else None


async def openai_agents(command: list[str], env: dict[str, str], script: Script) -> None:
    from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
    from agents.mcp import MCPServerStdio
    from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

    class Scripted(Model):
        async def get_response(self, system_instructions, input, model_settings, tools, *more, **named):  # noqa: A002
            results = [
                each["output"]
                for each in input
                if isinstance(each, dict) and each.get("type") == "function_call_output"
            ]
            call = script.next({tool.name: tool.params_json_schema for tool in tools}, results)
            if call is None:
                part = ResponseOutputText(type="output_text", text="done", annotations=[])
                item = ResponseOutputMessage(
                    id="m", type="message", role="assistant", status="completed", content=[part]
                )
            else:
                item = ResponseFunctionToolCall(
                    type="function_call", call_id=f"call_{len(results)}", name=call[0], arguments=json.dumps(call[1])
                )
            return ModelResponse(output=[item], usage=Usage(), response_id=None)

        def stream_response(self, *given, **named):
            raise NotImplementedError  # abstract in Model, and never called: the agent does not stream

    set_tracing_disabled(True)
    async with MCPServerStdio(
        params={"command": command[0], "args": command[1:], "env": env}, client_session_timeout_seconds=120
    ) as server:
        await Runner.run(Agent(name="agent", model=Scripted(), mcp_servers=[server]), "go", max_turns=30)


async def google_adk(command: list[str], env: dict[str, str], script: Script) -> None:
    from google.adk.agents import LlmAgent
    from google.adk.models import BaseLlm, LlmResponse
    from google.adk.runners import InMemoryRunner
    from google.adk.tools.mcp_tool import McpToolset, StdioConnectionParams
    from google.genai import types
    from mcp import StdioServerParameters

    class Scripted(BaseLlm):
        async def generate_content_async(self, llm_request, stream=False):
            parts = [part for content in llm_request.contents for part in content.parts or ()]
            results = [part.function_response.response for part in parts if part.function_response]
            declared = [one for tool in llm_request.config.tools or () for one in tool.function_declarations or ()]
            offered = {
                one.name: one.parameters_json_schema
                or (one.parameters and one.parameters.model_dump(exclude_none=True))
                for one in declared
            }
            call = script.next(offered, results)
            part = types.Part(text="done")
            if call is not None:
                part = types.Part(function_call=types.FunctionCall(name=call[0], args=call[1]))
            yield LlmResponse(content=types.Content(role="model", parts=[part]))

    toolset = McpToolset(
        connection_params=StdioConnectionParams(
            server_params=StdioServerParameters(command=command[0], args=command[1:], env=env), timeout=120
        )
    )
    agent = LlmAgent(name="agent", model=Scripted(model="scripted"), tools=[toolset])
    runner = InMemoryRunner(agent, app_name="app")
    await runner.session_service.create_session(app_name="app", user_id="user", session_id="session")
    message = types.Content(role="user", parts=[types.Part(text="go")])
    async for _ in runner.run_async(user_id="user", session_id="session", new_message=message):
        pass
    await toolset.close()


async def pydantic_ai(command: list[str], env: dict[str, str], script: Script) -> None:
    from fastmcp.client.transports import StdioTransport
    from pydantic_ai import Agent
    from pydantic_ai.mcp import MCPToolset
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import FunctionModel

    def respond(messages, info):
        parts = [part for message in messages for part in message.parts]
        results = [part.content for part in parts if part.part_kind in ("tool-return", "retry-prompt")]
        call = script.next({tool.name: tool.parameters_json_schema for tool in info.function_tools}, results)
        return ModelResponse(parts=[TextPart("done") if call is None else ToolCallPart(call[0], call[1])])

    toolset = MCPToolset(StdioTransport(command[0], command[1:], env=env))
    agent = Agent(FunctionModel(respond), toolsets=[toolset])
    async with agent:
        await agent.run("go")


async def langchain(command: list[str], env: dict[str, str], script: Script) -> None:
    from langchain_core.utils.function_calling import convert_to_openai_tool
    from langchain_mcp_adapters.client import MultiServerMCPClient
    from langchain_mcp_adapters.tools import load_mcp_tools

    client = MultiServerMCPClient(
        {"kimi": {"command": command[0], "args": command[1:], "env": env, "transport": "stdio"}}
    )
    async with client.session("kimi") as session:
        tools = {tool.name: tool for tool in await load_mcp_tools(session)}
        functions = [convert_to_openai_tool(tool)["function"] for tool in tools.values()]
        offered = {function["name"]: function["parameters"] for function in functions}
        results = []
        while (call := script.next(offered, results)) is not None:
            wanted = {"type": "tool_call", "id": f"call_{len(results)}", "name": call[0], "args": call[1]}
            results.append((await tools[call[0]].ainvoke(wanted)).content)


async def fastmcp(command: list[str], env: dict[str, str], script: Script) -> None:
    from fastmcp import Client
    from fastmcp.client.transports import StdioTransport

    # The server is a command, or the URL of one over HTTP.
    async with Client(StdioTransport(command[0], command[1:], env=env) if command[1:] else command[0]) as client:
        offered = {
            tool.name: getattr(tool, "input_schema", None) or tool.inputSchema for tool in await client.list_tools()
        }
        results = []
        while (call := script.next(offered, results)) is not None:
            result = await client.call_tool(*call, raise_on_error=False)
            results.append("".join(getattr(block, "text", "") for block in result.content))


def main() -> None:
    given = json.load(sys.stdin)
    script = Script(given["calls"])
    run = {each.__name__: each for each in (openai_agents, google_adk, pydantic_ai, langchain, fastmcp)}[sys.argv[1]]
    asyncio.run(run(given["command"], given["env"], script))
    print(json.dumps({"offered": script.offered, "got": script.got}))


if __name__ == "__main__":
    main()
