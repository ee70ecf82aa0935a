"""Requests whose response is one JSON document: models, files, and the provider's own tools. Does I/O.

A provider's own tools are functions of its "formulas", a run of one is a "fiber" (platform.kimi.ai
docs/guide/use-official-tools, 2026-11-24).
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote

import anyio
import anyio.to_thread

from kimi_mcp.core import bounds
from kimi_mcp.core.errors import KimiError
from kimi_mcp.provider.attempt import failure_of
from kimi_mcp.provider.endpoint import ApiRequest, Endpoint, StreamedBody
from kimi_mcp.provider.failures import Deadlines, Unreadable, failure, timed_out
from kimi_mcp.provider.fair_slots import FairSlots

if TYPE_CHECKING:
    from kimi_mcp.provider.clients import Client

LIST_KEPT_S = 600.0
"""Seconds for which a list of models is cached."""

NO_LIST_KEPT_S = 60.0
"""Seconds after which a list that could not be had is requested again."""

Purpose = Literal["image", "video", "file-extract"]
"""What a file is uploaded for: to be seen, or to have its text taken out (platform.kimi.ai docs/api/files-upload)."""

MOST_REFERENCES = 100
"""Results of one search whose titles and URLs are read."""

OUR_NAME = re.compile(r"kimi-mcp-([0-9a-f]{64})\.[a-z0-9]{2,5}\Z")
"""Names of files that kimi-mcp uploaded."""

_EXTRACTED = re.compile(r'\s*\{\s*"content"\s*:\s*"')
"""How the text of a file begins: documented as plain text (platform.kimi.ai docs/api/files-content), seen as
``{"content", "file_type", "filename", "title", "type": "file"}``."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file at the provider."""

    id: str
    """What ``ms://`` refers to."""
    name: str
    """The name it was uploaded under."""
    size: int
    """Bytes."""
    purpose: str
    """``image``, ``video`` and others that are not ours."""
    created: int
    """Unix time, seconds."""

    @property
    def sha256(self) -> str | None:
        """What identifies it, if kimi-mcp uploaded it: the hash of its content, over HTTP with its caller's."""
        ours = OUR_NAME.match(self.name)
        return ours[1] if ours else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file on its way to the provider."""

    sha256: str
    """What identifies it, hex: the hash of its content, over HTTP with its caller's."""
    mime: str
    """MIME type, detected from the content."""
    purpose: Purpose
    size: int
    """Bytes."""
    chunks: Callable[[], Iterator[bytes]]
    """Reads the content from the beginning, in worker threads."""
    on_sent: Callable[[int], None] | None = None
    """Called with the number of bytes sent, after each piece."""
    ending: str | None = None
    """Of its name, by which a provider takes its text out; None: as its type says."""

    @property
    def name(self) -> str:
        """The name that holds its hash."""
        subtype = self.mime.rpartition("/")[2].removeprefix("x-")
        ending = self.ending or re.sub(r"[^a-z0-9]", "", subtype)[:5] or "bin"
        return f"kimi-mcp-{self.sha256}.{ending}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fiber:
    """The result of one run of a function."""

    succeeded: bool
    """Whether the provider reports success."""
    text: str
    """The output; of a failed run, the provider's error."""
    sealed: bool = False
    """Whether the text is encrypted for the provider's models, which alone can open it; it goes back to them."""
    references: tuple[tuple[str, str], ...] = ()
    """Title and URL of each result of a search, which are readable where the text is not (third party)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What an account has left, in its provider's currency."""

    available: float
    """What can be spent; at 0 or less calls are refused."""
    vouchers: float
    cash: float
    """Below 0: it is owed."""


