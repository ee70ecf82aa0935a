"""The MCP face: tools, resources, progress and cancellation, on the SDK's low-level server. The importer of mcp.server.

A handler never runs a call. It starts a run in the task group of the server's lifespan and waits for it, so that the
run outlives a handler that the SDK cancels; whether a cancellation ends the run too is decided by its reason.

What lists the tools is imported at once, what answers a call by the first call: a host waits for the former alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from math import inf
from types import NoneType
from typing import TYPE_CHECKING, Any, cast

import anyio
from anyio.abc import TaskGroup
from mcp.server import Server
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import cancelled_request_id_from_params
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListRootsRequest,
    ListRootsResult,
    ListToolsResult,
    PaginatedRequestParams,
    RequestId,
)
from pydantic import ValidationError

from kimi_mcp.core.background import contained, start_contained
from kimi_mcp.core.errors import InvalidArguments, KimiError, fault_of_ours
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.version import __version__
from kimi_mcp.server import client_quirks, resource_handlers, results
from kimi_mcp.server.client_quirks import LOCAL
from kimi_mcp.server.prompt_handlers import PromptHandlers
from kimi_mcp.server.tools import (
    TOOLS,
    Arguments,
    ChatArguments,
    RunArguments,
    SwarmArguments,
    Tool,
    listed_tools,
    read_arguments,
)
from kimi_mcp.skill.document import load_skill

if TYPE_CHECKING:
    from kimi_mcp.pipeline.pipeline import Pipeline
    from kimi_mcp.runs import Run, Runs, RunView
    from kimi_mcp.runs.store.records import RunRecord, StepRecord

    Work = Callable[[Pipeline, Run], Awaitable[Outcome]]

log = logging.getLogger(__name__)

FIRST_PROGRESS_S = 5.0
"""Progress before this many seconds disconnects some hosts (seen of Claude Desktop, 2026)."""

PROGRESS_EVERY_S = 3.0
"""Seconds between two reports of progress."""

CLOSE_WITHIN_S = 0.5
"""Seconds that closing connections and the journal may take at the end."""

LOOK_BACK_AFTER_S = 1.0
"""Seconds after the start until it is looked for what an earlier server left: the host's first questions come first."""

ROOTS_WITHIN_S = 3.0
"""Seconds within which a host that offers roots must name them."""

_HASHED_AT_ONCE = 65_536
"""Characters of an argument that are hashed at once."""


class ServerState:
    """What lives as long as the server does."""

    def __init__(self, settings: Settings, tasks: TaskGroup) -> None:
        self.settings = settings
        """What the environment said when the server started."""
        self.waiting: dict[RequestId, RunView] = {}
        """Which run each request under way waits for; a cancelled request's entry stays until its reason is known."""
        self.tasks = tasks
        """What lives as long as the server."""
        self._opening = anyio.Lock()
        self.working: Services | None = None
        """What answers calls; None as long as nobody called."""

    async def opened(self) -> Services:
        """The pipeline and the runs; made by the first call, in a thread, while others go on."""
        if self.working is None:
            async with self._opening:
                if self.working is None:
                    self.working = await anyio.to_thread.run_sync(self._open)
        return self.working

    async def take_up_what_was_left(self) -> None:
        """Once the host has its tools: go on with what a server of the same folder left when it died."""
        await anyio.sleep(LOOK_BACK_AFTER_S)
        if await anyio.to_thread.run_sync(self._left_behind):
            await (await self.opened()).runs.take_up_all()

    def _left_behind(self) -> bool:
        from kimi_mcp.runs.store.locks import left_behind
        from kimi_mcp.runs.store.paths import folder_of

        return self.settings.journal == "on" and left_behind(folder_of(self.settings))

    async def aclose(self) -> None:
        """Close the journal and every connection, where any call was made."""
        if self.working is not None:  # the store first: a connection can be left open, what is paid for can't
            await contained("the store could not be closed", self.working.runs.aclose)
            await contained("the connections could not be closed", self.working.pipeline.aclose)

    def _open(self) -> Services:
        from kimi_mcp.pipeline.pipeline import Pipeline
        from kimi_mcp.runs import open_runs

        pipeline = Pipeline(self.settings)
        runs = open_runs(self.tasks, self.settings, lambda task: _taken_up(task, pipeline), _tallied)
        return Services(pipeline=pipeline, runs=runs)


def _taken_up(task: Mapping[str, Any], pipeline: Pipeline) -> Callable[[Run], Awaitable[Outcome]]:
    from kimi_mcp.swarm import prepare_resume

    return prepare_resume(task, pipeline)


