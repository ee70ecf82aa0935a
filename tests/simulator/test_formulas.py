"""The official tools: declared, run, and refused as the provider refuses."""

from __future__ import annotations

import httpx2
import pytest

from kimi_mcp.simulator import Simulator
from tests.simulator.requests import KEY

pytestmark = pytest.mark.anyio

SEARCH = "formulas/moonshot/web-search:latest"


async def ask(
    method: str, path: str, body: object = None, *, key: str = KEY, provider: str = "moonshot"
) -> httpx2.Response:
    async with Simulator(provider) as sim, httpx2.AsyncClient(trust_env=False) as client:
        url, login = f"{sim.base_url}/{path}", {"Authorization": f"Bearer {key}"} if key else {}
        return await client.request(method, url, headers=login, json=body if method == "POST" else None)


async def test_a_formula_declares_its_functions() -> None:
    (tool,) = (await ask("GET", f"{SEARCH}/tools")).json()["tools"]
    assert tool["type"] == "function"
    assert tool["function"]["name"] == "web_search"
    assert tool["function"]["parameters"]["required"] == ["query"]


async def test_a_fiber_brings_a_sealed_result() -> None:
    fiber = (await ask("POST", f"{SEARCH}/fibers", {"name": "web_search", "arguments": '{"query": "x"}'})).json()
    assert fiber["status"] == "succeeded"
    assert fiber["context"]["encrypted_output"].startswith("----MOONSHOT ENCRYPTED BEGIN----")


async def test_a_fiber_without_a_query_fails() -> None:
    fiber = (await ask("POST", f"{SEARCH}/fibers", {"name": "web_search", "arguments": "{}"})).json()
    assert (fiber["status"], fiber["error"]["message"]) == ("failed", "query is required")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "formulas/moonshot/no-such:latest/tools", None, 404),
        ("POST", f"{SEARCH}/tools", {}, 405),
        ("GET", f"{SEARCH}/fibers", None, 405),
        ("GET", f"{SEARCH}/else", None, 404),
        ("POST", f"{SEARCH}/fibers", {"name": "web_search", "arguments": {"query": "x"}}, 400),
        ("POST", f"{SEARCH}/fibers", {"name": "other", "arguments": "{}"}, 400),
    ],
)
async def test_what_is_asked_wrongly_is_refused(method: str, path: str, body: object, status: int) -> None:
    assert (await ask(method, path, body)).status_code == status


async def test_no_key_and_no_moonshot_have_no_formulas() -> None:
    assert (await ask("GET", f"{SEARCH}/tools", key="")).status_code == 401
    assert (await ask("GET", f"{SEARCH}/tools", provider="vllm")).status_code == 404
