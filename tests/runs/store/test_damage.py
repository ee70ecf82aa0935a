"""Damaged files of the store: kept aside once, what is whole is read, and what was removed is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimi_mcp.core.errors import NotConfigured, RunNotFound
from kimi_mcp.core.types import user
from kimi_mcp.runs.store import queries
from kimi_mcp.runs.store.config import FILE
from tests.runs.store.stores import CALLER, begin, end, everything, latest, opened, run_store, wrong


@pytest.mark.parametrize("where", ["header", "middle", "no database at all"])
async def test_a_damaged_file_is_kept_aside_and_a_new_one_begun(tmp_path: Path, where: str) -> None:
    async with run_store(tmp_path) as kept:
        for number in range(50):
            await begin(kept, f"run_{number}", request={"turns": ["a precious word " * 200]})
    file = tmp_path / FILE
    damaged = bytearray(file.read_bytes())
    match where:
        case "header":
            damaged[:64] = b"\xff" * 64
        case "middle":
            damaged[4096:] = b"\xff" * len(damaged[4096:])
        case _:
            damaged = bytearray(b"Dear diary, today a precious word was spoken. " * 1000)
    file.write_bytes(damaged)
    async with run_store(tmp_path) as kept:
        with pytest.raises(NotConfigured) as refused:
            await begin(kept, "run_new")
        assert "damaged" in wrong(refused.value)
        await begin(kept, "run_new")
        assert [record.id for record in await latest(kept)] == ["run_new"]
    (aside,) = [found for found in tmp_path.glob(f"{FILE}.damaged-*") if not found.name.endswith(("-wal", "-shm"))]
    assert aside.name in wrong(refused.value)
    assert aside.read_bytes() == bytes(damaged)


@pytest.mark.parametrize(
    ("before", "bit"),
    [
        (b"CREATE TABLE runs (\n\tid TEXT NOT NULL, \n\tc", 0),  # a column is called otherwise
        (b"provider TEXT, \n\tcounted_usd FLOAT NOT NULL, \n\t", 7),  # and SQLite's message of it is no text
        (b"CREATE TABLE about (\n\t", 1),
        (b"CREATE TABLE ab", 1),
        (b"tableabout", -2),  # a table is called otherwise
        (b"CREATE TABLE conversations (", 7),
        (b"CREATE INDEX runs_by", 7),
        (b"sqlite_autoindex_c", 7),
        (b"CREATE TABLE", 6),
    ],
)
async def test_a_bit_of_the_schema_that_flipped_is_damage_like_any_other(
    tmp_path: Path, before: bytes, bit: int
) -> None:
    async with run_store(tmp_path) as kept:
        await begin(kept)
    file = tmp_path / FILE
    damaged = bytearray(file.read_bytes())
    at = damaged.index(before) + (len(before) if bit >= 0 else -1 + len(before))
    damaged[at] ^= 1 << abs(bit)
    file.write_bytes(damaged)
    async with run_store(tmp_path) as kept:
        with pytest.raises(NotConfigured, match="damaged"):
            await begin(kept, "run_new")
        await begin(kept, "run_new")
        assert [record.id for record in await latest(kept)] == ["run_new"]
    (aside,) = tmp_path.glob(f"{FILE}.damaged-*")
    assert aside.read_bytes()[100:] == bytes(damaged[100:]), "but for SQLite's own header"


@pytest.mark.parametrize("column", ["prompt_head", "host", "request", "outcome", "turns", "answer"])
@pytest.mark.parametrize("damaged", [b"\xff\xfe", b"{", b"[]", b"null"])
async def test_a_run_of_which_a_part_is_damaged_hides_no_other(tmp_path: Path, column: str, damaged: bytes) -> None:
    async with run_store(tmp_path) as kept:
        for run_id in ("run_1", "run_2"):
            await begin(kept, run_id)
            await end(kept, run_id, turns=[user("hi")])
        with opened(tmp_path) as file:
            file.execute(f"UPDATE runs SET {column} = CAST(? AS TEXT) WHERE id = 'run_1'", [damaged])
        assert {record.id for record in await kept.overview(CALLER)} == {"run_1", "run_2"}
        assert {record.id for record in await latest(kept)} == {"run_1", "run_2"}
        found = await kept.find("run_1", CALLER)
        assert found is not None
        assert found.outcome.status == "completed"
        assert column == "answer" or found.outcome.answer == "It is 391."
        assert (await kept.read(queries.totals, kept.now())).runs == 2
        if column == "turns" and damaged not in (b"[]", b"null"):
            with pytest.raises(RunNotFound):
                await kept.history("run_1")
        assert await kept.history("run_2") == (user("hi"),)
    assert not list(tmp_path.glob("*.damaged-*"))


@pytest.mark.parametrize("made_by", ["this version", "an older one"])
async def test_what_is_removed_is_overwritten_and_given_back_to_the_disk(tmp_path: Path, made_by: str) -> None:
    word = "a precious word "
    if made_by == "an older one":
        async with run_store(tmp_path) as kept:
            await begin(kept, "run_old")
        with opened(tmp_path) as file:
            file.execute("PRAGMA auto_vacuum = NONE")
            file.execute("VACUUM")
            assert file.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    async with run_store(tmp_path) as kept:
        for number in range(100):
            await begin(kept, f"run_{number}")
            await end(kept, f"run_{number}", answer=word * 5_000)
        with opened(tmp_path) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        full = (tmp_path / FILE).stat().st_size
        assert len(await kept.prune(-1)) >= 100
    left = everything(tmp_path)
    assert word.encode() not in left
    assert len(left) < full / 4


async def test_two_servers_that_find_a_damaged_file_keep_it_aside_once(tmp_path: Path) -> None:
    async with run_store(tmp_path) as one, run_store(tmp_path) as other:
        await begin(one, "run_1")
        await begin(other, "run_2")
        assert len(await latest(one)) == 2
        with opened(tmp_path) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        content = (tmp_path / FILE).read_bytes()
        (tmp_path / FILE).write_bytes(b"\xff" * len(content))
        with pytest.raises(NotConfigured):
            await begin(one, "run_3")
        await begin(one, "run_3")
        await begin(other, "run_4")
        ids = {record.id for record in await latest(other)}
        assert ids == {"run_3", "run_4"}, "both go on with the new one"
        assert {record.id for record in await latest(one)} == ids
    assert len(list(tmp_path.glob(f"{FILE}.damaged-*"))) - len(list(tmp_path.glob("*.damaged-*-[ws]*"))) == 1


async def test_two_damaged_files_in_one_second_are_both_kept(tmp_path: Path) -> None:
    for _ in range(3):
        tmp_path.joinpath(FILE).write_bytes(b"no database, but somebody's " * 100)
        async with run_store(tmp_path) as kept:
            with pytest.raises(NotConfigured):
                await begin(kept)
    assert len(list(tmp_path.glob("*.damaged-*"))) == 3
