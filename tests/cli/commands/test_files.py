"""``kimi-mcp files``: files at the provider are listed, and only ours are removed."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from kimi_mcp.cli.commands.files import is_older, show_files
from kimi_mcp.provider import RemoteFile
from kimi_mcp.simulator import Match, Simulator, Step
from tests.cli.commands.shell import kimi, to

SHOT = Path(__file__).resolve().parents[3] / "examples" / "shot.png"
OURS = f"kimi-mcp-{'0a' * 32}.png"
DAY = 86_400


async def left(sim: Simulator, *names: str) -> None:
    """Files that somebody uploaded."""
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        for name in names:
            answer = await client.post(
                f"{sim.base_url}/files", data={"purpose": "image"}, files={"file": (name, SHOT.read_bytes())}
            )
            assert answer.status_code == 200, answer.text


async def test_a_pipe_gets_a_line_for_each_file_with_whose_it_is(sim: Simulator) -> None:
    await left(sim, OURS, "holiday.png")
    ended = await kimi("files", settings=to(sim))
    assert ended.status == 0, ended.err
    head, ours, theirs = (line.split() for line in ended.out.splitlines())
    assert head == ["ID", "NAME", "BYTES", "PURPOSE", "CREATED", "OURS"]
    assert (ours[1], ours[2], ours[3], ours[-1]) == (OURS, f"{SHOT.stat().st_size:,}", "image", "yes")
    assert (theirs[1], theirs[-1]) == ("holiday.png", "no")


async def test_as_json_each_file_has_its_content_s_hash_where_we_know_it(sim: Simulator) -> None:
    await left(sim, OURS, "holiday.png")
    ended = await kimi("files", "list", "--json", settings=to(sim))
    ours, theirs = ended.json
    assert (ours["ours"], ours["sha256"], ours["size"]) == (True, "0a" * 32, SHOT.stat().st_size)
    assert (theirs["ours"], theirs["sha256"]) == (False, None)
    assert ours["created"].endswith("+00:00")


async def test_prune_removes_ours_alone_and_says_what(sim: Simulator) -> None:
    await left(sim, OURS, "holiday.png", f"kimi-mcp-{'0b' * 32}.mp4")
    ended = await kimi("files", "prune", settings=to(sim))
    assert ended.status == 0, ended.err
    assert OURS in ended.out
    assert "Removed 2 files at simulator" in ended.out.splitlines()[-1]
    there = await kimi("files", "--json", settings=to(sim))
    assert [file["name"] for file in there.json] == ["holiday.png"]


async def test_prune_leaves_what_is_not_old_enough(sim: Simulator) -> None:
    await left(sim, OURS)
    ended = await kimi("files", "prune", "--older-than-days", "1", "--json", settings=to(sim))
    assert (ended.status, ended.json) == (0, [])
    there = await kimi("files", "--json", settings=to(sim))
    assert len(there.json) == 1


async def test_what_ask_uploaded_is_reported_and_can_be_removed(sim: Simulator, tmp_path: Path) -> None:
    from PIL import Image

    large = tmp_path / "large.png"
    Image.new("RGB", (2000, 1500), "navy").save(large, compress_level=0)
    requested = await kimi("ask", "What?", "--image", str(large), settings=to(sim))
    assert requested.status == 0, requested.err
    pruned = await kimi("files", "prune", "--json", settings=to(sim))
    assert [file["size"] for file in pruned.json] == [large.stat().st_size]
    assert (await kimi("files", settings=to(sim))).out == "There is no file at simulator.\n"


async def test_a_removal_that_fails_is_reported_after_what_was_removed(sim: Simulator) -> None:
    await left(sim, OURS, f"kimi-mcp-{'0b' * 32}.png")
    sim.play(Step(match=Match(path="/v1/files/simfile-000002"), times="always", status=500))
    ended = await kimi("files", "prune", settings=to(sim))
    assert ended.status == 1
    assert "Removed 1 file at simulator" in ended.out
    assert ended.err.startswith("kimi-mcp: ")


async def test_a_provider_that_keeps_no_files_is_reported_to_keep_none() -> None:
    settings = {"KIMI_PROVIDER": "vllm", "KIMI_BASE_URL": "http://127.0.0.1:9/v1"}
    ended = await kimi("files", settings=settings)
    assert (ended.status, ended.out) == (1, "")
    assert "vllm takes no uploads" in ended.err
    assert "moonshot" in ended.err


async def test_a_provider_that_is_not_allowed_is_not_asked(sim: Simulator) -> None:
    ended = await kimi("files", "--provider", "moonshot", settings=to(sim, MOONSHOT_API_KEY="sk-not-for-this"))
    assert (ended.status, ended.out) == (1, "")
    assert "KIMI_ALLOWED_PROVIDERS" in ended.err


async def test_nobody_at_the_address_is_reported_in_a_sentence() -> None:
    async with Simulator() as sim:
        settings = to(sim)
    ended = await kimi("files", settings=settings)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("kimi-mcp: ")


@pytest.mark.parametrize("wrong", [["files", "drop"], ["files", "prune", "--older-than-days", "-1"]])
async def test_wrong_usage_ends_with_status_2(wrong: list[str]) -> None:
    assert (await kimi(*wrong)).status == 2


@pytest.mark.parametrize(("age", "days", "older"), [(2.5, 2, True), (1.5, 2, False), (0, 0, True), (9, None, True)])
def test_age_is_counted_from_the_upload(age: float, days: int | None, older: bool) -> None:
    now = 1_800_000_000
    assert is_older(remote(created=int(now - age * DAY)), days, now) is older


def test_a_file_without_a_date_is_never_older() -> None:
    assert not is_older(remote(created=0), 1, 1_800_000_000)
    assert is_older(remote(created=0), None, 1_800_000_000)


def test_a_foreign_name_breaks_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_files("simulator", [remote(name="ok|two\nlines\x1b[2J", identity="quiet|a b")], None)
    head, line = capsys.readouterr().out.splitlines()
    assert head.startswith("ID")
    assert "ok|two lines[2J" in line
    assert "quiet|a b" in line


def remote(name: str = OURS, identity: str = "f-1", created: int = 1) -> RemoteFile:
    return RemoteFile(id=identity, name=name, size=3, purpose="image", created=created)
