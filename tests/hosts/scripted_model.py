"""A scripted stand-in for the APIs of models: what a host offers its model, and what that model gets. I/O: a socket.

Which API a host speaks shows in the path of its request; each has a reader of requests and a writer of replies.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = Mapping[str, Any]
Event = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A reply that calls a tool, by the name that the host offered."""

    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a host sent its model."""

    body: Body
    """The request."""
    offered: frozenset[str]
    """The names of the tools on offer."""
    results: tuple[str, ...]
    """What the tools that were called returned, in order, as JSON."""

    def use(self, tool: str, **arguments: object) -> Use:
        """Call a tool of ours, whatever the host calls it."""
        (name,) = [name for name in self.offered if name.endswith(tool)]
        return Use(tool=name, arguments=arguments)


Script = Callable[[Turn], str | Use]
"""What the model replies: a text, with which a host's turn ends, or a call."""


class ScriptedModel:
    """What the host asked so far."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        """The requests that offered tools, in order."""
        self.url = ""


@contextmanager
def scripted_model(script: Script) -> Iterator[ScriptedModel]:
    """Serve the script; requests without tools (titles and the like) are answered with ``ok``."""
    model = ScriptedModel()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            api = next((api for part, api in APIS.items() if part in self.path), None)
            if api is None or "ount" in self.path:  # count_tokens, countTokens
                self._reply("application/json", json.dumps({"input_tokens": 1, "totalTokens": 1}).encode())
                return
            turn, reply = api.read(request), "ok"
            if turn.offered:
                model.turns.append(turn)
                try:
                    reply = script(turn)
                except (LookupError, ValueError) as fault:  # the host ends its turn, and the test sees what was missing
                    reply = repr(fault)
            events = api.events(request, reply, len(model.turns))
            if request.get("stream", "stream" in self.path):
                self._reply("text/event-stream", "".join((*map(_written, events), api.end)).encode())
            else:
                self._reply("application/json", json.dumps(api.whole(events)).encode())

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            self._reply("application/json", b'{"data": [], "models": []}')

        def _reply(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    model.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One API of models."""

    read: Callable[[Body], Turn]
    events: Callable[[Body, str | Use, int], list[Event]]
    """The events of a stream with the reply; the number makes ids."""
    whole: Callable[[Sequence[Event]], Event] = lambda events: events[-1]
    """The same in one body."""
    end: str = ""
    """What ends a stream."""


def _written(event: Event) -> str:
    return (f"event: {event['type']}\n" if "type" in event else "") + f"data: {json.dumps(event)}\n\n"


def _turn(body: Body, offered: Sequence[str], results: Sequence[object]) -> Turn:
    texts = tuple(json.dumps(each, ensure_ascii=False) for each in results)
    return Turn(body=body, offered=frozenset(offered), results=texts)


# ── Anthropic's messages ──────────────────────────────────────────────────────────────────────────────────────────


def _read_messages(body: Body) -> Turn:
    contents = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    results = [part["content"] for content in contents for part in content if part["type"] == "tool_result"]
    return _turn(body, [tool["name"] for tool in body.get("tools", ())], results)


def _messages_events(body: Body, reply: str | Use, number: int) -> list[Event]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": body["model"], "content": []}
    start: Event
    if isinstance(reply, str):
        start, delta, stop = {"type": "text", "text": ""}, {"type": "text_delta", "text": reply}, "end_turn"
    else:
        start = {"type": "tool_use", "id": f"toolu_{number}", "name": reply.tool, "input": {}}
        delta, stop = {"type": "input_json_delta", "partial_json": json.dumps(reply.arguments)}, "tool_use"
    return [
        {"type": "message_start", "message": message | {"stop_reason": None, "stop_sequence": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": start},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]


# ── OpenAI's chat completions ─────────────────────────────────────────────────────────────────────────────────────


def _read_chat(body: Body) -> Turn:
    results = [message["content"] for message in body["messages"] if message["role"] == "tool"]
    return _turn(body, [tool["function"]["name"] for tool in body.get("tools") or ()], results)


def _chat_events(body: Body, reply: str | Use, number: int) -> list[Event]:
    chunk = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    if isinstance(reply, str):
        delta, stop = {"role": "assistant", "content": reply}, "stop"
    else:
        function = {"name": reply.tool, "arguments": json.dumps(reply.arguments)}
        call = {"index": 0, "id": f"call_{number}", "type": "function", "function": function}
        delta, stop = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return [
        chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": stop}]},
        chunk | {"choices": [], "usage": usage},
    ]


def _whole_chat(events: Sequence[Event]) -> Event:
    (first,), (last,) = events[0]["choices"], events[1]["choices"]
    choice = {"index": 0, "message": first["delta"], "finish_reason": last["finish_reason"]}
    return events[2] | {"object": "chat.completion", "choices": [choice]}


# ── OpenAI's responses ────────────────────────────────────────────────────────────────────────────────────────────


def _read_responses(body: Body) -> Turn:
    results = [item["output"] for item in body["input"] if item.get("type") == "function_call_output"]
    offered: list[str] = []
    for tool in body.get("tools", ()):
        # A namespace's tools are called by their own names and the namespace's.
        inner = [f"{tool['name']}/{each['name']}" for each in tool.get("tools", ())]
        offered += inner or [tool.get("name", tool["type"])]
    return _turn(body, offered, results)


def _responses_events(body: Body, reply: str | Use, number: int) -> list[Event]:
    response: Event = {"id": f"resp_{number}", "object": "response", "model": body["model"], "output": []}
    item: Event
    if isinstance(reply, str):
        content = [{"type": "output_text", "text": reply, "annotations": []}]
        item = {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": content}
    else:
        *namespace, name = reply.tool.split("/")
        item = {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "name": name}
        item |= {"arguments": json.dumps(reply.arguments)} | ({"namespace": namespace[0]} if namespace else {})
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    done = response | {"status": "completed", "output": [item | {"status": "completed"}], "usage": usage}
    return [
        {"type": "response.created", "response": response | {"status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": item | {"status": "in_progress"}},
        {"type": "response.output_item.done", "output_index": 0, "item": item | {"status": "completed"}},
        {"type": "response.completed", "response": done},
    ]


# ── Google's generateContent ──────────────────────────────────────────────────────────────────────────────────────


def _read_gemini(body: Body) -> Turn:
    parts = [part for content in body["contents"] for part in content.get("parts", ())]
    results = [part["functionResponse"]["response"] for part in parts if "functionResponse" in part]
    declared = [each for tool in body.get("tools", ()) for each in tool.get("functionDeclarations", ())]
    return _turn(body, [each["name"] for each in declared], results)


def _gemini_events(body: Body, reply: str | Use, number: int) -> list[Event]:
    part = (
        {"text": reply} if isinstance(reply, str) else {"functionCall": {"name": reply.tool, "args": reply.arguments}}
    )
    candidate = {"index": 0, "content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    return [{"responseId": str(number), "candidates": [candidate], "usageMetadata": usage}]


APIS: Mapping[str, Api] = {
    "/messages": Api(read=_read_messages, events=_messages_events),
    "/chat/completions": Api(read=_read_chat, events=_chat_events, whole=_whole_chat, end="data: [DONE]\n\n"),
    "/responses": Api(read=_read_responses, events=_responses_events),
    "enerateContent": Api(read=_read_gemini, events=_gemini_events),
}
"""Every API, by what its paths have."""
