"""Secrets are found in every form in which they are echoed."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from kimi_mcp.secrecy import HIDDEN, Secrets

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


def test_what_is_too_short_to_be_a_secret_is_left_alone() -> None:
    assert scrubbed("12345 stays", "12345", "", "  a  ") == "12345 stays"


def test_a_secret_with_blanks_around_it_is_hidden_without_them_too() -> None:
    assert scrubbed("x secret-key y", " secret-key\n") == f"x {HIDDEN} y"


def test_the_longer_of_two_secrets_goes_first() -> None:
    assert scrubbed("secret-key-two", "secret-key", "secret-key-two") == HIDDEN


def test_a_lone_surrogate_in_a_secret_breaks_nothing() -> None:
    assert scrubbed("secret\ud800key", "secret\ud800key") == HIDDEN


def test_a_text_without_secrets_costs_little() -> None:
    registry = Secrets()
    registry.add(*(f"sk-{number}-abcdefghijklmnopqrstuvwxyz" for number in range(9)))
    text = "an ordinary log line about nothing " * 10
    begun = time.process_time()
    for _ in range(1000):
        assert registry.scrub(text) is text
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("form", [SECRET, quote(SECRET, safe=""), SECRET.encode().hex(), json.dumps(SECRET)[1:-1]])
def test_the_beginning_of_a_secret_is_an_open_end(form: str) -> None:
    registry = Secrets()
    registry.add(SECRET)
    for length in range(1, len(form)):
        assert registry.open_end(f"It is {form[:length]}") >= length
        assert registry.open_end(form[:length]) == length
    assert registry.open_end(f"It is {form}, it was.") == 0
    assert registry.open_end(f"{form} {form[:9]}") == 9
    assert registry.open_end(f"It is {form[:9]}…") == 0


def test_what_repeats_a_beginning_is_open_from_where_the_secret_may_begin() -> None:
    registry = Secrets()
    registry.add("aaabaaac")
    assert registry.open_end("xaaaa") == 3
    assert registry.open_end("xaaabaaa") == 7
    assert registry.open_end("xaaabaa") == 6
    assert registry.open_end("xa") == 1


def test_without_secrets_no_end_is_open() -> None:
    assert Secrets().open_end("sk-") == 0
