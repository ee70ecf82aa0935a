"""How the providers differ, as their published sources tell."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import anyio
import httpx2
import pytest

from kimi_mcp import catalogue
from kimi_mcp.core.profiles import Price
from kimi_mcp.simulator import Simulator, SimulatorError
from kimi_mcp.simulator.dialects import DIALECTS, FACTS_DAY, ListPrice
from tests.simulator.requests import (
    INSTANT,
    THINK,
    answer,
    data_url,
    deltas,
    mp4,
    png,
    post,
    refusal,
    seeing,
    streamed,
)

pytestmark = pytest.mark.anyio

OPEN = "moonshotai/Kimi-K2.5"
OFF: dict[str, Any] = {
    "thinking": {"type": "disabled"},
    "chat_template_kwargs": {"thinking": False},
    "reasoning": {"enabled": False},
    "enable_thinking": False,
}
"""How each switch says not to think."""


def requested(model: str, **more: Any) -> dict[str, Any]:
    return {**THINK, "model": model, **more}


async def models(sim: Simulator) -> list[str]:
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        got = await client.get(f"{sim.base_url}/models", headers={"authorization": "Bearer sk-test"})
    return [row["id"] for row in got.json()["data"]]


def test_the_simulator_knows_every_row_of_the_catalogue() -> None:
    rows = [(provider.id, row.wire_id) for provider in catalogue.load().providers.values() for row in provider.models]
    lacking = [row for row in rows if row[0] not in DIALECTS or DIALECTS[row[0]].find(row[1]) is None]
    assert lacking == [], "read their sources once more and write the rows into simulator/dialects.py"


ACCEPTED = {
    ("nim", "kimi-k2.6", "first day without it"): "deprecated on, and unsupported after, 2026-07-07: not used that day",
    ("together", "kimi-k2.7-code", "image"): "staff says it takes pictures, models.dev that it does not: none is sent",
}
"""Where catalogue and simulator differ on purpose, and why."""


def test_catalogue_and_simulator_agree_on_every_row() -> None:
    """Two readings of the same sources; where they differ, one of them is wrong."""
    apart: set[tuple[str, str, str]] = set()
    for provider, dialect in ((provider, DIALECTS[provider.id]) for provider in catalogue.load().providers.values()):
        assert (provider.needs_key, provider.switch == "none") == (dialect.needs_key, not dialect.switches), provider.id
        assert dialect.reasoning_field in provider.reasoning_read, provider.id
        for serving in provider.models:
            profile, row = catalogue.load().profile(provider.id, serving.model), dialect.find(serving.wire_id)
            assert profile is not None
            assert row is not None
            assert (row.since or FACTS_DAY) <= FACTS_DAY, "FACTS_DAY is the day of the latest fact"
            model, known = profile.model, row.model
            ended = None if row.until is None else row.until + timedelta(days=1)
            for fact, found, other in (
                ("name", known.name, model.id),
                ("first day without it", row.redirected_since or ended, serving.until or serving.found_gone),
                ("always thinks", known.always_thinks, not model.can_stop_thinking),
                ("efforts", known.efforts, model.efforts),
                ("forced tools", known.forced_tools, model.forced_tool_choice_thinking),
                ("context", known.context, model.context_tokens),
                ("output", known.default_max_tokens, model.default_output_tokens or known.default_max_tokens),
                ("image", dialect.takes("image", known), profile.takes("image")),
                ("video", dialect.takes("video", known), profile.takes("video")),
                ("price", dialect.moonshot and known.price, dialect.moonshot and _list_price(profile.price)),
            ):
                if found != other:
                    apart.add((provider.id, model.id, fact))
    assert apart == set(ACCEPTED)


def _list_price(price: Price | None) -> ListPrice | None:
    return price and ListPrice(input=price.input, hit=price.cached, output=price.output, write_1h=price.write_1h)


def test_an_unknown_provider_is_refused_by_name() -> None:
    with pytest.raises(SimulatorError, match="there is no provider 'openai'; known are moonshot"):
        Simulator(provider="openai")


@pytest.mark.parametrize("provider", DIALECTS)
async def test_every_dialect_answers_under_its_own_field_and_switch(provider: str) -> None:
    dialect = DIALECTS[provider]
    with anyio.fail_after(60):
        async with Simulator(provider=provider) as sim:
            listed = await models(sim)
            model = next(row.id for row in dialect.serves if row.live(FACTS_DAY))
            assert model in listed
            thought = deltas(await streamed(sim, requested(model)))
            assert any(dialect.reasoning_field in delta for delta in thought)
            row = dialect.find(model)
            assert row is not None
            if row.model.always_thinks:
                return
            for switch in dialect.switches:
                quiet = await answer(sim, requested(model, **{switch: OFF[switch]}))
                assert "in instant mode" in quiet["content"], switch
                assert dialect.reasoning_field not in quiet


@pytest.mark.parametrize("provider", [name for name, dialect in DIALECTS.items() if not dialect.moonshot])
async def test_a_switch_that_no_source_documents_is_an_unknown_field(provider: str) -> None:
    dialect = DIALECTS[provider]
    model = next(row.id for row in dialect.serves if row.live(FACTS_DAY))
    async with Simulator(provider=provider) as sim:
        for switch in set(OFF) - set(dialect.switches):
            status, _, message = await refusal(sim, requested(model, **{switch: OFF[switch]}))
            assert (status, message) == (400, f"Invalid request: unknown field '{switch}'")


async def test_where_no_switch_is_documented_it_always_thinks() -> None:
    assert DIALECTS["huggingface"].switches == ()
    async with Simulator(provider="huggingface") as sim:
        assert "in thinking mode" in (await answer(sim, requested("moonshotai/Kimi-K2.6")))["content"]


@pytest.mark.parametrize(
    ("provider", "switches"),
    [("together", ("reasoning", "chat_template_kwargs", "thinking")), ("novita", ("thinking", "enable_thinking"))],
)
def test_where_sources_differ_each_documented_switch_is_taken(provider: str, switches: tuple[str, ...]) -> None:
    assert DIALECTS[provider].switches == switches


@pytest.mark.parametrize("provider", ["moonshot", "moonshot-cn"])
async def test_moonshot_serves_the_family_of_today(provider: str) -> None:
    async with Simulator(provider=provider) as sim:
        served = await models(sim)
    assert served == [row.id for row in DIALECTS[provider].serves if row.live(FACTS_DAY)]
    assert "kimi-k2.6" in served
    assert "kimi-k2.5" not in served


async def test_the_day_decides_what_is_served() -> None:
    async with Simulator(now=date(2026, 8, 30)) as sim:
        assert "kimi-k2.5" in await models(sim)
        assert "kimi-k3.1-pro" not in await models(sim)
        await answer(sim, requested("kimi-k2.5"))
    async with Simulator(now=date(2026, 8, 31)) as sim:
        assert (await post(sim, requested("kimi-k2.5"))).status_code == 404


async def test_the_simulators_own_dialect_serves_k25_without_a_key() -> None:
    async with Simulator(provider="simulator") as sim:
        got = await post(sim, requested("kimi-k2.5"), key=None)
    assert got.json()["choices"][0]["message"]["reasoning_content"]


async def test_nim_lists_retired_models_and_answers_them_with_410() -> None:
    async with Simulator(provider="nim") as sim:
        assert await models(sim) == ["moonshotai/kimi-k2.5", "moonshotai/kimi-k2.6", "moonshotai/kimi-k3"]
        assert (await post(sim, requested("moonshotai/kimi-k2.6"))).status_code == 410
        assert (await post(sim, requested("moonshotai/kimi-k9"))).status_code == 404


async def test_nim_let_another_model_answer_before_k25_ended() -> None:
    async with Simulator(provider="nim", now=date(2026, 5, 1)) as sim:
        assert (await post(sim, requested("moonshotai/kimi-k2.5"))).json()["model"] == "moonshotai/kimi-k2.6"


@pytest.mark.parametrize("limit", [0, 65_537])
async def test_nim_bounds_max_tokens(limit: int) -> None:
    async with Simulator(provider="nim") as sim:
        assert (await post(sim, requested("moonshotai/kimi-k3", max_tokens=limit))).status_code == 400


@pytest.mark.parametrize("provider", ["nim", "vllm", "sglang"])
async def test_only_moonshots_dialect_takes_a_thinking_object(provider: str) -> None:
    model = "moonshotai/kimi-k3" if provider == "nim" else OPEN
    async with Simulator(provider=provider) as sim:
        status, _, message = await refusal(sim, {**INSTANT, "model": model})
    assert (status, message) == (400, "Invalid request: unknown field 'thinking'")


async def test_vllm_needs_no_key_and_tells_the_sampling_it_got() -> None:
    async with Simulator(provider="vllm") as sim:
        got = await post(sim, requested(OPEN, temperature=0.3), key=None)
        assert "temperature 0.3, top_p not set" in got.json()["choices"][0]["message"]["content"]
        assert got.json()["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}


@pytest.mark.parametrize(("field", "seen"), [("reasoning", True), ("reasoning_content", False)])
async def test_vllm_reads_reasoning_and_drops_reasoning_content_silently(field: str, seen: bool) -> None:
    turns = [*THINK["messages"], {"role": "assistant", "content": "Hi", field: "I thought"}, *THINK["messages"]]
    async with Simulator(provider="vllm") as sim:
        message = await answer(sim, requested(OPEN, messages=turns))
    assert ("reasoning received in turns: [1: " in message["reasoning"]) is seen


@pytest.mark.parametrize(("provider", "status"), [("vllm", 500), ("sglang", 400), ("ktransformers", 400)])
async def test_self_hosted_engines_take_images_but_no_video(provider: str, status: int) -> None:
    async with Simulator(provider=provider) as sim:
        film = {**seeing("video", data_url("video/mp4", mp4())), "model": OPEN}
        assert (await post(sim, film)).status_code == status
        await answer(sim, {**seeing("image", data_url("image/png", png())), "model": OPEN})


async def test_an_engine_says_that_it_would_fetch_a_link_itself() -> None:
    async with Simulator(provider="vllm") as sim:
        message = await answer(sim, {**seeing("image", "http://10.0.0.1/secret.png"), "model": OPEN})
    assert "image by link (an engine would fetch it itself): http://10.0.0.1/secret.png" in message["content"]


async def test_openrouter_takes_its_own_switch_and_tells_reasoning_tokens() -> None:
    async with Simulator(provider="openrouter") as sim:
        body = requested("moonshotai/kimi-k2.6", reasoning={"enabled": False})
        assert "in instant mode" in (await answer(sim, body))["content"]
        usage = (await post(sim, requested("moonshotai/kimi-k2.6"))).json()["usage"]
        assert usage["completion_tokens_details"]["reasoning_tokens"] > 0


async def test_openrouter_passes_moonshots_refusals_of_schemas_on() -> None:
    refused = {"type": "object", "properties": {"at": {"type": "string", "anyOf": [{"type": "string"}]}}}
    tool = {"type": "function", "function": {"name": "look", "parameters": refused}}
    async with Simulator(provider="openrouter") as sim:
        assert (
            "moonshot flavored json schema"
            in (await refusal(sim, requested("moonshotai/kimi-k3.1-pro", tools=[tool])))[2]
        )


async def test_novita_still_serves_k25_with_video() -> None:
    async with Simulator(provider="novita") as sim:
        film = {**seeing("video", data_url("video/mp4", mp4())), "model": "moonshotai/kimi-k2.5"}
        assert "video mp4" in (await answer(sim, film))["content"]


async def test_a_model_may_take_less_media_than_its_provider() -> None:
    async with Simulator(provider="together") as sim:
        film = {**seeing("video", data_url("video/mp4", mp4())), "model": "moonshotai/Kimi-K3"}
        assert "video input is not supported" in (await refusal(sim, film))[2]
        await answer(sim, {**seeing("image", data_url("image/png", png())), "model": "moonshotai/Kimi-K3"})


@pytest.mark.parametrize("provider", ["vllm", "nim"])
async def test_other_providers_have_no_files(provider: str) -> None:
    async with Simulator(provider=provider) as sim, httpx2.AsyncClient(trust_env=False, verify=False) as client:
        got = await client.get(f"{sim.base_url}/files", headers={"authorization": "Bearer sk-test"})
    assert got.status_code == 404
