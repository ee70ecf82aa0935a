"""One event, one JSON line, no secret, whatever the event carries."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from kimi_mcp.core import json_logs
from kimi_mcp.core.redaction import hide

KEY = "sk-test-47f1c09be2-secret"


class Lines(io.StringIO):
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().split("\n")[:-1]]

    def event(self) -> dict[str, Any]:
        (only,) = self.events()
        return only


@pytest.fixture
def lines() -> Iterator[Lines]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    stream = Lines()
    json_logs.configure("info", stream=stream)
    yield stream
    root.handlers[:], logging.raiseExceptions = before[0], before[2]
    root.setLevel(before[1])
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)


log = logging.getLogger("some.module")


def test_a_line_says_when_how_bad_where_and_what(lines: Lines) -> None:
    log.info("asked %s", "kimi", extra={"run_id": "run_1", "tokens": 5})
    event = lines.event()
    assert event.pop("ts").endswith("Z")
    assert event == {"level": "INFO", "logger": "some.module", "message": "asked kimi", "run_id": "run_1", "tokens": 5}


@pytest.mark.parametrize(
    "hostile",
    [
        'a\nb\r\n{"level":"forged"}',
        "\x1b[31mred\x1b[0m \x9b31m \x07 \x00 \x7f",
        "a\u2028b\u2029c\u0085d\x0b\x0ce",
        "half \ud83d of it",
        "\u202etxt.exe",
        "x" * 1_000_000,
        '\\"' * 500_000,
        "é" * 1_000_000,
        "\x1b" * 1_000_000,
    ],
)
def test_a_hostile_message_is_one_safe_line(lines: Lines, hostile: str) -> None:
    log.warning("%s", hostile, extra={"more": hostile, "again": hostile})
    raw = lines.getvalue()
    assert len(raw.splitlines()) == 1
    assert len(raw.encode()) <= json_logs.MAX_LINE_BYTES
    for value in lines.event().values():
        text = str(value)
        assert len(text.encode()) <= json_logs.MAX_FIELD_BYTES
        assert text.isprintable()
        assert len(hostile) < 1000 or "cut" in text or value in ("WARNING", "some.module") or text[0] == "2"


def test_arguments_that_do_not_fit_are_no_reason_to_fail(lines: Lines) -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("rude")

    log.warning("%s and %s", *["one"])
    log.warning("%s", Rude())
    log.warning(Rude(), extra={"rude": Rude()})
    assert [event["level"] for event in lines.events()] == ["WARNING"] * 3


def test_a_module_that_can_not_be_imported_is_named(lines: Lines) -> None:
    try:
        try:
            import no_such_module  # pyright: ignore[reportMissingImports] # noqa: F401
        except ImportError as fault:
            raise RuntimeError("its own text") from fault
    except RuntimeError:
        logging.getLogger("test").exception("failed")
    assert lines.event()["exception"]["module"] == "no_such_module"


def test_a_module_with_a_name_that_is_no_text_loses_no_line(lines: Lines) -> None:
    try:
        raise ImportError("its own text", name=3)  # pyright: ignore[reportArgumentType]
    except ImportError:
        logging.getLogger("test").exception("failed")
    assert lines.event()["exception"]["module"] == "3"


def test_an_exception_is_logged_by_class_and_place_and_never_by_its_text(lines: Lines) -> None:
    def fails() -> None:
        raise ValueError("foreign text with a key")

    try:
        try:
            fails()
        except ValueError as cause:
            raise RuntimeError("more foreign text") from cause
    except RuntimeError:
        log.exception("it failed")
    assert "foreign" not in lines.getvalue()
    exception = lines.event()["exception"]
    assert exception["type"] == "RuntimeError"
    assert exception["frames"][-1].startswith("core/test_json_logs.py:")
    assert exception["behind"][0].startswith("ValueError at core/test_json_logs.py:")
    assert exception["behind"][0].endswith(":fails")


def test_a_group_a_circle_and_a_deep_stack_stay_one_short_line(lines: Lines) -> None:
    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        raise ExceptionGroup("foreign", [KeyError("foreign"), OSError("foreign")])

    try:
        dive(500)
    except ExceptionGroup as group:
        group.exceptions[0].__cause__ = group
        log.exception("x" * 20_000)
    assert len(lines.getvalue()) <= json_logs.MAX_LINE_BYTES
    assert "foreign" not in lines.getvalue()
    assert [one.split()[0] for one in lines.event()["exception"]["behind"]] == ["KeyError", "OSError"]


def test_a_registered_secret_never_reaches_a_line(lines: Lines) -> None:
    hide(KEY)
    log.warning("Bearer %s", KEY, extra={"header": KEY, "hex": KEY.encode().hex()})
    print(KEY, file=sys.stderr)
    assert "0123456789" not in lines.getvalue()
    assert KEY.encode().hex() not in lines.getvalue()
    assert lines.event()["message"] == "Bearer [hidden]"


def test_what_others_warn_of_becomes_a_line(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("careful", stacklevel=1)
    (event,) = lines.events()
    assert event["logger"] == "py.warnings"
    assert "careful" in event["message"]


async def test_what_nobody_caught_becomes_a_line(lines: Lines) -> None:
    def fails() -> None:
        raise ValueError("foreign")

    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()
    try:
        fails()
    except ValueError as failure:
        sys.excepthook(ValueError, failure, failure.__traceback__)
        loop = asyncio.get_running_loop()
        json_logs.loop_exception(loop, {"message": "never retrieved", "exception": failure, "future": failure})
    assert [event["exception"]["type"] for event in lines.events()] == ["ValueError"] * 3
    assert "foreign" not in lines.getvalue()


def test_third_parties_that_log_requests_stay_quiet(lines: Lines) -> None:
    json_logs.configure("DEBUG", stream=lines)
    logging.getLogger("openai._base_client").debug("the whole request")
    logging.getLogger("httpx2").info("the url")
    logging.getLogger("mcp.server").info("a message")
    log.debug("ours")
    assert lines.event()["message"] == "ours"


def test_an_unknown_level_is_reported_and_warning_is_used(lines: Lines) -> None:
    json_logs.configure("${KIMI_LOG_LEVEL}", stream=lines)
    log.info("not this")
    assert "WARNING is used" in lines.event()["message"]


def test_a_stream_that_fails_is_no_reason_to_fail(lines: Lines) -> None:
    lines.close()
    log.warning("nobody hears this")


UNREAD = """
import logging, sys
from kimi_mcp.core import json_logs as logs
logs.configure("WARNING")
for number in range(1000):
    logging.getLogger("x").warning("%s", "y" * 4000)
print("over", flush=True)
sys.stdin.readline()
logging.getLogger("x").warning("read again")
"""


def test_a_stderr_that_nobody_reads_holds_nobody_up() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", UNREAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"over\n"
        heard = os.read(process.stderr.fileno(), 1 << 20)  # empties the pipe
        process.stdin.write(b"\n")
        process.stdin.close()
        heard += process.stderr.read()
    assert process.returncode == 0
    last = heard.splitlines()[-1]
    event = json.loads(last)
    assert (event["message"], event["dropped"] > 900) == ("read again", True)


def test_only_the_standard_library_is_needed_to_log() -> None:
    heavy = ("mcp", "anyio", "asyncio", "pydantic", "openai")
    code = f"import sys, kimi_mcp.core.json_logs; print(sorted({{*{heavy!r}}} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
