"""``Upstream``: sends a request to a provider and feeds the answer to a sink, until it ends or fails. Does I/O.

The one retry loop and the one place where foreign errors become ours. Nothing is retried once a token has come, and no
exception but ours ever leaves.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from kimi_mcp.core.bounds import LONGEST_NAME
from kimi_mcp.core.errors import KimiError, NotConfigured, RateLimited, RequestRejected
from kimi_mcp.core.profiles import Provider
from kimi_mcp.provider import files, formulas
from kimi_mcp.provider.attempt import StreamSink, attempt_once, read_whole
from kimi_mcp.provider.error_mapping import either
from kimi_mcp.provider.failures import AttemptFailure, Deadline, Deadlines, failure, timed_out
from kimi_mcp.provider.inline_media import InlineMedium, spliced
from kimi_mcp.provider.rate_limits import AccountLimits
from kimi_mcp.provider.retry import BASE_S, MOST_ATTEMPTS, RetryBudget, backoff

if TYPE_CHECKING:
    from kimi_mcp.provider.clients import Client, Clients

LIST_WITHIN_S = 5.0
"""Seconds that ``GET /models`` may take."""

FILES_WITHIN_S = 20.0
"""Seconds that looking at, or removing, files at the provider may take."""

FORMULA_WITHIN_S = 60.0
"""Seconds that one of the provider's own tools may take."""

LIST_KEPT_S = 600.0
"""Seconds for which a list of models is believed."""

