"""A provider whose model plays a swarm: chat completions on raw sockets. A process of its own.

``python -m benchmarks.agents [TOOL]`` prints its base URL and serves until its stdin closes. What it plays stands in
the user's prompt, ``swarm of A agents, S steps of T s, N tokens at R a second``: the main agent gives out A tasks and
then answers, a sub-agent calls TOOL in all but the last of its S steps. Each answer begins T seconds after its request;
its N tokens come one event each, at R a second (0: all at once). ``GET …/received`` tells when each request came since
it was last asked, by the monotonic clock, and with which key.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

MODEL = "kimi-k2.5"
TOOL = "look"

_REQUESTED = re.compile(rb"swarm of (\d+) agents, (\d+) steps of ([\d.]+) s, (\d+) tokens at (\d+) a second")
_KEY = re.compile(rb"(?i)\r\nauthorization: *bearer (\S+)")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_CLOSING = b"0\r\n\r\n"
_MODELS = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode()


def prompt(agents: int, steps: int, seconds: float, tokens: int = 4, rate: int = 0) -> str:
    """What to ask for."""
    return f"swarm of {agents} agents, {steps} steps of {seconds} s, {tokens} tokens at {rate} a second"


def _event(choice: dict[str, object] | None, usage: dict[str, int] | None = None) -> bytes:
    event = {
        "id": "chatcmpl-692350f1a7c34b8e9d20c1f4",
        "object": "chat.completion.chunk",
        "created": 1763921137,
        "model": MODEL,
        "choices": [] if choice is None else [{"index": 0, "finish_reason": None, "delta": {}, **choice}],
        **({} if usage is None else {"usage": usage}),
    }
    data = b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


_TOKEN = _event({"delta": {"reasoning_content": " the"}})
_ANSWER = _event({"delta": {"content": "Done."}})


def _usage(tokens: int) -> bytes:
    return _event(
        None,
        {"prompt_tokens": 100, "completion_tokens": tokens, "total_tokens": 100 + tokens, "cached_tokens": 0},
    )


def _calls(calls: list[tuple[str, dict[str, str]]]) -> bytes:
    listed = [
        {"index": n, "id": f"functions.{name}:{n}", "type": "function",
         "function": {"name": name, "arguments": json.dumps(arguments)}}
        for n, (name, arguments) in enumerate(calls)
    ]  # fmt: skip
    return _event({"delta": {"tool_calls": listed}})


def _end(finish: str, tokens: int) -> bytes:
    done = b"data: [DONE]\n\n"
    return _event({"finish_reason": finish}) + _usage(tokens) + b"%x\r\n%b\r\n" % (len(done), done) + _CLOSING


def _reply(body: bytes, agents: int, steps: int, played: bytes, tool: str) -> tuple[bytes, str]:
    """The last events of an answer, and its finish reason."""
    turns = body.count(b'"role":"assistant"')
    if b'"assign_task"' in body.partition(b'"tools":')[2]:
        if turns:
            return _ANSWER, "stop"
        task = played.decode() + ", sub-agent {}"
        made = ("create_subagent", {"name": "worker", "system_prompt": "You work."})
        given = [("assign_task", {"agent": "worker", "prompt": task.format(number)}) for number in range(agents)]
        return _calls([made, *given]), "tool_calls"
    if turns + 1 < steps and b'"tools":' in body:
        return _calls([(tool, {"at": "this"})]), "tool_calls"
    return _ANSWER, "stop"


class _Connection(asyncio.Protocol):
    """One connection, kept alive between requests."""

    def __init__(self, tool: str, received: list[tuple[float, str]]) -> None:
        self._tool, self._requests = tool, received
        self._received = bytearray()
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        began = self._loop.time()
        self._received += data
        head, blank, body = bytes(self._received).partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        wanted = int(length[1]) if length else 0
        if not blank or len(body) < wanted:
            return
        del self._received[: len(head) + 4 + wanted]
        if head.startswith(b"GET"):
            answer = _MODELS
            if head.startswith(b"GET /v1/received "):
                answer = json.dumps(self._requests).encode()
                self._requests.clear()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
            self._transport.write(head + answer)
            return
        key = _KEY.search(head)
        self._requests.append((time.monotonic(), key[1].decode() if key else ""))
        swarm = _REQUESTED.search(body)
        assert swarm is not None
        agents, steps, tokens, rate = (int(swarm[n]) for n in (1, 2, 4, 5))
        last, finish = _reply(body, agents, steps, swarm[0], self._tool)
        ending = last + _end(finish, tokens)
        due = began + float(swarm[3])
        if rate:
            self._timer = self._loop.call_at(due, self._begin, tokens, 1 / rate, due, ending)
        else:
            self._timer = self._loop.call_at(due, self._transport.write, _HEAD + _TOKEN * tokens + ending)

    def _begin(self, tokens: int, step: float, start: float, ending: bytes) -> None:
        self._transport.write(_HEAD)
        self._send(0, tokens, step, start, ending)

    def _send(self, number: int, tokens: int, step: float, start: float, ending: bytes) -> None:
        if number == tokens:
            self._transport.write(ending)
            return
        self._transport.write(_TOKEN)
        due = start + (number + 1) * step  # by the clock, not by the last write: the rate holds on a busy machine
        self._timer = self._loop.call_at(due, self._send, number + 1, tokens, step, start, ending)


async def _serve(tool: str) -> None:
    received: list[tuple[float, str]] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(tool, received), "127.0.0.1", 0, backlog=512)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:] or [TOOL]))
