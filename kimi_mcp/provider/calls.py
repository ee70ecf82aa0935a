"""``Upstream``: sends requests to providers and feeds streamed answers to accumulators, by one retry loop. Does I/O."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import anyio

from kimi_mcp.core.errors import KimiError, RateLimited, RequestRejected
from kimi_mcp.provider.attempt import attempt_once
from kimi_mcp.provider.decoding import StreamAccumulator
from kimi_mcp.provider.endpoint import Endpoint, InlineMedium, spliced
from kimi_mcp.provider.failures import Deadlines, NamedLimit
from kimi_mcp.provider.fair_slots import FairSlots
from kimi_mcp.provider.json_requests import JsonRequests
from kimi_mcp.provider.retry import BASE_S, MOST_ATTEMPTS, AccountLimits, RetryBudget, backoff, share

_log = logging.getLogger(__name__)

OnWait = Callable[[float, str], None]
"""Called before each wait with its seconds and the code of the error that causes it."""


OnRefused = Callable[[str, NamedLimit | None, float], None]
"""Called with an account's id, the limit that a refusal named, and the seconds that it asks to wait; 0: none."""


class Upstream(JsonRequests):
    """Requests to providers, at most ``max_concurrency`` at once, which callers share fairly.

    ``clock`` (monotonic), ``wall`` (for dates in headers), ``sleep`` and ``draw`` (0 to 1) are for tests.
    """

    def __init__(
        self,
        *,
        deadlines: Deadlines | None = None,
        max_concurrency: int = 16,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(deadlines or Deadlines(), max_concurrency, clock, wall)
        self._yielding = FairSlots(max(1, max_concurrency - 1))
        self._sleep, self._draw = sleep, draw
        self._budgets: dict[str, RetryBudget] = {}
        self._accounts: dict[str, AccountLimits] = {}
        self._replicas = 1
        self.on_refused: OnRefused = lambda account_id, limit, wait_s: None
        """Hears of each refusal for the rate: the account's id, the limit that it named, and the seconds to wait."""

    @property
    def slots(self) -> float:
        """Requests at once that this process may send: all of ``max_concurrency``, or its share among replicas."""
        return self._slots.total

    def share_among(self, replicas: int) -> None:
        """Keep to one share of so many, of ``max_concurrency`` and of what accounts may send.

        What is under way beyond it goes on; no request begins until the share has a free slot.
        """
        if replicas == self._replicas:
            return
        self._replicas = replicas
        self._slots.total = share(self._max_concurrency, replicas)
        self._yielding.total = max(1, self.slots - 1)
        for account in self._accounts.values():
            account.share_among(replicas)

    def account(self, account_id: str) -> AccountLimits:
        """What an account may send; see ``Endpoint.account_id``."""
        account = self._accounts.get(account_id)
        if account is None:
            account = self._accounts[account_id] = AccountLimits(self._clock)
            account.share_among(self._replicas)
        return account

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return self._yielding.waiting + self._slots.waiting

    async def stream(
        self,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        accumulator: StreamAccumulator,
        *,
        inlined: Mapping[str, InlineMedium] | None = None,
        on_attempt: Callable[[int], None] = lambda number: None,
        on_wait: OnWait = lambda seconds, code: None,
        tokens: int = 0,
        yields: bool = False,
    ) -> int:
        """Send a chat-completions body and feed the answer to the accumulator; returns the number of requests.

        ``inlined``: the media whose placeholders are in the body, in their order. ``tokens``: what the request sends
        and may receive, as rate limits count it. ``yields``: it is one of many, waits until it fits the account's
        limits, and leaves a slot for others. Returns when the answer has ended, with or without a finish reason, and
        raises a leaf of ``KimiError`` where it failed; what arrived until then is in the accumulator.
        """
        endpoint.check()
        content = spliced(_encoded(body), inlined or {})
        budget = self._budgets.setdefault(endpoint.base_url, RetryBudget(self._clock))
        budget.call()
        left = self._deadlines.total_s
        account = self.account(endpoint.account_id)
        number = 0
        while True:
            if yields:
                left -= await self._wait_for_limits(account, tokens, left, on_wait)
            async with AsyncExitStack() as held:
                for slots in (account.places, self._yielding, self._slots) if yields else (self._slots,):
                    await held.enter_async_context(slots.hold())
                began = self._clock()
                client = await self._client(endpoint)
                number += 1
                on_attempt(number)
                account.sent(tokens)
                failed = await attempt_once(
                    client,
                    content,
                    accumulator,
                    endpoint,
                    body=body,
                    deadlines=self._deadlines,
                    left_s=left,
                    wall=self._wall,
                )
            if failed is None:
                account.succeeded()
                return number
            if isinstance(failed.error, RateLimited):
                account.refused(failed.limit, failed.wait_s)
                self.on_refused(endpoint.account_id, failed.limit, failed.wait_s or 0.0)
            left -= self._clock() - began
            if not failed.retry or number >= MOST_ATTEMPTS:
                raise failed.error
            wait = failed.wait_s + self._draw() * BASE_S if failed.wait_s else backoff(number, self._draw)
            if wait >= left:
                raise _no_time(failed.error, self._deadlines.total_s)
            if not budget.take():
                raise failed.error
            _log.info("attempt %d failed: %s; the next one in %.1f s", number, failed.error.code, wait)
            on_wait(wait, failed.error.code)
            began = self._clock()
            await self._sleep(wait)
            left -= self._clock() - began

    async def _wait_for_limits(self, account: AccountLimits, tokens: int, left: float, on_wait: OnWait) -> float:
        """Wait until a request fits its account's limits, in turn; returns the seconds that took."""
        began = self._clock()
        async with account.turn.hold():
            while (wait := account.wait_for(tokens)) > 0:
                waited = self._clock() - began
                if waited + wait >= left:
                    error = RateLimited(
                        "The account's limit of requests or tokens a minute is reached.", fix="Try again later."
                    )
                    raise _no_time(error, self._deadlines.total_s)
                on_wait(wait, RateLimited.code)
                await self._sleep(wait)
        return self._clock() - began


def _no_time(error: KimiError, total_s: float) -> KimiError:
    fix = f"Raise KIMI_TOTAL_TIMEOUT_S: of its {total_s:g} s too little is left for another attempt. {error.fix}"
    return type(error)(error.message, fix=fix)


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        pass
    raise RequestRejected(
        "The request can't be written as JSON: a text holds half a surrogate pair, or a number is not finite.",
        fix="Send the prompt and the files as plain UTF-8 text.",
    )
