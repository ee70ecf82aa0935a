"""Fetches a picture or a clip from an https URL. Does I/O: names, sockets, a temporary file; imported on first use.

- Each hop is checked before anything is sent (``addresses``): its name is resolved once, every address must be public,
  and the connection goes to one of these very addresses, while TLS and the Host header keep the name.
- No cookies, login or referrer are sent. No proxy is used: it would resolve the name itself, unchecked.
- Any port is allowed: it must use TLS with a certificate for the name.

Foreign exceptions end here. No message shows more of a URL than its host: path and query may hold a token.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, suppress
from ipaddress import ip_address
from tempfile import SpooledTemporaryFile
from typing import cast

import anyio
import anyio.to_thread
import httpcore2

from kimi_mcp.core.certificates import trusted_certificates
from kimi_mcp.core.errors import KimiError, MediaRejected, UrlRefused, caused_by
from kimi_mcp.core.version import __version__
from kimi_mcp.media.addresses import Address, Target, read_redirect, read_url, require_public, unresolved

HOPS_MAX = 5
"""Redirects that are followed."""

CONNECT_S = 5.0
"""Seconds for a connection to one address; then the next one is tried."""

ADDRESSES_MAX = 4
"""Addresses of one host that are tried, in the order of the resolver."""

IN_MEMORY = 4 << 20
"""Bytes that are kept in memory; a larger body goes to a temporary file."""

_CHARSET = re.compile(r"charset=[\"']?([a-z0-9_.:-]{1,40})")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) → its addresses as text; raises ``OSError`` where there are none."""

Connect = Callable[[str, int], Awaitable[httpcore2.AsyncNetworkStream]]
"""(address, port) → a TCP connection; raises httpcore2's ``ConnectError`` or ``ConnectTimeout``."""