def _tallied(record: RunRecord, steps: Sequence[StepRecord]) -> Outcome:
    from kimi_mcp.swarm import recovered_outcome

    return recovered_outcome(record, steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What answers calls."""

    pipeline: Pipeline
    """The one path."""
    runs: Runs
    """The runs of this process, and those of the journal."""

    def start(self, work: Work, prompt: str, *, tool: str, host: str | None, key: str | None) -> Run:
        """Let a call run."""
        from kimi_mcp.runs import Run

        run = Run(caller=LOCAL, tool=tool, prompt=prompt, host=host, call_key=key)
        return self.runs.start(run, lambda run: work(self.pipeline, run))


Context = ServerRequestContext[ServerState, Any]


def build_server(settings: Settings) -> Server[ServerState]:
    """The server with its tools and resources; ``SkillError`` where skill.md and the code disagree."""
    skill = load_skill()
    tools = [results.listed(tool, told.title, told.description) for tool, told in listed_tools(skill)]

    @asynccontextmanager
    async def lifespan(server: Server[ServerState]) -> AsyncGenerator[ServerState]:
        del server
        house: ServerState | None = None
        try:
            async with anyio.create_task_group() as tasks:
                house = ServerState(settings, tasks)
                start_contained(tasks, "what an earlier server left can't be taken up", house.take_up_what_was_left)
                yield house
                tasks.cancel_scope.cancel()  # every run writes down what has arrived
        finally:
            if house is not None:
                with anyio.move_on_after(CLOSE_WITHIN_S, shield=True):
                    await house.aclose()

    async def list_tools(context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        del context, params
        return ListToolsResult(tools=tools)

    prompting = PromptHandlers(skill)
    server = Server[ServerState](
        "kimi-mcp",
        version=__version__,
        title="Kimi",
        description=skill.description,
        instructions=skill.instructions,
        icons=[results.icon()],
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=_call_tool,
        on_list_resources=resource_handlers.list_resources,
        on_list_resource_templates=resource_handlers.list_templates,
        on_read_resource=resource_handlers.read_resource,
        on_list_prompts=prompting.list_prompts,
        on_get_prompt=prompting.get_prompt,
        on_completion=prompting.complete,
    )
    server.middleware += [_hear_cancellations, _name_odd_arguments]
    return server


# ── tools ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
    house = context.lifespan_context
    try:
        outcome = await _outcome(context, params.name, params.arguments)
    except KimiError as error:
        outcome = Outcome(status="failed", error=error)
    except Exception:
        log.exception("a call failed by a fault of our own")
        outcome = Outcome(status="failed", error=fault_of_ours())
    links = results.takes_links(context.protocol_version, _host(context))
    return results.result(outcome, reasoning_chars=house.settings.reasoning_inline_chars, links=links)


async def _outcome(context: Context, name: str, arguments: Mapping[str, Any] | None) -> Outcome:
    tool = TOOLS.get(name)
    if tool is None:
        raise InvalidArguments("There is no tool of that name.", fix=f"Call one of {', '.join(TOOLS)}.")
    match read_arguments(tool, arguments):
        case ChatArguments() as ask if tool.mode is not None:
            return await _ask(context, tool, ask)
        case SwarmArguments() as swarm:
            return await _swarm(context, tool, swarm)
        case RunArguments() as look:
            return await _look(context, look)
        case other:
            raise TypeError(f"{name} takes {type(other).__name__}, which nobody serves")


async def _ask(context: Context, tool: Tool, ask: ChatArguments) -> Outcome:
    assert tool.mode is not None
    call = ask.call(tool.mode)
    if call.names_files and context.lifespan_context.settings.roots is None:
        call = replace(call, offered_roots=await _offered_roots(context))
    working = await context.lifespan_context.opened()
    stamps = await working.pipeline.stamps(call)
    return await _called(context, tool, ask, ask.prompt, lambda pipeline, run: pipeline.run(call, run), stamps)


async def _swarm(context: Context, tool: Tool, swarm: SwarmArguments) -> Outcome:
    call = swarm.call()

    async def work(pipeline: Pipeline, run: Run) -> Outcome:
        from kimi_mcp.swarm import run_swarm

        return await run_swarm(call, run, pipeline)

    return await _called(context, tool, swarm, swarm.prompt, work)


async def _called(
    context: Context, tool: Tool, said: Arguments, prompt: str, work: Work, stamps: Sequence[str] = ()
) -> Outcome:
    """Let a call run, or join the run of the very same one, and wait for it as long as its host waits.

    ``stamps``: what the files that it names look like.
    """
    from kimi_mcp.policy import reported

    house = context.lifespan_context
    until = anyio.current_time() + (inf if _is_patient(context) else house.settings.reply_within_s)
    working = await house.opened()
    host, key = _host(context), _call_key(tool, said, stamps)
    run = rejoined = await working.runs.rejoin(caller=LOCAL, host=host, key=key)
    if run is None:
        run = working.start(work, prompt, tool=tool.name, host=host, key=key)
    request_id = coerce_request_id(context.request_id or 0)
    house.waiting[request_id] = run
    await _wait(context, run, until)
    house.waiting.pop(request_id, None)
    outcome = await run.look()
    if rejoined is not None:
        await working.runs.abandon(run.id, False)
        outcome = replace(outcome, policy=(*outcome.policy, reported("run-rejoined", field="prompt")))
    return outcome


def _host(context: Context) -> str | None:
    """The program that asks, by its own name."""
    client = context.session.client_params
    return None if client is None else client.client_info.name


def _call_key(tool: Tool, said: Arguments, stamps: Sequence[str] = ()) -> str:
    """The very same call has the same one. Read piece by piece: a data URI may have many megabytes."""
    digest = sha256(tool.name.encode())
    for name, value in (*said, ("stamps", list(stamps))):
        several = cast(list[Any], value) if isinstance(value, list) else [value]
        for each in several:
            text = each if isinstance(each, str) else json.dumps(each)
            digest.update(f" {name} {type(each).__name__} {len(text)} ".encode())
            for at in range(0, len(text), _HASHED_AT_ONCE):
                digest.update(text[at : at + _HASHED_AT_ONCE].encode())
    return digest.hexdigest()


async def _offered_roots(context: Context) -> tuple[str, ...] | None:
    """The host's own roots; None where it offers none that can be read, or does not say within ``ROOTS_WITHIN_S``."""
    capabilities = context.session.client_capabilities
    if capabilities is None or capabilities.roots is None or not context.session.can_send_request:
        return None
    with anyio.move_on_after(ROOTS_WITHIN_S):
        try:
            listed = await context.session.send_request(ListRootsRequest(), ListRootsResult)
        except (MCPError, ValidationError):
            return None
        return tuple(str(root.uri) for root in listed.roots)
    return None


def _is_patient(context: Context) -> bool:
    """Whether this host waits as long as progress comes, and asked for it."""
    asked = (context.meta or {}).get("progress_token") is not None
    return asked and client_quirks.waits_for_progress(_host(context))


async def _look(context: Context, look: RunArguments) -> Outcome:
    house = context.lifespan_context
    if look.run_id is None and look.action not in ("wait", "status"):
        raise InvalidArguments(
            f"`action` {look.action} needs a `run_id`.", fix="Call kimi_run without arguments to see your runs."
        )
    until = anyio.current_time() + (house.settings.reply_within_s if look.wait_s is None else look.wait_s)
    runs = (await house.opened()).runs
    if look.run_id is None:
        return Outcome(status="completed", answer=results.run_list(await runs.latest(LOCAL)))
    run = await runs.find(look.run_id, LOCAL, go_on=look.action != "cancel")
    match look.action:
        case "wait":
            await _wait(context, run, until)
            return await run.look()
        case "status":
            return await run.look()
        case "answer" | "reasoning":
            return results.paged(await run.look(), look.action, look.offset)
        case "cancel":
            await run.cancel()
            return await run.look()


async def _wait(context: Context, run: RunView, until: float) -> None:
    """Until the run has ended or the caller has waited long enough, telling it meanwhile what is going on.

    ``until``: by anyio's clock; it was set as the call arrived, so that what it waited for before counts too.
    """
    start = anyio.current_time()
    tick, ended = start + FIRST_PROGRESS_S, False
    while True:
        with anyio.move_on_at(min(tick, until)):
            await run.ended()
            ended = True
        now = anyio.current_time()
        if ended or now >= until:
            return
        await context.session.report_progress(round(now - start, 1), message=run.phase())
        tick = anyio.current_time() + PROGRESS_EVERY_S


# ── cancellation ──────────────────────────────────────────────────────────────────────────────────────────────────


async def _hear_cancellations(ctx: Context, call_next: CallNext) -> HandlerResult:
    """A user's cancellation ends the run; that of a host whose clock ran out leaves it alive and fetchable."""
    if ctx.method == "notifications/cancelled":
        request_id = cancelled_request_id_from_params(ctx.params)
        run = None if request_id is None else ctx.lifespan_context.waiting.pop(coerce_request_id(request_id), None)
        if run is not None:
            gave_up = client_quirks.gave_up((ctx.params or {}).get("reason"))
            house = ctx.lifespan_context
            start_contained(house.tasks, "a cancellation could not be passed on", _let_go, house, run, gave_up)
    return await call_next(ctx)


async def _let_go(house: ServerState, run: RunView, gave_up: bool) -> None:
    """Whoever waited for a run does not wait any more."""
    if gave_up:
        await (await house.opened()).runs.abandon(run.id)
    else:
        await run.cancel()


async def _name_odd_arguments(ctx: Context, call_next: CallNext) -> HandlerResult:
    """Arguments that are no object are refused as any other: by a result that says what is allowed."""
    said = ctx.params or {}
    if ctx.method == "tools/call" and not isinstance(said.get("arguments"), Mapping | NoneType):
        ctx = replace(ctx, params={**said, "arguments": {"arguments": said["arguments"]}})
    return await call_next(ctx)
