"""Secrets are found in every form in which they are echoed."""

from __future__ import annotations

import base64
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from kimi_mcp.core.key_spellings import WIDEST_GAP
from kimi_mcp.core.redaction import (
    HIDDEN,
    SECRETS,
    GrowingText,
    Secrets,
    clean,
    escaped_json,
    scrub_growing,
    scrub_values,
)

KEY_LIKE = "sk-Kq7Zp2Wm9Xv4Rt6Bn8Lc3Hd5Jf1Gs0"
SECRET = 'sk-a/b+c"d\\e é~0123456789'


def scrubbed(text: str, *secrets: str) -> str:
    registry = Secrets()
    registry.add(*(secrets or (SECRET,)))
    return registry.scrub(text)


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        repr(SECRET)[1:-1],
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        "sk-a%2fb%2bc%22d%5ce%20%c3%a9~0123456789",
        "".join(f"%{byte:02X}" for byte in SECRET.encode()),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        json.dumps(SECRET)[1:-1].replace("/", "\\/"),
    ],
)
def test_a_secret_is_hidden_in_whatever_form_it_is_echoed(form: str) -> None:
    assert scrubbed(f"before {form} after") == f"before {HIDDEN} after"


@pytest.mark.parametrize("encoding", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", ["", "u", "us", "user:", "Bearer ", "token="])
@pytest.mark.parametrize("after", ["", ".", "..", "..."])
def test_a_secret_is_hidden_in_base64_at_any_alignment(
    encoding: Callable[[bytes], bytes], before: str, after: str
) -> None:
    text = encoding((before + SECRET + after).encode()).decode()
    left = scrubbed(text)
    assert HIDDEN in left
    plain = base64.b64encode(SECRET.encode()).decode()
    assert not any(plain[at : at + 8] in left for at in range(len(plain) - 8))


@pytest.mark.parametrize(
    "value",
    [
        *(
            "1234567890",
            "0000000000",
            "0987654321",
            "12345678901234567890",
            "abcdefgh",
            "aaaaaaaaaaaa",
            "xxxxxxxxxxxxxxxx",
        ),
        *(
            "no-key-required",
            "sk-no-key-required",
            "EMPTY",
            "test",
            "TEST",
            "none",
            "not-needed",
            "dummy_key",
            "lm-studio",
        ),
        *(
            "your-api-key-here",
            "changeme",
            "token-abc123",
            "sk-1234567890",
            "test-key-1",
            "test1234",
            "sk-test",
            "ollama",
        ),
        *("12345", "hunter2", "", "  a  ", "abababababab", "local-2026", "anything"),
    ],
)
def test_what_protects_nothing_is_no_secret_and_stays_where_it_is_ordinary_text(value: str) -> None:
    text = f"Call 1234567890 or 0000000000, no key required: {value}, EMPTY, test. abcdefgh {value}"
    assert scrubbed(text, value) == text


@pytest.mark.parametrize(
    "value",
    [
        *(
            KEY_LIKE,
            "s3cret-of-the-operator",
            "hunter2-and-more",
            "acme-key-5b1f0c",
            "correct-horse",
            "sk-5up3r-s3cr3t-k3y",
        ),
        *(
            "48151623423108",
            "qwertzuiop",
            "!§$%&/()=?",
            "пароль-из-слов",
            "secret-key-of-mine",
            "p@$$w0rd!#",
            "a1b2c3d4e5f6",
        ),
    ],
)
def test_what_may_protect_something_is_a_secret_however_short_or_plain(value: str) -> None:
    assert scrubbed(f"It is {value}, or {quote(value, safe='')}.", value) == f"It is {HIDDEN}, or {HIDDEN}."
    assert HIDDEN in scrubbed(value.encode().hex(), value)


def test_a_secret_with_blanks_around_it_is_hidden_without_them_too() -> None:
    assert scrubbed("x hunter-key y", " hunter-key\n") == f"x {HIDDEN} y"


def test_the_longer_of_two_secrets_goes_first() -> None:
    assert scrubbed("hunter-key-two", "hunter-key", "hunter-key-two") == HIDDEN


def test_a_lone_surrogate_in_a_secret_breaks_nothing() -> None:
    assert scrubbed("hunter\ud800key", "hunter\ud800key") == HIDDEN


def test_a_text_without_secrets_costs_little() -> None:
    registry = Secrets()
    registry.add(*(f"sk-{number}-abcdefghijklmnopqrstuvwxyz" for number in range(9)))
    text = "an ordinary log line about nothing " * 10
    begun = time.process_time()
    for _ in range(1000):
        assert registry.scrub(text) is text
    assert time.process_time() - begun < 1


def test_a_long_run_of_backslashes_costs_little() -> None:
    text = "\\" * 50_000
    begun = time.process_time()
    assert scrubbed(text) == text
    assert time.process_time() - begun < 2


def test_a_secret_in_a_long_text_costs_little_memory_and_is_found_wherever_it_stands() -> None:
    registry = Secrets()
    registry.add(SECRET)
    tracemalloc.start()
    try:
        for before in (0, 65_530, 130_000):
            lines = "word " * (before // 5) + "." * (before % 5), "word " * 100_000
            for form in (SECRET, SECRET.encode().hex()):
                assert registry.scrub(form.join(lines)) == HIDDEN.join(lines)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    finally:
        tracemalloc.stop()


ECHOED = {
    "plain": KEY_LIKE,
    "upper case": KEY_LIKE.upper(),
    "hex": KEY_LIKE.encode().hex(),
    "base64": base64.b64encode(KEY_LIKE.encode()).decode(),
    "every byte for a URL": "".join(f"%{byte:02x}" for byte in KEY_LIKE.encode()),
    "escaped for JSON": "".join(f"\\u{byte:04x}" for byte in KEY_LIKE.encode()),
    "spread": " - ".join(KEY_LIKE),
}


@pytest.mark.parametrize("form", ECHOED.values(), ids=ECHOED)
def test_a_secret_that_is_echoed_thousands_of_times_costs_a_few_calls_each_and_none_for_each_character(
    form: str,
) -> None:
    registry = Secrets()
    registry.add(KEY_LIKE)
    text, calls = f"{form} and " * 4_000, 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        clean = registry.scrub(text)
    finally:
        sys.setprofile(None)
    assert clean == f"{HIDDEN} and " * 4_000
    assert calls < 4_000 * 40


@pytest.mark.parametrize("form", [SECRET, quote(SECRET, safe=""), SECRET.encode().hex(), json.dumps(SECRET)[1:-1]])
def test_the_beginning_of_a_secret_is_an_open_end(form: str) -> None:
    registry = Secrets()
    registry.add(SECRET)
    for length in range(1, len(form)):
        assert registry.open_end(f"It is {form[:length]}") >= length
        assert registry.open_end(form[:length]) == length
    assert registry.open_end(f"It is {form}, or it can be.") <= 1
    assert registry.open_end(f"{form} {form[:9]}") == 9
    assert registry.open_end(f"It is {form[:9]}…") == 10, "something may stand between two letters"
    assert registry.open_end(f"It is {form[:9]}{' ' * WIDEST_GAP}") == 0, "but not any amount"
    assert registry.open_end(f"It is {form[:9]} yet") <= 1


def test_what_repeats_a_beginning_is_open_from_where_the_secret_may_begin() -> None:
    registry = Secrets()
    registry.add("aaabaaacxyz9")
    assert registry.open_end("xaaaa") == 3
    assert registry.open_end("xaaabaaa") == 7
    assert registry.open_end("xaaabaa") == 6
    assert registry.open_end("xa") == 1


def test_without_secrets_no_end_is_open() -> None:
    assert Secrets().open_end("sk-") == 0


KEY = "sk-Kq7/Zp2+Wm9_Xv4.Rt6~Bn8Lc3Hd5Jf1Gs0"
GROWN = (
    f"It is {KEY}, or {KEY[::-1]}, in base64 {base64.b64encode(b'u:' + KEY.encode()).decode()}; for a URL "
    f"{''.join(f'%25{byte:02x}' for byte in KEY.encode())}, for JSON "
    f"{''.join(f'{chr(92)}u{byte:04x}' for byte in KEY.encode())} & {' '.join(KEY)}. 0 s? sk-Kq, and so on: {KEY}{KEY}"
)


@pytest.fixture
def registry() -> Secrets:
    SECRETS.add(KEY, "short-one")
    return SECRETS


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40])
def test_a_growing_text_shows_no_part_of_a_secret_and_ends_as_the_whole_would(registry: Secrets, size: int) -> None:
    text = f"{GROWN} The short-one too.{' ' * (WIDEST_GAP + 1)}"
    whole, growing, shown = registry.scrub(text), GrowingText(), ""
    for end in range(0, len(text) + size, size):
        shown = growing.clean(text[:end])
        assert whole.startswith(shown)
        assert scrub_growing(text[:end]) == shown
    assert shown == whole
    assert whole.count(HIDDEN) == 9


