"""Fetching a picture or a clip from an https URL. Does I/O: resolves names, opens sockets; a large body goes to disk.

The rules of a fetch:

- A hop is judged before anything is sent (``addresses``): its name is resolved once, every address must be public, and
  the connection goes to one of these very addresses, while TLS and the Host header keep the name. So a name that
  changes its mind between the check and the connection changes nothing.
- Redirects are followed by hand, at most ``HOPS_MAX``, and each is a hop of its own with all of it once more.
- Nothing of ours goes along: no cookies, no login, no referrer. No proxy of the environment is used: it would resolve
  the name a second time, out of our sight. Whoever may only go out by a proxy gives a path instead.
- Any port is reached: what is spoken there is TLS with a certificate for the name, or nothing.
- The body comes uncompressed, up to a cap and a deadline that covers everything; ``formats`` judges it by content.

Foreign exceptions end here. No message shows more of a URL than its host: path and query may hold a token.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

import anyio

from kimi_mcp.core.errors import KimiError, MediaRejected, UrlRefused
from kimi_mcp.core.version import __version__
from kimi_mcp.media.addresses import Address, Target, read_redirect, read_url, require_public, unresolved
from kimi_mcp.media.fetched_body import FetchedBody, IncomingBody

if TYPE_CHECKING:
    import httpcore2

HOPS_MAX = 5
"""Redirects that are followed."""

CONNECT_S = 5.0
"""Seconds for a connection to one address; then the next one is tried."""

ADDRESSES_MAX = 4
"""Addresses of one host that are tried, in the order in which the system names them."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) → its addresses as text; raises ``OSError`` where there are none."""

Connect = Callable[[str, int], Awaitable["httpcore2.AsyncNetworkStream"]]
"""(address, port) → a TCP connection; raises httpcore2's ``ConnectError`` or ``ConnectTimeout``."""


async def fetch(
    url: str,
    *,
    cap_bytes: int,
    deadline_s: float,
    resolve: Resolve | None = None,
    connect: Connect | None = None,
    trust: ssl.SSLContext | None = None,
) -> FetchedBody:
    """Get what a URL leads to; the caller closes it, best by ``with``.

    ``cap_bytes``: bytes of the body that are taken; ``deadline_s``: seconds for all of it, redirects included. The
    others stand in for the system's resolver, sockets and certificates; only tests give them. Raises ``UrlRefused``
    where the URL may not be fetched or nothing comes from it, ``MediaRejected`` where what comes is too large, cut off
    or compressed.
    """
    way = _Way(resolve or _resolve, connect or _connect, trust)
    arriving = IncomingBody(cap_bytes)
    at = read_url(url)
    try:
        with anyio.move_on_after(deadline_s) as limit:
            for hop in range(HOPS_MAX + 1):
                there = await _hop(way, at, arriving)
                if there is None:
                    return arriving.done(host=at.host, redirects=hop)
                at = there
            raise UrlRefused(
                f"{at.host} redirects once more, after {HOPS_MAX} redirects.", fix="Give the URL where they end."
            )
    except BaseException:
        arriving.close()
        raise
    arriving.close()
    assert limit.cancelled_caught
    raise UrlRefused(
        f"{at.host} took too long: found {arriving.size:,} bytes after {deadline_s:g} s, expected all of it.",
        fix="Try again, give a smaller file, or download it and give its path.",
    )


class _Way:
    """How names are resolved, sockets opened and certificates checked."""

    def __init__(self, resolve: Resolve, connect: Connect, trust: ssl.SSLContext | None) -> None:
        self._resolve = resolve
        self.connect = connect
        self._trust = trust

    def trust(self) -> ssl.SSLContext:
        """The certificates that are trusted: the system's, or those that SSL_CERT_FILE names."""
        if self._trust is None:
            import httpx2

            self._trust = httpx2.create_ssl_context()
        return self._trust

    async def addresses(self, target: Target) -> tuple[Address, ...]:
        """Where a hop leads, all of it public; raises ``UrlRefused``."""
        if target.address is not None:
            found: tuple[Address, ...] = (target.address,)
        else:
            try:
                resolved = await self._resolve(target.host, target.port)
                found = tuple(dict.fromkeys(ip_address(one) for one in resolved))
            except (OSError, ValueError):
                raise unresolved(target.host) from None
        require_public(target.host, found)
        return found


async def _hop(way: _Way, target: Target, arriving: IncomingBody) -> Target | None:
    """Ask one URL: its body arrives (None), or it names the next one."""
    import httpcore2

    from kimi_mcp.media.pinned_connections import PinnedBackend, lost, unreached

    backend = PinnedBackend(target.host, (await way.addresses(target))[:ADDRESSES_MAX], way.connect)
    pool = httpcore2.AsyncConnectionPool(ssl_context=way.trust(), network_backend=backend)
    request = httpcore2.Request(
        method="GET",
        url=httpcore2.URL(
            scheme=b"https", host=target.host.encode("ascii"), port=target.port, target=target.path.encode("ascii")
        ),
        headers={
            "Host": target.authority,
            "User-Agent": f"kimi-mcp/{__version__}",
            "Accept": "image/*, video/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
        },
    )
    response: httpcore2.Response | None = None
    try:
        response = await pool.handle_async_request(request)
        headers = {name.lower(): value for name, value in response.headers}
        if response.status in _REDIRECTS and b"location" in headers:
            return read_redirect(target, headers[b"location"])
        _require_body(target.host, response.status, headers)
        arriving.begin(target.host, headers)
        async with aclosing(response.aiter_stream()) as pieces:
            async for piece in pieces:
                await arriving.take(piece)
        await arriving.end()
        return None
    except KimiError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the libraries below raise: their words stay here
        if response is None:
            raise unreached(target.host, error) from None
        raise lost(target.host, arriving) from None
    finally:
        with anyio.CancelScope(shield=True):
            if response is not None:
                await response.aclose()
            await pool.aclose()
            await backend.aclose()


def _require_body(host: str, status: int, headers: dict[bytes, bytes]) -> None:
    if status != 200:
        login = status in (401, 403, 407)
        raise UrlRefused(
            f"{host} answered {status} instead of the file.",
            fix="Download it where you are logged in, and give its path." if login else "Check the URL in a browser.",
        )
    coding = headers.get(b"content-encoding", b"identity").strip().lower()
    if coding not in (b"", b"identity"):
        raise MediaRejected(
            f"{host} sends the file compressed, though nobody asked for it: found a content encoding, expected none.",
            fix="Download the file, and give its path.",
        )


async def _resolve(host: str, port: int) -> Sequence[str]:
    import socket

    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def _connect(address: str, port: int) -> httpcore2.AsyncNetworkStream:
    import httpcore2

    backend = cast(httpcore2.AsyncNetworkBackend, httpcore2.AnyIOBackend())
    return await backend.connect_tcp(address, port, timeout=CONNECT_S)
