"""The PostgreSQL of the tests: each gets an empty database, and no server outlives those who use it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from tests import postgres

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests start none there")

USES = """
import sys
from pathlib import Path
from tests.postgres import shared
with shared(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


def connected(url: str) -> Connection:
    return create_engine(url, poolclass=NullPool).connect()


def test_each_test_has_an_empty_database_and_the_next_one_sees_nothing_of_it(postgres_server: str) -> None:
    for _ in range(2):
        with postgres.database(postgres_server, empty=True) as url, connected(url) as connection:
            connection.execute(text("CREATE TABLE things (id text)"))
            connection.commit()
            assert connection.execute(text("SELECT current_database()")).scalar() == make_url(url).database


@pytest.mark.soak
async def test_the_servers_end_is_that_of_the_last_process_that_uses_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", USES, str(tmp_path / "session")]
    with anyio.fail_after(120), ExitStack() as opened:
        processes = (subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in "ab")
        users = [opened.enter_context(process) for process in processes]
        urls = {user.stdout.readline().strip() for user in users if user.stdout is not None}
        assert len(urls) == 1, "they share one"
        (folder,) = [Path(str(make_url(url).query["host"])) for url in urls]
        users[0].kill()
        users[0].wait()
        with connected(urls.pop()) as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
        users[1].kill()
        users[1].wait()
        while folder.exists():
            await anyio.sleep(0.05)