class JsonRequests:
    """Single attempts. Every failure is raised as a leaf of ``KimiError``."""

    def __init__(
        self, deadlines: Deadlines, max_concurrency: int, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._deadlines, self._clock, self._wall = deadlines, clock, wall
        self._max_concurrency = max_concurrency
        self._slots = FairSlots(max_concurrency)
        self._opening = anyio.Lock(fast_acquire=True)
        self._clients: dict[tuple[str, str | None], Client] = {}
        self._listing = anyio.Lock()
        self._lists: dict[tuple[str, str | None], tuple[float, frozenset[str] | None]] = {}

    async def aclose(self) -> None:
        """Close every socket. A later request opens new ones."""
        while self._clients:
            await self._clients.popitem()[1].aclose()

    async def served_models(self, endpoint: Endpoint) -> frozenset[str] | None:
        """The ids that ``GET /models`` lists, cached; None where they can't be had. Never raises."""
        if not endpoint.provider.lists_models:
            return None
        async with self._listing:
            until, models = self._lists.get(endpoint.account, (-inf, None))
            if self._clock() >= until:
                try:
                    models = await self.list_models(endpoint)
                    until = self._clock() + LIST_KEPT_S
                except KimiError as error:
                    _log.info("no list of models: %s", error.code)
                    models, until = None, self._clock() + NO_LIST_KEPT_S
                self._lists[endpoint.account] = until, models
            return models

    async def list_models(self, endpoint: Endpoint) -> frozenset[str]:
        """The ids that ``GET /models`` lists now."""
        rows = (await self._request(endpoint, ApiRequest("GET", "models"), self._deadlines.models_s)).get("data")
        if not isinstance(rows, list):
            raise failure("json", endpoint).error
        names = (row.get("id") for row in _objects(cast(Any, rows)))
        return frozenset(name for name in names if isinstance(name, str) and len(name) <= bounds.LONGEST_NAME)

    async def balance(self, endpoint: Endpoint) -> Balance:
        """What the account has left (platform.kimi.ai docs/api/balance, 2026-11-28)."""
        answer = await self._request(endpoint, ApiRequest("GET", "users/me/balance"), self._deadlines.models_s)
        (data,) = _objects([answer.get("data")]) or [{}]
        amounts = [data.get(f"{name}_balance") for name in ("available", "voucher", "cash")]
        if not all(isinstance(amount, int | float) and abs(amount) < inf for amount in amounts):
            raise failure("json", endpoint).error
        available, vouchers, cash = (float(cast(float, amount)) for amount in amounts)
        return Balance(available=available, vouchers=vouchers, cash=cash)

    async def estimated_tokens(self, endpoint: Endpoint, model: str, messages: Sequence[Mapping[str, Any]]) -> int:
        """How many tokens messages have by the provider's own count (kimi-help-center estimate-token-count)."""
        body = json.dumps({"model": model, "messages": messages}).encode()
        request = ApiRequest("POST", "tokenizers/estimate-token-count", body, repeatable=True)
        answer = await self._request(endpoint, request, self._deadlines.files_s)
        (data,) = _objects([answer.get("data")]) or [{}]
        if not (tokens := _count(data, "total_tokens")):
            raise failure("json", endpoint).error
        return tokens

    async def list_files(self, endpoint: Endpoint) -> tuple[RemoteFile, ...]:
        """All files of this account at the provider, whoever uploaded them."""
        listed = await self._request(endpoint, ApiRequest("GET", "files"), self._deadlines.files_s)
        return tuple(
            RemoteFile(
                id=_name(row, "id"),
                name=_name(row, "filename"),
                size=_count(row, "bytes"),
                purpose=_name(row, "purpose"),
                created=_count(row, "created_at"),
            )
            for row in _objects(listed.get("data"))
        )

    async def remove_file(self, endpoint: Endpoint, identity: str) -> None:
        """Remove a file at the provider."""
        request = ApiRequest("DELETE", f"files/{quote(identity, safe='')}")
        await self._request(endpoint, request, self._deadlines.files_s)

    async def upload(self, endpoint: Endpoint, file: Upload) -> str:
        """Upload a file in pieces; returns its id. The first token's deadline holds between two pieces."""
        boundary = f"kimi-mcp-{secrets.token_hex(16)}"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{file.purpose}\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n'
            f"Content-Type: {file.mime}\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        stalled = anyio.CancelScope()

        def body() -> Iterator[bytes]:
            yield head
            yield from file.chunks()
            yield tail

        def on_sent(sent: int) -> None:
            stalled.deadline = anyio.current_time() + self._deadlines.first_token_s
            if file.on_sent is not None and 0 < sent - len(head) <= file.size:
                file.on_sent(sent - len(head))

        content = StreamedBody(length=len(head) + file.size + len(tail), pieces=body)
        request = ApiRequest("POST", "files", content, f"multipart/form-data; boundary={boundary}", on_sent)
        async with self._slots.hold():
            with anyio.move_on_after(self._deadlines.total_s) as whole, stalled:
                on_sent(0)
                identity = (await self._request(endpoint, request, inf)).get("id")
                if not isinstance(identity, str) or not 0 < len(identity) <= bounds.LONGEST_NAME:
                    raise failure("json", endpoint).error
                return identity
        raise timed_out("whole upload" if whole.cancelled_caught else "upload", self._deadlines, endpoint).error

    async def file_text(self, endpoint: Endpoint, identity: str) -> str:
        """The text that the provider took out of an uploaded file; it waits until that is done.

        Raises ``ModelNotServed`` (404) for a file that is not there.
        """
        request = ApiRequest("GET", f"files/{quote(identity, safe='')}/content")
        body = await self._send(endpoint, request, self._deadlines.first_token_s, most=bounds.LARGEST_FILE_TEXT)
        if body.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
            raise failure("markup", endpoint).error
        text = body.decode("utf-8", "replace")
        if begins := _EXTRACTED.match(text):
            with suppress(ValueError):  # the text alone is read: all of the JSON could take far more memory
                content, _ = json.JSONDecoder(strict=False).raw_decode(text, begins.end() - 1)
                return _text(content).encode("utf-8", "replace").decode()  # without half a surrogate pair
        return text

    async def list_functions(self, endpoint: Endpoint, uri: str) -> tuple[Mapping[str, Any], ...]:
        """The functions of one of the provider's formulas, as they go under ``tools[].function``."""
        request = ApiRequest("GET", f"formulas/{quote(uri, safe='/:')}/tools")
        tools = _objects((await self._request(endpoint, request, self._deadlines.files_s)).get("tools"))
        return tuple(_objects([tool.get("function") for tool in tools]))

    async def run_function(self, endpoint: Endpoint, uri: str, name: str, arguments: str) -> Fiber:
        """Run a function of a formula, ``arguments`` being JSON text. One attempt: a run may be billed."""
        body = json.dumps({"name": name, "arguments": arguments}).encode()
        request = ApiRequest("POST", f"formulas/{quote(uri, safe='/:')}/fibers", body)
        fiber = await self._request(endpoint, request, self._deadlines.formula_s)
        (context,) = _objects([fiber.get("context")]) or [{}]
        if fiber.get("status") != "succeeded":
            return Fiber(succeeded=False, text=_text(fiber.get("error") or context.get("error") or ""))
        rows = _objects(context.get("references"))[:MOST_REFERENCES]
        references = tuple((_name(row, "title"), _name(row, "url", most=2_048)) for row in rows)
        output, sealed = context.get("output"), context.get("encrypted_output")
        if output is not None and output != "":
            return Fiber(succeeded=True, text=_text(output), references=references)
        return Fiber(succeeded=True, text=_text(sealed or ""), sealed=bool(sealed), references=references)

    async def _request(self, endpoint: Endpoint, request: ApiRequest, within_s: float) -> dict[str, Any]:
        """The JSON object that the provider responds with, bounded; ``within_s``: seconds for all of it."""
        body = await self._send(endpoint, request, within_s, counted=True)
        try:
            parsed: Any = json.loads(body)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise failure("markup" if body.lstrip().startswith(b"<") else "json", endpoint).error
        return cast(dict[str, Any], parsed)

    async def _send(
        self,
        endpoint: Endpoint,
        request: ApiRequest,
        within_s: float,
        *,
        most: int = bounds.LARGEST_DOCUMENT,
        counted: bool = False,
    ) -> bytes:
        """The body of the response, up to ``most`` bytes; ``counted``: the values in it, which is JSON, as well."""
        client = await self._client(endpoint)
        body: bytes | None = None
        failed = failure("slow-connect", endpoint)
        with anyio.move_on_after(within_s):
            try:
                body = await _body(client, request, most)
                if counted:
                    bounds.check_values(body)
            except Exception as error:  # noqa: BLE001 - the boundary: whatever the libraries raise becomes ours here
                failed = failure_of(error, endpoint, self._wall)
        if body is None:
            raise failed.error  # here, so that the foreign error is not its context
        return body

    async def _client(self, endpoint: Endpoint) -> Client:
        endpoint.check()
        if (client := self._clients.get(endpoint.account)) is not None:
            return client
        async with self._opening:
            if endpoint.account not in self._clients:
                self._clients[endpoint.account] = await anyio.to_thread.run_sync(
                    _open_client, endpoint, self._deadlines, abandon_on_cancel=True
                )
            return self._clients[endpoint.account]


def _open_client(endpoint: Endpoint, deadlines: Deadlines) -> Client:
    """For a thread: importing openai takes up to half a second, and certificates are read from disk."""
    from kimi_mcp.provider.clients import Client

    return Client(endpoint.base_url, endpoint.key, deadlines)


async def _body(client: Client, request: ApiRequest, most: int) -> bytes:
    """The whole body of a response; raises what the libraries do, ``Unreadable`` and ``OutOfBounds``."""
    body = bytearray()
    response = await client.send(request)
    try:
        async for piece in response.pieces():
            body += piece
            if response.compressed:
                raise Unreadable("compressed")
            if len(body) > most:
                raise bounds.OutOfBounds(f"a document of more than {most:,} bytes")
    finally:
        await response.aclose()
    return bytes(body)


def _objects(values: Any) -> list[dict[str, Any]]:
    """The objects in a list; none, if it is no list."""
    return [value for value in cast(list[Any], values) if isinstance(value, dict)] if isinstance(values, list) else []


def _name(row: dict[str, Any], field: str, *, most: int = bounds.LONGEST_NAME) -> str:
    return str(row.get(field, ""))[:most]


def _count(row: dict[str, Any], field: str) -> int:
    """A whole number that JSON can hold exactly; 0 for anything else."""
    value = row.get(field)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