def test_a_text_that_is_cut_off_in_a_secret_shows_no_more_than_its_provider(registry: Secrets) -> None:
    for end in range(len(KEY)):
        shown = registry.scrub_cut(f"It is {KEY[:end]}")
        assert shown in (f"It is {HIDDEN}", f"It is {KEY[:end]}")
        assert len(shown) <= len("It is sk-Kq7/Zp")


def test_ordinary_words_are_no_secret_however_they_are_spelled() -> None:
    assert scrubbed("There is no key required here: no-key-required.", "no-key-required").count(HIDDEN) == 0
    assert scrubbed("/root/x%20y &amp; C:\\new\\table \\u00e9", KEY) == "/root/x%20y &amp; C:\\new\\table \\u00e9"


def test_a_secret_across_two_values_parts_no_json(registry: Secrets) -> None:
    value = [KEY[:20], KEY[20:], {KEY: [KEY, 1, None]}]
    assert json.loads(json.dumps(scrub_values(value)))[2] == {HIDDEN: [HIDDEN, 1, None]}


def test_what_acts_on_a_host_is_shown_instead_and_no_offset_moves() -> None:
    text = "a\x1b[2Jb\rc\r\nd\te\x9bf\u202eg\x00h\ud800"
    assert clean(text, "host") == "a\ufffd[2Jb\nc\r\nd\te\ufffdf\ufffdg\ufffdh\ufffd"
    arabic = "\u200fمرحبا \u2067abc\u2069, שלום\u200e"
    assert clean(arabic, "host") == arabic


def test_what_acts_on_a_terminal_goes_and_in_json_it_is_escaped() -> None:
    assert clean("a\x1b[2Jb\r\n\u2067c\u2069", "terminal") == "a[2Jb\nc"
    value = {"a": "\x1b\x9b\u202e\u2067\x7f é\n"}
    shown = escaped_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(shown) == value
    assert shown.isprintable()


def test_an_answer_that_ends_in_escapes_keeps_its_end() -> None:
    registry = Secrets()
    registry.add("sk-u4e2du6587u4e2d0123456789")
    answer = 'The title in JSON is "pages\\u4e2d\\u6587\\u4e2d"'
    assert registry.scrub_cut(answer) == answer
    assert registry.scrub_cut("It is sk-u4e2du6587u4e") == f"It is {HIDDEN}"
