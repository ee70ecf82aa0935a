"""``ToolSource``: what all sources of tools have in common; and the one that is the provider itself."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import anyio

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.untrusted import MARGIN, frame_output
from kimi_mcp.pipeline.web import ProviderWebTools
from kimi_mcp.provider import Endpoint, Upstream

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolLimits:
    """How much time and space tools get."""

    start_within_s: float = 30.0
    """Seconds until a source must have listed its tools: the first start of some servers downloads them."""
    call_within_s: float = 60.0
    """Seconds of one call, waiting for its turn included."""
    result_chars: int = 30_000
    """Code points of one result that the model gets to read."""
    arguments_chars: int = 200_000
    """Code points of one call's arguments."""
    calls_at_once: int = 16
    """Calls that one source runs at the same time."""
    listed_tools: int = 20_000
    """Tools of one server that are read."""
    name_chars: int = 256
    """Code points of a tool's own name."""
    relistings: int = 20
    """Times that a server may announce that its tools changed; after that all of them are disabled."""
    drain_s: float = 0.5
    """Seconds after a server's end in which its last answers are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTool:
    """A tool as its source lists it."""

    name: str
    """The source's own name for it, whatever that is."""
    description: str
    """The source's text: hostile, until it is sanitized."""
    schema: Mapping[str, Any]
    """The JSON schema of its arguments, as given: calls are checked against it."""
    read_only: bool
    """Whether its source claims that it changes nothing."""

    @property
    def fingerprint(self) -> str:
        """A hash of the whole listing."""
        listing = [self.name, self.description, self.schema, self.read_only]
        return hashlib.sha256(json.dumps(listing, sort_keys=True).encode("utf-8", "backslashreplace")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """The result of one call."""

    text: str
    """What the model gets as the tool's turn: a sentence of ours, or the tool's output in its frame."""
    is_error: bool = False
    """Whether the call failed, was refused, or is reported as failed by the tool."""
    repairable: bool = False
    """Whether nothing ran and the model may fix its call, once."""
    ran: bool = True
    """Whether the tool was reached, and so may have acted."""
    cost_usd: float = 0.0
    """What the call cost beside tokens."""

    @classmethod
    def refused(cls, why: str, *, repairable: bool = False) -> CallResult:
        """A call that did not reach the tool."""
        return cls(text=why, is_error=True, repairable=repairable, ran=False)

    @classmethod
    def failed(cls, why: str, *, ran: bool = True) -> CallResult:
        """A call that brought no answer."""
        return cls(text=why, is_error=True, ran=ran)


class ToolSource(ABC):
    """A source of tools: an MCP server, or the provider itself."""

    def __init__(self, name: str, limits: ToolLimits, *, allow: Sequence[str] = ()) -> None:
        self.name, self.limits, self.allow = name, limits, allow
        """The name in patterns; its limits; patterns of tools that may run though not marked as read-only."""
        self.tools: dict[str, ListedTool] = {}
        """What it lists, by name."""
        self.disabled: dict[str, str] = {}
        """Why tools no longer run, by name, each as the end of a sentence about the tool."""
        self.fault: str | None = None
        """Why its tools are not available, as the end of a sentence about it; None: they are."""
        self.ready = anyio.Event()
        """Set once it is known what it lists; calls wait for it."""
        self._slots = anyio.Semaphore(limits.calls_at_once)

    @abstractmethod
    async def serve(self) -> None:
        """List the tools, and keep the source until it is to stop or is gone."""

    @abstractmethod
    async def send(self, name: str, tool: ListedTool, arguments: Mapping[str, Any]) -> CallResult:
        """Send a call of a tool, which the model knows as ``name``; cancelled when its time is over."""

    @abstractmethod
    def stop(self) -> None:
        """Let ``serve`` end."""

    async def run(self) -> None:
        """Keep it until it is to stop or is gone. Raises nothing: the swarm continues without its tools."""
        try:
            await self.serve()
        except Exception:  # noqa: BLE001 - the swarm continues without it
            _log.exception("a source of tools failed because of a bug in kimi-mcp")
            self.fault = "kimi-mcp made a mistake with it, which its log records"
        finally:
            self.ready.set()

    async def call(self, name: str, tool: ListedTool, arguments: Mapping[str, Any]) -> CallResult:
        """Run a tool, which the model knows as ``name``; whatever happens is a result."""
        sent = False
        with anyio.move_on_after(self.limits.call_within_s):
            async with self._slots:
                while not self.ready.is_set():
                    await self.ready.wait()
                if (why := self.disabled.get(tool.name)) is not None:
                    return CallResult.refused(f"This tool is disabled: {why}.")
                sent = True
                return await self.send(name, tool, arguments)
        return CallResult.failed(f"The tool did not answer within {self.limits.call_within_s:g} s.", ran=sent)

    def framed(self, name: str, text: str, *, is_error: bool) -> CallResult:
        """The tool's own answer, framed as untrusted."""
        text = frame_output(name, text, most=self.limits.result_chars, failed=is_error)
        return CallResult(text=text, is_error=is_error)


class BuiltinTools(ToolSource):
    """The provider's own search tools, named after the owner of its formulas. I/O through ``upstream`` alone."""

    def __init__(self, upstream: Upstream, endpoint: Endpoint, limits: ToolLimits = ToolLimits()) -> None:
        super().__init__(endpoint.provider.formulas[0].partition("/")[0], limits)
        self._provider = endpoint.provider.id
        self._web = ProviderWebTools(upstream, endpoint, result_chars=limits.result_chars)

    async def serve(self) -> None:
        """List the functions of the provider's formulas."""
        try:
            with anyio.fail_after(self.limits.start_within_s):
                await self._web.list()
        except TimeoutError:
            self.fault = f"it did not list them within {self.limits.start_within_s:g} s"
        except KimiError as error:
            self.fault = f"{self._provider} does not offer them just now ({error.code})"
        else:
            for name, function in self._web.functions.items():
                description = function.get("description")
                self.tools[name] = ListedTool(
                    name=name,
                    description=description if isinstance(description, str) else "",
                    schema=function["parameters"],
                    read_only=True,  # the catalogue lists formulas that search and fetch, and no others
                )

    def stop(self) -> None:
        """Do nothing: ``serve`` has ended."""

    async def send(self, name: str, tool: ListedTool, arguments: Mapping[str, Any]) -> CallResult:
        """Let the provider run a formula's function."""
        result = await self._web.run(tool.name, json.dumps(arguments, ensure_ascii=False), shown_as=name)
        return CallResult(text=result.text, is_error=result.is_error, cost_usd=result.cost_usd)


# ── what a model gets of an output ────────────────────────────────────────────────────────────────────────────────


def render_blocks(blocks: Iterable[Any], structured: Any, *, most: int) -> str:
    """The blocks of a result as one text, until there is enough; and ``structured`` where no text has its value."""
    texts: list[str] = []
    length = 0
    for block in blocks:
        if length > most + MARGIN:
            texts.append("[more blocks follow]")
            break
        texts.append(_render(block.model_dump(by_alias=True, mode="json", exclude_none=True)))
        length += len(texts[-1])
    if structured is not None and not any(_is_json_of(text, structured) for text in texts):
        texts.append(json.dumps(structured, ensure_ascii=False, sort_keys=True))
    return "\n".join(texts)


def _render(block: Mapping[str, Any]) -> str:
    match block.get("type"):
        case "text":
            return str(block.get("text", ""))
        case "image" | "audio" as kind:
            return f"[{kind} of type {block.get('mimeType')}, {_size(block.get('data'))}: not shown to you]"
        case "resource_link":
            name = block.get("title") or block.get("name")
            about = "; ".join(str(block[key]) for key in ("description", "mimeType") if key in block)
            return f"[a link to the resource {name}, {block.get('uri')}{about and '; ' + about}]"
        case "resource":
            resource = cast(Mapping[str, Any], block["resource"])
            if isinstance(text := resource.get("text"), str):
                return f"[the resource {resource.get('uri')}]\n{text}"
            about = f"{resource.get('mimeType')}, {_size(resource.get('blob'))}"
            return f"[the resource {resource.get('uri')} of type {about}: not shown to you]"
        case other:
            return f"[a block of the kind {other}: not shown to you]"


def _size(encoded: Any) -> str:
    size = len(encoded) * 3 // 4 if isinstance(encoded, str) else 0
    return f"{size} bytes" if size < 10_000 else f"{size // 1000} kB"


def _is_json_of(text: str, structured: Any) -> bool:
    """Whether a text is that very value as JSON, as servers send it to clients without structured results."""
    with suppress(ValueError, RecursionError):
        return text[:1] in ("{", "[") and json.loads(text) == structured
    return False