class FetchedBody(AbstractContextManager["FetchedBody"]):
    """A body, and where it came from. A context manager: closing it removes it."""

    def __init__(self, cap_bytes: int) -> None:
        self._cap = cap_bytes
        self.file = SpooledTemporaryFile[bytes](max_size=IN_MEMORY, prefix="kimi-mcp-")
        """All of it; on disk it has no name, and is gone with the process at the latest."""
        self.size = 0
        """Bytes that have arrived."""
        self.announced: int | None = None
        """Bytes that the server announced."""
        self.content_type = ""
        """The server's label, without parameters, in lower case; only a claim."""
        self.charset = ""
        """The encoding of a text by that label, in lower case; only a claim, empty where it has none."""
        self.host = ""
        """The host that sent it, after all redirects."""

    @property
    def on_disk(self) -> bool:
        """Whether it is in a temporary file."""
        return self.size > IN_MEMORY

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at an offset, fewer at the end. For one thread at a time."""
        self.file.seek(offset)
        return self.file.read(length)

    async def receive(self, host: str, headers: Mapping[bytes, bytes], response: httpcore2.Response) -> None:
        """Read it to its end; raises ``MediaRejected`` beyond the cap and for an empty one."""
        self.host = host
        label, _, parameters = headers.get(b"content-type", b"").decode("latin-1").lower().partition(";")
        label = label.strip()
        self.content_type = label if label.isascii() and label.isprintable() else ""
        if found := _CHARSET.search(parameters):
            self.charset = found[1]
        length = headers.get(b"content-length", b"")
        self.announced = int(length) if length.isdigit() and len(length) < 20 else None
        if self.announced is not None and self.announced > self._cap:
            raise self._too_large(f"{self.announced:,} bytes")
        async with aclosing(response.aiter_stream()) as pieces:
            async for piece in pieces:
                self.size += len(piece)
                if self.size > self._cap:
                    raise self._too_large(f"more than {self._cap:,} bytes")
                await self._write(piece)
        if not self.size:
            raise MediaRejected(f"{host} sent nothing: found 0 bytes, expected a file.", fix="Check the URL.")
        self.file.seek(0)

    async def _write(self, piece: bytes) -> None:
        try:
            if self.on_disk:
                await anyio.to_thread.run_sync(self.file.write, piece)
            else:
                self.file.write(piece)
        except OSError:
            raise MediaRejected(
                f"What {self.host} sent does not fit on the disk: found {self.size:,} bytes so far.",
                fix="Free space in the folder for temporary files (TMPDIR), or give a smaller file.",
            ) from None

    def _too_large(self, found: str) -> MediaRejected:
        return MediaRejected(
            f"What {self.host} sends is too large: found {found}, {self._cap:,} are allowed.",
            fix="Give a smaller file, or download it and cut out the part that matters.",
        )

    def close(self) -> None:
        """Remove it."""
        self.file.close()

    def __exit__(self, *error: object) -> None:
        self.close()


async def fetch(
    url: str,
    *,
    cap_bytes: int,
    deadline_s: float,
    accept: str = "image/*, video/*",
    resolve: Resolve | None = None,
    connect: Connect | None = None,
    trust: ssl.SSLContext | None = None,
) -> FetchedBody:
    """Fetch a URL; the caller closes the body, best by ``with``.

    ``cap_bytes``: the largest body; ``deadline_s``: seconds for all of it, redirects included; ``accept``: the types
    that are asked for. The others replace the
    system's resolver, sockets and certificates (those of SSL_CERT_FILE, where it is set) in tests. Raises
    ``UrlRefused`` where the URL may not be fetched or nothing comes from it, ``MediaRejected`` where the body is too
    large, cut off or compressed, ``NotConfigured`` where the certificates can't be read.
    """
    target, body = read_url(url), FetchedBody(cap_bytes)
    try:
        with anyio.move_on_after(deadline_s):
            trust = trust or await anyio.to_thread.run_sync(trusted_certificates, abandon_on_cancel=True)
            for _ in range(HOPS_MAX + 1):
                addresses = await _addresses(target, resolve or _resolve)
                redirect = await _request(target, addresses, body, accept, connect or _connect, trust)
                if redirect is None:
                    return body
                target = redirect
            raise UrlRefused(
                f"{target.host} redirects once more, after {HOPS_MAX} redirects.", fix="Give the URL where they end."
            )
        raise UrlRefused(
            f"{target.host} took too long: found {body.size:,} bytes after {deadline_s:g} s, expected all of it.",
            fix="Try again, give a smaller file, or download it and give its path.",
        )
    except BaseException:
        body.close()
        raise


async def _addresses(target: Target, resolve: Resolve) -> tuple[Address, ...]:
    """The addresses of a hop, all of them public; raises ``UrlRefused``."""
    if target.address is not None:
        found: tuple[Address, ...] = (target.address,)
    else:
        try:
            resolved = await resolve(target.host, target.port)
            found = tuple(dict.fromkeys(ip_address(one) for one in resolved))
        except (OSError, ValueError):
            raise unresolved(target.host) from None
    require_public(target.host, found)
    return found[:ADDRESSES_MAX]


async def _request(
    target: Target,
    addresses: tuple[Address, ...],
    body: FetchedBody,
    accept: str,
    connect: Connect,
    trust: ssl.SSLContext,
) -> Target | None:
    """Request one URL: its body is received (None), or it redirects to the next one."""
    url = httpcore2.URL(scheme=b"https", host=target.host.encode(), port=target.port, target=target.path.encode())
    request = httpcore2.Request(
        method="GET",
        url=url,
        headers={
            "Host": target.authority,
            "User-Agent": f"kimi-mcp/{__version__}",
            "Accept": accept,
            "Accept-Encoding": "identity",
            "Connection": "close",
        },
    )
    stream: httpcore2.AsyncNetworkStream | None = None
    answered = False
    try:
        stream = await _connected(addresses, target.port, connect)
        secure = await stream.start_tls(trust, target.host)
        response = await httpcore2.AsyncHTTP11Connection(url.origin, secure).handle_async_request(request)
        answered = True
        headers = {name.lower(): value for name, value in response.headers}
        if response.status in _REDIRECTS and b"location" in headers:
            return read_redirect(target, headers[b"location"])
        _require_body(target.host, response.status, headers)
        await body.receive(target.host, headers, response)
        return None
    except KimiError:
        raise
    except Exception as error:  # noqa: BLE001 - the boundary: whatever the libraries raise becomes ours here
        if not answered:
            raise _unreached(target.host, error) from None
        expected = "all of it" if body.announced is None else f"{body.announced:,}"
        raise MediaRejected(
            f"What {target.host} sent is truncated: found {body.size:,} bytes, expected {expected}.",
            fix="Try again, or download the file and give its path.",
        ) from None
    finally:
        if stream is not None:
            with anyio.CancelScope(shield=True):
                await stream.aclose()


async def _connected(addresses: tuple[Address, ...], port: int, connect: Connect) -> httpcore2.AsyncNetworkStream:
    """A connection to the first address that answers."""
    *others, last = addresses
    for address in others:
        with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
            return await connect(address.compressed, port)
    return await connect(last.compressed, port)


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
            f"{host} sends the file compressed without a request for that: found a content encoding, expected none.",
            fix="Download the file, and give its path.",
        )


async def _resolve(host: str, port: int) -> Sequence[str]:
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def _connect(address: str, port: int) -> httpcore2.AsyncNetworkStream:
    backend = cast(httpcore2.AsyncNetworkBackend, httpcore2.AnyIOBackend())
    return await backend.connect_tcp(address, port, timeout=CONNECT_S)


def _unreached(host: str, error: Exception) -> UrlRefused:
    """The error where no response came."""
    if caused_by(error, ssl.SSLCertVerificationError):
        return UrlRefused(
            f"The certificate of {host} is not trusted, or is another's.",
            fix="Check the URL; where this network has certificates of its own, set SSL_CERT_FILE to their file.",
        )
    if isinstance(error, httpcore2.ConnectError | httpcore2.ConnectTimeout):
        return UrlRefused(f"{host} can't be reached by https.", fix="Check the URL, or give a path to the file.")
    return UrlRefused(
        f"{host} broke the connection off before it answered.", fix="Try again, or give a path to the file."
    )
