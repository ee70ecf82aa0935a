"""``Endpoint``: a provider's URL and key. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.profiles import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a request goes, and with which key."""

    provider: Provider
    base_url: str
    """OpenAI-compatible base URL, without a slash at the end."""
    key: str | None = field(default=None, repr=False)
    """The bearer token; None: none is sent."""

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.base_url).netloc

    def check(self) -> None:
        """Raise ``NotConfigured`` if no request can be made with this URL and key."""
        try:
            parts = urlsplit(self.base_url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
            usable = usable and parts.port != 0 and not parts.query and not parts.fragment
        except ValueError:
            usable = False
        if not usable or not self.base_url.isprintable():
            raise NotConfigured(
                "The base URL is not an http or https URL of host and path.",
                fix="Set KIMI_BASE_URL to a URL such as https://api.moonshot.ai/v1, without a key in it.",
            )
        if self.key and not (self.key.isascii() and self.key.isprintable() and " " not in self.key):
            raise NotConfigured(
                "The key holds a character that no key has (a blank, a line end, a quotation mark from a web page).",
                fix=f"Set {either((*self.provider.key_variables, 'KIMI_API_KEY'))} again, to the key alone.",
            )


def either(names: Iterable[str]) -> str:
    """Distinct names in a sentence: ``A``, ``A or B``, ``A, B or C``."""
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} or {last}" if others else last
