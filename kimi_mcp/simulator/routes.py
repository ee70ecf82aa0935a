"""Owns what each path answers: chat, models, files, token estimates, balance, formulas. I/O through its writer.

Paths: Moonshot API reference (chat/completions, models, files, tokenizers/estimate-token-count, users/me/balance,
formulas); engines other than Moonshot have chat completions and models alone.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import partial
from typing import NoReturn
from urllib.parse import parse_qsl

import h11
from anyio.abc import TaskGroup

from kimi_mcp.simulator.answers import compose
from kimi_mcp.simulator.checks import Chat, read_chat, served_model
from kimi_mcp.simulator.faults import CHAT_PATH, DEFAULT_STEP, Step
from kimi_mcp.simulator.formulas import declaration, fiber
from kimi_mcp.simulator.http import ClientGone, Connection, ReceivedRequest, ResponseWriter
from kimi_mcp.simulator.messages import read_messages, summarize
from kimi_mcp.simulator.playback import play_body, play_stream
from kimi_mcp.simulator.refusals import Refused, invalid
from kimi_mcp.simulator.shapes import JsonObject, as_array
from kimi_mcp.simulator.sse import SimulatedReply, encode
from kimi_mcp.simulator.state import SimulatorState

MODELS, FILES, FORMULAS = "/v1/models", "/v1/files", "/v1/formulas"
TOKENS, BALANCE = "/v1/tokenizers/estimate-token-count", "/v1/users/me/balance"
ACCOUNTS = "/simulator/accounts"
"""The simulator's own path, without a key: what each account has sent."""

JSON_HEADERS = {"content-type": "application/json; charset=utf-8"}

_DEFAULT_ERRORS = {  # kimi-help-center error-codes
    400: ("invalid_request_error", "Invalid request: this one was refused by a scenario"),
    401: ("invalid_authentication_error", "Invalid Authentication"),
    403: ("permission_denied_error", "Permission denied"),
    404: ("resource_not_found_error", "The requested resource was not found"),
    429: ("engine_overloaded_error", "The engine is currently overloaded, please try again later"),
    499: ("client_closed_request", "Client closed request"),
    500: ("server_error", "Internal server error"),
    503: ("server_unavailable", "The server is temporarily unavailable"),
}
_PAGE = "<!DOCTYPE html><html><head><title>Simulator</title></head><body><h1>Not the API you asked</h1></body></html>"

_LIMITS = {"x-ratelimit-limit": "200", "x-ratelimit-remaining": "199", "x-ratelimit-reset": "1"}


