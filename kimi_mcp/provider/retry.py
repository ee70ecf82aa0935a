"""When to retry, and after how long: back-off, Retry-After, the retry budget. Pure, no I/O.

Only before the first token, at most ``MOST_ATTEMPTS`` requests per call, full jitter, a provider's Retry-After honoured
up to ``LONGEST_WAIT_S``, and in a long outage hardly more requests than calls.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

MOST_ATTEMPTS = 5
"""Requests that one call may send: at most 7.5 s of waiting between five."""

BASE_S = 0.5
"""Longest wait before the second attempt, in seconds; it doubles with each further one."""

CAP_S = 8.0
"""Longest wait of our own choosing, in seconds."""

LONGEST_WAIT_S = 120.0
"""Longest wait that a provider may ask for, in seconds; beyond it there is no further attempt."""

_BUDGET_SHARE = 0.1
_BUDGET_FLOOR = 10
_BUDGET_WINDOW_S = 60.0

_NUMBER = re.compile(r"\d{1,400}(\.\d{0,20})?")
_EPOCH_S = 1_000_000_000
_EPOCH_MS = 1_000_000_000_000


def backoff(attempt: int, draw: Callable[[], float]) -> float:
    """Seconds to wait after that many attempts: a random share of a bound that doubles (full jitter)."""
    return draw() * min(CAP_S, BASE_S * 2 ** (attempt - 1))


def requested_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a provider asks to wait, if it does.

    ``headers`` have lower-case names, ``now`` is the wall clock. ``retry-after-ms`` precedes ``retry-after`` (seconds
    or an HTTP date), and that ``x-ratelimit-reset`` (seconds, or a time since 1970 in seconds or milliseconds), which
    counts only if it is near.
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    retry_after = headers.get("retry-after", "")
    if (seconds := _number(retry_after)) is not None:
        return seconds
    if (date := _date(retry_after)) is not None:
        return max(0.0, date - now)
    reset = _number(headers.get("x-ratelimit-reset"))
    if reset is None:
        return None
    if reset >= _EPOCH_S:
        reset = (reset / 1000 if reset >= _EPOCH_MS else reset) - now
    return reset if 0 <= reset <= LONGEST_WAIT_S else None


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and _NUMBER.fullmatch(text := text.strip()) else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None


class RetryBudget:
    """Limits one provider's retries to a tenth of the calls of the last minute, but grants ten in any case.

    While everything fails, a call would cost five requests; this keeps it at 1.1.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._calls: deque[float] = deque()
        self._retries: deque[float] = deque()

    def call(self) -> None:
        """Count a call that begins."""
        self._forget()
        self._calls.append(self._clock())

    def take(self) -> bool:
        """Whether one more retry is granted; it is then counted."""
        self._forget()
        if len(self._retries) >= max(_BUDGET_FLOOR, int(len(self._calls) * _BUDGET_SHARE)):
            return False
        self._retries.append(self._clock())
        return True

    def _forget(self) -> None:
        before = self._clock() - _BUDGET_WINDOW_S
        for times in (self._calls, self._retries):
            while times and times[0] <= before:
                times.popleft()
