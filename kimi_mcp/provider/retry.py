"""When a request may be sent, and when once more: back-off, Retry-After, retry budget, an account's limits. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from math import inf

from kimi_mcp.provider.failures import Counted, NamedLimit
from kimi_mcp.provider.fair_slots import FairSlots

MOST_ATTEMPTS = 5
"""Requests that one call may send: at most 7.5 s of waiting between five."""

BASE_S = 0.5
"""Longest wait before the second attempt, in seconds; it doubles with each further one."""

CAP_S = 8.0
"""Longest wait that we decide ourselves, in seconds."""

LONGEST_WAIT_S = 120.0
"""Longest wait that a provider may ask for, in seconds; beyond it there is no further attempt."""

WINDOW_S = 60.0
"""Seconds that requests and retries are counted over."""

FORGET_AFTER_S = 600.0
"""Seconds without a refusal after which a limit is forgotten: the account may have been upgraded."""

_BUDGET_SHARE = 0.1
_BUDGET_FLOOR = 10

_NUMBER = re.compile(r"\d{1,400}(\.\d{0,20})?")
_EPOCH_S = 1_000_000_000
_EPOCH_MS = 1_000_000_000_000

_NAMED = re.compile(r"\bmax(?:imum)?(?: organization)? (RPM|TPM|concurrency):?\s{0,3}(\d{1,12})", re.IGNORECASE)
_OTHERWISE = re.compile(r"\b(RPM|TPM|concurrency) rate limit\b.{0,80}?\blimit:?\s{0,3}(\d{1,12})", re.IGNORECASE)
_COUNTED: Mapping[str, Counted] = {"rpm": "requests", "tpm": "tokens", "concurrency": "at-once"}


def backoff(attempt: int, draw: Callable[[], float]) -> float:
    """Seconds to wait after that many attempts: a random share of a bound that doubles (full jitter)."""
    return draw() * min(CAP_S, BASE_S * 2 ** (attempt - 1))


def requested_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait, where a provider names them.

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


class LastMinute:
    """What happened within ``WINDOW_S``, by a monotonic clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.events: deque[tuple[float, int]] = deque()
        """The time and the tokens of each, the oldest first."""
        self._tokens = 0

    def add(self, tokens: int = 0) -> None:
        """Count something that happens now."""
        self.count()
        self.events.append((self._clock(), tokens))
        self._tokens += tokens

    def count(self) -> tuple[int, int]:
        """Drop what is older; returns the number of events, and of their tokens."""
        before = self._clock() - WINDOW_S
        while self.events and self.events[0][0] <= before:
            self._tokens -= self.events.popleft()[1]
        return len(self.events), self._tokens


class RetryBudget:
    """Limits one provider's retries to a tenth of the calls of the last minute, but grants ten in any case."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._calls, self._retries = LastMinute(clock), LastMinute(clock)

    def call(self) -> None:
        """Count a call that begins."""
        self._calls.add()

    def take(self) -> bool:
        """Whether one more retry is granted; it is then counted."""
        calls, retries = self._calls.count()[0], self._retries.count()[0]
        if retries >= max(_BUDGET_FLOOR, int(calls * _BUDGET_SHARE)):
            return False
        self._retries.add()
        return True


def limit_in(message: str) -> NamedLimit | None:
    """The limit that a provider's error names, if any."""
    found = _NAMED.search(message) or _OTHERWISE.search(message)
    if found is None or not (most := int(found[2])):
        return None
    return _COUNTED[found[1].lower()], most


def share(total: float, replicas: int) -> float:
    """One replica's part of what all of them may do together: whole, and at least 1."""
    return max(1, total // replicas) if total < inf else inf


class AccountLimits:
    """How many requests and tokens one account may send a minute, over all calls and swarms. Mutable.

    Moonshot counts requests and tokens a minute per account, over all models and keys, and counts the tokens requested
    (``max_completion_tokens``), not those received (MoonshotAI/kimi-help-center, rate limits). A limit is known only
    from the error that names it: ``max RPM: 3``, ``max TPM: 64000``, ``max concurrency: 1`` (the same, error codes).
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.places = FairSlots(inf)
        """Where requests that yield wait for one another, once a limit of concurrency is known."""
        self.turn = FairSlots(1)
        """Whose turn it is among those that wait for the minute."""
        self._clock = clock
        self._sent = LastMinute(clock)
        self._most: dict[Counted, int] = {}
        self._replicas = 1
        self._slowed = self._unslowed = inf
        self._refused_at = self._opens_at = -inf

    @property
    def limits(self) -> Mapping[Counted, int]:
        """Those of the whole account that are known."""
        return dict(self._most)

    @property
    def last_minute(self) -> tuple[int, int]:
        """Requests of the last minute, and their tokens, sent and requested."""
        return self._sent.count()

    def sent(self, tokens: int) -> None:
        """Count a request of so many tokens, sent and requested."""
        self._sent.add(tokens)

    def refused(self, limit: NamedLimit | None, wait_s: float | None) -> None:
        """Record a refusal for the rate: the limit it named, and the seconds to wait."""
        self._refused_at = self._clock()
        if wait_s and wait_s <= LONGEST_WAIT_S:  # longer waits are errors
            self._opens_at = max(self._opens_at, self._refused_at + wait_s)
        if limit is not None:
            counted, most = limit
            self._most[counted] = most
            self._set_places()

    def refused_elsewhere(self, limits: Mapping[Counted, int], wait_s: float, ago_s: float) -> None:
        """Record that another replica was refused for the rate: its limits, and seconds to wait and since then.

        Half as many requests that yield as run now may run at once; those that succeed give that back.
        """
        now = self._clock()
        self._refused_at = max(self._refused_at, now - ago_s)
        if wait_s <= LONGEST_WAIT_S:
            self._opens_at = max(self._opens_at, now + wait_s)
        self._most.update(limits)
        if ago_s < WINDOW_S and (held := self.places.held):
            self._unslowed = held if self._slowed == inf else self._unslowed
            self._slowed = max(1.0, min(self._slowed, held) / 2)
        self._set_places()

    def succeeded(self) -> None:
        """Let one more run at once, after as many successes as may run now."""
        if self._slowed < inf:
            self._slowed += 1 / self._slowed
            if self._slowed >= self._unslowed:
                self._slowed = inf
            self._set_places()

    def share_among(self, replicas: int) -> None:
        """From here on the limits hold for so many replicas together, of which this one takes its part."""
        self._replicas = replicas
        self._set_places()

    def _share(self, counted: Counted) -> float:
        return share(self._most.get(counted, inf), self._replicas)

    def _set_places(self) -> None:
        at_once = max(1, self._share("at-once") - 1)  # one for those that don't yield
        self.places.total = min(at_once, self._slowed if self._slowed == inf else int(self._slowed))

    def wait_for(self, tokens: int) -> float:
        """Seconds until a request of so many tokens fits the limits; 0: it does now."""
        now = self._clock()
        if now < self._opens_at:
            return self._opens_at - now
        if now - self._refused_at > FORGET_AFTER_S:
            self._most.clear()
            self._slowed = inf
            self._set_places()
        most_requests = self._share("requests")
        most_tokens = max(self._share("tokens"), tokens)
        requests, total = self.last_minute
        wait = 0.0
        for at, each in self._sent.events:
            if requests + 1 <= most_requests and total + tokens <= most_tokens:
                break
            requests, total, wait = requests - 1, total - each, at + WINDOW_S - now
        return wait
