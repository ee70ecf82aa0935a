"""Pieces of which hostile upstreams build their answers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Sent = bytes | float | Literal["RESET"]
RESET: Literal["RESET"] = "RESET"

ANSWER = "Hi there."
"""What the answers say that are good for something."""


@dataclass(frozen=True, slots=True)
class Hostile:
    """One upstream."""

    says: Callable[[], Iterable[Sent]]
    """Everything after the request."""
    codes: tuple[str | None, ...]
    """The codes of which a call's error must have one; None: there is no error."""
    answer: str | None = None
    """What the answer must be, exactly; None: whatever had come."""


# ── pieces of answers ─────────────────────────────────────────────────────────────────────────────────────────────


def head(status: str = "200 OK", kind: str | None = "text/event-stream", **headers: str) -> bytes:
    named = {} if kind is None else {"content-type": kind}
    named |= {"connection": "close", **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = (f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in named.items()), "", "")
    return "\r\n".join(lines).encode()


def data(payload: Any) -> bytes:
    return b"data: " + (payload if isinstance(payload, bytes) else json.dumps(payload).encode()) + b"\n\n"


def chunk(delta: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    return {"model": "kimi-k2.6", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def says(text: str, **more: Any) -> bytes:
    return data(chunk({"content": text}, **more))


def call(index: Any, identity: Any = "c", name: Any = "f", arguments: Any = "{}") -> dict[str, Any]:
    return {"index": index, "id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


BEGUN = data(chunk({"reasoning_content": "Hm."})) + says("Hi ")
STOP = data(chunk({}, "stop"))
DONE = b"data: [DONE]\n\n"
REST = says("there.") + STOP + DONE
GOOD = BEGUN + REST
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


def stream(*body: bytes) -> Callable[[], Iterable[Sent]]:
    """A stream that holds this and ends."""
    return lambda: (head(), *body)


def endless(piece: bytes, *before: bytes, first: bytes | None = None) -> Callable[[], Iterable[Sent]]:
    """This over and over, in pieces of about 64 kB."""
    many = piece * max(1, 65_536 // len(piece))
    return lambda: itertools.chain((head() if first is None else first, *before), itertools.repeat(many))


def body(payload: Any, status: str = "200 OK", kind: str = "application/json", **headers: str) -> list[Sent]:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return [head(status, kind, content_length=str(len(raw)), **headers), raw]


def whole(payload: Any, status: str = "200 OK", kind: str = "application/json", **headers: str) -> Any:
    """A body of known length."""
    return lambda: body(payload, status, kind, **headers)


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> Callable[[], Iterable[Sent]]:
    return lambda: (
        head(transfer_encoding="chunked"),
        *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces),
        end,
    )


def slowly(raw: bytes, every_s: float) -> Iterator[Sent]:
    for at in range(len(raw)):
        yield raw[at : at + 1]
        yield every_s


def usage(number: str) -> Callable[[], Iterable[Sent]]:
    """A good answer with a count that is none."""
    counts = ", ".join(f'"{name}": {number}' for name in USAGE)
    return stream(BEGUN, says("there."), f'data: {{"choices": [], "usage": {{{counts}}}}}\n\n'.encode(), STOP, DONE)


def numbered(make: Callable[[int], bytes], count: int | None = None) -> Callable[[], Iterable[Sent]]:
    """An event for each number, in pieces of a hundred."""

    def sent() -> Iterator[Sent]:
        yield head()
        yield BEGUN
        for start in itertools.count(0, 100) if count is None else range(0, count, 100):
            yield b"".join(make(number) for number in range(start, start + 100))
        yield STOP + DONE

    return sent


def answer(message: Any, finish: Any = "stop") -> dict[str, Any]:
    return {"model": "kimi-k2.6", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
