"""Requests with something wrong in them, as bytes: in the request line, a header, the framing, the JSON, the message.

Each is complete: whoever sends one is owed an answer, or the end of the connection where it ends in the middle.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.server.http.served import OLDER, Answer, message, newest, newest_headers

CALL = {"name": "kimi_run", "arguments": {"run_id": "run_none", "action": "status"}}

JUNK: tuple[Any, ...] = (None, True, -1, 1e308, 2**70, "", "x" * 3000, "\ud83d", [], [[]], {}, {"a": {"b": []}}, "\x00")
"""Values of every kind, for where another one belongs."""


@dataclass
class Request:
    """A request that can be taken apart."""

    line: bytes = b"POST /mcp HTTP/1.1"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    body: bytes = b""
    length: bool = True
    """Whether its length is announced as it is."""

    def encoded(self) -> bytes:
        length = [b"Content-Length: %d" % len(self.body)] if self.length else []
        lines = [self.line, *(name + b": " + value for name, value in self.headers), *length, b"", b""]
        return b"\r\n".join(lines) + self.body


def good(chance: random.Random, body: Any = None) -> Request:
    """A request that is in order, in one era or the other."""
    modern = chance.random() < 0.5
    named = newest_headers("tools/call", "kimi_run") if modern else OLDER
    made = body or (newest if modern else message)("tools/call", CALL)
    headers = [(b"Host", b"127.0.0.1"), *((name.encode(), value.encode()) for name, value in named.items())]
    return Request(headers=headers, body=json.dumps(made).encode())


def malformed(chance: random.Random) -> bytes:
    """A request with something wrong in it."""
    return chance.choice(WRONG)(chance)


def check(request: bytes, answer: Answer | None) -> None:
    """What came back is no failure of the server, and says what is wrong."""
    assert answer is not None, request[:3000]
    assert answer.status < 500 or answer.status in (501, 505), (request[:3000], answer)
    if answer.status >= 400 and not request.startswith(b"HEAD"):
        assert len(answer.content) > 60, (request[:3000], answer)


def _bytes(chance: random.Random, most: int, without: bytes = b"") -> bytes:
    return bytes(each for each in chance.randbytes(chance.randrange(1, most)) if each not in without)


def _wrong_line(chance: random.Random) -> bytes:
    request = good(chance)
    request.line = chance.choice(
        [
            b"",
            b"POST",
            b"POST /mcp",
            b"POST  /mcp HTTP/1.1",
            b"POST /mcp HTTP/1.1 ",
            b"POST /mcp HTTP/0.9",
            b"POST /mcp HTTP/1.0",
            b"POST /mcp HTTP/1.9",
            b"POST /mcp HTTP/2.0",
            b"POST /mcp http/1.1",
            b"POST /mcp HTTP/11",
            b"POST http://127.0.0.1/mcp HTTP/1.1",
            b"POST //mcp HTTP/1.1",
            b"POST /mcp/../../etc/passwd HTTP/1.1",
            b"POST /%00 HTTP/1.1",
            b"POST /\xff HTTP/1.1",
            b"POST /mcp?" + b"a" * 5000 + b" HTTP/1.1",
            b"PRI * HTTP/2.0",
            b"OPTIONS * HTTP/1.1",
            b"CONNECT 127.0.0.1:443 HTTP/1.1",
            b"TRACE /mcp HTTP/1.1",
            b"PUT /mcp HTTP/1.1",
            b"HEAD /mcp HTTP/1.1",
            b"GET /mcp HTTP/1.1",
            b"DELETE /mcp HTTP/1.1",
            b"BREW /mcp HTTP/1.1",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
            _bytes(chance, 200, b"\r\n") + b" /mcp HTTP/1.1",
            b"POST /" + _bytes(chance, 200, b"\r\n") + b" HTTP/1.1",
        ]
    )
    return request.encoded()


def _wrong_header(chance: random.Random) -> bytes:
    request = good(chance)
    at = chance.randrange(len(request.headers))
    name, value = request.headers[at]
    match chance.randrange(7):
        case 0:
            del request.headers[at]
        case 1:
            request.headers.append((name, value))
        case 2:
            odd = (
                b"",
                b"text/html",
                b"null",
                b"*/*;q=",
                b"1" * 4000,
                "é".encode(),
                b"a\tb",
                b"a\r\n folded",
                b"x\ny: z",
            )
            request.headers[at] = name, chance.choice(odd)
        case 3:
            request.headers[at] = name, _bytes(chance, 500)
        case 4:
            odd = (b" " + name, name + b" ", b"", b"(" + name, b"\x7f", b":" + name, name + b"\x00")
            request.headers[at] = chance.choice(odd), value
        case 5:
            request.headers += [(b"X-%d" % number, b"y" * chance.randrange(40)) for number in range(3000)]
        case _:
            upgrade = chance.choice((b"h2c", b"websocket", b"TLS/1.0"))
            request.headers += [(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", upgrade)]
    return request.encoded()


def _wrong_framing(chance: random.Random) -> bytes:
    request = good(chance)
    request.length = False
    content = request.body
    chunked = (b"Transfer-Encoding", b"chunked")
    whole = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
    case = chance.randrange(5)
    if case == 0:
        lengths = (b"-1", b"+5", b"0x10", b"5, 6", b"1e3", b"\xb2", b"9" * 30, b"", b"5;6", b"0")
        request.headers.append((b"Content-Length", chance.choice(lengths)))
    elif case == 1:
        request.headers += [(b"Content-Length", b"%d" % len(content)), (b"Content-Length", b"0")]
    elif case == 2:
        request.headers += [chunked, (b"Content-Length", b"%d" % chance.choice((0, len(content), 5)))]
        request.body = whole
    elif case == 3:
        codings = (
            b"gzip",
            b"identity",
            b"chunked, chunked",
            b"gzip, chunked",
            b"xchunked",
            b"\x0bchunked",
            b"chunked;a=b",
        )
        request.headers.append((b"Transfer-Encoding", chance.choice(codings)))
        request.body = whole
    else:
        request.headers.append(chunked)
        odd = (
            b"-5\r\n",
            b"0x5\r\nabcde\r\n",
            b"5\nabcde\n",
            b"5\r\nabcdefgh\r\n",
            b"g\r\n",
            b"f" * 25 + b"\r\n",
            b"\r\n",
        )
        request.body = chance.choice(odd) + b"0\r\n\r\n"
    return request.encoded()


def _wrong_json(chance: random.Random) -> bytes:
    request = good(chance)
    content = bytearray(request.body)
    match chance.randrange(6):
        case 0:
            del content[chance.randrange(len(content)) :]
        case 1:
            for _ in range(chance.randrange(1, 9)):
                content[chance.randrange(len(content))] = chance.randrange(256)
        case 2:
            content = bytearray(chance.choice([b"[", b'{"a":', b'"']) * chance.randrange(1, 5000))
        case 3:
            content = bytearray(chance.randbytes(chance.randrange(1, 5000)))
        case 4:
            at = chance.randrange(len(content))
            content[at:at] = chance.choice(
                [b"\x00", b"\xef\xbb\xbf", b"NaN", b"\\ud800", b"1e999", b"// no\n", b"\xff\xfe"]
            )
        case _:
            content = bytearray(request.body * 2)
    request.body = bytes(content)
    return request.encoded()


def _wrong_message(chance: random.Random) -> bytes:
    """Another value, or none, somewhere in the message."""
    modern = chance.random() < 0.5
    whole = json.loads(json.dumps((newest if modern else message)("tools/call", CALL)))
    path = [whole]
    while chance.random() < 0.6:
        inner = [each for each in path[-1].values() if isinstance(each, dict) and each]
        if not inner:
            break
        path.append(chance.choice(inner))
    name = chance.choice(sorted(path[-1]))
    if chance.random() < 0.3:
        del path[-1][name]
    else:
        path[-1][name] = chance.choice((*JUNK, "initialize", "tools/list", "notifications/cancelled", "2031-01-01"))
    return good(chance, chance.choice((whole, whole, whole, [whole]))).encoded()


def _wrong_mcp_header(chance: random.Random) -> bytes:
    request = good(chance)
    names = (
        b"MCP-Protocol-Version",
        b"Mcp-Method",
        b"Mcp-Name",
        b"Mcp-Session-Id",
        b"Last-Event-ID",
        b"Mcp-Param-prompt",
    )
    values = (
        b"",
        b"2024-11-05",
        b"2026-07-28",
        b"2031-01-01",
        b"tools/list",
        b"=?base64?!!?=",
        b"=?base64?/w==?=",
        b"a" * 32,
    )
    name, value = chance.choice(names), chance.choice(values)
    if chance.random() < 0.7:
        request.headers = [each for each in request.headers if each[0].lower() != name.lower()]
    request.headers.append((name, value))
    return request.encoded()


WRONG: tuple[Callable[[random.Random], bytes], ...] = (
    _wrong_line,
    _wrong_header,
    _wrong_framing,
    _wrong_json,
    _wrong_message,
    _wrong_mcp_header,
)
