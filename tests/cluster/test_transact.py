"""Every private name of DBOS that we use: a new version that changes one fails here."""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import re

import dbos
import pytest
from dbos import _core, _dbos, _event_loop, _queue, _scheduler, _sys_db, _utils
from dbos._context import DBOSContext, current_owner_xid
from dbos._schemas.system_database import SystemSchema

from kimi_mcp.cluster import statements, transact

VERSION = "3.4.0"


def test_what_dbos_logs_becomes_lines_of_ours_without_its_texts(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    transact.silence()
    logger = logging.getLogger("dbos")
    with caplog.at_level(logging.DEBUG, "kimi_mcp.cluster"):
        for _ in range(2):
            try:
                raise RuntimeError("a secret")
            except RuntimeError as fault:
                logger.error(f"it failed: {fault}", exc_info=fault)
        logger.info("a secret")
    [line] = [record for record in caplog.records if "(test_transact.py:" in record.getMessage()]
    assert (line.name, line.levelname) == ("kimi_mcp.cluster", "WARNING")
    assert "RuntimeError" in line.getMessage()
    assert "secret" not in line.getMessage()
    assert capfd.readouterr() == ("", "")


def test_the_version_is_the_one_whose_private_names_were_read() -> None:
    assert importlib.metadata.version("dbos") == VERSION


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (_sys_db.SystemDatabase.reenqueue_for_recovery, ["self", "workflow_id", "executor_ids", "recovery_queue_name"]),
        (_sys_db.SystemDatabase.get_pending_workflows, ["self", "executor_id", "app_version"]),
        (_sys_db.SystemDatabase.run_migrations, ["self"]),
        (_dbos.DBOSRegistry._register_internal_queue, ["self", "name", "limits"]),
        (_event_loop.BackgroundEventLoop.set_main_loop, ["self"]),
        (current_owner_xid, ["workflow_id", "ctx"]),
        (_queue.queue_worker_thread, ["stop_event", "dbos", "queue"]),
    ],
)
def test_a_private_function_takes_what_we_give_it(function: object, parameters: list[str]) -> None:
    assert list(inspect.signature(function).parameters) == parameters  # pyright: ignore[reportArgumentType]


def test_recovery_takes_jobs_of_dead_executors_that_run_and_no_others() -> None:
    source = inspect.getsource(_sys_db.SystemDatabase.reenqueue_for_recovery)
    assert "executor_id.in_(executor_ids)" in source
    assert "== WorkflowStatusString.PENDING.value" in source
    assert "coalesce(" in source  # the queue that it was in


def test_the_interval_of_looks_for_cancellations_is_read_at_each() -> None:
    assert isinstance(_core._PREEMPTIBLE_POLL_INTERVAL_SEC, float)
    assert "asyncio.sleep(_PREEMPTIBLE_POLL_INTERVAL_SEC)" in inspect.getsource(_core._CancellationWatcher._poll)


def test_what_is_never_there_is_looked_for_as_seldom_as_we_say() -> None:
    assert "dbos._sys_db.list_queues(" in inspect.getsource(_queue.queue_thread)
    assert isinstance(_scheduler._STARTUP_FAST_POLL_DURATION_SEC, float)
    looping = inspect.getsource(_scheduler.dynamic_scheduler_loop)
    assert "time.monotonic() + _STARTUP_FAST_POLL_DURATION_SEC" in looping


def test_a_poll_asks_the_queue_how_many_jobs_it_may_have() -> None:
    source = inspect.getsource(_queue.queue_worker_thread)
    assert "q._worker_concurrency - running" in source
    assert "if queue.database_backed_queue:" in source
    assert "queue._worker_concurrency - local_running_count" in inspect.getsource(
        _sys_db.SystemDatabase.start_queued_workflows
    )
    assert 'name=f"queue-worker-{queue_name}"' in inspect.getsource(_queue.queue_thread)


def test_a_queue_is_made_with_the_token_and_lists_among_those_in_memory() -> None:
    assert "token" in inspect.signature(_queue.Queue.__init__).parameters
    assert _queue._INTERNAL_QUEUE_CONSTRUCTION is not None
    assert "self.internal_queue_map.values()" in inspect.getsource(_dbos.DBOSRegistry.internal_queues)
    assert _utils.INTERNAL_QUEUE_NAME.startswith("_dbos_")


def test_an_instance_has_what_we_set_on_it() -> None:
    source = inspect.getsource(_dbos.DBOS.__init__)
    for name in ("_registry", "_background_jobs_stop_event", "_background_event_loop", "background_thread_stop_events"):
        assert f"self.{name}" in source
    assert "_sys_db" in inspect.getsource(dbos.DBOSClient.__init__)
    assert "owner_xid" in vars(DBOSContext())


def test_the_table_of_jobs_has_the_columns_that_our_statements_name() -> None:
    there = {column.name: type(column.type).__name__ for column in SystemSchema.workflow_status.columns}
    for column in statements.jobs.columns:
        assert column.name in there
    assert SystemSchema.workflow_status.name == statements.jobs.name


def test_a_dequeue_counts_each_time_a_job_is_taken() -> None:
    source = inspect.getsource(_sys_db.SystemDatabase.start_queued_workflows)
    assert "recovery_attempts=self.tables.workflow_status.c.recovery_attempts\n                        + 1" in source
    assert "owner_xid=owner_xid" in source


def test_what_dbos_removes_with_a_job_is_what_we_remove() -> None:
    tables = set(re.findall(r"self\.tables\.(\w+)", inspect.getsource(_sys_db.SystemDatabase._delete_workflows)))
    assert tables == {table.name for table in (statements.jobs, *statements.details)}
