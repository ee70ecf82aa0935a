"""``kimi-mcp ask --dry-run``: what a call will cost, and whether it fits; no answer is requested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.simulator import Simulator, Step
from kimi_mcp.simulator.faults import CHAT_PATH, Match
from tests.cli.commands.shell import kimi, to
from tests.media.documents import office, pdf

COUNT = "/v1/tokenizers/estimate-token-count"


def paths(sim: Simulator) -> list[str]:
    return [request.path for request in sim.requests]


async def test_it_asks_for_the_count_and_for_no_answer(sim: Simulator) -> None:
    ended = await kimi("ask", "What is 2 + 3?", "--dry-run", settings=to(sim))
    assert ended.status == 0, ended.err
    assert paths(sim) == ["/v1/models", COUNT]
    assert "5 tokens, counted by the provider" in ended.out
    assert "under 0.0001 USD at least, 0.0983 USD at most" in ended.out
    assert "The call would be sent." in ended.out
    assert (await kimi("runs", settings=to(sim))).out == "No run was recorded yet.\n"


async def test_least_and_most_are_those_of_the_price_list(sim: Simulator) -> None:
    for more, requests, written in (
        ({}, 1, 3.00),
        ({"KIMI_CACHE_TTL": "1h"}, 1, 6.00),
        ({"KIMI_CONTINUE": "auto"}, 4, 3.00),
    ):
        arguments = ("ask", "Why? " * 400, "--model", "kimi-k3", "--max-tokens", "20000", "--dry-run", "--json")
        found = (await kimi(*arguments, settings=to(sim, **more))).json
        prompts = found["prompt_tokens"] * requests + 20_000 * sum(range(requests))
        assert (found["counted_by"], found["max_tokens"], found["requests"]) == ("provider", 20_000, requests)
        assert found["least_usd"] == pytest.approx(found["prompt_tokens"] * 0.30e-6)
        assert found["most_usd"] == pytest.approx((prompts * written + 20_000 * requests * 15.00) / 1e6)
    assert CHAT_PATH not in paths(sim)


async def test_a_document_is_counted_without_being_uploaded(sim: Simulator, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("What was measured. " * 3))
    (tmp_path / "b.pdf").write_bytes(pdf(""))
    (tmp_path / "c.docx").write_bytes(office("docx", "What was agreed"))
    arguments = [each for name in ("a.pdf", "b.pdf", "c.docx") for each in ("--file", str(tmp_path / name))]
    found = (await kimi("ask", "Why?", *arguments, "--dry-run", "--json", settings=to(sim))).json
    assert found["uncounted"] == ["the text that the provider takes out of documents"]
    assert found["prompt_tokens"] > 20
    assert set(paths(sim)) <= {"/v1/models", COUNT}


@pytest.mark.parametrize(
    ("limits", "states", "status"),
    [
        ({"KIMI_BUDGET_USD_PER_CALL": "1"}, ["fits"], 0),
        ({"KIMI_BUDGET_USD_PER_CALL": "0.01", "KIMI_BUDGET_USD_PER_DAY": "1"}, ["may stop it", "fits"], 0),
        ({"KIMI_BUDGET_USD_PER_DAY": "0.0000001"}, ["refuses it"], 1),
    ],
)
async def test_each_spending_limit_is_held_against_it(
    sim: Simulator, limits: dict[str, str], states: list[str], status: int
) -> None:
    ended = await kimi("ask", "What is 2 + 3?", "--dry-run", "--json", settings=to(sim, **limits))
    assert [(limit["name"], limit["state"]) for limit in ended.json["limits"]] == list(zip(limits, states, strict=True))
    assert (ended.status, ended.json["fits"]) == (status, status == 0)
    real = await kimi("ask", "What is 2 + 3?", "--max-tokens", "16000", settings=to(sim, **limits))
    assert (CHAT_PATH in paths(sim)) == (status == 0), real.err


async def test_what_was_spent_today_counts(sim: Simulator) -> None:
    settings = to(sim, KIMI_BUDGET_USD_PER_DAY="1")
    assert (await kimi("ask", "What is 2 + 3?", settings=settings)).status == 0
    (limit,) = (await kimi("ask", "And 3 + 4?", "--dry-run", "--json", settings=settings)).json["limits"]
    assert limit["spent_usd"] == pytest.approx(sim.billed_usd)


async def test_an_answer_that_does_not_fit_into_the_context_is_seen_before(sim: Simulator) -> None:
    arguments = ("ask", "What is 2 + 3?", "--max-tokens", "262144", "--dry-run")
    ended = await kimi(*arguments, settings=to(sim))
    assert ended.status == 1
    assert "Too long for: prompt and answer in the 262,144 tokens of its context." in ended.out


async def test_what_refuses_the_call_refuses_the_dry_run(sim: Simulator) -> None:
    ended = await kimi("ask", "Look.", "--image", "none.png", "--dry-run", "--json", settings=to(sim))
    assert (ended.status, ended.json["fits"], ended.json["error"]["code"]) == (1, False, "path_refused")
    assert "none.png" in ended.err
    unknown = await kimi("ask", "Hi", "--model", "kimi-k9", "--dry-run", settings=to(sim))
    assert unknown.status == 2


@pytest.mark.parametrize(
    "broken", [Step(status=500), Step(body={"data": {}}), Step(html=True)], ids=["500", "0", "html"]
)
async def test_where_the_provider_does_not_count_it_is_estimated(sim: Simulator, broken: Step) -> None:
    sim.play(broken.model_copy(update={"match": Match(path=COUNT), "times": "always"}))
    found = (await kimi("ask", "What is 2 + 3?", "--dry-run", "--json", settings=to(sim))).json
    assert (found["fits"], found["counted_by"], found["prompt_tokens"]) == (True, "estimate", 4)


async def test_an_unknown_price_is_reported_and_limits_count_the_highest() -> None:
    async with Simulator(provider="vllm") as sim:
        settings = {"KIMI_PROVIDER": "vllm", "KIMI_BASE_URL": sim.base_url, "KIMI_BUDGET_USD_PER_CALL": "0.5"}
        found = (await kimi("ask", "What is 2 + 3?", "--dry-run", "--json", settings=settings)).json
        assert paths(sim) == ["/v1/models"]
    assert (found["counted_by"], found["least_usd"], found["most_usd"]) == ("estimate", None, None)
    assert [limit["state"] for limit in found["limits"]] == ["may stop it"]


async def test_pictures_count_and_stay_here(sim: Simulator) -> None:
    picture = str(Path(__file__).parents[3] / "examples/shot.png")
    found = (await kimi("ask", "Look.", "--image", picture, "--dry-run", "--json", settings=to(sim))).json
    assert found["prompt_tokens"] > 1_024
    assert "image" not in str(sim.requests[-1].body)


async def test_a_conversation_counts_and_is_left_as_it_was(sim: Simulator) -> None:
    first = (await kimi("ask", "Tell me of ships. " * 200, "--json", settings=to(sim))).json
    again = ("ask", "And boats?", "--conversation", first["conversation_id"])
    found = (await kimi(*again, "--dry-run", "--json", settings=to(sim))).json
    assert found["prompt_tokens"] > 900
    assert (await kimi(*again, settings=to(sim))).status == 0
    body: Any = sim.requests[-1].body
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("more", "limit", "state"),
    [((), 2.0, "fits"), (("--max-cost-usd", "0.5"), 0.5, "fits"), (("--max-cost-usd", "0.001"), 0.001, "refuses it")],
)
async def test_a_swarm_costs_its_limit_at_most(sim: Simulator, more: Any, limit: float, state: str) -> None:
    items = ("--item", "Rome", "--item", "Oslo")
    ended = await kimi("ask", "Tell me of {{item}}.", *items, *more, "--dry-run", "--json", settings=to(sim))
    found = ended.json
    assert found["most_usd"] == limit
    assert 0 < found["least_usd"] < 0.001
    assert [each["state"] for each in found["limits"]] == [state]
    assert ended.status == (state != "fits")
    assert CHAT_PATH not in paths(sim)


async def test_a_search_is_counted_with_all_of_its_requests_and_named_as_unknown(sim: Simulator) -> None:
    ended = await kimi("ask", "What does Kimi cost?", "--web", "--dry-run", "--json", settings=to(sim))
    assert ended.json["requests"] == 10
    assert ended.json["uncounted"] == ["what is searched for and read"]
    assert not [request for request in sim.requests if request.path.endswith(("/completions", "/fibers"))]
