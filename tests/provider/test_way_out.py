"""What is loaded when, where a request goes, and by which proxy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.proxies import proxy_for
from tests.provider.certificates import certificate
from tests.provider.loopback import response, saying
from tests.provider.requests import KEY, ask, endpoint, upstream
from tests.provider.test_streams import TRANSCRIPT


def test_neither_openai_nor_an_http_stack_is_loaded_before_the_first_call() -> None:
    code = "import sys, kimi_mcp.provider as u; u.Upstream(); print(*{'openai', 'httpx2'} & set(sys.modules), '.')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "."


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "[::1]", "localhost", "engine.localhost"])
def test_loopback_is_never_reached_by_a_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
    assert proxy_for(f"http://{host}:8000/v1") is None
    assert proxy_for(f"https://{host}/v1") is None


def test_other_hosts_are_reached_by_the_proxy_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_for("https://api.moonshot.ai/v1") is None
    monkeypatch.setenv("ALL_PROXY", "socks5://all.example:1080")
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    assert proxy_for("https://api.moonshot.ai/v1") == "http://proxy.example:3128"
    assert proxy_for("http://10.0.0.5:8000/v1") == "socks5://all.example:1080"
    monkeypatch.setenv("NO_PROXY", "moonshot.ai")
    assert proxy_for("https://api.moonshot.ai/v1") is None


async def test_a_request_goes_through_the_proxy_and_the_answer_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with saying(response(TRANSCRIPT)) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:pa%20ss@127.0.0.1:{server.port}")
        with anyio.fail_after(60):
            outcome = await ask(upstream(), "http://engine.example:8000/v1")
    assert outcome.error is None
    assert outcome.accumulator.answer == "é"
    (request,) = server.requests
    assert request.startswith(b"POST http://engine.example:8000/v1/chat/completions")
    assert b"proxy-authorization: basic dxnlcjpwysbzcw==" in request.lower()
    assert KEY.encode() in request


async def test_a_certificate_that_nobody_trusts_is_refused_once_and_names_its_fix(tmp_path: Path) -> None:
    _, context = certificate(tmp_path)
    async with saying(response(TRANSCRIPT), tls=context) as server:
        with anyio.fail_after(60):
            outcome = await ask(upstream(), server.base_url)
    assert (outcome.code, outcome.attempts) == ("upstream_unreachable", [1])
    assert outcome.error is not None
    assert outcome.error.__context__ is None
    assert "SSL_CERT_FILE" in outcome.error.fix  # type: ignore[attr-defined]


async def test_an_answer_over_tls_does_not_fall_behind_though_each_token_is_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, context = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    token = f"data: {json.dumps({'choices': [{'delta': {'content': 'x'}}]})}\n\n".encode()
    finish = f"data: {json.dumps({'choices': [{'delta': {}, 'finish_reason': 'stop'}]})}\n\ndata: [DONE]\n\n".encode()
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
    async with saying(head, *[token] * 60, finish, pause_s=0.005, tls=context) as server:
        waits, sleep = list[float](), anyio.sleep

        async def counted(seconds: float) -> None:
            waits.append(seconds)
            await sleep(seconds)

        monkeypatch.setattr(anyio, "sleep", counted)
        with anyio.fail_after(60):
            outcome = await ask(upstream(), server.base_url)
    assert outcome.error is None
    assert outcome.accumulator.answer == "x" * 60
    assert len(waits) < 30, "paced by records it would wait for each"


@pytest.mark.parametrize("content", [None, "", "garbage"])
async def test_certificates_that_cannot_be_read_are_named_by_their_variable(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "certificates.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with anyio.fail_after(60):
        outcome = await ask(upstream(), "https://127.0.0.1:9/v1")
        with pytest.raises(NotConfigured) as listed:
            await upstream().list_models(endpoint("https://127.0.0.1:9/v1"))
    assert isinstance(outcome.error, NotConfigured)
    for error in (outcome.error, listed.value):
        assert "SSL_CERT_FILE" in error.message
        assert "SSL_CERT_FILE" in error.fix
