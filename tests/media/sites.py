"""Sites on loopback for the tests of fetching: real TLS, with a certificate authority of their own."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import anyio
import httpcore2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kimi_mcp.core.errors import KimiError, MediaRejected, UrlRefused
from kimi_mcp.media.fetch import FetchedBody, fetch

PUBLIC = "93.184.216.34"
"""An address that is public; nothing is ever sent there: `Site.connect` goes to loopback instead."""

URL = "https://pictures.example/shot?token=swordfish"
"""The page `shot` of a site, with a query that nobody may see."""

Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Authority:
    """A certificate authority, and a certificate of it for the sites of the tests."""

    folder: Path
    names: tuple[str, ...] = ("pictures.example", "other.example", "xn--bcher-kva.example")

    def __post_init__(self) -> None:
        now = datetime.datetime.now(datetime.UTC)
        root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        root = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the tests' authority")])

        def certificate(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
            return (
                x509.CertificateBuilder()
                .subject_name(subject)
                .issuer_name(root)
                .public_key(public)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=1))
            )

        signed = certificate(root, root_key.public_key()).add_extension(x509.BasicConstraints(True, 0), critical=True)
        self.root = signed.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
        site = certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.names[0])]), key.public_key())
        names = x509.SubjectAlternativeName([x509.DNSName(name) for name in self.names])
        pem = site.add_extension(names, critical=False).sign(root_key, hashes.SHA256())
        self.certificate = self.folder / "site.pem"
        self.certificate.write_bytes(
            pem.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.root)

    def serves(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        return context


@dataclass
class Site:
    """A server, and the resolver and connector that lead to it."""

    port: int
    trusted: ssl.SSLContext
    requests: list[bytes] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    """Names that the client asked for by SNI."""
    resolved: list[str] = field(default_factory=list)
    connected: list[tuple[str, int]] = field(default_factory=list)
    addresses: dict[str, list[list[str]]] = field(default_factory=dict)
    """What the resolver says of a host, one answer after the other; the last one stays."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """A client has closed its connection."""

    async def resolve(self, host: str, port: int) -> list[str]:
        self.resolved.append(host)
        answers = self.addresses.get(host, [[PUBLIC]])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def connect(self, address: str, port: int) -> httpcore2.AsyncNetworkStream:
        self.connected.append((address, port))
        backend = cast(httpcore2.AsyncNetworkBackend, httpcore2.AnyIOBackend())
        return await backend.connect_tcp("127.0.0.1", self.port)

    def paths(self) -> list[str]:
        return [request.split(b" ")[1].decode() for request in self.requests]


def says(body: bytes = b"", *headers: str, status: str = "200 OK", length: int | None = -1) -> Handler:
    """Answer with a body. ``length``: what it says of its length; None: nothing; -1: the truth."""

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        announced = () if length is None else (f"content-length: {len(body) if length < 0 else length}",)
        writer.write("\r\n".join((f"HTTP/1.1 {status}", *announced, *headers, "", "")).encode() + body)
        await writer.drain()

    return handle


def redirects(to: str, status: str = "302 Found") -> Handler:
    return says(b"not to be read", f"location: {to}", status=status)


@asynccontextmanager
async def site(authority: Authority, **pages: Handler) -> AsyncIterator[Site]:
    """Serve pages by the first part of their path, each connection for one request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            request = await reader.readuntil(b"\r\n\r\n")
            here.requests.append(request)
            name = request.split(b" ")[1].decode().split("?")[0].strip("/").split("/")[0]
            await pages[name](request, writer)
            writer.close()
            await writer.wait_closed()
        here.gone.set()
        writer.transport.abort()

    context = authority.serves()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    here = Site(port=server.sockets[0].getsockname()[1], trusted=authority.trust())
    context.sni_callback = lambda connection, name, context: here.names.append(name)
    try:
        yield here
    finally:
        server.close()
        await server.wait_closed()


async def get(here: Site, url: str = URL, *, cap: int = 1_000_000, deadline_s: float = 30) -> FetchedBody:
    with anyio.fail_after(60):
        return await fetch(
            url,
            cap_bytes=cap,
            deadline_s=deadline_s,
            resolve=here.resolve,
            connect=here.connect,
            trust=here.trusted,
        )


async def refused(here: Site, url: str = URL, *, cap: int = 1_000_000, deadline_s: float = 30) -> KimiError:
    """The error of a fetch, which shows nothing of the URL but its host."""
    with pytest.raises((UrlRefused, MediaRejected)) as caught:
        (await get(here, url, cap=cap, deadline_s=deadline_s)).close()
    text = caught.value.message + caught.value.fix
    assert not any(secret in text for secret in ("swordfish", "token", "/shot", "127.0.0.1", PUBLIC)), text
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, KimiError)
    return caught.value
