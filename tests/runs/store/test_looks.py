"""Looks at agents: what arrives is written while somebody looks, a bounded piece of it, and nothing else is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa

from kimi_mcp.core.redaction import hide
from kimi_mcp.runs.store import running_steps
from kimi_mcp.runs.store.looks import KEPT_S, LOOK_S, MOST_CHARS, TextEnd, looked_at, texts_of
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.runs.store.tables import looks
from tests.runs.store.stores import begin, end, opened, run_store

KEY = "agent-1/step-1"


class Stores:
    """A server that makes a step, and the page of another process; both on one store."""

    def __init__(self, server: RunStore, page: RunStore) -> None:
        self.server, self.page = server, page
        self.texts: tuple[str, str] = "", ""
        self.calls = 0
        self._agents = set[str]()

    async def look(self, agent: str = "agent-1") -> None:
        """Look at an agent from here on."""
        self._agents.add(agent)
        await self.page.look_at("run_1", agent)

    @contextmanager
    def step(self, key: str = KEY) -> Iterator[None]:
        """A step of the server's run."""

        def texts() -> tuple[str, str]:
            self.calls += 1
            return self.texts

        with self.server.running_steps.running("run_1", key, texts):
            yield

    async def rows(self) -> list[tuple[str, str | None, str | None]]:
        """What is stored: the agent, the step, its answer."""
        found = sa.select(looks.c.agent, looks.c.step, looks.c.answer)
        return [tuple(row) for row in await self.page.read(lambda connection: connection.execute(found).all())]

    async def until(self, *rows: tuple[str, str | None, str | None]) -> None:
        """Return once that is what is stored; whoever looks goes on looking, and the server looks as servers do."""
        with anyio.fail_after(60):
            while await self.rows() != [*rows]:
                for agent in self._agents:
                    await self.look(agent)
                await self.server.cancel_requests()
                await anyio.sleep(0.005)


@pytest.fixture(params=["SQLite", "PostgreSQL"])
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stores]:
    monkeypatch.setattr(running_steps, "WRITE_EVERY_S", 0.01)
    url = None if request.param == "SQLite" else request.getfixturevalue("database_url")
    async with run_store(tmp_path, url=url) as server, run_store(tmp_path, url=url) as page:
        await begin(server)
        yield Stores(server, page)


async def test_what_arrives_is_written_while_somebody_looks_until_the_step_ends(stores: Stores) -> None:
    with stores.step():
        stores.texts = "Hm.", "It is"
        await stores.look()
        await stores.until(("agent-1", KEY, "It is"))
        found = await stores.page.read(texts_of, "run_1", ["agent-1", "agent-2"])
        assert found["agent-1"].reasoning == (0, "Hm.")
        stores.texts = "Hm.", "It is 391."
        await stores.until(("agent-1", KEY, "It is 391."))
    await stores.until(("agent-1", None, None))
    with stores.step("agent-1/step-2"):
        stores.texts = "", "Once more."
        await stores.until(("agent-1", "agent-1/step-2", "Once more."))


async def test_a_look_is_heard_in_postgresql_without_looking_for_it(tmp_path: Path, database_url: str) -> None:
    async with run_store(tmp_path, url=database_url) as server, run_store(tmp_path, url=database_url) as page:
        await begin(server)
        both = Stores(server, page)
        with both.step(), anyio.fail_after(60):
            both.texts = "", "It is"
            while await both.rows() != [("agent-1", KEY, "It is")]:
                await page.look_at("run_1", "agent-1")
                await anyio.sleep(0.01)


async def test_of_agents_that_nobody_looks_at_nothing_is_read_and_nothing_written(stores: Stores) -> None:
    stores.texts = "", "It is"
    async with AsyncExitStack() as steps:
        for number in range(1, 4):
            steps.enter_context(stores.step(f"agent-{number}/step-1"))
        await stores.server.cancel_requests()
        assert (await stores.rows(), stores.calls) == ([], 0)
        await stores.look("agent-2")
        await stores.until(("agent-2", "agent-2/step-1", "It is"))


