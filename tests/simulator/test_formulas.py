"""The official tools: declared, run, and refused as the provider refuses."""

from __future__ import annotations

import json

import httpx2
import pytest

from kimi_mcp.simulator import Simulator, web
from tests.simulator.requests import KEY, answer, post

pytestmark = pytest.mark.anyio

SEARCH, FETCH = "formulas/moonshot/web-search:latest", "formulas/moonshot/fetch:latest"
PAGE = "https://web.simulator.example/oslo/weather"


async def ask(
    method: str, path: str, body: object = None, *, key: str = KEY, provider: str = "moonshot"
) -> httpx2.Response:
    async with Simulator(provider) as sim, httpx2.AsyncClient(trust_env=False, verify=False) as client:
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


async def test_a_search_names_what_it_found_in_the_open() -> None:
    wanted = {"name": "web_search", "arguments": '{"query": "Weather in Oslo?"}'}
    context = (await ask("POST", f"{SEARCH}/fibers", wanted)).json()["context"]
    assert context["references"] == [{"title": "The weather in Oslo", "url": PAGE}]
    assert "Snow" in web.unseal(context["encrypted_output"])
    assert "Snow" not in context["encrypted_output"]


@pytest.mark.parametrize(
    ("url", "status"), [(PAGE, "succeeded"), ("https://elsewhere.example/", "failed"), (5, "failed")]
)
async def test_a_page_is_fetched_where_there_is_one(url: object, status: str) -> None:
    wanted = {"name": "fetch", "arguments": json.dumps({"url": url})}
    fiber = (await ask("POST", f"{FETCH}/fibers", wanted)).json()
    assert fiber["status"] == status
    if status == "succeeded":
        assert fiber["context"]["output"].startswith("# The weather in Oslo")


async def test_a_model_with_a_search_searches_then_fetches_and_reads_no_broken_seal() -> None:
    tools = [(await ask("GET", f"{uri}/tools")).json()["tools"][0] for uri in (SEARCH, FETCH)]
    prompt = {"role": "user", "content": "The weather in Oslo?"}
    async with Simulator("simulator") as sim:
        searching = await answer(sim, {"model": "kimi-k2.5", "messages": [prompt], "tools": tools})
        (call,) = searching["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"query": "The weather in Oslo?"}
        turn = {"role": "assistant", "reasoning_content": "Hm.", "tool_calls": [call]}
        sealed = web.seal(web.described(web.find("oslo")))
        for text, wants in ((sealed, "fetch"), (sealed.replace("BEGIN----", "BEGIN----A"), None)):
            result = {"role": "tool", "tool_call_id": call["id"], "content": text}
            body = {"model": "kimi-k2.5", "messages": [prompt, turn, result], "tools": tools}
            got = await answer(sim, body)
            assert [each["function"]["name"] for each in got.get("tool_calls", [])] == ([wants] if wants else [])
            none = await answer(sim, {**body, "tool_choice": "none"})
            assert "tool_calls" not in none
    assert "The seal is broken" in got["content"]


async def test_the_arguments_of_the_builtin_search_must_come_back_unchanged() -> None:
    tools = [{"type": "builtin_function", "function": {"name": "$web_search"}}]
    prompt, off = {"role": "user", "content": "The weather in Oslo?"}, {"type": "disabled"}
    async with Simulator("simulator") as sim:
        body = {"model": "kimi-k2.5", "messages": [prompt], "tools": tools, "thinking": off}
        (call,) = (await answer(sim, body))["tool_calls"]
        arguments = call["function"]["arguments"]
        for content, found in ((arguments, True), (arguments + " ", False), ("", False)):
            result = {"role": "tool", "tool_call_id": call["id"], "content": content}
            messages = [prompt, {"role": "assistant", "tool_calls": [call]}, result]
            response = await post(sim, {**body, "messages": messages})
            assert response.status_code == (200 if found else 400)
            assert ("Snow" in response.text) is found


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
