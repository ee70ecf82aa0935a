"""MCP Apps (``io.modelcontextprotocol/ui``): hosts that show them show a run as it is. I/O: reads the store.

The document is a resource, made when it is read. What it shows comes with the results of the tools that name it, in
their ``_meta``, and only for clients that declare the extension; the text is there for all. The document follows a run
by calling ``kimi_run`` through its host, and cancels it in the same way.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import anyio
from mcp_types import CallToolResult

from kimi_mcp.core.background import start_contained
from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.server.callers import caller_of

if TYPE_CHECKING:
    from kimi_mcp.server.state import ServerState

EXTENSION = "io.modelcontextprotocol/ui"
"""The extension's identifier."""

MIME_TYPE = "text/html;profile=mcp-app"
"""The type of a document that is shown as an app; a client names it among those that it shows."""

URI = "ui://kimi/run"
"""Where the document is read."""

TOOLS = ("kimi_think", "kimi_swarm", "kimi_run")
"""The tools whose results are shown so."""

TOOL_META = {"ui": {"resourceUri": URI}}
"""What such a tool says of it, in its own ``_meta``."""

RESOURCE_META: Mapping[str, Any] = {"ui": {"prefersBorder": True, "permissions": {"clipboardWrite": {}}}}
"""What the document says of itself: it copies an answer when a button is pressed. It names no domain, and so gets
nothing from any."""

CLIENT = {EXTENSION: {"mimeTypes": [MIME_TYPE]}}
"""The extensions of a client that shows such documents."""

VIEW, RUNS = "kimi-mcp/view", "kimi-mcp/runs"
"""In the ``_meta`` of a result: its run, and of the list of runs these."""

MOST_BYTES = 200_000
"""Bytes of a view, as JSON, at most."""

MOST_RUNS = 10
"""Runs that come with a list."""

MOST_TURNS = 20
"""Runs of a conversation before a run, and after it."""

WITHIN_S = 1.0
"""Seconds within which the store must say what is shown; else the result comes without."""

IN_RESULT = ("answer", "parsed", "policy", "sources", "timing", "error", "swarm")
"""What the structured result says anyway, and the document takes from there."""

STEP_BYTES = 120
"""Bytes of a step, as JSON, at least."""

LEVELS: Sequence[tuple[int, int]] = ((60_000, 100), (4_000, 40), (1_000, 12), (200, 4), (60, 1))
"""Characters of a text and steps of an agent, at most: the first that fits into ``MOST_BYTES`` counts."""

log = logging.getLogger(__name__)


def declared(context: Any) -> bool:
    """Whether the client of a request shows such documents: by its capabilities, in both eras of the protocol."""
    capabilities = context.session.client_capabilities
    return capabilities is not None and are_shown(capabilities.extensions)


def are_shown(extensions: Any) -> bool:
    """Whether a client with these extensions shows such documents; raises ``AttributeError`` for what are none."""
    settings: Any = extensions and extensions.get(EXTENSION)
    types: Any = settings and settings.get("mimeTypes")
    return isinstance(types, list | tuple) and MIME_TYPE in types


def document() -> str:
    """The document. Reads the package's files."""
    from kimi_mcp.view.documents import app_document

    return app_document()


async def with_view(context: Any, tool: str, outcome: Outcome, result: CallToolResult) -> CallToolResult:
    """A tool's result, with what its host shows of it, where that shows such documents."""
    if tool not in TOOLS or outcome.page is not None or not declared(context):
        return result
    found: dict[str, Any] = {}
    over = anyio.Event()

    async def look() -> None:
        try:
            found.update(await _found(context, tool, outcome))
        except KimiError as error:
            log.debug("a result comes without its view: %s", error.message)
        finally:
            over.set()

    # In a task of its own: what takes too long now is known when the document calls for it.
    start_contained(context.lifespan_context.tasks, "a result comes without its view", look)
    with anyio.move_on_after(WITHIN_S):
        await over.wait()
    return result.model_copy(update={"meta": {**(result.meta or {}), **found}}) if found else result


async def _found(context: Any, tool: str, outcome: Outcome) -> dict[str, Any]:
    from kimi_mcp.view import model
    from kimi_mcp.view.live import LiveRuns

    state: ServerState = context.lifespan_context
    store, caller = (await state.open_runs()).store, caller_of(context)
    if outcome.run_id is not None:
        if state.shown is None:
            state.shown = LiveRuns()
        live = await state.shown.open(store, outcome.run_id, caller)
        return {VIEW: bounded(live.view(may_cancel=True))}
    if tool == "kimi_run" and outcome.error is None:
        return {RUNS: [model.summary(record) for record in await store.overview(caller, most=MOST_RUNS)]}
    return {}


def bounded(view: dict[str, Any]) -> dict[str, Any]:
    """A run's view without what its result says anyway, in at most ``MOST_BYTES``.

    Long texts are cut, which ``cut`` says; where that does not suffice, steps that follow each other become one.
    """
    view = {name: value for name, value in view.items() if name not in IN_RESULT}
    known = view["conversation"]
    view["conversation"] = {"before": known["before"][-MOST_TURNS:], "after": known["after"][:MOST_TURNS]}
    for chars, steps in LEVELS:
        if STEP_BYTES * sum(min(steps, len(lane["steps"])) for lane in view["lanes"]) > MOST_BYTES:
            continue
        smaller = _smaller(view, chars, steps)
        if len(json.dumps(smaller, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")) <= MOST_BYTES:
            return smaller
    return _smaller(view, 0, 0) | {"lanes": [], "conversation": {"before": [], "after": []}}


def _smaller(view: dict[str, Any], chars: int, steps: int) -> dict[str, Any]:
    cut = {name: length for name, length in view["cut"].items() if name not in IN_RESULT}
    texts = {name: view[name] for name in ("prompt", "reasoning") if view[name] and len(view[name]) > chars}
    cut |= {name: cut.get(name, len(text)) for name, text in texts.items()}
    return {
        **view,
        **{name: text[:chars] for name, text in texts.items()},
        "lanes": [_smaller_lane(lane, chars, steps) for lane in view["lanes"]],
        "cut": cut,
    }


def _smaller_lane(lane: dict[str, Any], chars: int, most: int) -> dict[str, Any]:
    texts = {name: lane[name] if len(lane[name]) <= chars else f"{lane[name][:chars]}…" for name in ("system", "task")}
    steps, together = lane["steps"], max(1, ceil(len(lane["steps"]) / max(most, 1)))
    return {
        **lane,
        **texts,
        "steps": [_joined(steps[at : at + together], chars) for at in range(0, len(steps), together)],
    }


def _joined(steps: Sequence[dict[str, Any]], chars: int) -> dict[str, Any]:
    """Steps that follow each other, as one."""
    first, last = steps[0], steps[-1]
    why = next((step["why"] for step in steps if step["why"]), "")
    if len(steps) == 1:
        return {**first, "why": why[:chars]}
    states = {step["state"] for step in steps}
    return {
        **first,
        "label": f"{first['label']} – {last['label']}",
        "end_s": None if "unfinished" in states else max(step["end_s"] for step in steps),
        "state": next(state for state in ("unfinished", "failed", "done") if state in states),
        "tokens": _sum([step["tokens"] for step in steps if step["kind"] == "request"]),
        "cost_usd": _sum([step["cost_usd"] for step in steps if step["kind"] == "request"]),
        "why": why[:chars],
        "calls": [],
    }


def _sum(values: Sequence[Any]) -> Any:
    """All together; None where one is not known."""
    return None if None in values else sum(values)
