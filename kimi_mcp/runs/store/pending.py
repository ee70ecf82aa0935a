"""Outcomes that the database does not take just now, each kept as a file in the data folder until it does. I/O.

A run is reported as ended only once its outcome is in the database or in such a file. So a server that is killed while
the database is locked loses nothing: whoever finds its run unfinished writes the outcome from the file.
"""

from __future__ import annotations

import json
import logging
import os
from functools import partial
from pathlib import Path

import anyio.to_thread

from kimi_mcp.core.json_values import UNREADABLE
from kimi_mcp.runs.store import errors, run_queries
from kimi_mcp.runs.store.database import Database
from kimi_mcp.runs.store.records import RunEnd
from kimi_mcp.runs.store.serializers import as_text, outcome_as_json, outcome_from_json

FOLDER = "journal.pending"
"""Where the files are, inside the data folder."""

_TEXTS = ("status", "conversation_id", "answer", "reasoning")

_log = logging.getLogger(__name__)


class PendingOutcomes:
    """The files of one data folder (None: nothing is kept), and how they get into the database."""

    def __init__(self, folder: Path | None, database: Database) -> None:
        self._folder = None if folder is None else folder / FOLDER
        self._database = database

    async def keep(self, end: RunEnd) -> bool:
        """Keep an outcome until it is forgotten; False where that can't be done.

        Whoever finds the run unfinished after this server has died writes it.
        """
        try:
            await anyio.to_thread.run_sync(self._save, end)
        except OSError:
            return False
        return True

    async def forget(self, *run_ids: str) -> None:
        """Remove outcomes that the database has by now."""
        await anyio.to_thread.run_sync(self._remove, run_ids)

    async def write(self, run_id: str) -> bool:
        """Write the outcome of a dead server's run; whether there was one. Raises ``NotConfigured``."""
        found = await anyio.to_thread.run_sync(self._load, run_id)
        if found is None:
            return False
        await self._database.write(partial(run_queries.end, end=found))
        await self.forget(run_id)
        return True

    async def ids(self) -> set[str]:
        """The runs whose outcome is kept."""
        return await anyio.to_thread.run_sync(self._ids)

    def has(self, run_id: str) -> bool:
        """Whether a run's outcome is kept. Blocking."""
        return self._folder is not None and self._file(run_id).exists()

    def _save(self, end: RunEnd) -> None:
        if self._folder is None:
            raise FileNotFoundError
        content = {name: getattr(end.outcome, name) for name in _TEXTS} | {
            "outcome": json.loads(outcome_as_json(end.outcome)),
            "ended_at": end.ended_at,
            "turns": end.turns,
            "counted_usd": end.counted_usd,
        }
        self._folder.mkdir(mode=0o700, exist_ok=True)
        file = self._file(end.run_id)
        unfinished = file.with_suffix(".new")
        with os.fdopen(
            os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as text:
            text.write(as_text(content))
        unfinished.replace(file)

    def _load(self, run_id: str) -> RunEnd | None:
        if self._folder is None:
            return None
        file = self._file(run_id)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            columns = {name: content[name] for name in _TEXTS}
            return RunEnd(
                run_id=run_id,
                outcome=outcome_from_json(json.dumps(content["outcome"]), run_id=run_id, **columns),
                **{name: content[name] for name in ("ended_at", "conversation_id", "turns", "counted_usd")},
            )
        except FileNotFoundError:
            return None
        except OSError as fault:
            raise errors.from_os_error(fault) from None
        except UNREADABLE:
            _log.warning("the end of %s was kept in a file that can't be read; it is kept as .damaged", run_id)
            file.replace(file.with_suffix(".damaged"))
            return None

    def _remove(self, run_ids: tuple[str, ...]) -> None:
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
