"""``AccountLimits``: how many requests and tokens one account may send a minute, over all calls and swarms. Pure.

Moonshot counts requests and tokens a minute per account, over all models and keys, and counts the tokens requested
(``max_completion_tokens``), not those received (MoonshotAI/kimi-help-center, rate limits). A limit is known only from
the error that names it: ``max RPM: 3``, ``max TPM: 64000``, ``max concurrency: 1`` (the same, error codes).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from math import inf

from kimi_mcp.core.limiter import ResizableLimiter
from kimi_mcp.provider.failures import NamedLimit
from kimi_mcp.provider.retry import LONGEST_WAIT_S

WINDOW_S = 60.0
"""Seconds that limits are counted over."""

FORGET_AFTER_S = 600.0
"""Seconds without a refusal after which a limit is forgotten: the account may have been upgraded."""

_NAMED = re.compile(r"\bmax(?:imum)?(?: organization)? (RPM|TPM|concurrency):?\s{0,3}(\d{1,12})", re.IGNORECASE)
_OTHERWISE = re.compile(r"\b(RPM|TPM|concurrency) rate limit\b.{0,80}?\blimit:?\s{0,3}(\d{1,12})", re.IGNORECASE)


def limit_in(message: str) -> NamedLimit | None:
    """The limit that a provider's error names, if any."""
    found = _NAMED.search(message) or _OTHERWISE.search(message)
    if found is None or not (most := int(found[2])):
        return None
    match found[1].lower():
        case "rpm":
            return "requests", most
        case "tpm":
            return "tokens", most
        case _:
            return "at-once", most


class AccountLimits:
    """One key at one base URL. Mutable."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.places = ResizableLimiter(inf)
        """Where requests that yield wait for one another, once a limit of concurrency is known."""
        self._clock = clock
        self._sent: deque[tuple[float, int]] = deque()
        self._tokens = 0
        self._most: dict[str, int] = {}
        self._refused_at = self._opens_at = float("-inf")

    @property
    def last_minute(self) -> tuple[int, int]:
        """Requests of the last minute, and the tokens that they sent and asked for."""
        self._forget()
        return len(self._sent), self._tokens

    def sent(self, tokens: int) -> None:
        """Count a request that sends and asks for so many tokens."""
        self._forget()
        self._sent.append((self._clock(), tokens))
        self._tokens += tokens

    def _forget(self) -> None:
        """Drop what is older than the window."""
        before = self._clock() - WINDOW_S
        while self._sent and self._sent[0][0] <= before:
            self._tokens -= self._sent.popleft()[1]

    def refused(self, limit: NamedLimit | None, wait_s: float | None) -> None:
        """Record a refusal for the rate: the limit it named, and the seconds it asked to wait."""
        self._refused_at = self._clock()
        if wait_s and wait_s <= LONGEST_WAIT_S:  # longer waits are errors
            self._opens_at = max(self._opens_at, self._refused_at + wait_s)
        if limit is not None:
            counted, most = limit
            self._most[counted] = most
            if counted == "at-once":
                self.places.most = max(1, most - 1)  # one for those that don't yield

    def wait_for(self, tokens: int) -> float:
        """Seconds until a request of so many tokens fits the limits; 0: it does now."""
        now = self._clock()
        if now < self._opens_at:
            return self._opens_at - now
        if now - self._refused_at > FORGET_AFTER_S:
            self._most.clear()
            self.places.most = inf
        most_requests = self._most.get("requests", inf)
        most_tokens = max(self._most.get("tokens", inf), tokens)
        requests, total = self.last_minute
        wait = 0.0
        for at, each in self._sent:
            if requests + 1 <= most_requests and total + tokens <= most_tokens:
                break
            requests, total, wait = requests - 1, total - each, at + WINDOW_S - now
        return wait