NO_LIST_KEPT_S = 60.0
"""Seconds for which it is believed that there is none to be had."""

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a request goes, and with which key."""

    provider: Provider
    """Whose endpoint it is."""
    base_url: str
    """OpenAI-compatible base URL, without a slash at the end."""
    key: str | None = field(default=None, repr=False)
    """What is sent as bearer; None: nothing is."""

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.base_url).netloc

    def check(self) -> None:
        """Raise ``NotConfigured`` where no request could be made of it."""
        try:
            parts = urlsplit(self.base_url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
            usable = usable and parts.port != 0 and not parts.query and not parts.fragment
        except ValueError:
            usable = False
        if not usable or not self.base_url.isprintable():
            raise NotConfigured(
                "The base URL is not an http or https URL of host and path.",
                fix="Set KIMI_BASE_URL to a URL such as https://api.moonshot.ai/v1, without a key in it.",
            )
        if self.key and not (self.key.isascii() and self.key.isprintable() and " " not in self.key):
            raise NotConfigured(
                "The key holds a character that no key has (a blank, a line end, a quotation mark from a web page).",
                fix=f"Set {either((*self.provider.key_variables, 'KIMI_API_KEY'))} again, to the key alone.",
            )


class Upstream:
    """Requests to providers, at most ``max_concurrency`` at once; who waits is served in order.

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
        self._deadlines = deadlines or Deadlines()
        self._slots = anyio.Semaphore(max_concurrency, fast_acquire=True)
        self._yielding = anyio.Semaphore(max(1, max_concurrency - 1), fast_acquire=True)
        self._clock, self._wall, self._sleep, self._draw = clock, wall, sleep, draw
        self._budgets: dict[str, RetryBudget] = {}
        self._accounts: dict[tuple[str, str | None], AccountLimits] = {}
        self._opening = anyio.Lock()
        self._clients: Clients | None = None
        self._lists: dict[tuple[str, str | None], _Listed] = {}

    async def stream(
        self,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        sink: StreamSink,
        *,
        inlined: Mapping[str, InlineMedium] | None = None,
        on_attempt: Callable[[int], None] | None = None,
        on_wait: Callable[[float, str], None] | None = None,
        tokens: int = 0,
        yields: bool = False,
    ) -> int:
        """Send a chat-completions body and feed the answer to the sink; returns the number of requests it took.

        ``inlined``: the media whose placeholders stand in the body, in their order.
        Returns when the answer has ended, with or without a finish reason (``sink.finished`` tells), and raises a leaf
        of ``KimiError`` where it failed; what arrived until then is in the sink. ``on_attempt`` gets the number of
        each request just before it is sent, ``on_wait`` the seconds and the error's code before each wait. ``tokens``
        is what the request sends and asks for, as rate limits count it. One that ``yields`` is one of many: it waits
        until it fits into what the account may be asked, and leaves a place for those that don't.
        """
        endpoint.check()
        content = spliced(_encoded(body), inlined or {})
        budget = self._budget(endpoint)
        budget.call()
        left = self._deadlines.total_s
        account = self._account(endpoint)
        number = 0
        while True:
            if yields:
                left -= await self._fitting(account, tokens, left, on_wait)
            async with self._place(account if yields else None):
                began = self._clock()
                client = await self._client(endpoint)
                number += 1
                if on_attempt is not None:
                    on_attempt(number)
                account.sent(tokens)
                fault = await attempt_once(
                    client, content, sink, to=endpoint, deadlines=self._deadlines, left_s=left, wall=self._wall
                )
            if fault is None:
                return number
            if isinstance(fault.error, RateLimited):
                account.refused(fault.limit, fault.wait_s)
            left -= self._clock() - began
            wait = self._wait_after(number, fault)
            if wait is None:
                raise fault.error
            if wait >= left:
                raise _no_time(fault.error, self._deadlines.total_s)
            if not budget.take():
                raise fault.error
            _log.info("attempt %d failed: %s; the next one in %.1f s", number, fault.error.code, wait)
            if on_wait is not None:
                on_wait(wait, fault.error.code)
            began = self._clock()
            await self._sleep(wait)
            left -= self._clock() - began

    async def served_models(self, endpoint: Endpoint) -> frozenset[str] | None:
        """The ids that ``GET /models`` lists just now; None where that can't be known. Never raises, seldom asks."""
        if not endpoint.provider.lists_models:
            return None
        listed = self._lists.setdefault((endpoint.base_url, endpoint.key), _Listed())
        async with listed.lock:
            if self._clock() >= listed.until:
                listed.models = await self._list(endpoint)
                listed.until = self._clock() + (NO_LIST_KEPT_S if listed.models is None else LIST_KEPT_S)
            return listed.models

    async def aclose(self) -> None:
        """Close every socket. A later call opens new ones."""
        clients, self._clients = self._clients, None
        if clients is not None:
            await clients.aclose()

    @asynccontextmanager
    async def _place(self, shared: AccountLimits | None) -> AsyncGenerator[None]:
        """A place for one request; those that yield share what their account allows, and leave one for the others."""
        if shared is None:
            async with self._slots:
                yield
        else:
            async with shared.places, self._yielding, self._slots:
                yield

    async def _fitting(
        self, account: AccountLimits, tokens: int, left: float, on_wait: Callable[[float, str], None] | None
    ) -> float:
        """Wait until a request fits into what its account may be asked; returns the seconds that took."""
        began = self._clock()
        while (wait := account.wait_for(tokens)) > 0:
            waited = self._clock() - began
            if waited + wait >= left:
                raise _no_time(
                    RateLimited(
                        "The account's limit of requests or tokens a minute is reached.", fix="Try again later."
                    ),
                    self._deadlines.total_s,
                )
            if on_wait is not None:
                on_wait(wait, RateLimited.code)
            await self._sleep(wait)
        return self._clock() - began

    def _wait_after(self, number: int, fault: AttemptFailure) -> float | None:
        """Seconds until the next attempt; None: there is none."""
        if not fault.retry or number >= MOST_ATTEMPTS:
            return None
        return fault.wait_s + self._draw() * BASE_S if fault.wait_s else backoff(number, self._draw)

    async def list_models(self, endpoint: Endpoint) -> frozenset[str]:
        """The ids that ``GET /models`` lists, asked anew; raises a leaf of ``KimiError`` that says why there are none.

        For whoever wants to know whether the provider can be reached at all (``kimi-mcp doctor``).
        """
        with anyio.move_on_after(LIST_WITHIN_S):
            found = await read_whole(await self._client(endpoint), "models", to=endpoint, wall=self._wall)
            if isinstance(found, AttemptFailure):
                raise found.error
            if (models := _model_ids(found)) is not None:
                return models
            kind = "markup" if found.lstrip().startswith(b"<") else "json"
            raise failure(kind, provider=endpoint.provider.id, host=endpoint.host).error
        raise failure("slow-connect", provider=endpoint.provider.id, host=endpoint.host).error

    async def upload(self, endpoint: Endpoint, file: files.Upload) -> str:
        """Send a file; the id that it has at the provider. One attempt, within the total deadline.

        Each piece that the provider takes begins its wait anew; a line that stands still is not waited for to the end.
        """
        client = await self._client(endpoint)
        async with self._slots:
            with anyio.move_on_after(self._deadlines.total_s) as whole, anyio.CancelScope() as still:

                def moved(sent: int) -> None:
                    still.deadline = anyio.current_time() + self._deadlines.first_token_s
                    if sent and file.on_sent is not None:
                        file.on_sent(sent)

                moved(0)
                return _had(await files.upload(client, replace(file, on_sent=moved), to=endpoint, wall=self._wall))
        passed: Deadline = "whole upload" if whole.cancelled_caught else "upload"
        raise timed_out(passed, self._deadlines, provider=endpoint.provider.id).error

    async def list_files(self, endpoint: Endpoint) -> tuple[files.RemoteFile, ...]:
        """What lies at the provider under this account."""
        client = await self._client(endpoint)
        with anyio.move_on_after(FILES_WITHIN_S):
            return _had(await files.listed(client, to=endpoint, wall=self._wall))
        raise failure("slow-connect", provider=endpoint.provider.id, host=endpoint.host).error

    async def remove_file(self, endpoint: Endpoint, identity: str) -> None:
        """Remove a file at the provider."""
        client = await self._client(endpoint)
        with anyio.move_on_after(FILES_WITHIN_S):
            return _had(await files.removed(client, identity, to=endpoint, wall=self._wall))
        raise failure("slow-connect", provider=endpoint.provider.id, host=endpoint.host).error

    async def formula(self, endpoint: Endpoint, uri: str) -> tuple[Mapping[str, Any], ...]:
        """The functions that one of the provider's formulas holds, as they stand under ``tools[].function``."""
        client = await self._client(endpoint)
        with anyio.move_on_after(FILES_WITHIN_S):
            return _had(await formulas.functions(client, uri, to=endpoint, wall=self._wall))
        raise failure("slow-connect", provider=endpoint.provider.id, host=endpoint.host).error

    async def run_formula(self, endpoint: Endpoint, uri: str, name: str, arguments: str) -> formulas.Fiber:
        """One run of a function of a formula, ``arguments`` being JSON text. One attempt: a run may be billed."""
        client = await self._client(endpoint)
        with anyio.move_on_after(FORMULA_WITHIN_S):
            return _had(await formulas.fiber(client, uri, name, arguments, to=endpoint, wall=self._wall))
        raise failure("slow-connect", provider=endpoint.provider.id, host=endpoint.host).error

    async def _list(self, endpoint: Endpoint) -> frozenset[str] | None:
        try:
            return await self.list_models(endpoint)
        except KimiError as error:
            _log.info("no list of models: %s", error.code)
            return None

    async def _client(self, endpoint: Endpoint) -> Client:
        endpoint.check()
        if self._clients is None:
            async with self._opening:
                self._clients = self._clients or await anyio.to_thread.run_sync(_open_clients)
        return self._clients.get(endpoint.base_url, endpoint.key)

    def _account(self, endpoint: Endpoint) -> AccountLimits:
        account = self._accounts.get((endpoint.base_url, endpoint.key))
        if account is None:
            account = self._accounts[endpoint.base_url, endpoint.key] = AccountLimits(self._clock)
        return account

    def _budget(self, endpoint: Endpoint) -> RetryBudget:
        budget = self._budgets.get(endpoint.base_url)
        if budget is None:
            budget = self._budgets[endpoint.base_url] = RetryBudget(self._clock)
        return budget


class _Listed:
    """A list of models, and until when it holds."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.models: frozenset[str] | None = None
        self.until = float("-inf")


def _had(found: T | AttemptFailure) -> T:
    """What was asked for; raises why it can't be had."""
    if isinstance(found, AttemptFailure):
        raise found.error
    return found


def _open_clients() -> Clients:
    """In a thread: importing openai takes up to half a second, and other calls go on meanwhile."""
    from kimi_mcp.provider.clients import Clients

    return Clients()


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


def _model_ids(body: bytes | None) -> frozenset[str] | None:
    try:
        found: Any = json.loads(body) if body else None
        named = (row["id"] for row in found["data"])
        return frozenset(name for name in named if isinstance(name, str) and len(name) <= LONGEST_NAME)
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
