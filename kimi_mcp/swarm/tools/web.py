"""``WebTools``: sub-agents read web pages, fetched here, where their provider does not fetch itself. I/O: ``media``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import anyio.to_thread

from kimi_mcp.core.errors import KimiError
from kimi_mcp.media.loading import Fetch
from kimi_mcp.media.pages import page_text
from kimi_mcp.swarm.tools.source import CallResult, ListedTool, ToolLimits, ToolSource

NAME: Final = "web"
"""The source's name in patterns."""

MOST_BYTES: Final = 2 * 1024 * 1024
"""Bytes of a page."""

FETCH_WITHIN_S: Final = 30.0
"""Seconds of one page, redirects included."""

PAGE_CHARS: Final = 24_000
"""Characters of a page that one call returns."""

_PUBLIC: Final = "Give an https URL of a public site."
"""The fix where a URL is refused: this tool takes nothing else."""

_ACCEPT: Final = "text/html, text/*, application/json, application/xml;q=0.9"

_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "description": "An https URL of a public site."},
        "offset": {"type": "integer", "description": "Characters of its text to skip, to read on."},
    },
    "required": ["url"],
    "additionalProperties": False,
}


class WebTools(ToolSource):
    """The public web, by our own safe fetching: addresses are checked, nothing but a GET is sent, and no cookie."""

    def __init__(self, limits: ToolLimits | None = None, *, fetch: Fetch | None = None) -> None:
        super().__init__(NAME, limits or ToolLimits())
        about = "Read a web page: its text, with the targets of its links. It can't search."
        self.tools = {"fetch": ListedTool(name="fetch", description=about, schema=_SCHEMA, read_only=True)}
        self._fetch = fetch

    async def serve(self) -> None:
        """Nothing has to be started."""

    def stop(self) -> None:
        """Do nothing: ``serve`` has ended."""

    async def send(self, name: str, tool: ListedTool, arguments: Mapping[str, Any]) -> CallResult:
        """Fetch a page; whatever its server does is a result."""
        url, offset = str(arguments["url"]), max(0, int(arguments.get("offset", 0)))
        try:
            text = await self._text(url)
        except KimiError as error:
            fix = _PUBLIC if error.code == "url_refused" else error.fix
            return CallResult.failed(f"{error.message} {fix}")
        page, following = text[offset : offset + PAGE_CHARS], ""
        if offset + PAGE_CHARS < len(text):
            following = f"\n[{len(text):,} characters in all: read on with offset={offset + PAGE_CHARS}]"
        return self.framed(name, (page or "(no text)") + following, is_error=False)

    async def _text(self, url: str) -> str:
        fetch = self._fetch
        if fetch is None:
            from kimi_mcp.media.fetch import fetch
        with await fetch(url, cap_bytes=MOST_BYTES, deadline_s=FETCH_WITHIN_S, accept=_ACCEPT) as body:
            data = await anyio.to_thread.run_sync(body.read_at, 0, body.size)
            kind = {"content_type": body.content_type, "charset": body.charset, "url": url}
        return await anyio.to_thread.run_sync(partial(page_text, data, **kind), abandon_on_cancel=True)
