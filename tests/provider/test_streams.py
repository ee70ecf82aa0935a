"""What becomes of an answer's bytes, however they are cut, coded or disturbed."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from kimi_mcp.core import bounds
from kimi_mcp.provider import Deadlines
from kimi_mcp.provider.attempt import Payloads
from kimi_mcp.simulator import Simulator
from tests.provider.loopback import response, saying
from tests.provider.requests import SHORT, CallOutcome, ask, close_all, connections, upstream


def chunk(finish: str | None = None, **delta: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}, ensure_ascii=False)


TRANSCRIPT = "".join(
    f"data: {payload}\n\n" for payload in (chunk(reasoning_content="Hm"), chunk(content="é"), chunk("stop"), "[DONE]")
).encode()


def taken(*pieces: bytes) -> list[bytes]:
    payloads = Payloads()
    return [payload for piece in pieces for payload in payloads.take(piece)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_cut_at_every_byte_gives_the_same_payloads(end: bytes) -> None:
    lines = [b": hello", b"", b"event: x", b"id: 1", b"data: one", b"", b"data:two", b"data: three", b"retry: 5", b""]
    lines += [b"data", b"data: ", b"dataset: no", b"data: \xf0\x9f\x8c\x99", b"", b"data: void"]
    text = b"\xef\xbb\xbf" + end.join(lines)
    expected = [b"one", b"two\nthree", b"\n\n\xf0\x9f\x8c\x99"]
    assert taken(text) == expected
    for at in range(len(text) + 1):
        assert taken(text[:at], text[at:]) == expected
    assert taken(*(text[at : at + 1] for at in range(len(text)))) == expected


def test_one_event_a_piece_takes_the_short_way_to_the_same_end() -> None:
    assert taken(b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n", b"\n", b"data: 4\n\ndata: 5\n\n") == [
        b"1", b"2", b"3", b"4", b"5",
    ]  # fmt: skip


def test_a_json_body_is_one_payload_and_a_page_is_none() -> None:
    payloads = Payloads()
    assert payloads.take(b" \n {") == []
    assert payloads.take(b'"a": 1}\n') == []
    assert (payloads.form, payloads.rest()) == ("json", b' \n {"a": 1}\n')
    payloads = Payloads()
    assert payloads.take(b"\xef\xbb") == payloads.take(b"\xbf<html>data: 1\n\n") == []
    assert (payloads.form, payloads.rest()) == ("markup", None)


def _take_often(payloads: Payloads, text: bytes) -> None:
    for _ in range(200):
        payloads.take(text)


def test_an_event_that_never_ends_is_cut_at_a_limit() -> None:
    for text in (b"data: " + b"x" * 100_000, b"data: xxxxxxxxxxx\n" * 2_000, b'{"' + b"x" * 100_000):
        payloads = Payloads()
        with pytest.raises(bounds.OutOfBounds):
            _take_often(payloads, text)


def test_an_event_of_empty_lines_counts_each_of_them() -> None:
    with pytest.raises(bounds.OutOfBounds):
        _take_often(Payloads(), b"data:\n" * 2_000)


def test_a_body_that_never_ends_is_cut_at_a_limit() -> None:
    for text in (b": still here\n", b"data: 1\n\n", b"<html>", b"   ", b"\r"):
        with pytest.raises(bounds.OutOfBounds):
            _take_often(Payloads(most_bytes=1_000), text * 6)


@pytest.mark.parametrize("blanks", [b" ", b"\n", b" \n", b"\r\n \r\n"], ids=repr)
def test_of_blanks_before_a_body_hardly_anything_is_kept(blanks: bytes) -> None:
    payloads = Payloads()
    for _ in range(1_000):
        assert payloads.take(blanks) == []
        assert len(payloads._tail) <= 1
    assert payloads.take(b"\ndata: 1\n\n") == [b"1"]


@pytest.mark.parametrize(
    "rest",
    [b": here\n\n" * 500, b"data: " + chunk(content="", id="x" * 2_000).encode() + b"\n\n", b"data:\n\n" * 500],
    ids=len,
)
async def test_bytes_without_a_piece_of_an_answer_end_it(rest: bytes) -> None:
    begin = f"data: {chunk(content='Hel')}\n\n".encode()
    async with saying(response(begin + rest * (1 + 2 * bounds.MOST_SILENT_BYTES // len(rest)) + TRANSCRIPT)) as server:
        with anyio.fail_after(60):
            outcome = await ask(upstream(), server.base_url)
    assert (outcome.code, outcome.accumulator.answer, outcome.sent) == ("upstream_broken", "Hel", 0)
    assert f"{bounds.MOST_SILENT_BYTES:,} bytes without a piece" in str(outcome.error)


async def test_an_answer_beyond_any_bound_keeps_what_had_come() -> None:
    event = f"data: {chunk(content='x' * (bounds.LARGEST_TEXT // 8))}\n\n".encode()
    async with saying(response(event * 9 + TRANSCRIPT)) as server:
        with anyio.fail_after(60):
            outcome = await ask(upstream(), server.base_url)
    assert (outcome.code, outcome.attempts) == ("upstream_broken", [1])
    assert outcome.accumulator.answer == "x" * bounds.LARGEST_TEXT
    assert f"{bounds.LARGEST_TEXT:,} bytes" in str(outcome.error)


@pytest.mark.parametrize("split", [1, 3, 7, "utf8"])
async def test_characters_cut_between_two_reads_arrive_whole(sim: Simulator, split: int | str) -> None:
    sim.play({"reasoning": "Überlegung 🌙", "content": "月の裏側 🌙 ✓", "split": split})
    with anyio.fail_after(60):
        outcome = await ask(upstream(), sim)
    assert outcome.error is None
    assert (outcome.accumulator.reasoning, outcome.accumulator.answer) == ("Überlegung 🌙", "月の裏側 🌙 ✓")


@pytest.mark.parametrize("provider", ["moonshot", "vllm", "nim"])
async def test_an_answer_comes_whole_from_every_dialect(provider: str) -> None:
    async with Simulator(provider) as sim:
        sim.play(SHORT)
        with anyio.fail_after(60):
            outcome = await ask(upstream(), sim, provider=provider)
        requests = sim.requests
        await close_all()
    if outcome.error is None:
        assert (outcome.accumulator.answer, outcome.accumulator.finished, outcome.sent) == ("Hi.", True, 1)
    else:
        assert len(requests) == 1  # another dialect's model id or field: refused once, in our words
        assert outcome.code in ("model_not_served", "invalid_arguments")


async def test_crlf_and_comments_and_other_fields_do_not_matter() -> None:
    text = b": hi\r\n\r\nevent: message\r\nid: 7\r\n" + TRANSCRIPT.replace(b"\n", b"\r\n")
    async with saying(response(text)) as server:
        outcome = await ask(upstream(), server.base_url)
    assert outcome.error is None
    assert (outcome.accumulator.answer, outcome.accumulator.finished) == ("é", True)


async def test_a_whole_json_answer_counts_like_a_streamed_one() -> None:
    body = {"choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}], "model": "kimi-k2.6"}
    async with saying(response(json.dumps(body).encode(), kind="application/json")) as server:
        outcome = await ask(upstream(), server.base_url)
    assert outcome.error is None
    assert (outcome.accumulator.answer, outcome.accumulator.finished) == ("Hi.", True)


@pytest.mark.parametrize("end", [chunk("stop"), chunk("stop", content="!")])
@pytest.mark.parametrize(
    "after", [b"", b"data: {\n\n", b'data: {"error": {"message": "late"}}\n\n', b"data: [DONE]\n\n"]
)
async def test_nothing_after_the_finish_reason_can_spoil_an_answer(end: str, after: bytes) -> None:
    text = f"data: {chunk(content='Hi')}\n\ndata: {end}\n\n".encode() + after
    broken = response(text).replace(f"content-length: {len(text)}".encode(), b"content-length: 9999")
    async with saying(broken) as server:
        outcome = await ask(upstream(), server.base_url)
    assert outcome.error is None
    assert outcome.accumulator.finished
    assert outcome.sent == 1


async def test_a_finished_answer_whose_stream_stays_open_is_whole_after_a_while() -> None:
    text = response(TRANSCRIPT.removesuffix(b"data: [DONE]\n\n")).replace(b"content-length: ", b"content-length: 9")
    async with saying(text, hold=True) as server:
        with anyio.fail_after(60):
            outcome = await ask(upstream(deadlines=Deadlines(after_finish_s=0.2)), server.base_url)
    assert outcome.error is None
    assert (outcome.accumulator.answer, outcome.accumulator.finished) == ("é", True)


async def test_an_end_without_a_finish_reason_is_returned_and_is_no_success(sim: Simulator) -> None:
    sim.play({**SHORT, "no_finish": True})
    with anyio.fail_after(60):
        outcome = await ask(upstream(), sim)
    assert outcome.error is None
    assert (outcome.sent, outcome.accumulator.finished, outcome.accumulator.answer) == (1, False, "Hi.")


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_a_cut_at_any_byte_is_never_a_silent_success(reset: bool, framing: str, every: int) -> None:
    events = TRANSCRIPT.replace(b"\n\n", b"\n\n|").split(b"|")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)  # the last is empty: the end
    whole = {
        "chunked": head + b"transfer-encoding: chunked\r\n\r\n" + chunks,
        "length": head + b"content-length: %d\r\n\r\n" % len(TRANSCRIPT) + TRANSCRIPT,
        "close": head + b"\r\n" + TRANSCRIPT,
    }[framing]
    spoken = whole.index(b'"stop"') + len(b'"stop"')
    outcome: dict[int, CallOutcome] = {}
    async with saying(whole, cuts=True, reset=reset) as server:
        up = upstream(max_concurrency=100)

        async def one(at: int) -> None:
            outcome[at] = await ask(up, server.base_url, prompt=f"<{at}>")

        with anyio.fail_after(60):
            async with anyio.create_task_group() as calls:
                for at in (*range(0, len(whole), every), len(whole)):
                    calls.start_soon(one, at)
    for at, one_asked in outcome.items():
        if one_asked.error is not None:
            assert one_asked.code == "upstream_broken", at
            assert not one_asked.accumulator.finished, at
        elif one_asked.accumulator.finished:
            assert at > spoken, at
            assert (one_asked.accumulator.reasoning, one_asked.accumulator.answer) == ("Hm", "é"), at
        else:
            assert one_asked.accumulator.reasoning == "Hm"  # something came, and the caller sees that it is incomplete
    if not reset:  # a reset may overtake what was sent before it
        assert [at for at in outcome if outcome[at].accumulator.finished] == [at for at in outcome if at >= spoken + 5]
        assert every > 1 or len(outcome) == len(whole) + 1


@pytest.mark.parametrize("coding", ["gzip", "br", "x-none"])
async def test_a_compressed_answer_is_refused_with_its_fix(coding: str) -> None:
    async with saying(response(b"\x1f\x8b\x08", more=f"content-encoding: {coding}\r\n")) as server:
        outcome = await ask(upstream(), server.base_url)
    assert outcome.code == "upstream_broken"
    assert "Accept-Encoding" in outcome.error.fix  # type: ignore[union-attr]
    assert b"accept-encoding: identity" in server.requests[0].lower()


async def test_an_answer_is_read_to_its_very_end(sim: Simulator) -> None:
    sim.play({**SHORT, "token_every": 0.01, "content_tokens": 30})
    up = upstream()
    outcome = await ask(up, sim)
    assert outcome.error is None
    (connection,) = connections(up)
    assert connection.is_idle(), "the connection can be used again"
