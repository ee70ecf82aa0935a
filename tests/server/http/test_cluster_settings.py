"""What a replica needs of its settings, and what a worker answers."""

from __future__ import annotations

import sys

import pytest

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.settings import read_settings
from kimi_mcp.server.http.start_check import check_cluster, check_role
from tests.server.http.served import message, served

DATABASE = "postgresql+psycopg://kimi@db.example.org/kimi"


@pytest.mark.parametrize(
    ("settings", "text", "fix"),
    [
        ({}, "a PostgreSQL", "Set KIMI_DATABASE_URL"),
        ({"KIMI_DATABASE_URL": "sqlite:////tmp/runs.sqlite3"}, "a PostgreSQL", "Set KIMI_DATABASE_URL"),
        ({"KIMI_DATABASE_URL": DATABASE.replace("psycopg", "psycopg2")}, "a PostgreSQL", "postgresql+psycopg:"),
        ({"KIMI_DATABASE_URL": DATABASE, "KIMI_JOURNAL": "off"}, "KIMI_JOURNAL=off", "Unset KIMI_JOURNAL"),
        ({"KIMI_DATABASE_URL": DATABASE}, "the extra `cluster`", "pip install 'kimi-mcp[cluster]'"),
    ],
)
def test_a_replica_says_what_it_misses(
    settings: dict[str, str], text: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dbos", None)
    with pytest.raises(NotConfigured, match=f"KIMI_CLUSTER=on .*{text}") as refused:
        check_cluster(read_settings({"KIMI_CLUSTER": "on", **settings}))
    assert fix in refused.value.fix


def test_a_role_is_for_one_of_several() -> None:
    with pytest.raises(NotConfigured, match=r"--role worker .* KIMI_CLUSTER is off"):
        check_role(read_settings({}), "worker")
    check_role(read_settings({"KIMI_CLUSTER": "on"}), "worker")


async def test_a_worker_answers_probes_and_speaks_no_mcp() -> None:
    async with served(None, role="worker", KIMI_HTTP_CARD="on") as worker:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await worker.raw.get(path)).status_code == 200
        refused = await worker.post(message("tools/list"))
        assert (refused.status_code, "worker" in refused.text) == (404, True)
        assert (await worker.raw.get("/mcp/server-card")).status_code == 404
