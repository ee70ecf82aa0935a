"""What is sent, and where: a provider's URL and key, one HTTP request, a body in pieces with its media. Pure."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal
from urllib.parse import urlsplit

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.profiles import Provider

WINDOW = 786_432
"""Bytes that are read and encoded at once; a multiple of three, so that base64 needs no padding in between."""


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

    @property
    def account(self) -> tuple[str, str | None]:
        """What connections, limits and lists of models belong to."""
        return self.base_url, self.key

    @property
    def account_id(self) -> str:
        """The account for other replicas, who have the same key: a hash, from which no key can be found."""
        return sha256(f"{self.base_url}\0{self.key or ''}".encode()).hexdigest()[:32]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedBody:
    """A body that is produced while it is sent."""

    length: int
    """Bytes."""
    pieces: Callable[[], Iterator[bytes]]
    """The body from its beginning; called once for each attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineMedium:
    """A medium that goes into the body."""

    mime: str
    """MIME type."""
    size: int
    """Bytes, before they are encoded."""
    read_at: Callable[[int, int], bytes]
    """(offset, length) → the bytes there."""
    placeholder: str = field(default_factory=lambda: f"inline:{secrets.token_hex(16)}")
    """Its URL in the body: random, so that no text can hold it by chance or by design."""

    @property
    def head(self) -> bytes:
        """The data URL up to the base64."""
        return f"data:{self.mime};base64,".encode()

    @property
    def length(self) -> int:
        """Bytes of the whole data URL."""
        return len(self.head) + 4 * ((self.size + 2) // 3)

    def pieces(self) -> Iterator[bytes]:
        """The data URL in pieces."""
        yield self.head
        for offset in range(0, self.size, WINDOW):
            yield base64.b64encode(self.read_at(offset, min(WINDOW, self.size - offset)))


def spliced(body: bytes, inlined: Mapping[str, InlineMedium]) -> bytes | StreamedBody:
    """A JSON body with each medium in place of its placeholder; ``inlined`` is in the order of the body."""
    if not inlined:
        return body
    parts: list[bytes | InlineMedium] = []
    for medium in inlined.values():
        before, found, body = body.partition(medium.placeholder.encode())
        assert found, "media are in the body in the order in which they are given"
        parts += [before, medium]
    parts.append(body)
    length = sum(part.length if isinstance(part, InlineMedium) else len(part) for part in parts)

    def pieces() -> Iterator[bytes]:
        for part in parts:
            if isinstance(part, InlineMedium):
                yield from part.pieces()
            else:
                yield part

    return StreamedBody(length=length, pieces=pieces)


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One HTTP request."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    """Follows the base URL."""
    content: bytes | StreamedBody | None = None
    content_type: str = "application/json"
    on_sent: Callable[[int], None] = lambda sent: None
    """Called with the number of bytes of a streamed body sent, after each piece."""
    repeatable: bool = False
    """Whether a POST that was sent whole, and thus may have been carried out, may be sent once more."""


def either(names: Iterable[str]) -> str:
    """Distinct names in a sentence: ``A``, ``A or B``, ``A, B or C``."""
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} or {last}" if others else last
