"""Outcomes that the database does not take just now, each kept as a file in the data folder until it does. Blocking."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from kimi_mcp.core.json_values import UNREADABLE
from kimi_mcp.runs.store import errors
from kimi_mcp.runs.store.records import RunEnd, as_text, outcome_as_json, outcome_from_json

FOLDER = "journal.pending"
"""Where the files are, inside the data folder."""

_TEXTS = ("status", "conversation_id", "answer", "reasoning")

_log = logging.getLogger(__name__)


class PendingOutcomes:
    """The files of one data folder; without one (None) nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else folder / FOLDER

    def ids(self) -> set[str]:
        """The runs whose outcome is kept."""
        return set() if self._folder is None else {file.stem for file in self._folder.glob("*.json")}

    def has(self, run_id: str) -> bool:
        """Whether a run's outcome is kept."""
        return self._folder is not None and self._file(run_id).exists()

    def save(self, end: RunEnd) -> bool:
        """Keep an outcome until it is removed; False where that can't be done."""
        if self._folder is None:
            return False
        content = {name: getattr(end.outcome, name) for name in _TEXTS} | {
            "outcome": json.loads(outcome_as_json(end.outcome)),
            "ended_at": end.ended_at,
            "turns": end.turns,
            "counted_usd": end.counted_usd,
        }
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            write_whole(self._file(end.run_id), as_text(content))
        except OSError:
            return False
        return True

    def load(self, run_id: str) -> RunEnd | None:
        """An outcome that is kept; raises ``NotConfigured`` where it can't be read."""
        if not self.has(run_id):
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

    def remove(self, *run_ids: str) -> None:
        """Remove outcomes that the database has by now."""
        for run_id in filter(self.has, run_ids):
            try:
                self._file(run_id).unlink(missing_ok=True)
            except OSError:  # it is removed another time
                _log.debug("the kept end of %s can't be removed", run_id)

    def _file(self, run_id: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{run_id}.json"


def write_whole(file: Path, text: str) -> None:
    """Write a file that only its owner may read, at once: a reader never finds half of it."""
    unfinished = file.with_suffix(".new")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as new:
        new.write(text)
    unfinished.replace(file)
