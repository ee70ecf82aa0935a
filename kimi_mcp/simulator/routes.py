"""Owns what each path answers: chat, models, files, token estimates, balance, formulas. I/O through its Reply.

Paths: Moonshot API reference (chat/completions, models, files, tokenizers/estimate-token-count, users/me/balance,
formulas); engines other than Moonshot have chat completions and models alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from urllib.parse import parse_qsl

import h11
from anyio import CancelScope

from kimi_mcp.simulator import answers
from kimi_mcp.simulator.checks import Chat, read_chat
from kimi_mcp.simulator.faults import CHAT_PATH, PLAIN, Step
from kimi_mcp.simulator.formulas import declaration, fiber, parse_path
from kimi_mcp.simulator.http import BodyTooLarge, ClientGone, HttpRequest, Reply, Wire
from kimi_mcp.simulator.messages import glimpse, read_messages
from kimi_mcp.simulator.playback import play_body, play_stream
from kimi_mcp.simulator.refusals import Refused, invalid
from kimi_mcp.simulator.shapes import JsonObject, as_array, as_object
from kimi_mcp.simulator.sse import Envelope, encode, events, whole_answer
from kimi_mcp.simulator.state import Exchange, World, parse_json

MODELS, FILES = "/v1/models", "/v1/files"
TOKENS, BALANCE = "/v1/tokenizers/estimate-token-count", "/v1/users/me/balance"

_JSON = {"content-type": "application/json; charset=utf-8"}

_DEFAULTS = {  # kimi-help-center error-codes
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

    def __init__(self, world: World, wire: Wire, request: HttpRequest, scope: CancelScope) -> None:
        self.world = world
        self._scope = scope
        self.wire = wire
        self.request = request
        self.exchange: Exchange | None = None
        self.reply: Reply | None = None

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection can carry another request."""
        return self.reply is not None and self.reply.keep_alive

    async def respond(self) -> None:
        """Read the request, judge it, answer it; raises CutOff and ClientGone."""
        try:
            await self._route()
        except Refused as refused:
            await self._refuse(refused)
        except RecursionError:
            await self._refuse(Refused(400, "invalid_request_error", "Invalid request: nested too deep"))
        except h11.RemoteProtocolError:
            await self._refuse(Refused(400, "invalid_request_error", "Invalid request: malformed HTTP"))
        except BodyTooLarge:
            await self._refuse(Refused(413, "invalid_request_error", "Invalid request: the request body is too large"))

    def _begin(self, body: object = None) -> Exchange:
        if self.exchange is None:
            self.exchange = self.world.begin(self.request, body)
        return self.exchange

    def _reply(self, step: Step) -> Reply:
        """The response's writer; from here on a client that leaves ends it."""
        request = self.request
        if self.wire.gone:
            raise ClientGone
        self.wire.on_gone = self._scope.cancel
        self.reply = Reply(
            self.wire,
            keep_alive=request.keeps_alive and request.complete,
            chunks=request.http_version == "1.1",
            cut=step.cut,
            over=step.over,
        )
        return self.reply

    async def _route(self) -> None:
        method, path = self.request.method, self.request.path
        moonshot = self.world.dialect.moonshot
        file_id = path.removeprefix(FILES + "/") if path.startswith(FILES + "/") else None
        allowed: Mapping[str, tuple[str, ...]] = {CHAT_PATH: ("POST",), MODELS: ("GET",)}
        formula = parse_path(path) if moonshot else None
        if moonshot:
            allowed = {**allowed, FILES: ("GET", "POST"), TOKENS: ("POST",), BALANCE: ("GET",)}
        if formula is not None:
            allowed = {**allowed, path: ("GET",) if formula[1] == "tools" else ("POST",)}
        methods = allowed.get(path) or (self._file_methods(file_id) if moonshot and file_id else None)
        if methods is None:
            raise Refused(404, "resource_not_found_error", "The requested resource was not found")
        if method not in methods:
            raise Refused(405, "invalid_request_error", f"Method {method} is not allowed here")
        if path == CHAT_PATH:
            await self._chat()
            return
        if path == FILES and method == "POST":
            self._begin()
        else:
            await self._body()
        step = self._step(unchecked=True) or self._authorized() or self._step(unchecked=False) or PLAIN
        if _replaces_answer(step):
            await self._send_instead(step)
        elif path == MODELS:
            await self._send(self._models(), step)
        elif path == TOKENS:
            await self._send(self._estimate(), step)
        elif formula is not None:
            await self._send(self._formula(*formula), step)
        elif path == BALANCE:
            money = {"available_balance": 49.58, "voucher_balance": 46.58, "cash_balance": 3.0}
            await self._send({"code": 0, "data": money, "scode": "0x0", "status": True}, step)
        else:
            await self._files(file_id, step)

    @staticmethod
    def _file_methods(file_id: str) -> tuple[str, ...] | None:
        name, _, rest = file_id.partition("/")
        if not name or rest not in ("", "content"):
            return None
        return ("GET",) if rest else ("GET", "DELETE")

    async def _body(self) -> object:
        """Read and log the body; its JSON where it is some, else its bytes."""
        try:
            data = await self.request.body(self.world.most_bytes)
        except (ClientGone, BodyTooLarge):
            self._begin()
            raise
        try:
            body = parse_json(data)
        except ValueError:
            body = data
        self._begin(body)
        return body

    def _key(self) -> str:
        header = self.request.headers.get("authorization", "")
        return header.removeprefix("Bearer ").strip() if header.startswith("Bearer ") else ""

    def _authorized(self) -> None:
        """Raise Refused for a key that is missing or wrong (kimi-help-center error-codes; gateways echo the key)."""
        key, wanted = self._key(), self.world.require_key
        if not key and (self.world.dialect.needs_key or wanted is not None):
            raise Refused(401, "invalid_authentication_error", "Invalid Authentication")
        if key.startswith("sk-wrong") or (wanted is not None and key != wanted):
            raise Refused(401, "incorrect_api_key_error", f"Incorrect API key provided: {key}")

    def _step(self, *, unchecked: bool) -> Step | None:
        seen = glimpse(self.request.path, self.exchange.body if self.exchange else None)
        return self.world.scenario.take(seen, unchecked=unchecked)

    async def _chat(self) -> None:
        body = await self._body()
        step = self._step(unchecked=True)
        if step is None:
            self._authorized()
            kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                invalid("Invalid request: the content type must be application/json")
            if isinstance(body, bytes):
                invalid("Invalid request: the body is not valid JSON")
        elif _replaces_answer(step):
            await self._send_instead(step)
            return
        chat = read_chat(body, self.world.dialect, self.world.day, self.world.files)
        step = step or self._step(unchecked=False) or PLAIN
        if _replaces_answer(step):
            await self._send_instead(step)
        else:
            await self._answer(chat, step)

    async def _answer(self, chat: Chat, step: Step) -> None:
        world = self.world
        answer = compose(chat, step)
        world.answers += 1
        cached = world.cache.cached_tokens((self._key(), chat.answering.id, chat.cache_key), chat.received.transcript)
        envelope = Envelope(
            id=f"chatcmpl-simulator-{world.answers:06d}",
            created=int(time.time()),
            model=step.answer_model or chat.answering.id,
            prompt_tokens=chat.prompt_tokens,
            cached_tokens=min(cached, chat.prompt_tokens),
            include_usage=chat.include_usage,
        )
        headers = {**(_LIMITS if world.dialect.moonshot else {}), **_headers_on_top(step)}
        reply = self._reply(step)
        if chat.stream:
            made = events(answer, envelope, world.dialect, step)
            await play_stream(reply, step, made, world, headers)
            return
        data = encode(whole_answer(answer, envelope, world.dialect, step)).encode()
        data = data.replace(b'"content":"', b'"content":"\xc3\x28', 1) if step.invalid_utf8 else data
        data = data[: len(data) // 2] if step.bad_json else data
        await play_body(
            reply, step, step.status or 200, {**_JSON, **headers}, data, world, spoken=answer.completion_tokens
        )

    def _models(self) -> JsonObject:
        dialect, day = self.world.dialect, self.world.day
        listed = [row for row in dialect.serves if dialect.lists_retired or row.live(day)]
        data: list[JsonObject] = []
        for row in listed:
            entry: JsonObject = {
                "id": row.id,
                "object": "model",
                "created": 1769472000,
                "owned_by": "moonshot",
            }
            if dialect.moonshot:
                entry |= {
                    "context_length": row.model.context,
                    "supports_image_in": dialect.image,
                    "supports_video_in": dialect.video,
                    "supports_reasoning": True,
                }
            elif not dialect.needs_key:
                entry["max_model_len"] = row.model.context
            data.append(entry)
        return {"object": "list", "data": data}

    def _formula(self, uri: str, what: str) -> JsonObject:
        if what == "tools":
            return declaration(uri)
        self.world.fibers += 1
        return fiber(uri, self.exchange.body if self.exchange else None, self.world.fibers)

    def _estimate(self) -> JsonObject:
        fields = as_object(self.exchange.body if self.exchange else None)
        if fields is None or "model" not in fields or "messages" not in fields:
            invalid("Invalid request: 'model' and 'messages' are required")
        served = self.world.dialect.find(str(fields["model"]))
        if served is None or not served.live(self.world.day):
            message = f"Not found the model {fields['model']} or Permission denied"
            raise Refused(404, "resource_not_found_error", message)
        read = read_messages(
            as_array(fields["messages"]) or [], self.world.dialect, thinking=False, media=self.world.files
        )
        return {"data": {"total_tokens": read.tokens}}

    async def _files(self, file_id: str | None, step: Step) -> None:
        store = self.world.files
        if file_id is None and self.request.method == "POST":
            kind = self.request.headers.get("content-type", "")
            stored = await store.upload(kind, self.request.chunks())
            await self._send(stored.described(), step)
        elif file_id is None:
            after = dict(parse_qsl(self.request.query)).get("after")
            listed = [one.described() for one in store.all() if after is None or one.id > after]
            await self._send({"object": "list", "data": listed, "has_more": False}, step)
        elif file_id.endswith("/content"):
            found = store.get(file_id.removesuffix("/content"))
            data = found.path.read_bytes()
            await self._send_body(200, {"content-type": "application/octet-stream"}, data, step)
        elif self.request.method == "DELETE":
            store.delete(file_id)
            await self._send({"deleted": True, "id": file_id, "object": "file"}, step)
        else:
            await self._send(store.get(file_id).described(), step)

    async def _send(self, value: JsonObject, step: Step) -> None:
        await self._send_body(step.status or 200, dict(_JSON), encode(value).encode(), step)

    async def _send_instead(self, step: Step) -> None:
        status, headers, data = _body_instead(step, self._key())
        await self._send_body(status, headers, data, step)

    async def _send_body(self, status: int, headers: dict[str, str], data: bytes, step: Step) -> None:
        await play_body(self._reply(step), step, status, {**headers, **_headers_on_top(step)}, data, self.world)

    async def _refuse(self, refused: Refused) -> None:
        self._begin()
        body = refused.body(moonshot=self.world.dialect.moonshot)
        reply = self._reply(PLAIN)
        data = encode(body).encode()
        headers = {**_JSON, **({"allow": "GET, POST, DELETE"} if refused.status == 405 else {})}
        await play_body(reply, PLAIN, refused.status, headers, data, self.world)


def compose(chat: Chat, step: Step) -> answers.ScriptedAnswer:
    """What the model says: derived from the request, or as the step dictates."""
    reasoning = None
    if chat.thinking:
        reasoning = answers.reasoning_text(chat) if step.reasoning is None else step.reasoning
        reasoning = answers.lengthened(reasoning, step.reasoning_tokens)
    calls = tuple(
        answers.ScriptedToolCall(
            name=call.name, arguments=call.arguments, id=call.id or f"functions.{call.name}:{place}"
        )
        for place, call in enumerate(step.tool_calls)
    )
    calls = calls or (answers.forced_call(chat) if step.content is None else ())
    content = step.content
    if content is None:
        content = "" if calls else answers.content_text(chat)
    content = answers.lengthened(content, step.content_tokens)
    return answers.limited(chat, reasoning, content, calls, inside_reasoning=step.length_in_reasoning)


def _replaces_answer(step: Step) -> bool:
    """Whether the step sends something else than an answer."""
    return bool(step.html) or step.body is not None or (step.status or 200) >= 400


def _body_instead(step: Step, key: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of such a response."""
    if step.html:
        page = step.html if isinstance(step.html, str) else _PAGE
        return step.status or 200, {"content-type": "text/html; charset=utf-8"}, page.encode()
    if isinstance(step.body, str):
        return step.status or 200, dict(_JSON), step.body.encode("utf-8", "surrogatepass")
    if step.body is not None:
        return step.status or 200, dict(_JSON), encode(step.body).encode()
    status = step.status or 400
    kind, message = _DEFAULTS.get(status, ("unexpected_output" if status >= 500 else "error", f"Status {status}"))
    message = step.error_message or message
    if step.echo_key:
        message = f"{message}: {key}"
    return (
        status,
        dict(_JSON),
        encode({"error": {"type": step.error_type or kind, "message": message}}).encode(),
    )


def _headers_on_top(step: Step) -> dict[str, str]:
    """Retry-After as the step wants it."""
    if step.retry_after_date is not None:
        return {"retry-after": formatdate(time.time() + step.retry_after_date, usegmt=True)}
    return {} if step.retry_after is None else {"retry-after": str(step.retry_after)}
