"""Two principals of one server, and every question that one of them can ask. I/O: loopback.

The questions are made from the server's own tables, so that a tool, an argument, a resource, a prompt, a completion or
a method that is added is asked too, or makes ``questions`` fail until it is decided what it names.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, get_args

from mcp_types.methods import SPEC_CLIENT_METHODS

from kimi_mcp.server import prompts, skills, tasks
from kimi_mcp.server.app import build_server
from kimi_mcp.server.http.auth.scopes import USE
from kimi_mcp.server.http.auth.token_file import TokenFile
from kimi_mcp.server.resources import RESOURCES
from kimi_mcp.server.tools import TOOLS, RunArguments
from kimi_mcp.simulator import Simulator
from kimi_mcp.skill.document import load_skill
from tests.server.clients import Options
from tests.server.http.served import Served, bearer, message, newest, newest_headers, served


@dataclass(frozen=True, slots=True, kw_only=True)
class Handles:
    """What names something of a principal's: a run and its conversation, an upload, a medium kept for later turns."""

    run: str = "run_" + 24 * "0"
    conversation: str = "conv_" + 24 * "0"
    upload: str = "simfile-999999"
    sha256: str = 64 * "0"

    def hidden(self, answer: str) -> str:
        """An answer without them, without times and the number of its request."""
        for each in (self.run, self.conversation, self.upload, self.sha256):
            answer = answer.replace(each, "HANDLE")
        return re.sub(r'"(total_s|id|[^"]*subscriptionId)": [\d.e-]+', "", answer)


NOTHING = Handles()
"""Handles that nothing ever had."""

Question = tuple[str, dict[str, Any]]
"""A method and its parameters."""

PLAIN = frozenset(
    (
        *("prompt", "system", "response_schema", "max_tokens", "temperature", "effort", "web", "model", "provider"),
        *("mode", "files", "wait_s", "offset", "action", "items", "tools"),
        *("max_agents", "max_steps", "max_agent_steps", "max_cost_usd"),
    )
)
"""Arguments of tools that name nothing of a principal's; paths and items have tests of their own."""


def questions(of: Handles) -> dict[str, Question]:
    """Every question with these handles, by what it asks for."""
    offered = prompts.prompts(load_skill())
    found: dict[str, Question] = {}
    for tool, number, arguments in _calls(of):
        found[f"{tool} {number}"] = "tools/call", {"name": tool, "arguments": arguments}
    for address in RESOURCES:
        uri = address.format_map({"id": of.run, "step": "main", "text": "look at this clip"})
        found[f"resource {address}"] = "resources/read", {"uri": uri}
    for prompt in offered.values():
        arguments = {each.name: "x" for each in prompt.arguments}
        found[f"prompt {prompt.name}"] = "prompts/get", {"name": prompt.name, "arguments": arguments}
    for owner, argument in prompts.completions(offered):
        is_resource = "://" in owner
        reference = {"type": "ref/resource", "uri": owner} if is_resource else {"type": "ref/prompt", "name": owner}
        for typed in ("", of.run) if is_resource else ("",):
            parameters = {"ref": reference, "argument": {"name": argument, "value": typed}}
            found[f"completion {owner} {argument} {bool(typed)}"] = "completion/complete", parameters
    by_method: dict[str, dict[str, Any]] = {
        "tasks/get": {"taskId": of.run},
        "tasks/cancel": {"taskId": of.run},
        "tasks/update": {"taskId": of.run, "inputResponses": {}},
        "subscriptions/listen": {"notifications": {"taskIds": [of.run]}},
        "skills/get": {"uri": skills.URI},
        **{f"{listed}/list": {} for listed in ("skills", "tools", "prompts", "resources", "resources/templates")},
    }
    return found | {method: (method, parameters) for method, parameters in by_method.items()}


def _calls(of: Handles) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Every call that names something: its tool, which of that tool's it is, and its arguments."""
    medium = (f"ms://{of.upload}", f"kept:{of.sha256}")
    naming: dict[str, list[Any]] = {
        "run_id": [of.run],
        "conversation_id": [of.conversation, of.run],
        "images": [[each] for each in medium],
        "video": list(medium),
    }
    required = {"prompt": "x", "images": ["data:,"], "video": "data:,"}
    for tool in TOOLS.values():
        fields = tool.arguments.model_fields
        assert fields.keys() <= PLAIN | naming.keys(), f"may another argument of {tool.name} name what is not yours?"
        calls = [{field: value} for field, values in naming.items() if field in fields for value in values]
        if tool.arguments is RunArguments:
            actions = get_args(fields["action"].annotation)
            calls = [{}, *({**call, "action": action, "wait_s": 0} for call in calls for action in actions)]
        given = {name: value for name, value in required.items() if name in fields}
        for number, call in enumerate(calls):
            yield tool.name, number, given | call


def methods_served() -> set[str]:
    """Every method that the server has a handler for."""
    from kimi_mcp.core.settings import read_settings

    server = build_server(read_settings({}))
    known = {*SPEC_CLIENT_METHODS, *tasks.METHODS, *skills.METHODS}
    return {method for method in known if server.get_request_handler(method) is not None}


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal, in one protocol era."""

    http: Served
    token: str
    session: Mapping[str, str] | None
    """The headers of its session; None: the newest era has none."""
    numbers: Iterator[int] = field(default_factory=partial(count, 1))
    """The ids of its requests."""

    async def ask(self, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request: its result or its error; of a subscription the first message."""
        if self.session is not None:
            body, headers = message(method, parameters, next(self.numbers)), dict(self.session)
        else:
            body = newest(method, parameters, next(self.numbers))
            capabilities = {"extensions": {tasks.EXTENSION: {}}}
            body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities
            name = parameters.get("name") or parameters.get("uri") or parameters.get("taskId")
            headers = newest_headers(method, name) | bearer(self.token)
        async with self.http.raw.stream("POST", "/mcp", json=body, headers=headers) as response:
            if "event-stream" not in response.headers.get("content-type", ""):
                return json.loads(await response.aread())
            async for line in response.aiter_lines():
                text = json.loads(line[5:]) if line.startswith("data:") and line[5:].strip() else {}
                if "id" in text or (text and method == "subscriptions/listen"):
                    return text
        raise AssertionError(f"{method} was not answered")

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The structured result of a tool, or the task that it became."""
        result = (await self.ask("tools/call", {"name": tool, "arguments": arguments}))["result"]
        return result.get("structuredContent", result)


@asynccontextmanager
async def team(
    sim: Simulator, folder: Path, mode: str, *, options: Options = None, **variables: Any
) -> AsyncIterator[tuple[Served, Caller, Caller]]:
    """A server with tokens, and two callers of it."""
    async with crowd(sim, folder, mode, ("alice", "bob"), options=options, **variables) as (http, callers):
        yield http, callers[0], callers[1]


@asynccontextmanager
async def crowd(
    sim: Simulator, folder: Path, mode: str, names: Sequence[str], *, options: Options = None, **variables: Any
) -> AsyncIterator[tuple[Served, list[Caller]]]:
    """A server with tokens, and a caller of each name."""
    file = TokenFile(folder / "tokens.json")
    tokens = [file.add(name, USE, now=datetime.now(UTC))[1] for name in names]
    named = str(folder / "tokens.json")
    async with served(
        sim, options=options, KIMI_HTTP_TOKENS=named, KIMI_QUOTA_CALLS_PER_MINUTE="1000", **variables
    ) as http:
        yield (
            http,
            [Caller(http, token, await http.session(token) if mode == "legacy" else None) for token in tokens],
        )
