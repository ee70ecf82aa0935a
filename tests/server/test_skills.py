"""The server's own skill: listed with a manifest, which what is read of it fits."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
import yaml
from mcp.shared.exceptions import MCPError
from mcp_types import CacheableResult, PaginatedRequestParams, Request, RequestParams

from kimi_mcp.server.skills import EXTENSION, URI, SkillParams
from kimi_mcp.skill.document import load_skill
from tests.server.clients import KimiClient, connect


class Skills(CacheableResult):
    skills: list[dict[str, Any]]


class OneSkill(CacheableResult):
    skill: dict[str, Any]


async def ask(kimi: KimiClient, method: str, params: RequestParams, kind: type[Any]) -> Any:
    """The answer to a request of the extension."""
    request: Any = Request[Any, str](method=method, params=params)
    return await kimi.client.session.send_request(request, kind)


async def get(kimi: KimiClient, uri: str) -> dict[str, Any]:
    """The entry of a skill."""
    return (await ask(kimi, "skills/get", SkillParams(uri=uri), OneSkill)).skill


async def test_the_skill_is_declared_in_the_newest_era(mode: str) -> None:
    async with connect(None, mode, provider=None) as kimi:
        declared = kimi.client.server_capabilities
    assert declared is not None
    assert declared.resources is not None
    assert (declared.extensions or {}).get(EXTENSION) == ({} if mode == "auto" else None)


async def test_a_skill_is_listed_and_got_with_the_same_entry(mode: str) -> None:
    async with connect(None, mode, provider=None) as kimi:
        listed = await ask(kimi, "skills/list", PaginatedRequestParams(), Skills)
        assert listed.skills == [await get(kimi, URI)]
    assert listed.ttl_ms > 0
    assert listed.cache_scope == "public"


async def test_what_is_read_of_the_skill_fits_its_entry(mode: str) -> None:
    async with connect(None, mode, provider=None) as kimi:
        entry = await get(kimi, URI)
        read = (await kimi.client.read_resource(entry["uri"])).contents
    (contents,) = read
    assert contents.mime_type == "text/markdown"
    text: str = getattr(contents, "text")  # noqa: B009 - it is one of two kinds
    raw = text.encode()
    digest = f"sha256:{sha256(raw).hexdigest()}"
    assert entry["resources"] == [{"uri": URI, "digest": digest, "size": len(raw)}]
    _, head, body = text.split("---\n", 2)
    assert entry["frontmatter"] == yaml.safe_load(head)
    assert body.strip() == load_skill().text.split("---\n", 2)[2].strip(), "it says what skill.md says"


async def test_the_skill_is_a_resource_of_its_name(mode: str) -> None:
    async with connect(None, mode, provider=None) as kimi:
        listed = {resource.uri: resource for resource in (await kimi.client.list_resources()).resources}
        head = (await get(kimi, URI))["frontmatter"]
    assert URI.split("/")[-2] == head["name"]
    assert (listed[URI].name, listed[URI].description) == (head["name"], head["description"])
    assert listed[URI].mime_type == "text/markdown"


@pytest.mark.parametrize("uri", ["skill://other/SKILL.md", "kimi://skill", ""])
async def test_a_skill_that_there_is_not_is_an_invalid_parameter(mode: str, uri: str) -> None:
    async with connect(None, mode, provider=None) as kimi:
        with pytest.raises(MCPError, match="no such skill") as caught:
            await get(kimi, uri)
    assert caught.value.code == -32602


async def test_there_is_one_page_of_skills(mode: str) -> None:
    async with connect(None, mode, provider=None) as kimi:
        with pytest.raises(MCPError) as caught:
            await ask(kimi, "skills/list", PaginatedRequestParams(cursor="x"), Skills)
    assert caught.value.code == -32602
