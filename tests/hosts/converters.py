"""What frameworks' own converters make of a tool's arguments. Run by the Python of their environment, not by pytest.

``converters.py NAME`` reads ``{"name", "description", "inputSchema"}`` from stdin, and prints, as JSON, the schema that
the model of that framework would be given.
"""

import json
import logging
import sys
from typing import Any


def openai_agents(tool: dict[str, Any]) -> Any:
    from agents.mcp import MCPServerStdio
    from agents.mcp.util import MCPUtil
    from mcp.types import Tool

    server = MCPServerStdio(params={"command": "none"})
    return MCPUtil.to_function_tool(Tool(**tool), server, convert_schemas_to_strict=True).params_json_schema


def google_adk(tool: dict[str, Any]) -> Any:
    from google.adk.tools._gemini_schema_util import _to_gemini_schema

    return _to_gemini_schema(tool["inputSchema"]).model_dump(mode="json", exclude_none=True)


def pydantic_ai_for_openai(tool: dict[str, Any]) -> Any:
    from pydantic_ai.profiles.openai import OpenAIJsonSchemaTransformer

    return OpenAIJsonSchemaTransformer(tool["inputSchema"], strict=None).walk()


def pydantic_ai_for_gemini(tool: dict[str, Any]) -> Any:
    from pydantic_ai.profiles.google import GoogleJsonSchemaTransformer

    return GoogleJsonSchemaTransformer(tool["inputSchema"], strict=None).walk()


def langchain_for_gemini(tool: dict[str, Any]) -> Any:
    from langchain_google_genai._function_utils import convert_to_genai_function_declarations

    function = {"name": tool["name"], "description": tool["description"], "parameters": tool["inputSchema"]}
    (converted,) = convert_to_genai_function_declarations([function])
    return converted.function_declarations[0].parameters.model_dump(mode="json", exclude_none=True)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(json.dumps(globals()[sys.argv[1]](json.load(sys.stdin))))
