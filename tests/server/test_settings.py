"""Settings from the environment: the server starts whatever they are, and a call names the variable to fix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp import catalogue
from kimi_mcp.catalogue import credentials
from kimi_mcp.server.tools import TOOLS
from kimi_mcp.simulator import Simulator
from tests.server.clients import ServerOptions, connect
from tests.server.keys import KEY
from tests.server.processes import server_process
from tests.server.requests import chats

KEY_VARIABLES = tuple(credentials.key_variables(catalogue.load()))


async def test_without_a_key_tools_are_listed_and_a_call_names_the_variables(mode: str) -> None:
    async with connect(None, mode, provider=None) as kimi:
        tools = await kimi.client.list_tools()
        assert [tool.name for tool in tools.tools] == list(TOOLS)
        for result in (await kimi.think(), await kimi.instant()):
            assert result.code == "not_configured"
            assert result.structured["run_id"] is None
            for variable in (*KEY_VARIABLES, "KIMI_BASE_URL"):
                assert variable in result.error["fix"]


async def test_a_real_process_without_a_key_does_the_same(mode: str) -> None:
    async with server_process(None, mode, provider=None) as client:
        assert len((await client.list_tools()).tools) == len(TOOLS)
        result = await client.call_tool("kimi_think", {"prompt": "hi"})
    assert result.structured_content is not None
    assert result.structured_content["error"]["code"] == "not_configured"


@pytest.mark.parametrize("value", ["${MOONSHOT_API_KEY}", "  ${MOONSHOT_API_KEY:-}", "", "   "])
async def test_a_value_that_no_host_filled_in_counts_as_unset(value: str) -> None:
    async with connect(None, provider=None, MOONSHOT_API_KEY=value) as kimi:
        assert (await kimi.think()).code == "not_configured"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KIMI_MAX_CONCURRENCY", "lots"),
        ("KIMI_MAX_CONCURRENCY", "0"),
        ("KIMI_REPLY_WITHIN_S", "-1"),
        ("KIMI_IDLE_TIMEOUT_S", "nan"),
        ("KIMI_TOTAL_TIMEOUT_S", "inf"),
        ("KIMI_FIRST_TOKEN_TIMEOUT_S", "1h"),
        ("KIMI_REASONING_INLINE_CHARS", "2k"),
        ("KIMI_POLICY", "lenient"),
        ("KIMI_LOG_LEVEL", "LOUD"),
        ("MOONSHOT_API_KEY", "sk-two words"),
    ],
)
async def test_a_value_that_cannot_be_read_is_named_by_the_first_call(
    sim: Simulator, variable: str, value: str
) -> None:
    async with connect(sim, **{variable: value}) as kimi:
        assert len((await kimi.client.list_tools()).tools) == len(TOOLS)
        result = await kimi.think()
    assert result.code == "not_configured"
    assert variable in result.error["message"]
    assert variable in result.error["fix"]
    assert value not in result.text
    assert sim.requests == []


@pytest.mark.parametrize(("variable", "value"), [("KIMI_MAX_CONCURRENCY", "lots"), ("KIMI_CLUSTER", "on")])
async def test_a_real_process_with_a_value_that_can_not_be_meant_starts(
    sim: Simulator, variable: str, value: str
) -> None:
    wrong: Any = {"KIMI_LOG_LEVEL": "LOUD" if value == "lots" else "ERROR", variable: value}
    async with server_process(sim, **wrong) as client:
        result = await client.call_tool("kimi_think", {"prompt": "hi"})
    assert result.is_error
    assert result.structured_content is not None
    assert variable in result.structured_content["error"]["fix"]


async def test_an_unknown_provider_setting_is_named_with_the_nearest(sim: Simulator) -> None:
    async with connect(sim, provider="monshot") as kimi:
        result = await kimi.think()
    assert result.code == "not_configured"
    assert "KIMI_PROVIDER" in result.error["fix"]
    assert "moonshot" in result.error["fix"].partition("nearest")[2]
    assert sim.requests == []


async def test_an_unknown_model_setting_is_named_with_the_nearest(sim: Simulator) -> None:
    async with connect(sim, KIMI_MODEL="kimi-k25") as kimi:
        result = await kimi.think()
    assert result.code == "not_configured"
    assert "KIMI_MODEL" in result.error["fix"]
    assert "kimi-k2.5" in result.error["fix"].partition("nearest")[2]
    assert chats(sim) == []


@pytest.mark.parametrize("url", ["ftp://example.org/v1", "example.org", "http://", "https://user:word@example.org/v1"])
async def test_a_base_url_that_is_none_is_named(url: str) -> None:
    async with connect(None, provider="vllm", KIMI_BASE_URL=url) as kimi:
        result = await kimi.think()
    assert result.code == "not_configured"
    assert "KIMI_BASE_URL" in result.error["fix"]
    assert "user:word" not in result.text


@pytest.mark.parametrize("provider", [None, "moonshot", "vllm"])
@pytest.mark.parametrize("url", ["https://api.kimi.com/coding/v1", "https://API.kimi.com:443/coding/v1/"])
async def test_the_kimi_code_endpoint_is_refused_and_nothing_is_sent(provider: str | None, url: str, mode: str) -> None:
    async with connect(None, mode, provider=provider, KIMI_BASE_URL=url, KIMI_API_KEY=KEY) as kimi:
        result = await kimi.think()
    assert result.code == "policy_refused"
    assert result.error["rule"] == "endpoint-allowed"
    assert result.attempts == 0
    assert result.structured["run_id"] is None


async def test_a_providers_key_goes_to_no_other_host() -> None:
    async with Simulator(provider="vllm") as engine:
        async with connect(engine, provider=None, MOONSHOT_API_KEY=KEY) as kimi:
            result = await kimi.think()
        assert result.status == "completed"
        assert result.structured["provider"] == "vllm"
        assert engine.requests
        assert all(KEY not in str(request.headers) for request in engine.requests)


async def test_a_providers_key_goes_to_another_host_where_the_provider_is_named() -> None:
    async with (
        Simulator(provider="moonshot", require_key=KEY) as moonshot,
        connect(moonshot, provider="moonshot", MOONSHOT_API_KEY=KEY) as kimi,
    ):
        assert (await kimi.think()).status == "completed"
        assert chats(moonshot)[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_moonshot_base_url_is_moonshot_without_naming_it() -> None:
    async with connect(None, provider=None, KIMI_BASE_URL="https://api.moonshot.ai/v1") as kimi:
        result = await kimi.think()
    assert result.code == "not_configured"
    assert "MOONSHOT_API_KEY" in result.error["fix"]


async def test_an_argument_may_not_name_a_provider_that_the_operator_did_not_allow(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        refused = await kimi.think(provider="openrouter")
        assert refused.code == "policy_refused"
        assert refused.error["rule"] == "provider-allowed"
        assert "KIMI_ALLOWED_PROVIDERS" in refused.error["fix"]
        assert chats(sim) == []
        assert (await kimi.think(provider="simulator")).status == "completed", "the chosen one may be named"


async def test_an_allowed_provider_gets_the_call_and_not_the_other_ones_key() -> None:
    facts = catalogue.load()
    async with Simulator(provider="moonshot") as moonshot, Simulator(provider="vllm") as engine:
        vllm = facts.providers["vllm"].model_copy(update={"base_url": engine.base_url})
        moved = replace(facts, providers={**facts.providers, "vllm": vllm})
        variables = {"KIMI_API_KEY": KEY, "KIMI_ALLOWED_PROVIDERS": "openrouter, vLLM"}
        options = ServerOptions(facts=moved)
        async with connect(moonshot, provider="moonshot", options=options, **variables) as kimi:
            result = await kimi.think(provider="vllm")
            assert (await kimi.think()).structured["provider"] == "moonshot"
        assert result.status == "completed", result.text
        assert result.structured["provider"] == "vllm"
        assert len(chats(engine)) == 1
        assert "authorization" not in chats(engine)[0].headers or KEY not in chats(engine)[0].headers["authorization"]
        assert len(chats(moonshot)) == 1


async def test_a_wrong_catalogue_of_the_users_is_named_by_each_call_until_it_is_right(
    sim: Simulator, mode: str, tmp_path: Path
) -> None:
    (tmp_path / "mine/providers").mkdir(parents=True)
    file = tmp_path / "mine/providers/simulator.toml"
    file.write_text('[[models]]\nmodel = "kimi-k2.5"\nprise = "unknown"\n')
    async with connect(sim, mode, KIMI_CATALOGUE=str(tmp_path / "mine")) as kimi:
        assert len((await kimi.client.list_tools()).tools) == len(TOOLS)
        wrong = await kimi.think()
        file.write_text('[[models]]\nmodel = "kimi-k2.5"\nprice = { input = 100, cached = 100, output = 0 }\n')
        right = await kimi.think()
    assert wrong.code == "not_configured"
    assert "providers/simulator.toml: models[1].prise is not a key here; did you mean price?" in wrong.text
    assert str(tmp_path) not in wrong.text
    usage = right.structured["usage"]
    assert usage["cost_usd"] == pytest.approx(usage["prompt_tokens"] * 1e-4)


async def test_a_wrong_catalogue_keeps_nobody_from_his_runs(sim: Simulator, mode: str, tmp_path: Path) -> None:
    async with connect(sim, mode) as kimi:
        earlier = await kimi.think()
    (tmp_path / "providers").mkdir()
    (tmp_path / "providers/simulator.toml").write_text("prise = 1\n")
    async with connect(sim, mode, KIMI_CATALOGUE=str(tmp_path)) as kimi:
        read = await kimi.run(earlier.structured["run_id"])
        listed = await kimi.run()
    assert (read.status, read.structured["answer"]) == ("completed", earlier.structured["answer"])
    assert earlier.structured["run_id"] in listed.text


async def test_an_added_provider_is_called_with_its_own_key(tmp_path: Path) -> None:
    async with Simulator(provider="together") as engine:
        (tmp_path / "providers").mkdir()
        (tmp_path / "providers/acme.toml").write_text(
            f'inherits = "together"\n[about]\nname = "Acme"\nbase_url = "{engine.base_url}"\n'
            '[key]\nneeded = true\nvariables = ["ACME_API_KEY"]\n'
            '[[models]]\nmodel = "kimi-k3"\nwire_id = "moonshotai/Kimi-K3"\nprice = "unknown"\n'
        )
        keys = {"ACME_API_KEY": KEY, "TOGETHER_API_KEY": "sk-of-another"}
        async with connect(None, provider="acme", KIMI_CATALOGUE=str(tmp_path), **keys) as kimi:
            result = await kimi.think()
        assert result.structured["provider"] == "acme"
        assert (result.status, result.structured["model"]["sent"]) == ("completed", "moonshotai/Kimi-K3")
        assert {request.headers["authorization"] for request in engine.requests} == {f"Bearer {KEY}"}