async def test_a_long_text_is_written_from_its_end_with_the_place_where_that_begins(stores: Stores) -> None:
    stores.texts = "r" * 30_000, "a" * MOST_CHARS
    with stores.step():
        await stores.look()
        await stores.until(("agent-1", KEY, "a" * MOST_CHARS))
        found = (await stores.page.read(texts_of, "run_1", ["agent-1"]))["agent-1"]
    assert found.reasoning == (30_000 - MOST_CHARS, "r" * MOST_CHARS)
    assert found.answer.start == 0


async def test_no_key_is_written_and_no_half_of_one(stores: Stores) -> None:
    key = "sk-Qk3p9Zl2mXw8Rt5vYb7"
    hide(key)
    with stores.step():
        stores.texts = "", f"It is {key[:12]}"
        await stores.look()
        await stores.until(("agent-1", KEY, "It is "))
        stores.texts = "", f"It is {key}, I think."
        await stores.until(("agent-1", KEY, "It is [hidden], I think."))


async def test_a_look_is_over_by_the_clock_unless_it_is_renewed(tmp_path: Path) -> None:
    now = [1_000_000.0]
    async with run_store(tmp_path, wall=lambda: now[0]) as kept:
        await begin(kept)
        await kept.look_at("run_1", "agent-1")
        now[0] += LOOK_S - 1
        await kept.look_at("run_1", "agent-2")
        assert await kept.read(looked_at, now[0]) == {("run_1", "agent-1"), ("run_1", "agent-2")}
        await kept.look_at("run_1", "agent-1")
        now[0] += LOOK_S - 1
        await kept.look_at("run_1", "agent-1")
        now[0] += 2
        assert await kept.read(looked_at, now[0]) == {("run_1", "agent-1")}
        now[0] += KEPT_S + LOOK_S
        await kept.look_at("run_1", "agent-3")
        assert [row[0] for row in await Stores(kept, kept).rows()] == ["agent-3"], "those before are long over"


async def test_looks_go_with_their_swarm_and_nobody_looks_at_what_does_not_run(stores: Stores) -> None:
    await stores.page.look_at("run_1", "agent-1")
    await stores.page.look_at("run_2", "agent-1")
    assert [row[0] for row in await stores.rows()] == ["agent-1"]
    await end(stores.server, swarm={"agents": []})
    await stores.page.look_at("run_1", "agent-1")
    assert await stores.rows() == []


async def test_retention_removes_looks_that_were_left(tmp_path: Path) -> None:
    async with run_store(tmp_path) as kept:
        await begin(kept)
        await kept.look_at("run_1", "agent-1")
        await end(kept, "run_1", "failed")
        assert len(await Stores(kept, kept).rows()) == 1
        await kept.prune(0)
        assert await Stores(kept, kept).rows() == []


async def test_a_file_of_the_version_before_gets_a_place_for_looks(tmp_path: Path) -> None:
    async with run_store(tmp_path) as kept:
        await begin(kept)
    with opened(tmp_path) as file:
        file.execute("DROP TABLE looks")
        file.execute("UPDATE about SET value = '2' WHERE name = 'revision'")
    async with run_store(tmp_path) as kept:
        await begin(kept, "run_2")
        await kept.look_at("run_2", "agent-1")
        assert len(await Stores(kept, kept).rows()) == 1


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ((0, ""), (0, "ab"), (0, "ab")),
        ((0, "ab"), (0, "abc"), (2, "c")),
        ((0, "abcd"), (2, "cdef"), (4, "ef")),
        ((2, "cd"), (2, "cd"), (4, "")),
        ((0, "ab"), (5, "fg"), (5, "fg")),
        ((0, "ab"), (0, "x"), (0, "x")),
        ((3, "de"), (0, "abc"), (0, "abc")),
    ],
)
def test_what_is_new_comes_behind_what_is_known_or_is_all_of_it(
    before: tuple[int, str], now: tuple[int, str], new: tuple[int, str]
) -> None:
    assert TextEnd(*now).since(TextEnd(*before)) == new
