"""Bytes in, messages and refusals out; no process, no I/O."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from kimi_mcp.server.stdio.framing import Framer, ReceivedLine, RejectedLine, TransportLimits, encode

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'


def received(data: bytes, *, chunk: int = 1 << 16, **limits: int) -> list[ReceivedLine]:
    framer = Framer(TransportLimits(**limits))
    out = [item for at in range(0, len(data), chunk) for item in framer.feed(data[at : at + chunk])]
    return [*out, *framer.end()]


def refusal(line: bytes, **limits: int) -> RejectedLine:
    (only,) = received(line, **limits)
    assert isinstance(only, RejectedLine)
    return only


def request(line: bytes, **limits: int) -> JSONRPCRequest:
    (only,) = received(line, **limits)
    assert isinstance(only, JSONRPCRequest)
    return only


def nested(depth: int) -> bytes:
    return b'{"jsonrpc":"2.0","id":5,"method":"x","params":{"a":' + b"[" * depth + b"]" * depth + b"}}"


@pytest.mark.parametrize("chunk", [1, 2, 7, 40, 1000])
def test_lines_are_found_however_the_bytes_arrive(chunk: int) -> None:
    text = '{"jsonrpc":"2.0","method":"é😀"}'.encode()
    data = b"\n" + PING + b"\r\n  \n" + text + b"\n\n" + PING
    kinds = [type(item) for item in received(data, chunk=chunk)]
    assert kinds == [JSONRPCRequest, JSONRPCNotification, JSONRPCRequest]


def test_each_kind_of_message_is_recognised() -> None:
    (answer,) = received(b'{"jsonrpc":"2.0","id":"a","result":{}}')
    (error,) = received(b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"m"}}')
    assert isinstance(answer, JSONRPCResponse)
    assert isinstance(error, JSONRPCError)
    assert request(PING).id == 1


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"{",
        b'{"jsonrpc":"2.0","id":1,"method":"ping"} {}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":' + b"9" * 10_000 + b"}}",
        b'"' + b'\\"' * 1000,
        b"\x00",
    ],
)
def test_what_is_not_json_is_a_parse_error_without_an_id(line: bytes) -> None:
    assert (refusal(line).code, refusal(line).id) == (-32700, None)


@pytest.mark.parametrize(
    ("line", "known_id"),
    [
        (b"[]", None),
        (b"[" + PING + b"]", None),
        (b"5", None),
        (b"null", None),
        (b"{}", None),
        (b'{"id":1,"method":"ping"}', 1),
        (b'{"jsonrpc":"1.0","id":"a","method":"ping"}', "a"),
        (b'{"jsonrpc":2.0,"id":1,"method":"ping"}', 1),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', 1),
        (b'{"jsonrpc":"2.0","id":1,"method":null}', 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":"a"}', 1),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', None),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', None),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', None),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', None),
        (b'{"jsonrpc":"2.0","id":' + b"9" * 100 + b',"method":"ping"}', None),
        (b'{"jsonrpc":"2.0","id":"' + b"a" * 1001 + b'","method":"ping"}', None),
        (b'{"jsonrpc":"2.0","id":1}', None),
        (b'{"jsonrpc":"2.0","id":1,"result":5}', None),
        (b'{"jsonrpc":"2.0","id":1,"error":"no"}', None),
        (b'{"jsonrpc":"2.0","id":true,"result":{}}', None),
    ],
)
def test_json_that_is_no_message_is_an_invalid_request_with_its_id(line: bytes, known_id: object) -> None:
    assert (refusal(line).code, refusal(line).id) == (-32600, known_id)


def test_nesting_is_taken_up_to_the_limit_and_refused_beyond() -> None:
    assert request(nested(198)).id == 5
    for depth in (199, 250, 1000, 200_000):
        rejected = refusal(nested(depth))
        assert rejected == RejectedLine(id=5, code=-32600, message="message nested deeper than 200 levels refused")


def test_brackets_and_commas_inside_strings_count_for_nothing() -> None:
    text = json.dumps('if (a[0]) { b("\\"), } ' * 50_000).encode()
    line = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":' + text + b"}}"
    assert request(line, max_values=20, max_depth=3).id == 1


def test_a_message_of_too_many_values_is_refused_before_it_is_parsed() -> None:
    line = b'{"jsonrpc":"2.0","id":5,"method":"x","params":{"a":[' + b"[]," * 100_000 + b"0]}}"
    assert "brackets and commas" in refusal(line, max_values=1000).message
    assert refusal(line, max_values=1000).id == 5
    assert request(line).id == 5


@pytest.mark.parametrize(
    "line", [b'{"a":"' + b'\\"' * 2_000_000, b"\\" * 4_000_000, b'"' * 4_000_000, b'{"a":[[' + b'"",' * 1_000_000]
)
def test_a_hostile_line_costs_linear_time(line: bytes) -> None:
    begun = time.process_time()
    assert refusal(line).code in (-32700, -32600)
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("chunk", [100, 1 << 20])
@pytest.mark.parametrize(
    ("head", "tail", "known_id"),
    [
        (b'{"jsonrpc":"2.0","id":42,"method":"x","params":{"a":"', b'"}}', 42),
        (b'{"id": "a\\"b" ,"params":{"a":"', b'"}}', 'a"b'),
        (b'{"method":"x","params":{"id":1,"a":"', b'"},"jsonrpc":"2.0","id":42}', 42),
        (b'{"params":{"a":"', b'"} , "id" : "last", "jsonrpc":"2.0" } ', "last"),
        (b'{"method":"x","params":{"a":"', b'","id":1}}', None),
        (b'{"method":"x","params":{"id":1,"a":"', b'"}}', None),
        (b'{"jsonrpc":"2.0","id":true,"method":"x","params":{"a":"', b'"}}', None),
        (b'{"jsonrpc":"2.0","id":4.5,"params":{"a":"', b'"}}', None),
        (b"[1,", b'"},"id":42}', None),
        (b"", b"", None),
    ],
)
def test_a_line_that_is_too_long_is_refused_with_its_id_and_the_next_one_is_read(
    head: bytes, tail: bytes, known_id: object, chunk: int
) -> None:
    long = head + b"x" * 30_000 + tail + b"\n"
    rejected, after = received(long + PING, chunk=chunk, max_message_bytes=10_000)
    assert rejected == RejectedLine(id=known_id, code=-32600, message="message of more than 10000 bytes refused")  # type: ignore[arg-type]
    assert isinstance(after, JSONRPCRequest)


def test_the_limit_itself_is_still_taken() -> None:
    assert request(PING, max_message_bytes=len(PING)).id == 1
    assert refusal(PING, max_message_bytes=len(PING) - 1).id == 1


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        (b"\\ud83d", "\ufffd"),
        (b"a\\ude00\\ud83d", "a\ufffd\ufffd"),
        (b"\\ud83d\\ude00 \\ud83d", "😀 \ufffd"),
        (b"\\\\ud83d \\ud83d", "\\ud83d \ufffd"),
        (b"\\\\\\ud83d\\n", "\\\ufffd\n"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
    ],
)
def test_half_a_character_costs_that_character_and_not_the_call(text: bytes, read_as: str) -> None:
    params = request(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"' + text + b'"}}').params
    assert params == {"a": read_as}


def test_a_byte_order_mark_is_no_error() -> None:
    assert request(b"\xef\xbb\xbf" + PING).id == 1


def answer(value: object) -> JSONRPCResponse:
    return JSONRPCResponse(jsonrpc="2.0", id=1, result={"value": value})


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        ("plain", "plain"),
        ("a\nb\r\u2028\u2029\u0085c", "a\nb\r\u2028\u2029\u0085c"),
        ("half \ud83d", "half \ufffd"),
        ({"\ud83d": "\n\u2028"}, {"\ufffd": "\n\u2028"}),
        (["\ud83d", float("nan"), float("inf"), 1.5], ["\ufffd", None, None, 1.5]),
        (float("nan"), None),
        (10**30, 10**30),
    ],
)
def test_an_answer_is_one_line_for_every_reader(value: Any, read_as: object) -> None:
    line = encode(answer(value))
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line)["result"] == {"value": read_as}


def test_an_answer_that_is_no_json_becomes_an_error_for_its_request() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    for value in (object(), deep):
        rejected = json.loads(encode(answer(value)))
        assert (rejected["id"], rejected["error"]["code"]) == (1, -32603)
