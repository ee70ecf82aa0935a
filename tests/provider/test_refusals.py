"""What a provider's refusal becomes: one of ours, with its fix, and never with a key in it."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote as url_quoted

import anyio
import pytest

from kimi_mcp.core.errors import KimiError, NotConfigured
from kimi_mcp.core.redaction import hide
from kimi_mcp.provider.decoding import StreamAccumulator
from kimi_mcp.provider.error_mapping import ProviderError, quote, read_error, response_failure
from kimi_mcp.simulator import Simulator
from tests.provider.loopback import response, saying
from tests.provider.requests import BODY, KEY, SHORT, ask, close_all, endpoint, upstream

INVALID = "invalid_request_error"

DOCUMENTED: list[tuple[int | None, str, str, str, str]] = [
    (
        400,
        INVALID,
        "invalid temperature: only 1 is allowed for this model",
        "invalid_arguments",
        "`temperature`",
    ),
    (
        400,
        INVALID,
        "invalid top_p: only 0.95 is allowed for this model",
        "invalid_arguments",
        "`temperature`",
    ),
    (
        400,
        INVALID,
        "Invalid request: Your request exceeded model token limit: 262144",
        "context_too_long",
        "shorter",
    ),
    (
        400,
        INVALID,
        "invalid thinking: only type=enabled is allowed for this model",
        "invalid_arguments",
        "`model`",
    ),
    (
        400,
        INVALID,
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1",
        "invalid_arguments",
        "`conversation_id`",
    ),
    (
        400,
        INVALID,
        "tool_choice 'required' is incompatible with thinking enabled",
        "invalid_arguments",
        "kimi_instant",
    ),
    (400, INVALID, "something new", "invalid_arguments", "kimi-mcp policy"),
    (
        400,
        "content_filter",
        "The request was rejected because it was considered high risk",
        "content_filtered",
        "Reword",
    ),
    (
        400,
        "BadRequestError",
        "This model's maximum context length is 262144 tokens.",
        "context_too_long",
        "shorter",
    ),
    (401, "invalid_authentication_error", "Invalid Authentication", "auth_failed", "MOONSHOT_API_KEY"),
    (401, "incorrect_api_key_error", "Incorrect API key provided", "auth_failed", "api.moonshot.cn"),
    (402, "", "", "quota_exhausted", "Top up"),
    (
        403,
        "permission_denied_error",
        "The API you are accessing is not open",
        "auth_failed",
        "MOONSHOT_API_KEY",
    ),
    (
        404,
        "resource_not_found_error",
        "Not found the model kimi-k2.5 or Permission denied",
        "model_not_served",
        "KIMI_MODEL",
    ),
    (404, "", "", "model_not_served", "KIMI_BASE_URL"),
    (410, "Gone", "The model has reached its end of life", "model_not_served", "KIMI_MODEL"),
    (413, "", "", "invalid_arguments", "smaller"),
    (422, "", "", "invalid_arguments", "kimi-mcp policy"),
    (
        429,
        "engine_overloaded_error",
        "The engine is currently overloaded",
        "overloaded",
        "topping up does not help",
    ),
    (429, "rate_limit_reached_error", "max RPM: 3", "rate_limited", "KIMI_MAX_CONCURRENCY"),
    (429, "exceeded_current_quota_error", "check your plan and billing details", "quota_exhausted", "Top up"),
    (
        429,
        "",
        "Your account is suspended, please check your plan and billing details",
        "quota_exhausted",
        "Top up",
    ),
    (429, "", "", "rate_limited", "KIMI_MAX_CONCURRENCY"),
    (499, "client_closed_request", "", "upstream_broken", "proxy"),
    (500, "server_error", "oops", "upstream_broken", "KIMI_PROVIDER"),
    (500, "unexpected_output", "oops", "upstream_broken", "KIMI_PROVIDER"),
    (503, "server_unavailable", "oops", "overloaded", "KIMI_PROVIDER"),
    (529, "", "", "overloaded", "KIMI_PROVIDER"),
    (307, "", "", "upstream_broken", "KIMI_BASE_URL"),
    (418, "", "", "invalid_arguments", "KIMI_BASE_URL"),
    (None, "engine_overloaded_error", "busy", "overloaded", "KIMI_PROVIDER"),
    (None, "rate_limit_reached_error", "busy", "rate_limited", "KIMI_MAX_CONCURRENCY"),
    (None, "exceeded_current_quota_error", "", "quota_exhausted", "Top up"),
    (None, "content_filter", "", "content_filtered", "Reword"),
    (None, INVALID, "what", "invalid_arguments", "kimi-mcp policy"),
    (None, "server_error", "what", "upstream_broken", "KIMI_PROVIDER"),
    (None, "", "what", "upstream_broken", "KIMI_PROVIDER"),
]


@pytest.mark.parametrize(("status", "kind", "message", "code", "fix"), DOCUMENTED)
def test_every_documented_error_has_its_code_and_names_its_fix(
    status: int | None, kind: str, message: str, code: str, fix: str
) -> None:
    error = ProviderError(kind=kind.lower(), message=message)
    fault = response_failure(error, endpoint("https://api.moonshot.ai/v1"), status=status)
    assert fault.error.code == code
    assert fix in fault.error.fix
    assert "{" not in fault.error.message + fault.error.fix
    assert "moonshot" in fault.error.message + fault.error.fix or code == "context_too_long"


def test_a_provider_without_a_key_variable_of_its_own_has_the_common_one() -> None:
    self_hosted = endpoint("http://localhost:8000/v1", key=None, provider="vllm")
    fault = response_failure(ProviderError(), self_hosted, status=401)
    assert "KIMI_API_KEY" in fault.error.fix
    assert "localhost:8000" in fault.error.fix


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ({"error": {"type": "T", "message": "m", "code": "C"}}, "t c", "m"),
        ({"error": {"message": "m", "type": "BadRequestError", "param": None, "code": 400}}, "badrequesterror", "m"),
        ({"error": "m", "error_type": "overloaded"}, "overloaded", "m"),
        ({"object": "error", "message": "m", "type": "NotFoundError", "code": 404}, "notfounderror", "m"),
        ({"status": 404, "title": "Not Found", "detail": "m"}, "", "m"),
        ({"detail": [{"msg": "m"}]}, "", ""),
        ({"error": None}, "", ""),
        ([], "", ""),
        ("text", "", ""),
    ],
)
def test_an_error_is_read_in_every_form_that_providers_give_it(body: Any, kind: str, message: str) -> None:
    found = read_error(json.dumps(body).encode())
    assert (found.kind, found.message) == (kind, message)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"[" * 60_000, b'{"error"'])
def test_a_body_that_is_no_json_says_nothing(body: bytes) -> None:
    assert read_error(body) == ProviderError()


def _written(key: str) -> list[str]:
    raw = key.encode()
    return [
        key,
        key.upper(),
        url_quoted(key, safe=""),
        "".join(f"%{byte:02x}" for byte in raw),
        raw.hex(),
        raw.hex().upper(),
        raw.hex(":"),
        key[::-1],
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(b"Bearer " + raw).decode(),
        base64.b64encode(b"x" + raw + b"y").decode(),
        base64.b64encode(b"xx" + raw + b"yy").decode(),
        "\u200b".join(key),
        "\x00".join(key),
        " ".join(key),
        key[:20] + "\n" + key[20:],
        key[: len(key) - 4],
        key[:10] + "…" + key[-4:],
        json.dumps(key),
    ]


@pytest.mark.parametrize("key", [KEY, "nvapi-_-aB+/c=d&e%f.0123456789", "hf_qwXzrTbnMklPdfgh", "correcthorse"])
def test_a_key_is_not_quoted_however_it_is_written(key: str) -> None:
    hide(key)
    for form in _written(key):
        text = quote(f"Incorrect key {form} provided")
        bare = "".join(char for char in text.lower() if char.isalnum())
        secret = "".join(char for char in key.lower() if char.isalnum())
        assert all(secret[at : at + 10] not in bare for at in range(len(secret) - 9)), form
        assert form not in text, form


def test_a_quote_is_one_line_without_control_characters_and_no_longer_than_300() -> None:
    text = quote("a\r\nb\x1b[31mc\u2028d\u202ee" + "x" * 1_000)
    assert text.startswith("a b [31mc dexxx")
    assert len(text) == 300
    assert quote("max RPM: 3, try again") == "max RPM: 3, try again"
    hide("hunter27")
    assert quote("no model hunter27 here") == "no model [hidden] here"


def _everything_shown(error: BaseException) -> str:
    shown = [str(error), repr(error), repr(error.args), repr(vars(error))]
    shown += [_everything_shown(other) for other in (error.__cause__, error.__context__) if other is not None]
    return " ".join((*shown, *getattr(error, "__notes__", ())))


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 408, 409, 410, 413, 422, 429, 500, 503])
async def test_a_key_that_a_body_echoes_stays_out_of_the_error_and_of_what_hangs_on_it(status: int) -> None:
    forms = " ".join(_written(KEY))
    for body in (
        json.dumps({"error": {"type": "t", "message": f"bad key {KEY}"}}),
        json.dumps({"error": {"type": KEY, "message": forms, "code": KEY}}),
        f"<html>{forms}",
    ):
        text = response(body.encode(), status=f"{status} X", more=f"retry-after: {KEY}\r\nlocation: /{KEY}\r\n")
        async with saying(text) as server:
            outcome = await ask(upstream(), server.base_url)
        assert isinstance(outcome.error, KimiError)
        assert outcome.error.__cause__ is None
        assert outcome.error.__context__ is None
        shown = _everything_shown(outcome.error)
        for form in _written(KEY)[:12]:
            assert form not in shown
        if status in (401, 403):
            assert "bad key" not in shown


async def test_a_key_in_an_error_event_stays_out_as_well(sim: Simulator) -> None:
    for place in ("head", "finish"):
        sim.play({"at": place, "error_event": {"type": "invalid_request_error", "message": f"key {KEY} is bad"}})
        outcome = await ask(upstream(), sim)
        assert isinstance(outcome.error, KimiError)
        assert KEY not in _everything_shown(outcome.error)
        assert "[hidden] is bad" in outcome.error.message


async def test_the_key_itself_is_sent_and_no_header_that_is_meant_for_another_company(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "theirs-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer theirs-secret\nX-Theirs: theirs-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/theirs-secret")
    monkeypatch.setenv("HTTP_PROXY", "http://theirs-secret:1@127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://theirs-secret:1@127.0.0.1:9")
    async with saying(response(b"{}", status="400 Bad", kind="application/json")) as server:
        up = upstream()
        for key in (KEY, None, ""):
            assert (await ask(up, server.base_url, key=key)).code == "invalid_arguments"
    with_key, *without = server.requests
    assert f"authorization: bearer {KEY}".lower().encode() in with_key.lower()
    assert all(b"authorization" not in request.lower() for request in without)
    for request in server.requests:
        assert b"theirs" not in request.lower()
        assert b"stainless" not in request.lower()


async def test_an_endless_error_body_is_read_only_at_its_beginning() -> None:
    head = b"HTTP/1.1 400 Bad\r\ncontent-length: 99999999\r\n\r\n"
    async with saying(head, b'{"error": {"message": "', *[b"x" * 65_536] * 40) as server:
        with anyio.fail_after(60):
            outcome = await ask(upstream(), server.base_url)
    assert outcome.code == "invalid_arguments"


@pytest.mark.parametrize(
    "url", ["", "api.moonshot.ai/v1", "ftp://x/v1", "http://", "http://a:b@c/v1", "http://x:99999/v1", "http://x/\n"]
)
async def test_a_base_url_that_is_none_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(NotConfigured) as caught:
        await upstream().stream(endpoint(url), {}, None)  # type: ignore[arg-type]
    assert "KIMI_BASE_URL" in caught.value.fix


@pytest.mark.parametrize("key", ["sk-a\nb", "sk-ä", "sk a", "“sk-a”"])
async def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(NotConfigured) as caught:
        await upstream().stream(endpoint("http://127.0.0.1:9", key=key), {}, None)  # type: ignore[arg-type]
    assert "MOONSHOT_API_KEY" in caught.value.fix
    assert key not in _everything_shown(caught.value)
    assert "Qx7p" not in repr(endpoint("http://x"))


async def test_a_text_that_is_no_unicode_is_refused_before_anything_is_sent(sim: Simulator) -> None:
    outcome = await ask(upstream(), sim, prompt="half \ud83d")
    assert outcome.code == "invalid_arguments"
    assert outcome.error is not None
    assert outcome.error.__context__ is None
    assert not sim.requests


async def test_nobody_listening_is_unreachable(sim: Simulator) -> None:
    sim.stop_listening()
    sim.play(SHORT)
    outcome = await ask(upstream(), sim)
    assert outcome.code == "upstream_unreachable"
    assert outcome.attempts == [1, 2, 3, 4, 5]
    assert outcome.error is not None
    assert outcome.error.__context__ is None
    assert "KIMI_BASE_URL" in outcome.error.fix  # type: ignore[attr-defined]


async def test_a_name_that_nobody_knows_is_unreachable() -> None:
    with anyio.fail_after(60):
        outcome = await ask(upstream(), "http://nowhere.invalid/v1")
    await close_all()
    assert outcome.code == "upstream_unreachable"


async def test_a_plain_text_port_behind_https_is_unreachable_or_broken(sim: Simulator) -> None:
    with anyio.fail_after(60):
        outcome = await ask(upstream(), sim.base_url.replace("http:", "https:"))
    assert outcome.code in ("upstream_unreachable", "upstream_broken")
    assert outcome.error is not None
    assert outcome.error.__context__ is None


async def test_a_fault_of_an_accumulator_is_ours_and_keeps_its_words_to_itself(sim: Simulator) -> None:
    class Broken(StreamAccumulator):
        def feed(self, payload: bytes) -> bool:
            raise RuntimeError(f"secret {KEY}")

    sim.play(SHORT)
    with pytest.raises(KimiError) as caught:
        await upstream().stream(endpoint(sim.base_url), BODY, Broken())
    assert caught.value.code == "internal"
    assert KEY not in _everything_shown(caught.value)
