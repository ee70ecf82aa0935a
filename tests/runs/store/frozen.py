"""A database server that can be frozen: its driver is SQLite's, but each statement first waits for a word over TCP.

URLs: ``frozen://localhost:PORT/FILE``. Frozen, it accepts and takes what is sent, as a stopped process does, and says
nothing.
"""

from __future__ import annotations

import math
import socket
import socketserver
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite


class Cursor(sqlite3.Cursor):
    def execute(self, *statement: Any) -> Any:
        assert isinstance(self.connection, Connection)
        self.connection.wait_for_the_server()
        return super().execute(*statement)


class Connection(sqlite3.Connection):
    way: socket.socket

    def cursor(self, factory: Any = None) -> Any:
        del factory
        return super().cursor(Cursor)

    def fileno(self) -> int:
        return self.way.fileno()

    def wait_for_the_server(self) -> None:
        self.way.sendall(b"?")
        if self.way.recv(1) != b"!":
            raise sqlite3.OperationalError("the server is gone")

    def close(self) -> None:
        self.way.close()
        super().close()


class FrozenDialect(SQLiteDialect_pysqlite):
    """SQLite's SQL, over a connection that can be frozen."""

    name = "frozen"
    driver = "frozen"
    supports_statement_cache = True

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        del connection, cursor
        return "gone" in str(e)

    def create_connect_args(self, url: URL) -> Any:
        return [f"/{url.database}"], {"port": url.port}

    def connect(self, *arguments: Any, **named: Any) -> Any:
        connection = sqlite3.connect(
            arguments[0], factory=Connection, check_same_thread=False, isolation_level=None, timeout=5
        )
        connection.way = socket.create_connection(("127.0.0.1", named["port"]))
        return connection


registry.register("frozen", __name__, "FrozenDialect")


class Server:
    """The server; ``freeze`` and ``thaw`` it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.statements = math.inf
        """How many it still answers before it ends every connection."""
        self._ways: list[socket.socket] = []
        self._answers = threading.Event()
        self.thaw = self._answers.set
        self.freeze = self._answers.clear
        self.thaw()

    def restart(self) -> None:
        """End all connections there are."""
        while self._ways:
            with suppress(OSError):  # its client was faster
                self._ways.pop().shutdown(socket.SHUT_RDWR)

    def answer(self, way: socket.socket) -> None:
        self._ways.append(way)
        try:
            while way.recv(1):
                self._answers.wait()
                self.statements -= 1
                if self.statements < 0:
                    return
                way.sendall(b"!")
        except OSError:
            pass


@contextmanager
def database_server(folder: Path) -> Iterator[Server]:
    """A server with a database in a file of that folder."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            server.answer(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        server = Server(f"frozen://localhost:{listening.server_address[1]}{folder / 'served.sqlite3'}")
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.thaw()
            listening.shutdown()
            thread.join()
