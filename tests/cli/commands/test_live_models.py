"""``kimi-mcp models --live``: what providers list now, beside the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.simulator import Simulator, Step
from kimi_mcp.simulator.faults import Match
from tests.cli.commands.shell import Ended, kimi, to

KEY = "sk-5up3r-s3cr3t-k3y"
MODELS = Match(path="/v1/models")


def listing(*ids: str) -> Step:
    body = {"object": "list", "data": [{"id": id, "object": "model"} for id in ids]}
    return Step(match=MODELS, times="always", body=body)


def states(ended: Ended, number: int = 0) -> dict[str, tuple[str, str]]:
    """For each model of one provider its state live and in the catalogue."""
    return {row["id"]: (row["live"], row["catalogue"]) for row in ended.json[number]["models"]}


async def test_what_a_provider_lists_is_compared_and_nothing_else_is_sent() -> None:
    async with Simulator(provider="moonshot") as sim:
        sim.play(listing("kimi-k3", "kimi-k2.5", "kimi-k4", "moonshot-v1-8k"))
        settings = {"KIMI_PROVIDER": "moonshot", "KIMI_BASE_URL": sim.base_url, "MOONSHOT_API_KEY": KEY}
        ended = await kimi("models", "--live", "--json", settings=settings)
        assert [(request.method, request.path) for request in sim.requests] == [("GET", "/v1/models")]
        table = await kimi("models", "--live", settings=settings)
    assert ended.status == 0, ended.err
    found = states(ended)
    assert found["kimi-k3"] == ("same", "served")
    assert found["kimi-k2.5"] == ("new", "ended 2026-08-31")
    assert found["kimi-k4"] == ("new", "not listed")
    assert found["kimi-k3.1-pro"] == ("gone", "served")
    assert "moonshot-v1-8k" not in found
    assert ended.json[0]["others"] == 1
    assert {tuple(line.split()[1:2]) for line in table.out.splitlines()[1:]} == {("same",), ("new",), ("gone",)}


async def test_an_engine_of_ones_own_has_nothing_gone_and_all_that_it_lists_new() -> None:
    async with Simulator(provider="vllm") as sim:
        sim.play(listing("moonshotai/Kimi-K2.5", "my-kimi"))
        settings = {"KIMI_PROVIDER": "vllm", "KIMI_BASE_URL": sim.base_url}
        ended = await kimi("models", "--live", "--json", settings=settings)
    assert {id: live for id, (live, _) in states(ended).items()} == {"moonshotai/Kimi-K2.5": "same", "my-kimi": "new"}


async def test_a_provider_that_lists_what_it_retired_has_nothing_new_by_that() -> None:
    async with Simulator(provider="nim") as sim:
        settings = {"KIMI_PROVIDER": "nim", "KIMI_BASE_URL": sim.base_url, "NVIDIA_API_KEY": KEY}
        ended = await kimi("models", "--live", "--json", "--model", "kimi-k2.6", settings=settings)
    assert states(ended) == {"moonshotai/kimi-k2.6": ("same", "ended 2026-07-07")}


@pytest.mark.parametrize("wide", [True, False])
async def test_each_provider_is_asked_with_its_own_key_and_one_that_fails_says_why(
    sim: Simulator, tmp_path: Path, wide: bool
) -> None:
    async with Simulator(provider="together") as other:
        other.play(Step(match=MODELS, times="always", status=401, echo_key=True))
        (tmp_path / "providers").mkdir()
        (tmp_path / "providers/acme.toml").write_text(
            f'inherits = "together"\n[about]\nname = "Acme"\nbase_url = "{other.base_url}"\n'
            '[key]\nneeded = true\nvariables = ["ACME_API_KEY"]\n'
            '[[models]]\nmodel = "kimi-k3"\nwire_id = "k3"\nprice = "unknown"\n'
        )
        more: dict[str, Any] = {"KIMI_ALLOWED_PROVIDERS": "acme"} if wide else {}
        settings = to(sim, KIMI_CATALOGUE=str(tmp_path), ACME_API_KEY=KEY, **more)
        ended = await kimi("models", "--live", settings=settings)
        keys = [request.headers.get("authorization") for request in (*sim.requests, *other.requests)]
    assert "simulator  same  served     kimi-k3" in ended.out
    if wide:
        assert (ended.status, keys) == (1, [None, f"Bearer {KEY}"])
        assert "acme: " in ended.err
        assert "Set ACME_API_KEY" in ended.err
        assert KEY not in ended.err
    else:  # an added provider is used where it is named, not for its key alone
        assert (ended.status, keys, ended.err) == (0, [None], "")


async def test_without_a_provider_it_says_what_to_set() -> None:
    ended = await kimi("models", "--live")
    assert ended.status == 1
    assert "MOONSHOT_API_KEY for moonshot" in ended.err
