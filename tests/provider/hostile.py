"""Upstreams that no caller deserves, as one table: what each says, byte by byte, and what a call must make of it.

``python -m tests.provider.hostile`` serves them all on one port of 127.0.0.1, which it prints; a request's prompt names
the one that answers it: ``<name>``. Each connection has a thread of its own and says what its generator yields: bytes
are sent, a number is seconds to wait, ``RESET`` ends the connection by RST. One that never ends stops when its client
goes.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress

from tests.provider.hostile_answers import (
    ANSWER,
    BEGUN,
    DONE,
    GOOD,
    RESET,
    REST,
    STOP,
    Hostile,
    Sent,
    answer,
    body,
    call,
    chunk,
    chunked,
    data,
    endless,
    head,
    numbered,
    says,
    slowly,
    stream,
    usage,
    whole,
)

# ── the table ─────────────────────────────────────────────────────────────────────────────────────────────────────

BROKEN, SLOW, FINE = ("upstream_broken",), ("upstream_timeout",), (None,)
CUT = ("upstream_broken", "upstream_timeout")
"""What ends at a bound, or on a slow machine at a deadline before it."""

_MEGABYTE = 1_000_000
_ZEROS = gzip.compress(bytes(100 * _MEGABYTE), 1)
_ZLIB = zlib.compress(bytes(10 * _MEGABYTE), 1)

HEADS: Mapping[str, Hostile] = {
    "headers-without-end": Hostile(endless(b"x-more: and more\r\n", first=b"HTTP/1.1 200 OK\r\n"), CUT),
    "one-header-without-end": Hostile(endless(b"x", first=b"HTTP/1.1 200 OK\r\nx-more: "), CUT),
    "status-line-without-end": Hostile(endless(b"H", first=b"HTTP/1.1 200 O"), CUT),
    "no-status-line": Hostile(endless(b"\x16\x03\x01\x02", first=b"\x00"), CUT),
    "headers-of-90-kB": Hostile(lambda: (head(x_large="x" * 90_000), GOOD), FINE, ANSWER),
    "headers-of-200-kB": Hostile(lambda: (head(x_large="x" * 200_000), GOOD), CUT),
    "ten-thousand-headers": Hostile(lambda: (head(**{f"x_{n}": "1" * 9 for n in range(10_000)}), GOOD), CUT),
    "another-protocol": Hostile(lambda: (b"ICY 200 OK\r\n\r\n", GOOD), BROKEN),
    "another-version": Hostile(lambda: (b"HTTP/7.3 200 OK\r\n\r\n", GOOD), (None, *BROKEN)),
    "a-status-of-five-digits": Hostile(lambda: (b"HTTP/1.1 20000 OK\r\n\r\n", GOOD), BROKEN),
    "a-status-of-a-word": Hostile(lambda: (b"HTTP/1.1 fine OK\r\n\r\n", GOOD), BROKEN),
    "no-reason": Hostile(lambda: (b"HTTP/1.1 200\r\nconnection: close\r\n\r\n", GOOD), FINE, ANSWER),
    "a-header-without-a-colon": Hostile(lambda: (b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", GOOD), BROKEN),
    "a-nul-in-a-header": Hostile(lambda: (b"HTTP/1.1 200 OK\r\nx: \0\r\n\r\n", GOOD), BROKEN),
    "continue-without-end": Hostile(endless(b"HTTP/1.1 100 Continue\r\n\r\n", first=b""), CUT),
    "hints-without-end": Hostile(endless(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", first=b""), CUT),
    "fifty-continues": Hostile(lambda: (b"HTTP/1.1 100 Continue\r\n\r\n" * 50, head(), GOOD), FINE, ANSWER),
    "another-protocol-from-now-on": Hostile(
        lambda: (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", GOOD), BROKEN
    ),
    "moved-to-itself": Hostile(whole(b"", "301 Moved", location="/v1/chat/completions"), BROKEN),
    "moved-to-a-file": Hostile(whole(b"", "302 Found", location="file:///etc/passwd"), BROKEN),
    "moved-to-the-metadata": Hostile(whole(b"", "307 Moved", location="http://169.254.169.254/latest/"), BROKEN),
    "nothing": Hostile(whole(b"", "204 No Content"), BROKEN),
    "not-modified": Hostile(lambda: (head("304 Not Modified"),), BROKEN),
    "a-part": Hostile(lambda: (head("206 Partial Content"), GOOD), FINE, ANSWER),
    "two-lengths": Hostile(
        lambda: (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 900\r\n\r\n", GOOD), BROKEN
    ),
    "a-length-of-a-word": Hostile(lambda: (head(content_length="many"), GOOD), BROKEN),
    "a-negative-length": Hostile(lambda: (head(content_length="-1"), GOOD), BROKEN),
    "a-length-of-thirty-digits": Hostile(lambda: (head(content_length="9" * 30), GOOD), (None, *BROKEN)),
    "closed-at-once": Hostile(lambda: (), BROKEN),
    "reset-at-once": Hostile(lambda: (RESET,), BROKEN),
    "closed-in-the-status-line": Hostile(lambda: (b"HTTP/1.1 2",), BROKEN),
    "reset-in-the-headers": Hostile(lambda: (b"HTTP/1.1 200 OK\r\ncontent-", RESET), BROKEN),
    "silence": Hostile(lambda: (3_600.0,), SLOW),
    "silence-after-the-headers": Hostile(lambda: (head(), 3_600.0), SLOW),
    "headers-byte-by-byte": Hostile(lambda: slowly(b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 9_999, 0.05), SLOW),
}
"""What is wrong before the body."""

REFUSED: Mapping[str, Hostile] = {
    "a-page-for-502": Hostile(whole(b"<html>" + b"x" * 70_000, "502 Bad Gateway", "text/html"), BROKEN),
    "a-page-for-401": Hostile(whole(b"<html>", "401 Unauthorized", "text/html"), ("auth_failed",)),
    "an-error-without-end": Hostile(
        endless(b"x", first=head("400 Bad Request", "application/json") + b'{"error": {"message": "'),
        ("invalid_arguments",),
    ),
    "no-capacity-without-end": Hostile(endless(b" ", first=head("503 Unavailable")), ("overloaded",)),
    "a-wait-of-400-digits": Hostile(whole(b"{}", "429 Slow Down", retry_after="9" * 400), ("rate_limited",)),
    "a-wait-of-nonsense": Hostile(
        whole(b"{}", "429 Slow Down", retry_after="Mon, 99 Foo 99999999999999", x_ratelimit_reset="NaN"),
        ("rate_limited",),
    ),
    "an-error-nested-for-ever": Hostile(whole(b'{"error":' * 7_000, "400 Bad Request"), ("invalid_arguments",)),
    "an-error-that-is-a-list": Hostile(whole(b"[[[1]]]", "404 Not Found"), ("model_not_served",)),
    "an-error-of-numbers": Hostile(
        whole({"error": {"type": 9, "code": int("9" * 400), "message": [1]}}, "400 Bad Request"), ("invalid_arguments",)
    ),
    "a-status-nobody-knows": Hostile(whole(b"{}", "799 Odd"), BROKEN),
    "a-refusal-cut-off": Hostile(
        lambda: (head("401 Unauthorized", content_length="1000"), b'{"error', RESET), ("auth_failed",)
    ),
}
"""Refusals."""

BODIES: Mapping[str, Hostile] = {
    "a-page": Hostile(whole(b"<!doctype html><title>Sign in</title>", kind="text/html"), BROKEN),
    "a-page-without-end": Hostile(endless(b"<p>no", first=head(kind="text/html")), BROKEN),
    "a-labelled-bomb": Hostile(whole(_ZEROS, content_encoding="gzip"), BROKEN),
    "a-labelled-bomb-of-another-kind": Hostile(whole(_ZEROS, content_encoding="br"), BROKEN),
    "a-bomb-without-a-label": Hostile(whole(_ZEROS), BROKEN),
    "deflated-without-a-label": Hostile(whole(_ZLIB, kind="text/event-stream"), BROKEN),
    "compressed-in-transfer": Hostile(lambda: (head(transfer_encoding="gzip, chunked"), _ZEROS), CUT),
    "noise-without-end": Hostile(endless(bytes(range(256)) * 4), CUT),
    "a-line-without-end": Hostile(endless(b"x", b"data: "), CUT),
    "a-line-of-nothing-without-end": Hostile(endless(b"x"), CUT),
    "comments-without-end": Hostile(endless(b": still here\n\n"), CUT),
    "a-comment-now-and-then": Hostile(
        lambda: itertools.chain((head(),), *([b": here\n\n", 0.1] for _ in range(9_999))), SLOW
    ),
    "fields-without-end": Hostile(endless(b"id: 7\nevent: x\nretry: 1\n"), CUT),
    "empty-lines-of-one-event": Hostile(endless(b"data:\n"), CUT),
    "blank-lines-without-end": Hostile(endless(b"\n"), CUT),
    "carriage-returns-without-end": Hostile(endless(b"\r"), CUT),
    "blanks-without-end": Hostile(endless(b" "), CUT),
    "empty-events-without-end": Hostile(endless(data({})), CUT),
    "empty-deltas-without-end": Hostile(endless(data(chunk({"content": ""})), BEGUN), CUT),
    "ends-without-end": Hostile(endless(DONE), BROKEN),
    "ends-without-end-after-some-text": Hostile(endless(DONE, BEGUN), BROKEN, "Hi "),
    "text-without-end": Hostile(endless(says("All work and no play. " * 40)), CUT),
    "letters-without-end": Hostile(numbered(lambda n: says(chr(97 + n % 26))), CUT),
    "words-without-end": Hostile(numbered(lambda n: says(f" w{n}")), CUT),
    "foxes-without-end": Hostile(
        endless(b"data: " + json.dumps(chunk({"content": "🦊" * 9_000}), ensure_ascii=False).encode() + b"\n\n"),
        CUT,
    ),
    "letters-and-one-fox": Hostile(endless(says("x" * 60_000), says("🦊")), CUT),
    "reasoning-without-end": Hostile(
        endless(data(chunk({"reasoning_content": "Hm. " * 9_000, "reasoning": "x"}))), CUT
    ),
    "escapes-without-end": Hostile(
        endless(b'data: {"choices":[{"delta":{"content":"' + b"\\ud83e" * 9_000 + b'"}}]}\n\n'), CUT
    ),
    "json-without-end": Hostile(endless(b"x", first=head(kind="application/json") + b'{"id": "'), CUT),
    "json-of-lists": Hostile(lambda: (head(), b'data: {"x": [' + b"[]," * 2_500_000 + b"[]]}\n\n", GOOD), CUT),
    "json-of-lists-just-under-the-bound": Hostile(
        lambda: (head(), BEGUN, *[b'data: {"x": [' + b"[]," * 340_000 + b"[]]}\n\n"] * 5, REST), FINE, ANSWER
    ),
    "json-nested-for-ever": Hostile(stream(data(b"[" * 2_000_000)), BROKEN),
    "objects-nested-for-ever": Hostile(stream(data(b'{"choices":' * 500_000)), BROKEN),
    "a-body-nested-for-ever": Hostile(whole(b'{"error":' * 500_000), BROKEN),
    "an-answer-of-3-MB-in-one-piece": Hostile(whole(answer({"content": "word " * 600_000})), FINE),
    "an-answer-of-8-MB-in-one-piece": Hostile(whole(answer({"content": "word " * 1_600_000})), CUT),
    "a-model-of-20-MB": Hostile(stream(says("Hi ", model="m" * 20 * _MEGABYTE), REST), CUT),
    "a-model-of-1-MB": Hostile(stream(BEGUN.replace(b"kimi-k2.6", b"m" * _MEGABYTE), REST), BROKEN),
    "a-model-of-500-letters": Hostile(stream(GOOD.replace(b"kimi-k2.6", b"m" * 500)), FINE, ANSWER),
    "an-id-of-1-MB": Hostile(stream(data(chunk({"tool_calls": [call(0, "c" * _MEGABYTE)]})), STOP), BROKEN),
    "a-tool-of-1-MB": Hostile(stream(data(chunk({"tool_calls": [call(0, "c", "f" * _MEGABYTE)]})), STOP), BROKEN),
    "a-tool-whose-name-grows": Hostile(
        numbered(lambda n: data(chunk({"tool_calls": [call(0, "c", f"f{n}", "")]}))), BROKEN
    ),
    "a-hundred-thousand-calls": Hostile(
        numbered(lambda n: data(chunk({"tool_calls": [call(n, f"c{n}")]})), 100_000), BROKEN
    ),
    "a-hundred-thousand-calls-at-once": Hostile(
        stream(data(chunk({"tool_calls": [call(n, f"c{n}") for n in range(50_000)]})), STOP), BROKEN
    ),
    "a-hundred-thousand-ids": Hostile(
        numbered(lambda n: data(chunk({"tool_calls": [call(0, f"c{n}")]})), 100_000), BROKEN
    ),
    "arguments-without-end": Hostile(
        numbered(lambda n: data(chunk({"tool_calls": [call(0, "c", "f", "[" * 999)]}))), BROKEN
    ),
    "a-hundred-thousand-choices": Hostile(stream(data({"choices": [{}] * 100_000}), GOOD), BROKEN),
}
"""Bodies without bounds."""

ODD: Mapping[str, Hostile] = {
    "counts-of-400-digits": Hostile(usage("9" * 400), FINE, ANSWER),
    "counts-of-5000-digits": Hostile(usage("9" * 5_000), FINE, ANSWER),
    "counts-below-nothing": Hostile(usage("-5"), FINE, ANSWER),
    "counts-with-a-point": Hostile(usage("4.5e300"), FINE, ANSWER),
    "counts-that-are-none": Hostile(usage("NaN"), FINE, ANSWER),
    "counts-beyond-all": Hostile(usage("-Infinity"), FINE, ANSWER),
    "counts-that-are-true": Hostile(usage("true"), FINE, ANSWER),
    "counts-nested-for-ever": Hostile(usage("[" * 100 + "]" * 100), FINE, ANSWER),
    "a-usage-of-words": Hostile(stream(BEGUN, data({"choices": [], "usage": "much"}), REST), FINE, ANSWER),
    "half-a-pair": Hostile(
        stream(b'data: {"choices":[{"delta":{"content":"a\\ud83e"}}]}\n\n', STOP), FINE, "a\ufffd"
    ),
    "half-a-pair-in-a-name": Hostile(stream(GOOD.replace(b"kimi-k2.6", b"\\ud83e")), FINE, ANSWER),
    "bytes-that-are-no-text": Hostile(
        stream(b'data: {"choices":[{"delta":{"content":"a\xff\xc3"}}]}\n\n', STOP), FINE, "a\ufffd\ufffd"
    ),
    "control-characters": Hostile(stream(says("a\x1b[2J\u202e\0"), STOP), FINE),
    "ends-twice": Hostile(stream(GOOD, data(chunk({}, "length"))), FINE, ANSWER),
    "two-ends": Hostile(stream(BEGUN, says("there."), STOP, data(chunk({}, "length")), DONE), FINE, ANSWER),
    "text-after-the-end": Hostile(stream(BEGUN, says("there."), STOP, says(" More!"), DONE), FINE, ANSWER),
    "text-without-end-after-the-end": Hostile(endless(says("More! " * 99), BEGUN, says("there."), STOP), FINE, ANSWER),
    "comments-without-end-after-the-end": Hostile(endless(b": on\n\n", BEGUN, says("there."), STOP), FINE, ANSWER),
    "an-error-after-the-end": Hostile(stream(BEGUN, says("there."), STOP, data({"error": {}})), FINE, ANSWER),
    "silence-after-the-end": Hostile(lambda: (head(), GOOD, 3_600.0), FINE, ANSWER),
    "reset-after-the-end": Hostile(lambda: (head(), GOOD, RESET), FINE, ANSWER),
    "an-end-nobody-knows": Hostile(stream(BEGUN, data(chunk({}, "weary"))), BROKEN, "Hi "),
    "an-end-that-is-a-number": Hostile(stream(BEGUN, data(chunk({}, 7))), BROKEN, "Hi "),
    "no-end": Hostile(stream(BEGUN, says("there.")), BROKEN, ANSWER),
    "no-end-but-done": Hostile(stream(BEGUN, says("there."), DONE), BROKEN, ANSWER),
    "an-end-and-nothing-else": Hostile(stream(STOP, DONE), ("answer_cut_off",), ""),
    "cut-by-length-without-a-word": Hostile(stream(data(chunk({}, "length"))), ("answer_cut_off",), ""),
    "filtered-in-the-middle": Hostile(stream(BEGUN, data(chunk({}, "content_filter"))), ("content_filtered",), "Hi "),
    "a-picture-by-its-type": Hostile(lambda: (head(kind="image/png"), GOOD), FINE, ANSWER),
    "bytes-by-its-type": Hostile(lambda: (head(kind="application/octet-stream"), GOOD), FINE, ANSWER),
    "no-type": Hostile(lambda: (head(kind=None), GOOD), FINE, ANSWER),
    "json-by-its-type": Hostile(lambda: (head(kind="application/json"), GOOD), FINE, ANSWER),
    "a-whole-answer-called-a-stream": Hostile(
        whole(answer({"content": ANSWER}), kind="text/event-stream"), FINE, ANSWER
    ),
    "a-whole-answer-cut-off": Hostile(
        lambda: (head(kind="application/json", content_length="900"), b'{"choices": [{"mess'), BROKEN, ""
    ),
    "marks-and-carriage-returns": Hostile(stream(b"\xef\xbb\xbf", GOOD.replace(b"\n", b"\r")), FINE, ANSWER),
    "choices-that-are-nothing": Hostile(stream(data({"choices": None}), GOOD), FINE, ANSWER),
    "choices-that-are-empty": Hostile(stream(data({"choices": []}), GOOD), FINE, ANSWER),
    "choices-that-are-an-object": Hostile(stream(data({"choices": {"0": {}}}), GOOD), FINE, ANSWER),
    "choices-of-nothing": Hostile(stream(data({"choices": [None, 7, "x", [], {}]}), GOOD), FINE, ANSWER),
    "a-delta-that-is-a-list": Hostile(stream(data(chunk([1, 2])), GOOD), FINE, ANSWER),
    "a-content-that-is-a-number": Hostile(stream(data(chunk({"content": 7})), GOOD), FINE, ANSWER),
    "calls-that-are-words": Hostile(stream(data(chunk({"tool_calls": "f()"})), GOOD), FINE, ANSWER),
    "calls-of-anything": Hostile(
        stream(data(chunk({"tool_calls": [None, 7, call("x", 7, None, 9), call(int("9" * 400), None, [], {})]})), GOOD),
        FINE, ANSWER,
    ),
    "an-event-that-is-a-list": Hostile(stream(BEGUN, data([1, 2]), REST), BROKEN, "Hi "),
    "an-event-that-is-a-word": Hostile(stream(BEGUN, data("error"), REST), BROKEN, "Hi "),
    "an-event-that-is-nothing": Hostile(stream(data(None)), BROKEN, ""),
    "an-event-that-is-no-json": Hostile(stream(BEGUN, b"data: {'a': 1}\n\n", REST), BROKEN, "Hi "),
    "an-error-in-the-middle": Hostile(
        stream(BEGUN, data({"error": {"type": "server_error", "message": "no"}}), REST), BROKEN, "Hi "
    ),
    "an-error-of-one-word": Hostile(stream(BEGUN, data({"error": "no"}), REST), BROKEN, "Hi "),
    "an-error-of-a-list": Hostile(stream(BEGUN, data({"error": [1]}), REST), BROKEN, "Hi "),
    "an-error-that-is-true": Hostile(stream(BEGUN, data({"error": True}), REST), BROKEN, "Hi "),
    "an-error-of-an-engine": Hostile(
        stream(BEGUN, data({"object": "error", "message": "no", "code": 500}), REST), BROKEN, "Hi "
    ),
    "an-error-by-its-number": Hostile(
        stream(BEGUN, data({"error": {"code": 429, "message": "slow down"}}), REST), ("rate_limited",), "Hi "
    ),
    "an-error-of-5-MB": Hostile(
        stream(BEGUN, data({"error": {"type": "t" * _MEGABYTE, "message": "no " * 1_300_000}}), REST), BROKEN, "Hi "
    ),
    "an-error-of-400-digits": Hostile(stream(BEGUN, data({"error": {"code": int("9" * 400)}}), REST), BROKEN, "Hi "),
}  # fmt: skip
"""Answers that are odd in one place."""

FRAMED: Mapping[str, Hostile] = {
    "a-chunk-cut-off": Hostile(chunked(BEGUN, end=b"fff\r\ndata: "), BROKEN, "Hi "),
    "no-last-chunk": Hostile(chunked(BEGUN, end=b""), BROKEN, "Hi "),
    "no-last-chunk-after-the-end": Hostile(chunked(GOOD, end=b""), FINE, ANSWER),
    "a-size-that-is-none": Hostile(chunked(BEGUN, end=b"zz\r\nx\r\n"), BROKEN, "Hi "),
    "a-size-below-nothing": Hostile(chunked(BEGUN, end=b"-5\r\nxxxxx\r\n0\r\n\r\n"), BROKEN, "Hi "),
    "a-size-beyond-all": Hostile(chunked(BEGUN, end=b"f" * 16 + b"\r\n" + REST), (None, *BROKEN)),
    "a-size-without-end": Hostile(
        lambda: itertools.chain((head(transfer_encoding="chunked"),), itertools.repeat(b"0" * 65_536)), CUT
    ),
    "an-extension-without-end": Hostile(
        lambda: itertools.chain((head(transfer_encoding="chunked"), b"5;x="), itertools.repeat(b"y" * 65_536)), CUT
    ),
    "bytes-after-a-chunk": Hostile(chunked(BEGUN, end=b"2\r\nxxyyzz\r\n0\r\n\r\n"), BROKEN, "Hi "),
    "trailers-without-end": Hostile(
        lambda: itertools.chain[Sent](chunked(GOOD, end=b"0\r\n")(), itertools.repeat(b"x-t: 1\r\n" * 8_000)),
        FINE,
        ANSWER,
    ),
    "byte-by-byte-with-extensions": Hostile(
        lambda: itertools.chain((head(transfer_encoding="chunked"),), itertools.repeat(b"1;x=y\r\n:\r\n" * 6_000)), CUT
    ),
    "too-long-a-length": Hostile(lambda: (head(content_length=str(len(BEGUN) + 99)), BEGUN), BROKEN, "Hi "),
    "too-short-a-length": Hostile(lambda: (head(content_length=str(len(BEGUN))), GOOD), BROKEN, "Hi "),
    "too-long-a-length-after-the-end": Hostile(lambda: (head(content_length="9999"), GOOD), FINE, ANSWER),
    "a-second-answer-behind-the-first": Hostile(
        lambda: (*body(GOOD, kind="text/event-stream"), *body(says("No!"), kind="text/event-stream")), FINE, ANSWER
    ),
    "both-kinds-of-length": Hostile(
        lambda: (head(content_length="5", transfer_encoding="chunked"), b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD)),
        (None, *BROKEN),
    ),
    "reset-in-an-event": Hostile(lambda: (head(), BEGUN, b'data: {"cho', 0.2, RESET), BROKEN, "Hi "),
    "reset-after-the-headers": Hostile(lambda: (head(), 0.2, RESET), BROKEN),
    "closed-in-an-event": Hostile(lambda: (head(), BEGUN, b'data: {"cho'), BROKEN, "Hi "),
    "byte-by-byte": Hostile(lambda: itertools.chain((head(), BEGUN), slowly(REST, 0.002)), FINE, ANSWER),
    "byte-by-byte-without-end": Hostile(
        lambda: itertools.chain[Sent]((head(), BEGUN), slowly(b": here\n" * 9_999, 0.02)), SLOW, "Hi "
    ),
    "silence-in-the-middle": Hostile(lambda: (head(), BEGUN, 3_600.0), SLOW, "Hi "),
}
"""Bodies that are not as long as they say, or not as fast as they should be."""

TABLE: Mapping[str, Hostile] = {**HEADS, **REFUSED, **BODIES, **ODD, **FRAMED}
"""All of them by name."""


# ── the server ────────────────────────────────────────────────────────────────────────────────────────────────────


def _request(connection: socket.socket) -> bytes:
    """The next request; empty where there is none."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        if not (more := connection.recv(65_536)):
            return b""
        raw += more
    size = re.search(rb"content-length: *(\d+)", raw, re.IGNORECASE)
    left = (int(size[1]) if size else 0) - len(raw.partition(b"\r\n\r\n")[2])
    while left > 0:
        if not (more := connection.recv(65_536)):
            return b""
        raw, left = raw + more, left - len(more)
    return raw


def _serve(connection: socket.socket) -> None:
    with suppress(OSError), connection:
        named = re.findall(rb"<([\w-]+)>", _request(connection))
        if not named:
            return
        for piece in TABLE[named[-1].decode()].says():
            if isinstance(piece, bytes):
                connection.sendall(piece)
            elif isinstance(piece, str):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            elif piece < 60:
                time.sleep(piece)
            else:
                connection.recv(1)  # until the client goes
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(5)
        while connection.recv(65_536):
            pass


def serve(listening: socket.socket, ended: threading.Event | None = None) -> None:
    """Serve until the first connection after ``ended`` was set, or for ever."""
    while True:
        connection, _ = listening.accept()
        if ended is not None and ended.is_set():
            connection.close()
            return
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0), backlog=100) as here:
        print(here.getsockname()[1], flush=True)
        serve(here)
