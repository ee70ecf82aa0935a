"""Which URLs, hosts and addresses may be fetched. Pure, no I/O.

A URL is parsed here once, and the request is built from these very parts: no second parser reads it differently. Only
addresses known to be public are allowed, in every spelling and every way of wrapping one address into another.

Sources: RFC 3986, RFC 6890 with the IANA registries of special-purpose addresses, RFC 6052 and 8215 (NAT64), RFC 3056
(6to4), RFC 4380 (Teredo), RFC 5214 (ISATAP), RFC 6761 and 6762 (names of special use), the WHATWG URL standard (what
makes a host a number).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import quote, urljoin, urlsplit

from kimi_mcp.core.errors import UrlRefused

Address = IPv4Address | IPv6Address
"""Where a connection goes."""

URL_CHARS = 8_192
"""Characters of a URL: ours; servers accept about as many."""

PUBLIC_URL = "Give an https URL of a public site, a path within the roots, or a data URI."
"""The fix for any other URL."""

_PRIVATE_NAMES = frozenset(
    {"alt", "arpa", "corp", "home", "internal", "intranet", "invalid", "lan", "local", "localdomain", "localhost"}
    | {"onion", "private"}
)
"""Last labels of names that are never public."""

_NETLOC = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::[0-9]{1,5})?")
"""A host with or without a port."""

_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label by which some parsers take a host for an IPv4 address."""

_CLOSED_V4 = tuple(
    IPv4Network(one)
    for one in (
        "168.63.129.16/32",  # Azure's own host, reached only from within it
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.88.99.0/24",  # 6to4 relays, retired
        "224.0.0.0/4",  # multicast
    )
)
"""Not public, though ``is_global`` of the standard library may be true."""

_NAT64 = IPv6Network("64:ff9b::/96")
"""The prefix for IPv4 in networks without it: the wrapped address is checked."""

_OPEN_V6 = IPv6Network("2000::/3")
"""All of IPv6 that is routed on the public internet."""

_CLOSED_V6 = tuple(
    IPv6Network(one)
    for one in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2002::/16",  # 6to4, which wraps an IPv4 address
        "3fff::/20",  # documentation
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One hop of a fetch: a URL, parsed and checked as far as possible without resolving its name."""

    host: str
    """A name in lower case, ASCII, without a trailing dot; or an address, an IPv6 one without brackets."""
    port: int
    address: Address | None
    """The address, if the host is one; else the name has to be resolved."""
    path: str
    """Path and query, percent-encoded; never shown, as they may hold a token."""

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL, as the base of a redirect."""
        return f"https://{self.authority}{self.path}"


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, and in no private network."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        isatap = int(address) >> 32 & 0xFFFF_FFFF in (0x0000_5EFE, 0x0200_5EFE)
        closed = isatap or address.scope_id is not None or any(address in one for one in _CLOSED_V6)
        return address in _OPEN_V6 and not closed and address.is_global
    return not any(address in one for one in _CLOSED_V4) and address.is_global


def read_url(url: str) -> Target:
    """Parse a URL; raises ``UrlRefused`` for what is never fetched, whatever it resolves to."""
    if len(url) > URL_CHARS:
        raise _refused(f"The URL is too long: found {len(url):,} characters, {URL_CHARS:,} are allowed.")
    if any(letter <= "\x1f" or letter in "\x7f\\" or "\ud800" <= letter <= "\udfff" for letter in url):
        raise _refused("The URL holds control characters or backslashes, which browsers and servers read differently.")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _refused("The URL can't be read: its host or its port is malformed.") from None
    scheme = parts.scheme.lower()
    if scheme != "https":
        shown = f"`{scheme}:`" if re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", scheme) else "no scheme"
        raise UrlRefused(
            f"Only https URLs are fetched: found {shown}, expected `https:`.", fix=PUBLIC_URL, rule="media-inline"
        )
    if "@" in parts.netloc:
        raise UrlRefused(
            "The URL carries a user name or a password, which is not sent on.",
            fix="Take what stands before the `@` out of the URL; download what needs a login, and give its path.",
        )
    if not host or port == 0 or not _NETLOC.fullmatch(parts.netloc):
        raise _refused("The URL can't be read: it names no host, or no port that can be reached.")
    name, address = _read_host(host, bracketed="[" in parts.netloc)
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?") if parts.query else ""
    return Target(host=name, port=port or 443, address=address, path=path + query)


def read_redirect(here: Target, location: bytes) -> Target:
    """The hop that a Location header names; raises ``UrlRefused``."""
    decoded = quote(location, safe=bytes(range(0x80)))
    try:
        return read_url(urljoin(here.url, decoded))
    except ValueError:
        raise _refused(f"{here.host} redirects to a URL that can't be read.") from None
    except UrlRefused as refused:
        message = f"{here.host} redirects elsewhere. {refused.message}"
        raise UrlRefused(message, fix=refused.fix, rule=refused.rule) from None


def require_public(host: str, addresses: tuple[Address, ...]) -> None:
    """Raise ``UrlRefused`` if any address of a host is not public. No address is ever shown."""
    if not addresses:
        raise unresolved(host)
    if not all(is_public(one) for one in addresses):
        raise _refused(
            f"{host} leads to an address that is not public: inside a network, on this machine, or reserved."
        )


def unresolved(host: str) -> UrlRefused:
    """The error for a name without an address."""
    return UrlRefused(f"The host {host} is not known: it has no address.", fix="Check the spelling of the URL.")


def _read_host(host: str, *, bracketed: bool) -> tuple[str, Address | None]:
    if bracketed:
        address = _address(IPv6Address, host, "The URL can't be read: it holds no IPv6 address in brackets.")
        return address.compressed, address
    name = _ascii(host.lower()).removesuffix(".")
    if len(name) > 253 or not _HOST.fullmatch(name):
        raise _refused("The URL can't be read: its host is neither a name nor an address.")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # Four decimal numbers without leading zeros, nothing else.
        unusual = "The URL's host is an IPv4 address in an unusual spelling, which systems read differently."
        return name, _address(IPv4Address, name, unusual)
    if labels[-1] in _PRIVATE_NAMES or len(labels) == 1:
        raise _refused(f"{name} is a name of this machine or of an inner network.")
    return name, None


def _address(kind: type[Address], text: str, malformed: str) -> Address:
    try:
        address = kind(text)
    except ValueError:
        raise _refused(malformed) from None
    if not is_public(address):
        raise _refused("The URL's address is not public: inside a network, on this machine, or reserved.")
    return address


def _ascii(host: str) -> str:
    """A name in its ASCII form, which is checked like any other."""
    if host.isascii():
        return host
    import httpx2  # it brings IDNA along

    try:
        return httpx2.URL(scheme="https", host=host).raw_host.decode("ascii").lower()
    except (httpx2.InvalidURL, ValueError):
        raise _refused("The URL can't be read: its host is no valid international name.") from None


def _refused(message: str) -> UrlRefused:
    return UrlRefused(message, fix=PUBLIC_URL)
