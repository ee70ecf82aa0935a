"""Connections that go only to addresses that were checked. Does I/O; imported on first use, as it imports httpcore2."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable

import anyio
import httpcore2

from kimi_mcp.core.errors import UrlRefused, caused_by
from kimi_mcp.media.addresses import Address


class PinnedBackend(httpcore2.AsyncNetworkBackend):
    """Opens sockets for one host, to its checked addresses in turn. Resolves no name."""

    def __init__(
        self,
        host: str,
        addresses: tuple[Address, ...],
        connect: Callable[[str, int], Awaitable[httpcore2.AsyncNetworkStream]],
    ) -> None:
        self._host = host
        self._addresses = addresses
        self._connect = connect
        self._opened: list[httpcore2.AsyncNetworkStream] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's own
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the first checked address that answers; httpcore2 adds TLS, for the name."""
        if host != self._host:
            raise httpcore2.ConnectError
        last: Exception = httpcore2.ConnectError()
        for address in self._addresses:
            try:
                stream = await self._connect(address.compressed, port)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
            else:
                self._opened.append(stream)
                return stream
        raise last

    async def aclose(self) -> None:
        """Close every socket: one whose handshake was cancelled is left open by httpcore2."""
        while self._opened:
            await self._opened.pop().aclose()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)


def unreached(host: str, error: Exception) -> UrlRefused:
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
