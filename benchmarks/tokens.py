"""A source of tokens that is never the bottleneck: a chat-completions endpoint on raw sockets. A process of its own.

``python -m benchmarks.tokens`` prints its base URL and serves until its stdin closes; with a certificate and its key as
arguments it speaks HTTPS. The prompt says what to stream: ``2000 tokens at 100 a second``; at 0 a second everything
comes in one write. One token is one event and one HTTP chunk (and one record of TLS), as Moonshot sends them; the first
half is reasoning, the second half answer. ``/ended`` says when the last stream ended.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
from typing import ClassVar

MODEL = "kimi-k2.5"

_REQUESTED = re.compile(rb"(\d+) tokens at (\d+) a second")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\nserver: tokens\r\nmsh-request-id: 6c0e9b55-0d6c-4b0c-9a7d-3d5e7a1f2b90\r\n\r\n"
)
_CLOSING = b"0\r\n\r\n"


def prompt(tokens: int, rate: int) -> str:
    """What to ask for: so many tokens, so many of them a second (0: all at once)."""
    return f"{tokens} tokens at {rate} a second"


def _chunk(payload: bytes) -> bytes:
    event = b"data: " + payload + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    event = {
        "id": "chatcmpl-692350f1a7c34b8e9d20c1f4",
        "object": "chat.completion.chunk",
        "created": 1763921137,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        "system_fingerprint": "fpv0_6de0e7a4",
    }
    return _chunk(json.dumps(event, separators=(",", ":")).encode())


def _usage(tokens: int) -> bytes:
    usage = {"prompt_tokens": 12, "completion_tokens": tokens, "total_tokens": 12 + tokens, "cached_tokens": 0}
    event = {
        "id": "chatcmpl-692350f1a7c34b8e9d20c1f4",
        "object": "chat.completion.chunk",
        "created": 1763921137,
        "model": MODEL,
        "choices": [],
        "usage": usage,
    }
    return _chunk(json.dumps(event, separators=(",", ":")).encode())


_ROLE = _event({"role": "assistant", "content": ""})
_WORDS = (" the", " quick", " brown", " fox", " jumps", " over", " it", ",")
_REASONING = [_event({"reasoning_content": word}) for word in _WORDS]
_ANSWER = [_event({"content": word}) for word in _WORDS]
_STOP = _event({}, "stop")
_MODELS = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode()


def _token(number: int, tokens: int) -> bytes:
    return (_REASONING if number < tokens // 2 else _ANSWER)[number % len(_WORDS)]


class _Connection(asyncio.Protocol):
    """One connection, kept alive between requests."""

    ended: ClassVar[float] = 0.0
    """When the last stream ended, by the monotonic clock, which all processes of a machine share."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        wanted = int(length[1]) if length else 0
        if not blank or len(body) < wanted:
            return
        self._received = body[wanted:]
        if head.startswith(b"GET"):
            content = json.dumps({"ended": self.ended}).encode() if b"/ended " in head else _MODELS
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content)
            self._transport.write(head + content)
            return
        wanted = _REQUESTED.search(body)
        tokens, rate = (int(wanted[1]), int(wanted[2])) if wanted else (1, 0)
        closing = b"".join(
            (_STOP, _usage(tokens) if b"include_usage" in body else b"", _chunk(b"[DONE]"), _CLOSING),
        )
        if not rate:
            self._transport.write(b"".join((_HEAD, _ROLE, *(_token(n, tokens) for n in range(tokens)), closing)))
            return
        self._transport.write(_HEAD + _ROLE)
        self._send(0, tokens, 1 / rate, self._loop.time(), closing)

    def _send(self, number: int, tokens: int, step: float, start: float, closing: bytes) -> None:
        if number == tokens:
            self._transport.write(closing)
            _Connection.ended = self._loop.time()
            return
        self._transport.write(_token(number, tokens))
        due = start + (number + 1) * step  # by the clock, not by the last write: the rate holds on a busy machine
        self._timer = self._loop.call_at(due, self._send, number + 1, tokens, step, start, closing)


async def _serve(*certificate: str) -> None:
    loop = asyncio.get_running_loop()
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=1024, ssl=context)
    scheme = "https" if certificate else "http"
    print(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