class Response:
    """One request on its way to its response."""

    def __init__(
        self, state: SimulatorState, connection: Connection, request: ReceivedRequest, tasks: TaskGroup
    ) -> None:
        self._state = state
        self._connection = connection
        self._request = request
        self._tasks = tasks
        self._recorded = False
        self._data = b""
        self.writer: ResponseWriter | None = None
        self.client_gone = False

    async def respond(self) -> None:
        """Read the request, check it, answer it; raises CutOff and ClientGone. Cancels tasks when the client goes."""
        try:
            await self._route()
        except Refused as refused:
            await self._refuse(refused)
        except (RecursionError, h11.RemoteProtocolError) as error:
            reason = "nested too deep" if isinstance(error, RecursionError) else "malformed HTTP"
            await self._refuse(Refused(400, "invalid_request_error", f"Invalid request: {reason}"))

    def _record(self) -> None:
        if not self._recorded:
            self._recorded = True
            self._state.add(self._request)

    def _open_writer(self, step: Step) -> ResponseWriter:
        """The response's writer; from here on a client that leaves ends it."""
        if self._connection.gone:
            raise ClientGone
        self._tasks.start_soon(self._watch)
        self.writer = ResponseWriter(
            self._connection,
            keep_alive=self._request.keeps_alive and self._request.complete,
            chunks=self._request.http_version == "1.1",
            cut=step.cut,
            over=step.over,
        )
        return self.writer

    async def _watch(self) -> None:
        await self._connection.wait_until_gone()
        self.client_gone = True
        self._tasks.cancel_scope.cancel()

    async def _route(self) -> None:
        method, path = self._request.method, self._request.path
        if (method, path) == ("GET", ACCOUNTS):
            self._recorded = True  # no provider has it: it is none of the requests
            await self._send(self._state.accounts.report(), DEFAULT_STEP)
            return
        answers = self._answers()
        upload = self._state.dialect.moonshot and (method, path) == ("POST", FILES)
        if (method, path) not in answers and not upload and (method, path) != ("POST", CHAT_PATH):
            if path in (CHAT_PATH, *(known for _, known in answers)):
                raise Refused(405, "invalid_request_error", f"Method {method} is not allowed here")
            raise Refused(404, "resource_not_found_error", "The requested resource was not found")
        if upload:
            self._record()
        else:
            await self._read_body()
        step = self._next_step(unchecked=True)
        if step is None:
            self._authorize()
        if step and await self._send_instead(step):
            return
        if path == CHAT_PATH:
            await self._chat(step)
            return
        step = step or self._next_step(unchecked=False) or DEFAULT_STEP
        if await self._send_instead(step):
            return
        if upload:
            kind = self._request.headers.get("content-type", "")
            stored = await self._state.files.upload(kind, self._request.chunks())
            await self._send(stored.to_json(), step)
        else:
            await self._send(answers[method, path](), step)

    def _answers(self) -> Mapping[tuple[str, str], Callable[[], JsonObject | bytes]]:
        """What answers each method and path, but for chats and uploads."""
        answers: dict[tuple[str, str], Callable[[], JsonObject | bytes]] = {("GET", MODELS): self._models}
        if not self._state.dialect.moonshot:
            return answers
        answers |= {("GET", FILES): self._list_files, ("POST", TOKENS): self._estimate}
        answers["GET", BALANCE] = self._balance
        path, files = self._request.path, self._state.files
        if formula := re.fullmatch(FORMULAS + "/(.+)/(tools|fibers)", path):
            uri, what = formula.groups()
            answers[("GET" if what == "tools" else "POST"), path] = partial(self._formula, uri, what)
        elif file := re.fullmatch(FILES + "/([^/]+)(/content)?", path):
            if file[2]:
                answers["GET", path] = partial(files.extracted, file[1])
            else:
                answers["GET", path] = lambda: files.get(file[1]).to_json()
                answers["DELETE", path] = partial(files.delete, file[1])
        return answers

    async def _read_body(self) -> None:
        """Read and record the body: its JSON where it is some, else its bytes."""
        try:
            self._data = data = await self._request.read(self._state.max_body)
            self._request.content = data
            self._request.content = json.loads(data, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            pass
        finally:
            self._record()

    def _key(self) -> str:
        header = self._request.headers.get("authorization", "")
        return header.removeprefix("Bearer ").strip() if header.startswith("Bearer ") else ""

    def _authorize(self) -> None:
        """Raise Refused for a key that is missing or wrong (kimi-help-center error-codes; gateways echo the key)."""
        key, wanted = self._key(), self._state.require_key
        if not key and (self._state.dialect.needs_key or wanted is not None):
            raise Refused(401, "invalid_authentication_error", "Invalid Authentication")
        if key.startswith("sk-wrong") or (wanted is not None and key != wanted):
            raise Refused(401, "incorrect_api_key_error", f"Incorrect API key provided: {key}")

    def _next_step(self, *, unchecked: bool) -> Step | None:
        return self._state.take_step(summarize(self._request.path, self._request.body), unchecked=unchecked)

    async def _chat(self, step: Step | None) -> None:
        body = self._request.content
        if step is None:
            kind = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                invalid("Invalid request: the content type must be application/json")
            if isinstance(body, bytes):
                invalid("Invalid request: the body is not valid JSON")
        chat = read_chat(body, self._state.dialect, self._state.day, self._state.files.medium)
        self._request.ignored = chat.ignored
        with self._state.accounts.admitted(self._key(), self._data, chat.prompt_tokens + chat.limit):
            step = step or self._next_step(unchecked=False) or DEFAULT_STEP
            if not await self._send_instead(step):
                await self._answer(chat, step)

    async def _answer(self, chat: Chat, step: Step) -> None:
        state = self._state
        answer = compose(chat, step)
        state.answers += 1
        media = [medium.sha256 for medium in chat.received.media]
        prompt = f"{chat.tools or ''}{chat.received.transcript}"
        scope = f"{self._key()} {chat.answering.id} {media}"
        prompted = state.cache.use(scope, prompt, chat.prompt_tokens, chat.cache_ttl)
        if (price := chat.answering.model.price) and state.dialect.moonshot:
            state.billed_usd += prompted.usd(price, chat.cache_ttl, answer.completion_tokens)
        reply = SimulatedReply(
            id=f"chatcmpl-simulator-{state.answers:06d}",
            created=int(time.time()),
            model=step.answer_model or chat.answering.id,
            answer=answer,
            dialect=state.dialect,
            step=step,
            prompt_tokens=chat.prompt_tokens,
            cached_tokens=prompted.read,
            include_usage=chat.include_usage,
        )
        headers = {**(_LIMITS if state.dialect.moonshot else {}), **_retry_after(step)}
        if chat.stream:
            await play_stream(self._open_writer(step), step, reply.events(), state, headers)
            return
        data = encode(reply.whole()).encode()
        data = data.replace(b'"content":"', b'"content":"\xc3\x28', 1) if step.invalid_utf8 else data
        data = data[: len(data) // 2] if step.bad_json else data
        writer, headers = self._open_writer(step), {**JSON_HEADERS, **headers}
        await play_body(writer, step, step.status or 200, headers, data, state, tokens=answer.completion_tokens)

    def _models(self) -> JsonObject:
        dialect = self._state.dialect
        data: list[JsonObject] = []
        for row in dialect.serves:
            if not (dialect.lists_retired or row.live(self._state.day)):
                continue
            entry: JsonObject = {"id": row.id, "object": "model", "created": 1769472000, "owned_by": "moonshot"}
            if dialect.moonshot:
                entry |= {
                    "context_length": row.model.context,
                    "supports_image_in": dialect.takes("image", row.model),
                    "supports_video_in": dialect.takes("video", row.model),
                    "supports_reasoning": True,
                }
            elif not dialect.needs_key:
                entry["max_model_len"] = row.model.context
            data.append(entry)
        return {"object": "list", "data": data}

    def _formula(self, uri: str, what: str) -> JsonObject:
        if what == "tools":
            return declaration(uri)
        self._state.fibers += 1
        return fiber(uri, self._request.content, self._state.fibers)

    def _estimate(self) -> JsonObject:
        fields = self._request.body or {}
        if "model" not in fields or "messages" not in fields:
            invalid("Invalid request: 'model' and 'messages' are required")
        state = self._state
        model = served_model(str(fields["model"]), state.dialect, state.day).model
        messages = as_array(fields["messages"]) or []
        read = read_messages(messages, state.dialect, model, thinking=False, media=state.files.medium)
        return {"data": {"total_tokens": read.estimated_tokens}}

    def _balance(self) -> JsonObject:
        """The account at its start as in Moonshot's own example; vouchers go first (assumed)."""
        spent = self._state.billed_usd
        vouchers, cash = max(0.0, 46.58893 - spent), 3.00001 - max(0.0, spent - 46.58893)
        available = vouchers + max(0.0, cash)
        money = {"available_balance": available, "voucher_balance": vouchers, "cash_balance": cash}
        return {"code": 0, "data": {name: round(usd, 5) for name, usd in money.items()}, "scode": "0x0", "status": True}

    def _list_files(self) -> JsonObject:
        after = dict(parse_qsl(self._request.query)).get("after")
        listed = [one.to_json() for one in self._state.files.all() if after is None or one.id > after]
        return {"object": "list", "data": listed, "has_more": False}

    async def _send(self, value: JsonObject | bytes, step: Step) -> None:
        is_file = isinstance(value, bytes)
        headers = {"content-type": "text/plain; charset=utf-8"} if is_file else JSON_HEADERS
        await self._send_body(step.status or 200, headers, value if is_file else encode(value).encode(), step)

    async def _send_instead(self, step: Step) -> bool:
        """Send what the step has in place of an answer; returns whether it has anything."""
        if response := _body_instead(step, self._key()):
            await self._send_body(*response, step)
        return response is not None

    async def _send_body(self, status: int, headers: Mapping[str, str], data: bytes, step: Step) -> None:
        await play_body(self._open_writer(step), step, status, {**headers, **_retry_after(step)}, data, self._state)

    async def _refuse(self, refused: Refused) -> None:
        self._record()
        headers = {**JSON_HEADERS, **({"allow": "GET, POST, DELETE"} if refused.status == 405 else {})}
        data = encode(refused.body(moonshot=self._state.dialect.moonshot)).encode()
        await self._send_body(refused.status, headers, data, DEFAULT_STEP)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _body_instead(step: Step, key: str) -> tuple[int, Mapping[str, str], bytes] | None:
    """Status, headers and body of what the step has in place of an answer; None: nothing."""
    if step.html:
        page = step.html if isinstance(step.html, str) else _PAGE
        return step.status or 200, {"content-type": "text/html; charset=utf-8"}, page.encode()
    if step.body is not None:
        text = step.body if isinstance(step.body, str) else encode(step.body)
        return step.status or 200, JSON_HEADERS, text.encode("utf-8", "surrogatepass")
    if (status := step.status or 200) < 400:
        return None
    default = "unexpected_output" if status >= 500 else "error", f"Status {status}"
    kind, message = _DEFAULT_ERRORS.get(status, default)
    message = (step.error_message or message) + (f": {key}" if step.echo_key else "")
    return status, JSON_HEADERS, encode({"error": {"type": step.error_type or kind, "message": message}}).encode()


def _retry_after(step: Step) -> dict[str, str]:
    """The Retry-After header of the step."""
    if step.retry_after_date is not None:
        return {"retry-after": formatdate(time.time() + step.retry_after_date, usegmt=True)}
    return {} if step.retry_after is None else {"retry-after": str(step.retry_after)}
