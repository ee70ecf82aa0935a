"""Ends of runs that the database does not take just now, each kept as a file in the data folder until it does. I/O.

A run is told as ended only once its end is in the database or in such a file. So a server that is killed while the
database is locked loses nothing: whoever finds its run unfinished writes the end that the file holds.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread
from sqlalchemy import Connection

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs.store import errors, run_queries
from kimi_mcp.runs.store.database import Database
from kimi_mcp.runs.store.records import as_text, outcome_as_json, outcome_from_json

FOLDER = "journal.pending"
"""Where the files lie, inside the data folder."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingOutcome:
    """How a run ended, as the database is to hold it."""

    run_id: str
    """The run's id."""
    outcome: Outcome
    """How it ended, with all its texts."""
    ended_at: float
    """Seconds since 1970."""
    turns: str | None
    """JSON: what it adds to its conversation; None where nothing."""
    counted_usd: float
    """What spending limits count for it, in US dollars."""


class PendingOutcomes:
    """The files of one data folder (None: nothing is kept), and how their ends get into the database."""

    def __init__(self, folder: Path | None, database: Database) -> None:
        self._folder = None if folder is None else folder / FOLDER
        self._database = database

    async def keep(self, end: PendingOutcome) -> bool:
        """Keep an end until it is forgotten; False where that can't be done."""
        try:
            await anyio.to_thread.run_sync(self._save, end)
        except OSError:
            return False
        return True

    async def forget(self, *run_ids: str) -> None:
        """The database has those ends by now."""
        await anyio.to_thread.run_sync(self._remove, run_ids)

    async def write(self, run_id: str) -> bool:
        """Write a dead server's run's end into the database; whether there was any. Raises ``NotConfigured``."""
        end = await anyio.to_thread.run_sync(self._load, run_id)
        if end is None:
            return False

        def write(connection: Connection) -> bool:
            return run_queries.end(
                connection, run_id, end.outcome, end.ended_at, turns=end.turns, counted_usd=end.counted_usd
            )

        await self._database.write(write)
        await self.forget(run_id)
        return True

    async def ids(self) -> set[str]:
        """The runs whose end is kept."""
        return await anyio.to_thread.run_sync(self._ids)

    def has(self, run_id: str) -> bool:
        """Whether a run's end is kept. Blocking."""
        return self._folder is not None and self._file(run_id).exists()

    def _save(self, end: PendingOutcome) -> None:
        if self._folder is None:
            raise FileNotFoundError
        outcome = end.outcome
        content = {
            "status": outcome.status,
            "conversation_id": outcome.conversation_id,
            "answer": outcome.answer,
            "reasoning": outcome.reasoning,
            "outcome": json.loads(outcome_as_json(outcome)),
            "ended_at": end.ended_at,
            "turns": end.turns,
            "counted_usd": end.counted_usd,
        }
        self._folder.mkdir(mode=0o700, exist_ok=True)
        file = self._file(end.run_id)
        begun = file.with_suffix(".new")
        with os.fdopen(os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as writing:
            writing.write(as_text(content))
        begun.replace(file)

    def _load(self, run_id: str) -> PendingOutcome | None:
        if self._folder is None:
            return None
        try:
            text = self._file(run_id).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except OSError as fault:
            raise errors.of_folder(fault) from None
        try:
            return _end(run_id, json.loads(text))
        except (ValueError, KeyError, TypeError):
            _log.warning("the end of %s was kept in a file that can't be read; it is kept as .damaged", run_id)
            self._file(run_id).replace(self._file(run_id).with_suffix(".damaged"))
            return None

    def _remove(self, run_ids: Iterable[str]) -> None:
        for run_id in run_ids if self._folder is not None else ():
            try:
                self._file(run_id).unlink(missing_ok=True)
            except OSError:  # it is removed another time
                _log.debug("the kept end of %s can't be removed", run_id)

    def _ids(self) -> set[str]:
        try:
            return set() if self._folder is None else {file.stem for file in self._folder.glob("*.json")}
        except OSError:
            return set()

    def _file(self, run_id: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{run_id}.json"


def _end(run_id: str, content: dict[str, Any]) -> PendingOutcome:
    outcome = outcome_from_json(
        json.dumps(content["outcome"]),
        run_id=run_id,
        conversation_id=content["conversation_id"],
        status=content["status"],
        answer=content["answer"],
        reasoning=content["reasoning"],
    )
    return PendingOutcome(
        run_id=run_id,
        outcome=outcome,
        ended_at=content["ended_at"],
        turns=content["turns"],
        counted_usd=content["counted_usd"],
    )
