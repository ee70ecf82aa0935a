"""``kimi-mcp doctor``: right where a call would work, and a fix where none would."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.simulator import Simulator, Step
from kimi_mcp.simulator.faults import Match
from tests.cli.commands.shell import kimi, to

KEY = "sk-5up3r-s3cr3t-k3y"


def findings(diagnosis: Any, state: str) -> str:
    return "\n".join(
        f"{check['about']}: {check['message']} {check['fix'] or ''}"
        for check in diagnosis["checks"]
        if check["state"] == state
    )


async def test_without_a_key_no_call_would_work_and_the_variables_are_named() -> None:
    ended = await kimi("doctor")
    assert ended.status == 1
    for name in ("MOONSHOT_API_KEY", "NVIDIA_API_KEY", "HF_TOKEN", "KIMI_BASE_URL"):
        assert name in ended.out
    assert "No call would work" in ended.out


async def test_with_a_simulator_a_call_would_work(sim: Simulator) -> None:
    ended = await kimi("doctor", settings=to(sim))
    assert ended.status == 0, ended.out
    assert "A call would work: kimi-k2.5 at simulator." in ended.out
    assert [request.path for request in sim.requests] == ["/v1/models"], "nothing was spent"


async def test_a_probe_holds_the_provider_against_the_catalogue(sim: Simulator) -> None:
    ended = await kimi("doctor", "--probe", "--json", settings=to(sim))
    assert ended.status == 0, ended.out
    diagnosis = ended.json
    assert (diagnosis["works"], diagnosis["provider"], diagnosis["model"]) == (True, "simulator", "kimi-k2.5")
    assert [probe["mode"] for probe in diagnosis["probes"]] == ["thinking", "instant"]
    assert [probe["reasoning_field"] for probe in diagnosis["probes"]] == ["reasoning_content", None]
    assert all(probe["usage"] and probe["model"] == "kimi-k2.5" for probe in diagnosis["probes"])


async def test_a_probe_notices_another_model_and_lost_reasoning(sim: Simulator) -> None:
    sim.play(Step(times="always", answer_model="kimi-k3", lose_reasoning=True, usage="missing"))
    ended = await kimi("doctor", "--probe", "--json", settings=to(sim))
    warned = findings(ended.json, "warn")
    assert "kimi-k3" in warned
    assert "reasoning" in warned
    assert "usage" in warned


async def test_a_probe_that_fails_means_that_no_call_would_work(sim: Simulator) -> None:
    sim.play(Step(times="always", status=401))
    ended = await kimi("doctor", "--probe", settings=to(sim))
    assert ended.status == 1


async def test_a_key_of_the_other_platform_is_distinguished_from_a_wrong_one() -> None:
    async with Simulator(provider="moonshot", require_key="sk-of-this-platform") as sim:
        settings = {"KIMI_PROVIDER": "moonshot", "KIMI_BASE_URL": sim.base_url, "MOONSHOT_API_KEY": KEY}
        ended = await kimi("doctor", "--json", settings=settings)
    assert ended.status == 1
    assert "KIMI_PROVIDER=moonshot-cn" in findings(ended.json, "bad")
    assert KEY not in ended.out + ended.err


@pytest.mark.parametrize("form", [("doctor",), ("doctor", "--json"), ("doctor", "--probe")])
async def test_a_key_is_never_shown_wherever_it_was_put(form: tuple[str, ...], sim: Simulator) -> None:
    sim.play(Step(times="always", status=400, echo_key=True))
    wrongly = {"KIMI_ALLOWED_PROVIDERS": KEY, "KIMI_MODEL": KEY, "NVIDIA_API_KEY": KEY, "KIMI_API_KEY": KEY}
    ended = await kimi(*form, settings=to(sim, **wrongly))
    assert ended.status == 1
    assert not any(KEY[start : start + 8] in ended.out + ended.err for start in range(len(KEY) - 8))


async def test_what_cannot_be_read_is_named_with_its_fix(sim: Simulator) -> None:
    ended = await kimi("doctor", "--json", settings=to(sim, KIMI_IDLE_TIMEOUT_S="soon", KIMI_MODEL="${MODEL}"))
    assert ended.status == 1
    states = {row["name"]: row["state"] for row in ended.json["variables"]}
    assert (states["KIMI_IDLE_TIMEOUT_S"], states["KIMI_MODEL"]) == ("unreadable", "unexpanded")
    assert (states["KIMI_PROVIDER"], states["HF_TOKEN"]) == ("set", "unset")
    assert "KIMI_IDLE_TIMEOUT_S" in findings(ended.json, "bad")
    assert "KIMI_MODEL" in findings(ended.json, "warn")


async def test_a_borrowed_key_is_reported_as_one() -> None:
    async with Simulator(provider="nim") as sim:
        settings = {"KIMI_PROVIDER": "nim", "KIMI_BASE_URL": sim.base_url, "HF_TOKEN": KEY}
        ended = await kimi("doctor", "--json", settings=settings)
    assert ended.json["key_variable"] == "HF_TOKEN"
    assert "HF_TOKEN" in findings(ended.json, "warn")


async def test_a_key_that_stays_here_is_pointed_out(sim: Simulator) -> None:
    settings = {"KIMI_BASE_URL": sim.base_url, "MOONSHOT_API_KEY": KEY}
    ended = await kimi("doctor", "--json", settings=settings)
    assert (ended.json["provider"], ended.json["key_variable"]) == ("vllm", None)
    assert "MOONSHOT_API_KEY is set, but stays here" in findings(ended.json, "warn")


async def test_the_console_is_not_taken_for_the_api() -> None:
    settings = {"MOONSHOT_API_KEY": KEY, "KIMI_BASE_URL": "https://platform.moonshot.ai/v1"}
    ended = await kimi("doctor", "--json", settings=settings)
    assert ended.status == 1
    assert "https://api.moonshot.ai/v1" in findings(ended.json, "bad")


async def test_nobody_at_the_address_means_that_no_call_would_work() -> None:
    async with Simulator() as sim:
        closed = sim.base_url
    ended = await kimi("doctor", "--json", settings={"KIMI_BASE_URL": closed})
    assert ended.status == 1
    assert "reach: Nobody answers" in findings(ended.json, "bad")


# ── the store ───────────────────────────────────────────────────────────────────────────────────────────────────

FILE = "journal.sqlite3"


def looked_at(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, byte for byte."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def examined(sim: Simulator, **settings: str) -> Any:
    """A diagnosis of a provider that would answer."""
    return (await kimi("doctor", "--json", settings=to(sim, **settings))).json


async def test_a_journal_that_is_not_there_yet_is_not_begun(sim: Simulator, data_dir: Path) -> None:
    diagnosis = await examined(sim)
    assert diagnosis["works"]
    assert diagnosis["journal"] == {
        "kept": True,
        "folder": str(data_dir),
        "there": False,
        "bytes": 0,
        "runs": None,
        "opens": True,
    }
    assert f"The first call creates the store in {data_dir}" in findings(diagnosis, "ok")
    assert not data_dir.exists()


@pytest.mark.parametrize("open_elsewhere", [False, True])
async def test_a_journal_is_counted_and_left_as_it_is(sim: Simulator, data_dir: Path, open_elsewhere: bool) -> None:
    await kimi("ask", "hi", settings=to(sim))
    await kimi("ask", "hi again", settings=to(sim))
    other = RunStore(data_dir)
    if open_elsewhere:
        await other.overview(None, most=1)
    before = looked_at(data_dir)
    diagnosis = await examined(sim)
    assert {**looked_at(data_dir), f"{FILE}-shm": b""} == {**before, f"{FILE}-shm": b""}, "but for who reads just now"
    await other.aclose()
    assert (diagnosis["works"], diagnosis["journal"]["runs"], diagnosis["journal"]["opens"]) == (True, 2, True)
    assert diagnosis["journal"]["bytes"] > 4096
    assert "The store opens: 2 runs" in findings(diagnosis, "ok")


async def test_a_damaged_journal_is_bad_and_left_where_it_is(sim: Simulator, data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / FILE).write_bytes(b"no database at all" * 1000)
    diagnosis = await examined(sim)
    assert not diagnosis["works"]
    assert "The store is damaged" in findings(diagnosis, "bad")
    assert str(data_dir) in findings(diagnosis, "unknown")
    assert looked_at(data_dir) == {FILE: b"no database at all" * 1000}


async def test_a_page_that_was_torn_out_of_the_journal_is_noticed(sim: Simulator, data_dir: Path) -> None:
    await kimi("ask", "hi", settings=to(sim))
    whole = (data_dir / FILE).read_bytes()
    (data_dir / FILE).write_bytes(whole[:8192] + b"\xff" * 8192 + whole[16384:])
    assert "The store is damaged" in findings(await examined(sim), "bad")


async def test_a_journal_of_a_newer_version_is_bad(sim: Simulator, data_dir: Path) -> None:
    await kimi("ask", "hi", settings=to(sim))
    with sqlite3.connect(data_dir / FILE) as connection:
        connection.execute("UPDATE about SET value = '99' WHERE name = 'version'")
    connection.close()
    diagnosis = await examined(sim)
    assert not diagnosis["works"]
    assert "Update kimi-mcp" in findings(diagnosis, "bad")


async def test_a_folder_that_cannot_be_is_bad_and_its_variable_named(sim: Simulator, data_dir: Path) -> None:
    data_dir.write_text("a file")
    diagnosis = await examined(sim, KIMI_DATA_DIR=str(data_dir / "below"))
    assert not diagnosis["works"]
    assert "KIMI_DATA_DIR" in findings(diagnosis, "bad")


async def test_without_a_journal_that_is_reported(sim: Simulator) -> None:
    diagnosis = await examined(sim, KIMI_JOURNAL="off")
    assert diagnosis["works"]
    assert (diagnosis["journal"]["kept"], diagnosis["journal"]["opens"]) == (False, False)
    assert "KIMI_JOURNAL is off" in findings(diagnosis, "ok")


async def test_a_database_elsewhere_is_looked_at_and_its_password_not_shown(sim: Simulator, tmp_path: Path) -> None:
    elsewhere = {"KIMI_DATABASE_URL": f"sqlite:///{tmp_path / 'runs.sqlite3'}"}
    assert (await examined(sim, **elsewhere))["works"]
    assert not (tmp_path / "runs.sqlite3").exists(), "to look makes nothing"
    await kimi("ask", "hi", settings=to(sim, **elsewhere))
    assert (await examined(sim, **elsewhere))["journal"]["runs"] == 1
    wrong = await kimi("doctor", settings=to(sim, KIMI_DATABASE_URL="postgresql+nothing://me:s3cr3t-w0rd@host/db"))
    assert wrong.status == 1
    assert "KIMI_DATABASE_URL" in wrong.out
    assert "s3cr3t-w0rd" not in wrong.out + wrong.err


async def test_certificates_that_are_not_there_are_bad_and_their_variable_named(tmp_path: Path) -> None:
    requested = {"KIMI_PROVIDER": "moonshot", "MOONSHOT_API_KEY": KEY, "SSL_CERT_FILE": str(tmp_path / "none.pem")}
    ended = await kimi("doctor", "--json", settings=requested)
    assert ended.status == 1, ended.err
    assert "reach: What SSL_CERT_FILE names can't be read" in findings(ended.json, "bad")


@pytest.mark.parametrize(("cash", "state"), [(3.0, "ok"), (-1.0, "bad")])
async def test_a_probe_shows_what_the_account_has_left(sim: Simulator, cash: float, state: str) -> None:
    money = {"available_balance": max(0.0, cash), "voucher_balance": 0, "cash_balance": cash}
    sim.play(Step(match=Match(path="/v1/users/me/balance"), body={"code": 0, "data": money, "status": True}))
    ended = await kimi("doctor", "--probe", "--json", settings=to(sim))
    left = max(0.0, cash)
    assert ended.json["balance"] == {"currency": "USD", "available": left, "vouchers": 0.0, "cash": cash}
    assert f"The account has {left:.2f} USD left: 0.00 in vouchers and {cash:.2f} in cash." in findings(
        ended.json, state
    )
    assert ended.json["works"] == (state == "ok")


@pytest.mark.parametrize("body", [{"data": None}, {"data": {"available_balance": "many"}}, [], "<html>"])
async def test_a_balance_that_can_not_be_read_changes_nothing(sim: Simulator, body: Any) -> None:
    sim.play(Step(match=Match(path="/v1/users/me/balance"), body=body))
    ended = await kimi("doctor", "--probe", "--json", settings=to(sim))
    assert (ended.json["balance"], ended.json["works"]) == (None, True)
    assert "What the account has left is not known" in findings(ended.json, "unknown")
