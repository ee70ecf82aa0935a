"""An identity provider on a socket of this process: metadata, keys, introspection. Strict, and without PyJWT. I/O.

It signs with ``cryptography`` alone and answers nothing that it was not asked as the standards say.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from kimi_mcp.server.http.auth.claims import ResourceServer

NOW = 1_800_000_000
"""Its clock, and that of the verifiers under test."""

AUDIENCE = "https://kimi.example.org/mcp"

US = ResourceServer(AUDIENCE, AUDIENCE)
"""The server that the tokens are for."""

CLIENT = ("kimi server", "s3cr3t:of/the+server")
"""Our id and secret at its introspection endpoint; both need the escapes of RFC 6749."""

HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
CURVES: Mapping[str, tuple[str, ec.EllipticCurve, int]] = {
    "ES256": ("P-256", ec.SECP256R1(), 32),
    "ES384": ("P-384", ec.SECP384R1(), 48),
    "ES512": ("P-521", ec.SECP521R1(), 66),
}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value: int, size: int | None = None) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@cache
def private_key(kind: str, which: int = 0) -> Any:
    """A key; the same one however often it is asked for."""
    del which
    if kind in CURVES:
        return ec.generate_private_key(CURVES[kind][1])
    if kind == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, int(kind.removeprefix("RSA-")))


def kind_of(algorithm: str) -> str:
    return "RSA-2048" if algorithm[:2] in ("RS", "PS") else algorithm


def jwk(kind: str, key_id: str | None, which: int = 0, **more: Any) -> dict[str, Any]:
    """The public half of a key."""
    public = private_key(kind, which).public_key()
    found: dict[str, Any] = {} if key_id is None else {"kid": key_id}
    if kind in CURVES:
        name, _, size = CURVES[kind]
        point = public.public_numbers()
        found |= {"kty": "EC", "crv": name, "x": number(point.x, size), "y": number(point.y, size)}
    elif kind == "EdDSA":
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        found |= {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}
    else:
        found |= {"kty": "RSA", "n": number(public.public_numbers().n), "e": number(public.public_numbers().e)}
    return found | more


def public_pem(kind: str) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return private_key(kind).public_key().public_bytes(serialization.Encoding.PEM, form)


def signature(algorithm: str, signed: bytes, which: int = 0) -> bytes:
    key: Any = private_key(kind_of(algorithm), which)
    if algorithm == "EdDSA":
        return key.sign(signed)
    hashed = HASHES[algorithm[2:]]
    if algorithm in CURVES:
        size = CURVES[algorithm][2]
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashed)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if algorithm.startswith("PS"):
        return key.sign(signed, padding.PSS(padding.MGF1(hashed), hashed.digest_size), hashed)
    return key.sign(signed, padding.PKCS1v15(), hashed)


def encoded(header: Any, claims: Any) -> bytes:
    parts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims))
    return ".".join(map(b64, parts)).encode()


def signed(header: Mapping[str, Any], claims: Any, which: int = 0) -> str:
    """A token, signed by the key of its ``alg`` whatever else its header says."""
    first = encoded(header, claims)
    return f"{first.decode()}.{b64(signature(header['alg'], first, which))}"


def signed_with_secret(header: Mapping[str, Any], claims: Any, secret: bytes) -> str:
    first = encoded(header, claims)
    return f"{first.decode()}.{b64(hmac.digest(secret, first, hashlib.sha256))}"


class IdentityProvider:
    """Serves until it is closed. What a test changes in ``keys``, ``metadata`` or ``tokens`` is served next."""

    def __init__(self, port: int, path: str = "") -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.issuer = f"{self.origin}{path}"
        self.places = [f"{path.rstrip('/')}/.well-known/openid-configuration"]
        """Where the metadata is."""
        self.metadata: Any = {"issuer": self.issuer, "jwks_uri": f"{self.origin}/keys"}
        self.keys: Any = {"keys": [jwk("ES256", "a")]}
        self.tokens: dict[str, Any] = {}
        """What introspection answers about a token."""
        self.requests: list[str] = []
        """The paths asked for."""
        self.wrong: list[str] = []
        """Requests that are not as the standards say."""
        self.status = 200
        """Of every response; another one stands for an outage."""
        self.gate: asyncio.Event | None = None
        """Responses wait for it."""
        self.headers = ""
        """Lines that every response has."""

    def claims(self, **changed: Any) -> dict[str, Any]:
        """The claims of a good token, with changes; None leaves one out."""
        good = {"iss": self.issuer, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 300, "iat": NOW, "scope": "kimi:call"}
        return {name: value for name, value in {**good, **changed}.items() if value is not None}

    def token(self, header: Mapping[str, Any] | None = None, **changed: Any) -> str:
        """A good token, but for the changes."""
        return signed({"alg": "ES256", "kid": "a", **(header or {})}, self.claims(**changed))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.requests.append(path)
            if self.gate is not None:
                await self.gate.wait()
            try:
                status, content = self._answer(method, path, headers, body)
            except AssertionError as fault:
                self.wrong.append(f"{path}: {fault}")
                status, content = 400, b""
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            lines = f"HTTP/1.1 {status} X\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n{self.headers}\r\n"
            writer.write(lines.encode() + raw)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        assert "cookie" not in headers
        assert headers["accept"] == "application/json"
        if self.status != 200:
            return self.status, b""
        if path == "/introspect":
            assert method == "POST"
            assert headers["content-type"] == "application/x-www-form-urlencoded"
            scheme, _, both = headers["authorization"].partition(" ")
            client = base64.b64decode(both).decode().split(":")
            if scheme != "Basic" or tuple(map(unquote_plus, client)) != CLIENT:
                return 401, {"error": "invalid_client"}
            form = parse_qs(body.decode(), strict_parsing=True)
            assert form["token_type_hint"] == ["access_token"]
            (token,) = form["token"]
            return 200, self.tokens.get(token, {"active": False})
        assert (method, body) == ("GET", b"")
        assert "authorization" not in headers
        documents = {**dict.fromkeys(self.places, self.metadata), "/keys": self.keys}
        return (200, documents[path]) if path in documents else (404, b"no")


@asynccontextmanager
async def identity_provider(path: str = "") -> AsyncIterator[IdentityProvider]:
    """One on a free port of 127.0.0.1, whose issuer has that path."""
    provider: IdentityProvider | None = None

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert provider is not None
        await provider.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    provider = IdentityProvider(server.sockets[0].getsockname()[1], path)
    try:
        yield provider
    finally:
        server.close()
    assert provider.wrong == []
