"""Which ``Host`` and ``Origin`` a request may have, on every address that the server listens on. Pure, no I/O.

A web page can make a browser send requests to a server on the same machine, under the page's own name even (DNS
rebinding); the specification demands both checks of a server.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from kimi_mcp.core.settings import Settings
from kimi_mcp.server.http.refusal import Refusal

LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
"""The names of this machine for itself."""

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d{1,5})?")


class AllowedNames:
    """The hosts and origins that are accepted."""

    def __init__(self, settings: Settings, host: str) -> None:
        """``host``: the address that is listened on."""
        public = None if settings.http_url is None else urlsplit(settings.http_url)
        named = f"[{host}]" if ":" in host else host
        self._hosts = {*LOOPBACK, named.lower()}
        origins = [rf"https?://(?:{'|'.join(map(re.escape, LOOPBACK))})(?::\d{{1,5}})?"]
        if public is not None:
            self._hosts.add(_without_port(public.netloc.lower()) or "")
            origins.append(re.escape(f"{public.scheme}://{public.netloc}".lower()))
        origins += map(re.escape, settings.http_origins)
        self.origins: Final = re.compile("|".join(origins))
        """Matches each origin that may call."""

    def check_host(self, host: str | None) -> None:
        """Raises ``Refusal`` for a ``Host`` that is none of ours; its port does not matter."""
        if host is None or _without_port(host.strip().lower()) not in self._hosts:
            raise Refusal(
                421,
                "This server is not called by that name: `Host` must be 127.0.0.1, localhost or the address that it "
                "listens on; behind a proxy or a tunnel the operator names its URL in KIMI_HTTP_URL.",
            )

    def check_origin(self, origin: str | None) -> None:
        """Raises ``Refusal`` for a page of another origin; programs send none."""
        if origin is not None and not self.origins.fullmatch(origin.strip().lower()):
            raise Refusal(
                403, "Pages of that `Origin` may not call this server; the operator allows them in KIMI_HTTP_ORIGINS."
            )


def _without_port(host: str) -> str | None:
    found = _HOST.fullmatch(host)
    return None if found is None else found[1]
