"""Connections to a database server: how long each answer may take, and how waiting for one is ended. I/O: sockets.

The server's own timeouts bound a statement that takes long or waits for a lock. A server that is frozen keeps none of
them, and its system still confirms what is sent to it: then the connection is shut down from here.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

from sqlalchemy import URL, Dialect, Engine, event

ANSWERS_WITHIN_S = 5.0
"""Seconds within which a database server must have done what it was asked."""

_AGAIN_S = 0.5
"""Seconds between two attempts to end what waits."""


def connect_arguments(url: URL) -> dict[str, Any]:
    """What a driver of PostgreSQL is told beside the URL, which may say otherwise; nothing to any other driver."""
    if url.get_driver_name() not in ("psycopg", "psycopg2"):
        return {}
    most = int(ANSWERS_WITHIN_S * 1000)
    timeouts = {"statement_timeout": most, "lock_timeout": most, "idle_in_transaction_session_timeout": 3 * most}
    options = [f"-c {name}={value}" for name, value in timeouts.items()]
    known: dict[str, Any] = {
        "connect_timeout": int(ANSWERS_WITHIN_S),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 3 * most,
    }
    said = url.query.get("options", "")
    own = said if isinstance(said, str) else " ".join(said)
    return {name: value for name, value in known.items() if name not in url.query} | {
        "options": " ".join([*options, own]).strip()
    }


class Connections:
    """A driver's open connections, by the thread that works with them."""

    def __init__(self) -> None:
        self._local = threading.local()

    def watch(self, engine: Engine) -> None:
        """Know every connection that an engine opens from now on."""
        event.listen(engine, "do_connect", self._connect)

    def _connect(self, dialect: Dialect, record: object, arguments: list[Any], named: dict[str, Any]) -> Any:
        del record
        connection = dialect.connect(*arguments, **named)
        with suppress(TypeError):  # a driver in C without weak references, as SQLite's is: it has no socket either
            self._of_thread().add(connection)
        return connection

    def _of_thread(self) -> WeakSet[Any]:
        if not hasattr(self._local, "opened"):
            self._local.opened = WeakSet[Any]()
        return self._local.opened

    @contextmanager
    def bounded(self, within_s: float) -> Generator[None]:
        """Let this thread wait no longer than that for its connections: then it fails, as if the server were gone."""
        opened, over = self._of_thread(), threading.Event()

        def watch() -> None:
            left = within_s
            while not over.wait(left):
                for connection in list(opened):
                    _shut_down(connection)
                left = _AGAIN_S

        threading.Thread(target=watch, name="journal-watch", daemon=True).start()
        try:
            yield
        finally:
            over.set()


def _shut_down(connection: Any) -> None:
    try:
        copy = socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM)
    except Exception:  # noqa: BLE001 - it is closed already, or its driver shows no socket
        return
    with copy:
        try:
            copy.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other side was faster
            pass
