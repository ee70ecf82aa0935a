"""Ways of asking a simulator: by the openai SDK, by plain HTTP, by a bare socket. I/O."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
from openai import AsyncOpenAI

from kimi_mcp.simulator import Simulator

KEY = "sk-test"
THINK = {"model": "kimi-k2.6", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
INSTANT = {**THINK, "thinking": {"type": "disabled"}}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

SCHEMAS: dict[str, dict[str, Any]] = {
    "nested": {
        "type": "object",
        "properties": {
            "title": {"type": "string", "minLength": 3, "maxLength": 12},
            "rating": {"type": "integer", "minimum": 3, "maximum": 9, "multipleOf": 4},
            "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "kind": {"type": "string", "enum": ["a", "b"]},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
            "when": {"type": "string", "format": "date"},
            "maybe": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        },
        "required": ["title", "rating", "share", "kind", "tags", "when"],
        "additionalProperties": False,
    },
    "recursive": {
        "type": "object",
        "properties": {"root": {"$ref": "#/$defs/node"}},
        "required": ["root"],
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["name", "children"],
            }
        },
    },
    "allOf": {
        "type": "object",
        "properties": {
            "a": {"type": "string", "allOf": [{"enum": ["x", "y"]}]},
            "b": {"allOf": [{"$ref": "#/definitions/b"}]},
        },
        "required": ["a"],
        "allOf": [{"anyOf": [{"required": ["b"]}, {"required": ["c"]}]}],
        "definitions": {"b": {"type": "object", "properties": {"d/e": {"type": "integer"}}, "required": ["d/e"]}},
    },
}


@asynccontextmanager
async def sdk(sim: Simulator, key: str = KEY) -> AsyncIterator[AsyncOpenAI]:
    """An openai client that retries nothing."""
    async with AsyncOpenAI(base_url=sim.base_url, api_key=key, max_retries=0) as client:
        yield client


async def post(
    sim: Simulator,
    body: Any,
    path: str = "/chat/completions",
    key: str | None = KEY,
    data: bytes | None = None,
) -> httpx2.Response:
    """A plain POST of JSON, or of data that says it is JSON."""
    headers = {"authorization": f"Bearer {key}"} if key is not None else {}
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        headers["content-type"] = "application/json"
        return await client.post(sim.base_url + path, content=data or json.dumps(body).encode(), headers=headers)


async def refusal(sim: Simulator, body: Any, **how: Any) -> tuple[int, str, str]:
    """Status, type and message of a refusal."""
    answer = await post(sim, body, **how)
    error = answer.json()["error"]
    return answer.status_code, error["type"], error["message"]


async def answer(sim: Simulator, body: Any, **how: Any) -> dict[str, Any]:
    """The only choice's message of an answer that is not streamed."""
    got = await post(sim, body, **how)
    assert got.status_code == 200, got.text
    return got.json()["choices"][0]["message"]


def request_bytes(body: Any, *, method: str = "POST", path: str = "/v1/chat/completions") -> bytes:
    """A whole HTTP request."""
    data = json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
    return head.encode() + f"content-length: {len(data)}\r\n\r\n".encode() + data


async def bare(sim: Simulator, data: bytes) -> tuple[bytes, str]:
    """What comes back on a bare socket, and how it ended: "eof" or "reset"."""
    host, port = sim.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    got = b""
    async with await anyio.connect_tcp(host, int(port)) as stream:
        await stream.send(data)
        try:
            async for piece in stream:
                got += piece
        except anyio.BrokenResourceError:
            return got, "reset"
    return got, "eof"


def dechunked(raw: bytes) -> bytes:
    """The body of a chunked response, as far as it came."""
    left, body = raw.partition(b"\r\n\r\n")[2], b""
    while left:
        size, _, left = left.partition(b"\r\n")
        count = int(size, 16)
        if count == 0:
            break
        body, left = body + left[:count], left[count + 2 :]
    return body


def chunks_of(body: bytes) -> list[Any]:
    """The JSON of each event of a stream."""
    lines = [line.removeprefix("data: ") for line in body.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def streamed(sim: Simulator, body: Any) -> list[Any]:
    """The chunks of a streamed answer."""
    got = await post(sim, {**body, "stream": True})
    assert got.status_code == 200, got.text
    return chunks_of(got.content)


def deltas(chunks: list[Any]) -> list[dict[str, Any]]:
    """The deltas of a stream that say something."""
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"] if choice["delta"]]


def png(width: int = 3, height: int = 2) -> bytes:
    """A real PNG."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + b"\x80\x40\x20" * width for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def mp4(seconds: int = 4, width: int = 64, height: int = 48) -> bytes:
    """The boxes of an MP4 that its header is read from."""

    def box(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", 8 + len(data)) + name + data

    mvhd = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 1000, seconds * 1000) + bytes(80))
    tkhd = box(b"tkhd", bytes(76) + struct.pack(">II", width << 16, height << 16))
    return box(b"ftyp", b"isom\0\0\0\1isommp42") + box(b"mdat", b"x" * 32) + box(b"moov", mvhd + box(b"trak", tkhd))


def data_url(kind: str, data: bytes) -> str:
    """A data URL of that media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def seeing(kind: str, url: str, text: str = "What is this?") -> dict[str, Any]:
    """A request with one medium."""
    parts = [{"type": f"{kind}_url", f"{kind}_url": {"url": url}}, {"type": "text", "text": text}]
    return {**THINK, "messages": [{"role": "user", "content": parts}]}
