"""Owns what each account has sent, and the rate limits that all its requests share. Pure, no I/O.

An account is a key here. Moonshot limits an account over all models, by requests and tokens a minute and by requests
at once, and counts the tokens that a request may get, not those it gets (kimi-help-center, rate limits, 2026-11-28).
The words of a refusal: MoonshotAI/Kimi-K2#34, LLM-Red-Team/kimi-cc#16 and #41.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256

from kimi_mcp.simulator.refusals import Refused

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """What each account may send; None: as much as it likes."""

    rpm: int | None = None
    """Requests a minute."""
    tpm: int | None = None
    """Tokens a minute, sent and requested."""
    concurrency: int | None = None
    """Requests at once."""


NO_LIMITS = RateLimits()


class Account:
    """What one account has sent; a refused request counts among ``refused`` alone."""

    def __init__(self, key: str) -> None:
        self.name = sha256(key.encode()).hexdigest()[:16]
        """Identifies it without its key."""
        self.requests = 0
        self.refused = Counter[str]()
        """By the limit: rpm, tpm, concurrency."""
        self.running = self.most_running = 0
        self._bodies = set[bytes]()
        self._minute: deque[tuple[float, int]] = deque()

    def check(self, tokens: int, limits: RateLimits, now: float) -> None:
        """Raise Refused where one more request of so many tokens is beyond a limit."""
        while self._minute and self._minute[0][0] <= now - MINUTE_S:
            self._minute.popleft()
        of_minute = sum(each for _, each in self._minute)
        if limits.concurrency is not None and self.running >= limits.concurrency:
            self._refuse("concurrency", f"max organization concurrency: {limits.concurrency}")
        if limits.rpm is not None and len(self._minute) >= limits.rpm:
            self._refuse("rpm", f"organization max RPM: {limits.rpm}")
        if limits.tpm is not None and of_minute + tokens > limits.tpm:
            self._refuse("tpm", f"organization TPM rate limit, current: {of_minute}, limit: {limits.tpm}")

    def _refuse(self, limit: str, reached: str) -> None:
        self.refused[limit] += 1
        message = f"Your account org-{self.name} request reached {reached}, please try again after 1 seconds"
        raise Refused(429, "rate_limit_reached_error", message)

    def add(self, body: bytes, tokens: int, now: float) -> None:
        """Count a request that is answered from now on."""
        self._minute.append((now, tokens))
        self._bodies.add(sha256(body).digest())
        self.requests += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)

    def report(self) -> dict[str, object]:
        """What it has sent; ``bodies`` counts each one that was sent again once."""
        return {
            "account": self.name,
            "requests": self.requests,
            "bodies": len(self._bodies),
            "refused": dict(self.refused),
            "running": self.running,
            "most_running": self.most_running,
        }


class Accounts:
    """Every account that has sent a chat, and the limits of each."""

    def __init__(self, limits: RateLimits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self._clock = clock
        self._accounts: dict[str, Account] = {}

    @contextmanager
    def admitted(self, key: str, body: bytes, tokens: int) -> Generator[None]:
        """Count a chat until it is answered; raises Refused where its account may not send it now."""
        account = self._accounts.setdefault(key, Account(key))
        account.check(tokens, self.limits, self._clock())
        account.add(body, tokens, self._clock())
        try:
            yield
        finally:
            account.running -= 1

    def report(self) -> dict[str, object]:
        """What each has sent since the start."""
        return {"accounts": [account.report() for account in self._accounts.values()]}
