"""What people pick from: prompts, completion while they type, and the routing as a resource; in both protocol eras."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, ResourceTemplateReference, TextContent

from kimi_mcp import route
from kimi_mcp.server.prompts import prompts
from kimi_mcp.skill.document import load_skill
from tests.server.clients import connect
from tests.server.processes import server_process


async def test_prompts_are_listed_with_what_they_ask_for(mode: str) -> None:
    async with connect(None, mode) as kimi:
        listed = (await kimi.client.list_prompts()).prompts
    assert [prompt.name for prompt in listed] == list(prompts(load_skill()))
    for prompt in listed:
        assert prompt.title
        assert prompt.description
        assert prompt.arguments
        assert any(argument.required for argument in prompt.arguments)
        assert all(argument.description for argument in prompt.arguments)


async def test_a_prompt_names_its_tool_and_the_call(mode: str) -> None:
    async with connect(None, mode) as kimi:
        got = await kimi.client.get_prompt("explain-clip", {"video": "demo.mp4", "mode": "instant"})
    (message,) = got.messages
    assert message.role == "user"
    assert isinstance(message.content, TextContent)
    assert "kimi_video" in message.content.text
    call = json.loads(message.content.text.split("```json\n")[1].split("\n```")[0])
    assert call["video"] == "demo.mp4"
    assert call["mode"] == "instant"


@pytest.mark.parametrize(
    ("name", "arguments", "names"),
    [
        ("explain-clip", {}, "`video`"),
        ("explain-clip", {"video": "a.mp4", "speed": "2"}, "`speed`"),
        ("dance", {}, "explain-clip"),
    ],
)
async def test_a_wrong_prompt_is_an_error_that_names_what_is_right(
    mode: str, name: str, arguments: dict[str, str], names: str
) -> None:
    async with connect(None, mode) as kimi:
        with pytest.raises(MCPError) as caught:
            await kimi.client.get_prompt(name, arguments)
        assert names in str(caught.value)
        assert (await kimi.client.list_prompts()).prompts, "it goes on serving"


async def test_modes_and_models_are_completed(mode: str) -> None:
    async with connect(None, mode, provider="moonshot", MOONSHOT_API_KEY="sk-1") as kimi:
        ref = PromptReference(name="code-from-screenshot")
        modes = await kimi.client.complete(ref, {"name": "mode", "value": "in"})
        models = await kimi.client.complete(ref, {"name": "model", "value": "kimi-k2"})
        targets = await kimi.client.complete(ref, {"name": "target", "value": "rea"})
    assert modes.completion.values == ["instant", "thinking"]
    assert models.completion.values[0] == "kimi-k2.6", "what the provider serves today comes first"
    assert "kimi-k2.5" in models.completion.values
    assert models.completion.total == len(models.completion.values)
    assert targets.completion.values == ["React"]


@pytest.mark.parametrize("provider", [None, "nobody"])
async def test_models_are_completed_without_a_key_and_with_a_wrong_provider(mode: str, provider: str | None) -> None:
    async with connect(None, mode, provider=provider) as kimi:
        done = await kimi.client.complete(PromptReference(name="classify"), {"name": "model", "value": ""})
    assert "kimi-k2.5" in done.completion.values


@pytest.mark.parametrize(
    "ref",
    [
        PromptReference(name="code-from-screenshot"),
        PromptReference(name="dance"),
        ResourceTemplateReference(uri="kimi://route/{text}"),
    ],
    ids=["free text", "no prompt", "template"],
)
async def test_where_there_is_nothing_to_offer_nothing_is(mode: str, ref: PromptReference) -> None:
    async with connect(None, mode) as kimi:
        done = await kimi.client.complete(ref, {"name": "image", "value": "x"})
    assert done.completion.values == []


async def test_the_routing_is_a_resource(mode: str) -> None:
    text = "Was zeigt kimi auf diesem Foto? 50% / 图片"
    async with connect(None, mode) as kimi:
        template, *_ = (await kimi.client.list_resource_templates()).resource_templates
        (contents,) = (await kimi.client.read_resource(f"kimi://route/{quote(text, safe='')}")).contents
        (bare,) = (await kimi.client.read_resource("kimi://route/what is it? a/b")).contents
    assert template.uri_template == "kimi://route/{text}"
    assert contents.mime_type == template.mime_type == "application/json"
    assert json.loads(getattr(contents, "text", "")) == route(text).as_json()
    assert json.loads(getattr(bare, "text", "")) == route("what is it? a/b").as_json()


async def test_a_routing_of_nothing_is_no_resource(mode: str) -> None:
    async with connect(None, mode) as kimi:
        with pytest.raises(MCPError, match=r"kimi://route/\{text\}"):
            await kimi.client.read_resource("kimi://route/")


async def test_a_real_process_offers_prompts_and_routings(mode: str) -> None:
    async with server_process(None, mode, provider=None) as client:
        assert (await client.list_prompts()).prompts
        done = await client.complete(PromptReference(name="explain-clip"), {"name": "mode", "value": ""})
        (contents,) = (await client.read_resource("kimi://route/prove%20it")).contents
    assert done.completion.values == ["thinking", "instant"]
    assert json.loads(getattr(contents, "text", ""))["tool"] == "kimi_think"
