"""Log lines: one event, one JSON object, one line on stderr, whatever it carries. I/O: writes descriptor 2.

No line carries a secret, a control character, or the text of a foreign exception: of that it has the class and the
place in the code. Nothing here raises, and a host that does not read our stderr costs lines, not time.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
from datetime import UTC, datetime
from traceback import walk_tb
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from kimi_mcp.core import observing
from kimi_mcp.core.redaction import clean

if TYPE_CHECKING:
    import asyncio  # a command that only prints would pay for it

MAX_FIELD_BYTES: Final = 4 * 1024
"""Bytes of one field, which JSON at worst doubles; what is beyond is cut, and the field says how much."""

MAX_LINE_BYTES: Final = 16 * 1024
"""Bytes of a whole line, newline included."""

_NAME_BYTES: Final = 128  # of a logger, a class, a frame
_MAX_FRAMES: Final = 20
_MAX_CAUSES: Final = 8
_MOST_READ: Final = 256 * 1024  # characters of a text that are read; far more than a field may have
_PATIENCE_MS: Final = 50  # how long one line waits for a reader of stderr
_NOISY: Final = ("asyncio", "httpcore", "httpcore2", "httpx", "httpx2", "mcp", "openai", "sse_starlette", "urllib3")
_FOREIGN: Final = ("client", "mcp.client")  # the client side of the SDK: its words may be a tool server's, or a flood
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def configure(level: str, *, stream: TextIO | None = None) -> None:
    """Send every log record, warning and uncaught exception to stderr (or ``stream``) as JSON lines.

    ``level`` is one of DEBUG, INFO, WARNING, ERROR, CRITICAL in any case; anything else counts as WARNING and is
    reported. Third parties that log requests or bodies never get below WARNING. A second call replaces the first.
    """
    known = level.strip().upper()
    root = logging.getLogger()
    root.handlers[:] = [_JsonLines(stream)]
    root.setLevel(known if known in _LEVELS else "WARNING")
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    for name in _FOREIGN:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    sys.excepthook = lambda kind, failure, trace: _uncaught(failure, "uncaught exception")
    threading.excepthook = lambda args: _uncaught(args.exc_value, "uncaught exception in a thread")
    sys.unraisablehook = lambda args: _uncaught(args.exc_value, "exception that could not be raised")
    if known not in _LEVELS:
        logging.getLogger(__name__).warning("KIMI_LOG_LEVEL is none of %s: WARNING is used", ", ".join(_LEVELS))


def loop_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An asyncio exception handler: the loop's own words and the exception's class and place, not its text."""
    failure = context.get("exception")
    logging.getLogger("asyncio").error("%s", context.get("message", "unhandled"), exc_info=failure)


def _uncaught(failure: BaseException | None, message: str) -> None:
    if failure is not None:
        logging.getLogger("uncaught").critical(message, exc_info=failure)


class _JsonLines(logging.Handler):
    """Writes each record as one line; a line is complete or, where nobody reads stderr, dropped."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream
        self._dropped = 0
        self._torn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record (the handler's lock is held)."""
        try:
            line = _line_of(record, self._dropped)
            if self._stream is not None:
                self._stream.write(line.decode())
                self._stream.flush()
            elif not self._write(line):
                self._dropped += 1
                return
            self._dropped = 0
        except Exception:  # noqa: BLE001 - logging must never break the program
            self._dropped += 1

    def _write(self, line: bytes) -> bool:
        rest = memoryview(b"\n" + line if self._torn else line)
        if sys.platform == "win32":
            while rest:
                rest = rest[os.write(2, rest) :]
            return True
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        # After one line was dropped, the next ones don't wait.
        patience = 0 if self._dropped else _PATIENCE_MS
        begun = len(rest)
        while rest:
            try:
                if not poll.poll(patience):
                    raise BlockingIOError
                rest = rest[os.write(2, rest[: select.PIPE_BUF]) :]
            except BlockingIOError:
                self._torn = self._torn or len(rest) < begun
                return False
        self._torn = False
        return True


def _line_of(record: logging.LogRecord, dropped: int) -> bytes:
    """The record as one line of at most ``MAX_LINE_BYTES``, newline included.

    Besides ts, level, logger and message it carries the ids of the request and the run that are at work, the ``extra``
    fields that are plain values, ``exception`` where there is one, and ``dropped``: how many lines before it were not
    read.
    """
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that don't fit, or whose own __str__ fails
        message = _as_text(record.msg)
    when = datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds")
    event: dict[str, Any] = {
        "ts": when.replace("+00:00", "Z"),
        "level": record.levelname,
        "logger": _clean(record.name, _NAME_BYTES),
        "message": _clean(message, MAX_FIELD_BYTES),
    }
    if dropped:
        event["dropped"] = dropped
    if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
        event["exception"] = _exception(record.exc_info[1])
    for name, value in {**observing.ids(), **record.__dict__}.items():
        if name not in _STANDARD and name not in event:
            plain = value if isinstance(value, bool | int | float | None) else _clean(_as_text(value), MAX_FIELD_BYTES)
            longer = event | {_clean(str(name), _NAME_BYTES): plain}
            event = longer if len(_json(longer)) <= MAX_LINE_BYTES else event
    return _json(event)


def _json(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _as_text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - whatever it is, it is only to be named
        return f"<{type(value).__name__}>"


def _clean(text: str, limit: int) -> str:
    """The text without secrets, with what is unsafe to print spelled out, cut to ``limit`` bytes."""
    safe, unread = clean(text[:_MOST_READ], "log"), max(0, len(text) - _MOST_READ)
    if not unread and len(safe.encode()) <= limit:
        return safe
    kept = safe.encode()[: limit - 40].decode("utf-8", "ignore")
    return f"{kept}…[cut {len(safe) - len(kept) + unread} characters]"


def _exception(failure: BaseException) -> dict[str, Any]:
    """The class, the frames it passed through (innermost last), and the classes of its causes.

    ``module``: one that could not be imported, where that was among them.
    """
    found = [failure]
    for each in found:  # which grows by what is behind each
        inner = (
            cast("BaseExceptionGroup[BaseException]", each).exceptions if isinstance(each, BaseExceptionGroup) else ()
        )
        cause = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        known = set(map(id, found))
        found += [one for one in (*inner[:_MAX_CAUSES], cause) if one is not None and id(one) not in known]
        if len(found) > _MAX_CAUSES:
            break
    exception: dict[str, Any] = {"type": _class_of(failure), "frames": _frames(failure.__traceback__)}
    causes = [f"{_class_of(one)} at {(_frames(one.__traceback__) or ['?'])[-1]}" for one in found[1 : _MAX_CAUSES + 1]]
    if missing := next((one.name for one in found if isinstance(one, ImportError) and one.name), None):
        exception["module"] = _clean(_as_text(missing), _NAME_BYTES)
    return {**exception, "behind": causes} if causes else exception


def _class_of(failure: BaseException) -> str:
    kind = type(failure)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return _clean(module + kind.__qualname__, _NAME_BYTES)


def _frames(traceback: TracebackType | None) -> list[str]:
    # The last two parts of a path name the module; the whole path would show the names of people's folders.
    places = [
        ("/".join(frame.f_code.co_filename.replace("\\", "/").split("/")[-2:]), line, frame.f_code.co_name)
        for frame, line in walk_tb(traceback)
    ]
    return [_clean(f"{file}:{line}:{name}", _NAME_BYTES) for file, line, name in places[-_MAX_FRAMES:]]
