"""What a host sees before its first call: the server itself, its tools and its resources."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
from mcp.shared.exceptions import MCPError

from kimi_mcp.core.version import __version__
from kimi_mcp.policy.schema_dialect import problems
from kimi_mcp.server.tools import TOOLS
from kimi_mcp.simulator import Simulator
from kimi_mcp.skill.document import load_skill
from tests.server.clients import connect


async def test_the_server_says_who_it_is(mode: str) -> None:
    async with connect(None, mode) as kimi:
        info = kimi.client.server_info
        assert info is not None
        assert (info.name, info.title, info.version) == ("kimi-mcp", "Kimi", __version__)
        assert info.icons
        assert info.icons[0].src.startswith("data:image/svg+xml;base64,")
        assert kimi.client.instructions
        assert "kimi_think" in kimi.client.instructions
        assert kimi.client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")


@pytest.mark.parametrize("listed", ["tools", "prompts", "resources", "resource_templates"])
async def test_a_list_has_one_page(mode: str, listed: str) -> None:
    async with connect(None, mode) as kimi:
        ask = getattr(kimi.client, f"list_{listed}")
        assert getattr(await ask(cursor=""), listed) == getattr(await ask(), listed)
        with pytest.raises(MCPError, match="leave `cursor` out") as caught:
            await ask(cursor="x")
    assert caught.value.code == -32602


async def test_the_list_of_tools_is_short_and_every_tool_is_described(mode: str) -> None:
    async with connect(None, mode) as kimi:
        listed = await kimi.client.list_tools()
    size = len(listed.model_dump_json(by_alias=True, exclude_none=True).encode())
    assert size < 12_000, "shorten descriptions: hosts pay for the list in every conversation"
    assert [tool.name for tool in listed.tools] == list(TOOLS)
    for tool in listed.tools:
        assert tool.title
        assert tool.description
        assert tool.annotations is not None
        assert tool.annotations.destructive_hint is False
        assert tool.annotations.read_only_hint is TOOLS[tool.name].read_only
        assert tool.meta is not None
        assert tool.meta["anthropic/maxResultSizeChars"] == 500_000
        assert tool.input_schema["additionalProperties"] is False
        for name, schema in tool.input_schema["properties"].items():
            assert "type" in schema, name
            assert schema.get("description"), name
            assert "anyOf" not in schema
        assert list(problems(tool.input_schema)) == [], "plain enough for Moonshot's own dialect"
        assert set(tool.input_schema["required"]) <= set(tool.input_schema["properties"])


async def test_a_tool_search_finds_every_tool_by_its_triggers_and_one_tool_is_always_loaded() -> None:
    async with connect(None) as kimi:
        listed = (await kimi.client.list_tools()).tools
    for tool, row in zip(listed, load_skill().tools, strict=True):
        assert tool.meta is not None
        hint = tool.meta["anthropic/searchHint"]
        assert all(trigger in hint for trigger in row.triggers)
        assert len(hint.splitlines()) == 1
    always = [tool.name for tool in listed if (tool.meta or {}).get("anthropic/alwaysLoad") is True]
    assert always == [load_skill().default_tool]


async def test_the_output_schema_requires_nothing_and_names_every_key(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        listed = await kimi.client.list_tools()
        result = await kimi.think()
    for tool in listed.tools:
        assert tool.output_schema is not None
        assert "required" not in json.dumps(tool.output_schema)
        assert list(tool.output_schema["properties"]) == list(result.structured)


async def test_a_client_that_validates_strictly_takes_every_kind_of_result(sim: Simulator, mode: str) -> None:
    sim.play({}, {"status": 401}, {"length_in_reasoning": True}, {"gate": "end", "gate_at": "finish"})
    async with connect(sim, mode) as kimi:
        schemas = {tool.name: tool.output_schema for tool in (await kimi.client.list_tools()).tools}
        results = [await kimi.think() for _ in range(3)]
    async with connect(sim, mode, KIMI_REPLY_WITHIN_S="0.05") as kimi:
        results.append(await kimi.think())
        assert [result.status for result in results] == ["completed", "failed", "failed", "running"]
        looked = [
            await kimi.run(),
            await kimi.run(results[0].run_id),
            await kimi.run(results[0].run_id, "answer"),
            await kimi.run("run_none"),
            await kimi.run(results[3].run_id, "cancel"),
        ]
    for result, name in [*((one, "kimi_think") for one in results), *((one, "kimi_run") for one in looked)]:
        schema: Any = schemas[name]
        jsonschema.Draft202012Validator(schema).validate(result.structured)


async def test_resources_are_listed_and_read(mode: str) -> None:
    async with connect(None, mode) as kimi:
        listed = (await kimi.client.list_resources()).resources
        texts: dict[str, str] = {}
        for resource in listed:
            assert resource.title
            assert resource.description
            (contents,) = (await kimi.client.read_resource(str(resource.uri))).contents
            assert contents.mime_type == resource.mime_type
            texts[str(resource.uri)] = getattr(contents, "text", "")
    skills = ["kimi://skill", "skill://kimi-k2-5/SKILL.md"]
    assert list(texts) == ["kimi://catalogue", "kimi://policy", *skills, "kimi://runs", "ui://kimi/run"]
    rows = json.loads(texts["kimi://catalogue"])
    assert {"provider": "vllm", "model": "kimi-k2.5"}.items() <= next(
        row for row in rows if row["provider"] == "vllm" and row["model"] == "kimi-k2.5"
    ).items()
    assert "endpoint-allowed" in texts["kimi://policy"]
    assert json.loads(texts["kimi://policy"])
    assert "kimi_think" in texts["kimi://skill"]


@pytest.mark.parametrize("uri", ["kimi://nothing", "kimi://runs-of-others", "file:///etc/passwd", "x:" + "y" * 9999])
async def test_an_unknown_resource_is_an_error_that_names_those_there_are(mode: str, uri: str) -> None:
    async with connect(None, mode) as kimi:
        with pytest.raises(MCPError) as caught:
            await kimi.client.read_resource(uri)
        assert "kimi://catalogue" in caught.value.error.message
        assert uri not in caught.value.error.message
        assert caught.value.error.code == (-32002 if mode == "legacy" else -32602)
        assert caught.value.error.data == {"uri": uri}
        assert (await kimi.client.list_tools()).tools, "it goes on serving"


def test_starting_imports_nothing_that_a_first_call_alone_needs() -> None:
    late = (
        "openai",
        "typer",
        "rich",
        "PIL",
        "sqlalchemy",
        "kimi_mcp.simulator",
        "kimi_mcp.cli.commands",
        "jsonschema",
        "numpy",
        "opentelemetry",
        "prometheus_client",
    )
    program = (
        "import sys, json\n"
        "import mcp.server\n"
        "before = set(sys.modules)\n"
        "from kimi_mcp.server.app import build_server\n"
        "from kimi_mcp.core.settings import read_settings\n"
        "from kimi_mcp.server.stdio.connection import serve_stdio\n"
        "build_server(read_settings({}))\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = json.loads(done.stdout)
    assert "kimi_mcp.server.app" in loaded
    assert [name for name in loaded if name.startswith(late)] == []
