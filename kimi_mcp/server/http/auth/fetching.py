"""Requests to the operator's identity provider, each for one JSON object: bounded, never redirected. Does I/O."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, cast

import anyio
import anyio.to_thread
import httpx2

from kimi_mcp.core.certificates import trusted_certificates
from kimi_mcp.core.errors import NotConfigured, caused_by
from kimi_mcp.core.proxies import proxy_for
from kimi_mcp.core.version import __version__
from kimi_mcp.server.http.refusal import Refusal

MAX_DOCUMENT_BYTES: Final = 512 * 1024
"""Bytes of a document; a large provider's keys, with their certificates, take some 20 KiB."""


class FetchFailed(Exception):
    """There is no JSON object behind that URL; its text is a fixed sentence."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        """``status``: of the response; None: nobody answered."""
        super().__init__(reason)
        self.status = status


def not_verifiable(retry_after_s: int) -> Refusal:
    """The answer to a request whose token can't be checked now: neither accepted nor refused."""
    message = (
        "Tokens can't be checked at the moment: the identity provider does not answer. Send the request again later."
    )
    return Refusal(503, message, headers={"Retry-After": str(retry_after_s)})


async def fetch_object(
    url: str, *, form: Mapping[str, str] | None = None, authorization: str | None = None, within_s: float
) -> dict[str, Any]:
    """The JSON object behind a URL, by GET, or by POST of a form. Raises ``FetchFailed``."""
    headers = {"User-Agent": f"kimi-mcp/{__version__}", "Accept": "application/json", "Accept-Encoding": "identity"}
    if authorization is not None:
        headers["Authorization"] = authorization
    try:
        with anyio.fail_after(within_s):
            # In a thread: reading the trusted certificates, and the proxies of some systems, takes a while.
            client = await anyio.to_thread.run_sync(_client, url, abandon_on_cancel=True)
            async with (
                client,
                client.stream("GET" if form is None else "POST", url, headers=headers, data=form) as response,
            ):
                if response.status_code != 200:
                    raise FetchFailed("It answered with another status than 200.", response.status_code)
                content = await _bounded(response)
                status = response.status_code
    except TimeoutError:
        raise FetchFailed("Nobody answered in time.") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise FetchFailed(_reason(error)) from None
    except NotConfigured as error:
        raise FetchFailed(error.message) from None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FetchFailed("Its answer was no JSON object.", status)
    return cast(dict[str, Any], found)


async def _bounded(response: httpx2.Response) -> bytes:
    content = bytearray()
    async for piece in response.aiter_raw():  # what was compressed unasked is no JSON
        content += piece
        if len(content) > MAX_DOCUMENT_BYTES:
            raise FetchFailed("Its answer was too large.", response.status_code)
    return bytes(content)


def _reason(error: Exception) -> str:
    if caused_by(error, ssl.SSLCertVerificationError):
        return "Its certificate is not trusted here: SSL_CERT_FILE names the certificates that are."
    if caused_by(error, socket.gaierror):
        return "Its host has no address."
    return "It can't be reached, or does not speak HTTP."


def _client(url: str) -> httpx2.AsyncClient:
    """A client for one request, so that nothing has to be closed when the server ends."""
    return httpx2.AsyncClient(
        verify=trusted_certificates(),
        proxy=proxy_for(url),
        timeout=None,  # all of it together is bounded above
        trust_env=False,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )
