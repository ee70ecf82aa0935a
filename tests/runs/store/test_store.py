"""A run's record through its life: begun, extended, ended, and read by others, whatever is cut off in between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection, Engine, event

from kimi_mcp.core.errors import AnswerCutOff, BudgetExceeded, NotConfigured
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.runs.store.day_limits import DayLimit
from kimi_mcp.runs.store.records import RunEnd, TextDelta
from kimi_mcp.runs.store.store import RunStore
from tests.runs.store.stores import CALLER, begin, end, ended, entry, grow, latest, opened, run_end, run_store


@pytest.fixture(params=["on disk", "in memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Both kinds of journal hold the same."""
    return tmp_path / "data" if request.param == "on disk" else None


async def test_a_run_that_was_refused_for_its_cost_spoils_nothing(folder: Path | None) -> None:
    async with run_store(folder) as kept:
        await begin(kept)
        with pytest.raises(BudgetExceeded):
            await kept.record(
                entry("run_2"), counted_usd=2.0, limits=[DayLimit(usd=1.0, variable="KIMI_BUDGET_USD_PER_DAY")]
            )
        found = await kept.find("run_1", CALLER)
        assert found is not None, "what was there before is still there"
        await end(kept)
        await begin(kept, "run_3")
        assert [record.id for record in await latest(kept)] == ["run_1", "run_3"]


async def test_a_run_that_is_begun_twice_is_one_run(folder: Path | None) -> None:
    async with run_store(folder) as kept:
        await begin(kept)
        await begin(kept, conversation_id="conv_1")
        (record,) = await latest(kept)
        assert record.conversation_id == "conv_1"


async def refuse(kept: RunStore, run_id: str, conversation_id: str) -> None:
    """End a run that was refused before anything was sent."""
    outcome = Outcome(status="failed")
    await kept.end(RunEnd(run_id=run_id, outcome=outcome, ended_at=kept.now(), conversation_id=conversation_id))


async def test_a_refused_run_takes_a_conversation_away_only_where_nobody_else_is_in_it(folder: Path | None) -> None:
    async with run_store(folder) as kept:
        await begin(kept, "run_1", conversation_id="conv_1")
        await end(kept, "run_1", "failed")
        await begin(kept, "run_2", conversation_id="conv_1")
        await refuse(kept, "run_2", "conv_1")
        assert await kept.conversation("conv_1") is not None, "run_1's result named it"
        await begin(kept, "run_3", conversation_id="conv_3")
        await refuse(kept, "run_3", "conv_3")
        assert await kept.conversation("conv_3") is None


async def test_what_arrives_is_read_back_whole(folder: Path | None) -> None:
    async with run_store(folder) as kept:
        await begin(kept)
        assert not await grow(kept, "run_1", ("reasoning", 0, "Hm, "), ("answer", 0, "It "))
        assert not await grow(kept, "run_1", ("answer", 3, "is 391."), ("reasoning", 4, "你好 🌍\0"))
        found = await kept.find("run_1", CALLER)
        assert found is not None
        assert found.outcome.answer == "It is 391."
        assert found.outcome.reasoning == "Hm, 你好 🌍\0"


async def test_of_several_requests_the_latest_that_brought_an_answer_is_shown(folder: Path | None) -> None:
    async with run_store(folder) as kept:
        await begin(kept)
        for request, of, text in ((0, "answer", "first"), (1, "answer", "second"), (2, "reasoning", "Hm.")):
            await kept.append([TextDelta(run_id="run_1", request=request, of=of, start=0, text=text)], {})
        found = await kept.find("run_1", CALLER)
        assert found is not None
        assert found.outcome.answer == "second"


async def test_text_with_a_hole_in_it_is_shown_up_to_the_hole(folder: Path | None) -> None:
    async with run_store(folder) as kept:
        await begin(kept)
        await grow(kept, "run_1", ("answer", 0, "It is "), ("answer", 9, ", says the model."))
        found = await kept.find("run_1", CALLER)
        assert found is not None
        assert found.outcome.answer == "It is ", "nothing is joined that did not follow on each other"


async def test_text_that_was_written_twice_is_shown_once(folder: Path | None) -> None:
    async with run_store(folder) as kept:
        await begin(kept)
        await grow(kept, "run_1", ("answer", 0, "It is "), ("answer", 9, ", says the model."))
        await grow(kept, "run_1", ("answer", 6, "391, says"))
        found = await kept.find("run_1", CALLER)
        assert found is not None
        assert found.outcome.answer == "It is 391, says the model."


async def test_a_list_waits_until_a_missing_lock_file_means_that_its_server_is_dead(tmp_path: Path) -> None:
    async with run_store(tmp_path) as gone:  # which leaves no file
        await begin(gone)
    async with run_store(tmp_path, limits=StoreLimits(write_every_s=0.01)) as kept:
        (listed,) = await kept.overview(CALLER)
    assert listed.outcome.status == "failed"


async def test_a_run_that_ended_while_it_was_looked_at_is_not_called_dead(tmp_path: Path) -> None:
    async with run_store(tmp_path) as looking, run_store(tmp_path) as owner:
        await begin(owner)
        alive = looking.lock.is_alive

        def late(server: str) -> bool:
            """It ends well, and its server with it, between the look at the row and the look at the lock."""
            with opened(tmp_path) as file:
                file.execute("UPDATE runs SET status = 'completed', answer = 'It is 391.', ended_at = 1000001")
            owner.lock.release(unfinished=True)
            return alive(server)

        looking.lock.is_alive = late
        found = await looking.find("run_1", CALLER)
    assert found is not None
    assert found.outcome.status == "completed"
    assert found.outcome.answer == "It is 391."


async def test_a_turn_that_was_waited_for_in_vain_is_nobodys(tmp_path: Path) -> None:
    async with run_store(tmp_path) as one, run_store(tmp_path) as other:
        await begin(one, "run_1", conversation_id="conv_1")
        await one.take_turn("conv_1", "run_1", lambda run_id: True)
        await end(one)
        with anyio.fail_after(60):  # its turn was never given back; but it has ended, so it writes no more
            await other.take_turn("conv_1", "run_2", lambda run_id: True)


async def test_a_call_whose_database_goes_away_while_it_waits_for_its_turn_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = StoreLimits(outage_s=0.0, look_every_s=0.01)
    async with run_store(tmp_path, limits=limits) as kept:
        await begin(kept, "run_1", conversation_id="conv_1")
        write, tries = kept.write, 0

        async def away_after_the_first(*given: Any) -> Any:
            nonlocal tries
            tries += 1
            if tries == 1:
                return await write(*given)
            raise NotConfigured("The database is away.", fix="Start it.")

        monkeypatch.setattr(kept, "write", away_after_the_first)
        with anyio.fail_after(60), pytest.raises(AnswerCutOff, match="waited for its turn"):
            await kept.take_turn("conv_1", "run_2", lambda run_id: True)


async def test_a_list_reads_no_texts_of_runs_that_go_on(tmp_path: Path) -> None:
    statements: list[str] = []

    def note(*given: Any) -> None:
        statements.append(given[2])

    async with run_store(tmp_path) as kept, run_store(tmp_path) as looking:
        await begin(kept)
        await looking.overview(CALLER)
        event.listen(Engine, "before_cursor_execute", note)
        try:
            (found,) = await looking.overview(CALLER)
        finally:
            event.remove(Engine, "before_cursor_execute", note)
    assert found.running
    assert not [text for text in statements if "pieces" in text or "runs.request" in text or "runs.answer" in text]


async def test_a_run_whose_end_has_nowhere_to_go_says_so(folder: Path | None) -> None:
    async with run_store(folder) as kept:
        assert await end(kept, "run_9") is False
        await begin(kept)
        assert await end(kept) is True


async def test_an_end_that_is_written_again_is_distinguished_from_another_one(folder: Path | None) -> None:
    async with run_store(folder) as kept:
        await begin(kept)
        first = run_end(kept, ended())
        assert await kept.end(first)
        assert await kept.end(first), "the answer to the first commit was lost: it is there whole"
        assert not await kept.end(replace(first, outcome=ended(status="failed")))
        assert not await kept.end(replace(first, ended_at=first.ended_at + 1))
        assert not await kept.end(run_end(kept, ended("run_gone")))


def test_a_journal_in_memory_has_no_folder(tmp_path: Path) -> None:
    assert not RunStore(None).is_persistent
    assert RunStore(tmp_path).is_persistent


async def test_another_callers_run_takes_the_store_what_a_run_that_never_was_takes(folder: Path | None) -> None:
    executed: list[tuple[str, list[Any]]] = []

    def look(connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        if "FROM runs" in statement:
            executed.append((statement, cursor.fetchall()))

    async with run_store(folder) as kept:
        await begin(kept)
        await end(kept)
        assert await kept.find("run_1", CALLER) is not None
        event.listen(Engine, "after_cursor_execute", look)
        try:
            for run_id in ("run_1", "run_0"):
                assert await kept.find(run_id, "somebody else") is None
        finally:
            event.remove(Engine, "after_cursor_execute", look)
    ((of_theirs, rows), (of_none, no_rows)) = executed
    assert of_theirs == of_none
    assert rows == no_rows == []


async def test_a_run_whose_server_died_before_it_carried_out_a_cancellation_is_cancelled(tmp_path: Path) -> None:
    async with run_store(tmp_path, killed=True) as gone:
        await begin(gone)
        await gone.append([TextDelta(run_id="run_1", request=0, of="answer", start=0, text="It is")], {})
        await gone.request_cancel("run_1")
    async with run_store(tmp_path) as kept:
        found = await kept.find("run_1", CALLER)
    assert found is not None
    assert (found.outcome.status, found.outcome.answer) == ("cancelled", "It is")
