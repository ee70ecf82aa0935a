"""A merged body is the same body: HTTP's own reader takes both the same way, wherever the reads cut them."""

from __future__ import annotations

import random

import h11
import pytest

from kimi_mcp.provider.connections import Chunks

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"id":1,"choices":[{"delta":{"content":" a\r\n"}}]}\n\n'


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%X\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def read_by_h11(reads: list[bytes]) -> tuple[bytes, int, str]:
    """The body, the number of pieces it came in, and what it ended with."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    body, pieces = b"", 0
    try:
        for data in [*reads, b""]:
            connection.receive_data(data)
            while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Data):
                    body += event.data
                    pieces += 1
                elif isinstance(event, h11.EndOfMessage):
                    return body, pieces, "end"
    except h11.RemoteProtocolError:
        return body, pieces, "fault"
    return body, pieces, "open"


def cut(data: bytes, *, seed: int, most: int) -> list[bytes]:
    chance, reads = random.Random(seed), list[bytes]()
    while data:
        size = chance.randint(1, most)
        reads.append(data[:size])
        data = data[size:]
    return reads


ANSWERS = {
    "events": HEAD + chunked(*[EVENT] * 40) + b"0\r\n\r\n",
    "trailers": HEAD + chunked(*[EVENT] * 5) + b"0\r\nX-Sum: 1\r\n\r\n",
    "extension": HEAD + chunked(EVENT, EVENT) + b"5;name=value\r\nhello\r\n" + chunked(EVENT, EVENT) + b"0\r\n\r\n",
    "uneven": HEAD + chunked(*[bytes([65 + n]) * (1 + n * 37 % 900) for n in range(26)]) + b"0\r\n\r\n",
    "broken size": HEAD + chunked(EVENT, EVENT) + b"xyz\r\nhello\r\n",
    "broken end": HEAD + chunked(EVENT, EVENT) + b"5\r\nhelloXX" + chunked(EVENT),
    "broken off": HEAD + chunked(EVENT, EVENT) + b"ff\r\nhel",
    "counted": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1\r\na\r\n1\r\na",
    "interim": b"HTTP/1.1 103 Early Hints\r\n\r\n" + HEAD + chunked(*[EVENT] * 5) + b"0\r\n\r\n",
    "error": HEAD.replace(b"200 OK", b"429 Slow Down") + chunked(b"{", b"}") + b"0\r\n\r\n",
}


@pytest.mark.parametrize("seeds", [30, pytest.param(300, marks=pytest.mark.soak)])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_the_body_stays_the_same_wherever_it_is_cut(answer: bytes, seeds: int) -> None:
    for seed in range(seeds):
        reads = cut(answer, seed=seed, most=(3, 12, 90, 700, 5000)[seed % 5])
        chunks = Chunks()
        merged = [chunks.take(data) for data in reads]
        expected, found = read_by_h11(reads), read_by_h11(merged)
        assert (found[0], found[2]) == (expected[0], expected[2]), seed


def test_the_chunks_of_one_read_become_one() -> None:
    chunks = Chunks()
    reads = [HEAD, chunked(*[EVENT] * 40), chunked(*[EVENT] * 40) + b"0\r\n\r\n"]
    assert read_by_h11([chunks.take(data) for data in reads]) == (EVENT * 80, 2, "end")


def test_the_next_answer_on_the_connection_is_followed_from_its_head_on() -> None:
    chunks = Chunks()
    for _ in range(3):
        chunks.expect()
        whole = HEAD + chunked(*[EVENT] * 10) + b"0\r\n\r\n"
        assert read_by_h11([chunks.take(whole)]) == (EVENT * 10, 1, "end")
