"""What every test starts from: asyncio, and an environment in which nobody has configured anything."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import zlib
from collections.abc import Generator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp import catalogue
from kimi_mcp.catalogue import credentials
from kimi_mcp.core import json_logs
from kimi_mcp.core.redaction import SECRETS
from tests import postgres, queries
from tests.loop_time import LoopTime

KEYS = set(credentials.key_variables(catalogue.load()))
PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background with it ignored, and every process of a test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # so does nohup

LONGEST_ID = 100

_TESTS = count(1)


def pytest_make_parametrize_id(val: object) -> str | None:
    """A long text is named by its beginning, its length and a checksum: some of ours have a megabyte."""
    if not isinstance(val, str | bytes) or len(val) <= LONGEST_ID:
        return None
    raw = val if isinstance(val, bytes) else val.encode("utf-8", "backslashreplace")
    start = ascii(val[:20]).replace("::", ":")
    return f"{start}… of {len(val)}, {zlib.crc32(raw):08x}"


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a test printed or failed with can be sent to another process: pytest-xdist takes no half characters."""
    report = yield
    return _whole(report)


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_whole(name): _whole(each) for name, each in value.items()}
    return type(value)(map(_whole, value)) if isinstance(value, list | tuple) else value


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def nothing_configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No key, setting or proxy of the developer's machine reaches a test, nor a process that a test starts."""
    with pytest.MonkeyPatch.context() as environment:
        for name in list(os.environ):
            if name.startswith(("KIMI_", "OTEL_")) or name in KEYS or name.upper() in PROXIES:
                environment.delenv(name)
        environment.setenv("KIMI_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def loop_time() -> LoopTime:
    """The clock of the event loop that this test runs in."""
    return LoopTime()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL that the tests of this session share; the first that asks for it starts it."""
    if sys.platform == "win32":
        pytest.skip("PostgreSQL is started by hand here, as on Linux and macOS")
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with postgres.shared(folder / "postgres") as url:
        yield url


@pytest.fixture
def database_url(postgres_server: str) -> Iterator[str]:
    """The URL of a database in PostgreSQL with a store that is empty, of this test alone."""
    with postgres.database(postgres_server) as url:
        yield url


@pytest.fixture(autouse=True)
def no_slow_statements() -> Iterator[None]:
    """No statement that a test has the store execute goes through a table that grows."""
    with queries.watched() as wrong:
        yield
    assert wrong == []


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """What a command that runs in this process sets up for its own log lines ends with its test."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook, sys.unraisablehook)
    known = [root, *(each for each in logging.Logger.manager.loggerDict.values() if isinstance(each, logging.Logger))]
    levels, handlers = [each.level for each in known], root.handlers[:]
    yield
    for logger, level in zip(known, levels, strict=True):
        if logger.level != level:  # each setting empties the caches of all
            logger.setLevel(level)
    root.handlers[:] = [each for each in root.handlers if each in handlers or each.__module__ != json_logs.__name__]
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.raiseExceptions = True


@pytest.fixture(autouse=True)
def data_dir(
    nothing_configured: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Where this test's runs and conversations are kept: a folder that is not there yet, as for a new user.

    No part of ``tmp_path``: that is made for each test that has it, and many don't need it.
    """
    folder = tmp_path_factory.getbasetemp() / "data" / f"of-test-{next(_TESTS)}"
    monkeypatch.setenv("KIMI_DATA_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_secrets() -> Iterator[None]:
    """A key that one test configures is none of the next one's."""
    yield
    SECRETS.clear()
