"""How the values of settings are read: from text to value; each raises ``ValueError`` with what is allowed. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from math import inf
from urllib.parse import urlsplit

from kimi_mcp.core.loopback import is_loopback

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")

_USUAL_PORTS = {"http": 80, "https": 443}


def whole(least: int) -> Callable[[str], int]:
    """A whole number of at least ``least``."""

    def read(text: str) -> int:
        with suppress(ValueError):
            if (value := int(text)) >= least:
                return value
        raise ValueError(f"a whole number of at least {least}")

    return read


def positive(text: str) -> float:
    """A number above 0."""
    with suppress(ValueError):
        if 0 < (value := float(text)) < inf:
            return value
    raise ValueError("a number above 0")


def not_negative(text: str) -> float:
    """A number, 0 or more."""
    with suppress(ValueError):
        if 0 <= (value := float(text)) < inf:
            return value
    raise ValueError("a number, 0 or more")


def one_of(*allowed: str) -> Callable[[str], str]:
    """One of some words, in any case."""

    def read(text: str) -> str:
        for word in allowed:
            if text.lower() == word.lower():
                return word
        raise ValueError("one of " + ", ".join(allowed))

    return read


def names(text: str) -> tuple[str, ...]:
    """Names, separated by commas."""
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def seconds(text: str) -> float:
    """Seconds, 0 or more."""
    with suppress(ValueError):
        if 0 <= (value := float(text)) < inf:
            return value
    raise ValueError("a number of seconds, 0 or more")


def origins(text: str) -> tuple[str, ...]:
    """Origins of pages, separated by commas."""
    origins = tuple(each.strip().lower().rstrip("/") for each in text.split(",") if each.strip())
    if all(_ORIGIN.fullmatch(origin) for origin in origins):
        return origins
    raise ValueError("origins, separated by commas, such as https://app.example.org")


def http_url(text: str) -> str:
    """An absolute URL without credentials, query, fragment and usual port; ``/mcp`` is added where it has no path."""
    with suppress(ValueError):
        url = urlsplit(text)
        plain = text.isascii() and text.isprintable() and not set(' "\\<>').intersection(text)
        named = url.scheme in ("http", "https") and url.hostname and "@" not in url.netloc
        if plain and named and not (url.query or url.fragment):
            usual = url.port == _USUAL_PORTS[url.scheme]  # which no browser writes into an Origin
            name = url.netloc.rpartition(":")[0] if usual else url.netloc
            return f"{url.scheme}://{name}{url.path.rstrip('/') or '/mcp'}"
    raise ValueError("an http or https URL, such as https://kimi.example.org/mcp")


def is_https_or_local(url: str) -> bool:
    """Whether what goes to a URL can't be read on the way: by https, or to this machine. It has no credentials."""
    with suppress(ValueError):
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for what is no port
        host = parts.hostname or ""
        if host and "@" not in parts.netloc and url.isascii() and url.isprintable() and " " not in url:
            return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    return False


def issuer(text: str) -> str:
    """A URL as it stands: an issuer's name is compared to the letter."""
    if is_https_or_local(text) and "?" not in text and "#" not in text:
        return text
    raise ValueError("the https URL by which the issuer names itself, such as https://id.example.org")


def endpoint(text: str) -> str:
    """The https URL of an endpoint."""
    if is_https_or_local(text) and "#" not in text:
        return text
    raise ValueError("an https URL, such as https://id.example.org/introspect")
