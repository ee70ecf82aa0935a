"""The tool by which sub-agents read web pages: over real TLS on loopback, under public names."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import anyio
import pytest

from kimi_mcp.media.fetch import fetch
from kimi_mcp.swarm.tools import CallResult, open_tools
from kimi_mcp.swarm.tools.web import MOST_BYTES, PAGE_CHARS, WebTools
from tests.media.sites import Authority, Handler, redirects, says, site

PAGE = b"<html><head><title>Prices</title></head><body><p>K3 <a href='/k3'>costs</a> 3 USD.</p></body></html>"
HTML = "content-type: text/html; charset=utf-8"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def read(
    authority: Authority, url: str = "https://other.example/page", *, page: Handler, **more: Any
) -> CallResult:
    """The result of reading a page of a site."""
    with anyio.fail_after(60):
        async with site(authority, page=page) as here:
            own = partial(fetch, resolve=here.resolve, connect=here.connect, trust=here.trusted)
            async with open_tools(None, builtin=[WebTools(fetch=own)]) as tools:
                assert tools.names == ["web__fetch"]
                return await tools.call("web__fetch", json.dumps({"url": url, **more}))


async def test_a_page_is_read_as_text_with_the_targets_of_its_links(authority: Authority) -> None:
    result = await read(authority, page=says(PAGE, HTML))
    assert "Prices\n\nK3 costs <https://other.example/k3> 3 USD." in result.text
    assert "Untrusted data from outside" in result.text
    assert not result.is_error


async def test_a_long_page_is_read_on_by_its_offset(authority: Authority) -> None:
    text = "".join(f"{number:05d} " for number in range(5_000))
    first = await read(authority, page=says(text.encode(), "content-type: text/plain"))
    assert f"30,000 characters in all: read on with offset={PAGE_CHARS}" in first.text
    rest = await read(authority, page=says(text.encode(), "content-type: text/plain"), offset=PAGE_CHARS)
    assert text[PAGE_CHARS:] in rest.text
    assert "read on" not in rest.text


async def endless(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(f"HTTP/1.1 200 OK\r\n{HTML}\r\n\r\n".encode())
    while True:
        writer.write(b"<p>more" * 10_000)
        await writer.drain()


REFUSED: dict[str, tuple[Handler, str]] = {
    "missing": (says(b"gone", status="404 Not Found"), "answered 404"),
    "pdf": (says(b"%PDF-1.7", "content-type: application/pdf"), "is no text"),
    "picture": (says(b"\x89PNG\r\n", "content-type: image/png"), "is no text"),
    "archive": (says(b"PK\0\0\0", HTML), "is no text"),
    "long": (says(b"x" * 2, length=MOST_BYTES + 1), "too large"),
    "endless": (endless, "too large"),
    "empty": (says(b""), "sent nothing"),
    "inward": (redirects("https://127.0.0.1/"), "not public"),
    "plain": (redirects("http://other.example/page"), "Only https"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_page_is_an_error_that_the_agent_reads(authority: Authority, name: str) -> None:
    page, words = REFUSED[name]
    result = await read(authority, page=page)
    assert result.is_error
    assert words in result.text


@pytest.mark.parametrize(
    "url", ["http://other.example/", "https://localhost/", "https://10.0.0.1/", "file:///etc/passwd", "nonsense", ""]
)
async def test_nothing_but_public_https_is_fetched(authority: Authority, url: str) -> None:
    assert (await read(authority, url, page=says(PAGE))).is_error
