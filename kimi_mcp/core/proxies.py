"""The proxy of a request, as the environment or the system names it. Reads both."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from kimi_mcp.core.loopback import is_loopback


def proxy_for(base_url: str) -> str | None:
    """The proxy that the environment names for a URL; None: none, as always for loopback."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if is_loopback(host):
        return None
    named = getproxies()
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
