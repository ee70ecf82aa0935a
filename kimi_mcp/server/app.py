"""The MCP server: tools, progress and cancellation, on the SDK's low-level ``Server``.

A handler never runs a call. It starts a run in the server's task group and waits for it, so the run outlives a handler
that the SDK cancels; the reason of the cancellation decides whether the run is cancelled too.

Only what lists the tools is imported here; the first call imports what answers it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from math import inf
from secrets import token_hex
from typing import TYPE_CHECKING, Any, cast

import anyio
from mcp.server import Server
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import cancelled_request_id_from_params
from mcp_types import (
    CallToolRequestParams,
    ListRootsRequest,
    ListRootsResult,
    ListToolsResult,
    PaginatedRequestParams,
    ServerCapabilities,
)
from pydantic import ValidationError

from kimi_mcp.core.background import start_contained
from kimi_mcp.core.errors import InvalidArguments, KimiError, NotConfigured, internal_error
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.version import __version__
from kimi_mcp.server import client_quirks, prompts, resources, results, skills, tasks
from kimi_mcp.server.callers import caller_of
from kimi_mcp.server.middleware import refuse_cursor, wrap_invalid_arguments
from kimi_mcp.server.state import ServerState, Timings, make_pipeline
from kimi_mcp.server.streams import request_key, stream_of
from kimi_mcp.server.tools import (
    TOOLS,
    Arguments,
    PromptArguments,
    RunArguments,
    SwarmArguments,
    Tool,
    listed_tools,
    parse_arguments,
)
from kimi_mcp.skill.document import load_skill

if TYPE_CHECKING:
    from kimi_mcp.pipeline.pipeline import Pipeline
    from kimi_mcp.runs import RunFunction, RunView
    from kimi_mcp.swarm.limits import SwarmLimits

log = logging.getLogger(__name__)

_HASH_CHARS = 65_536
"""Characters that are hashed at once."""

_ANSWERED = 64
"""Replies whose runs are known by their requests' ids."""

Context = ServerRequestContext[ServerState, Any]

Task = dict[str, Any]
"""The answer to a call that goes on as a task."""


def build_server(
    settings: Settings,
    *,
    timings: Timings | None = None,
    pipeline: Callable[[Settings], Pipeline] = make_pipeline,
    swarm_limits: SwarmLimits | None = None,
) -> Server[ServerState]:
    """The server with its tools, resources and prompts; ``SkillError`` where skill.md and the code disagree.

    ``timings``, ``pipeline`` and ``swarm_limits`` are for tests.
    """
    skill = load_skill()
    tools = [
        results.listed(tool, row, always_loaded=row.name == skill.default_tool) for tool, row in listed_tools(skill)
    ]

    @asynccontextmanager
    async def lifespan(server: Server[ServerState]) -> AsyncGenerator[ServerState]:
        running = anyio.create_task_group()
        state = ServerState(settings, running, timings or Timings(), pipeline, swarm_limits)
        try:
            async with running:
                start_contained(running, "what calls need could not be opened yet", state.warm_up)
                start_contained(running, "runs of a dead server could not be recovered", state.recover_runs)
                yield state
                running.cancel_scope.cancel()  # every run records what has arrived
        finally:
            await state.aclose()

    async def list_tools(context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    server = _KimiServer(
        "kimi-mcp",
        version=__version__,
        title="Kimi",
        description=skill.description,
        instructions=skill.instructions,
        icons=[results.icon()],
        lifespan=lifespan,
        get_tool_input_schema=lambda name: None,  # none of ours mirrors an argument into a header (`x-mcp-header`)
        on_list_tools=list_tools,
        on_list_resources=resources.list_resources,
        on_list_resource_templates=resources.list_templates,
        on_read_resource=resources.read_resource,
        on_list_prompts=prompts.list_prompts,
        on_get_prompt=prompts.get_prompt,
        on_completion=prompts.complete,
    )
    server.add_request_handler("tools/call", CallToolRequestParams, _call_tool)
    for extension in (tasks, skills):
        server.extensions[extension.EXTENSION] = {}
        for method, (params_type, handler) in extension.METHODS.items():
            server.add_request_handler(method, params_type, handler)
    server.middleware += [_handle_cancellation, refuse_cursor, wrap_invalid_arguments]
    return server


class _KimiServer(Server[ServerState]):
    def get_capabilities(self, *args: Any, **options: Any) -> ServerCapabilities:
        """What it declares; the SDK takes a server that can be listened to for one whose lists and resources change."""
        capabilities = super().get_capabilities(*args, **options)
        for each in (capabilities.tools, capabilities.prompts, capabilities.resources):
            if each is not None:
                each.list_changed = False
        if capabilities.resources is not None:
            capabilities.resources.subscribe = False
        return capabilities


async def _call_tool(context: Context, params: CallToolRequestParams) -> HandlerResult:
    try:
        outcome = await _outcome(context, params.name, params.arguments)
    except KimiError as error:
        outcome = Outcome(status="failed", error=error)
    except Exception as fault:
        log.exception("a call failed because of a bug in kimi-mcp")
        outcome = Outcome(status="failed", error=internal_error(fault))
    return results.for_host(context, outcome) if isinstance(outcome, Outcome) else outcome


async def _outcome(context: Context, name: str, arguments: Mapping[str, Any] | None) -> Outcome | Task:
    tool = TOOLS.get(name)
    if tool is None:
        raise InvalidArguments("There is no tool of that name.", fix=f"Call one of {', '.join(TOOLS)}.")
    match parse_arguments(tool, arguments):
        case PromptArguments() as chat if tool.mode is not None:
            return await _chat(context, tool, chat)
        case SwarmArguments() as swarm:
            return await _swarm(context, tool, swarm)
        case RunArguments() as run:
            return await _run(context, run)
        case other:
            raise TypeError(f"{name} takes {type(other).__name__}, which has no handler")


async def _chat(context: Context, tool: Tool, arguments: PromptArguments) -> Outcome | Task:
    assert tool.mode is not None
    deadline = _deadline(context, tool)
    state, call = context.lifespan_context, arguments.call(tool.mode)
    if call.names_files and state.settings.roots is None:
        call = replace(call, offered_roots=await _offered_roots(context))
    pipeline, _ = await state.open()
    stamps: Sequence[str] = ()
    if call.names_files:
        stamps = (token_hex(16),)  # files that can't be looked at in time are never the same
        with anyio.move_on_at(deadline):
            stamps = await pipeline.file_stamps(call.files, call.media, call.offered_roots)
    return await _start_and_wait(context, tool, arguments, partial(pipeline.run, call), deadline, stamps)


async def _swarm(context: Context, tool: Tool, arguments: SwarmArguments) -> Outcome | Task:
    from kimi_mcp.swarm import run_swarm

    deadline, call, state = _deadline(context, tool), arguments.call(), context.lifespan_context
    if state.settings.roots is None:
        call = replace(call, offered_roots=await _offered_roots(context))
    pipeline, _ = await state.open()
    stamps: Sequence[str] = ()
    if call.items:
        stamps = (token_hex(16),)
        with anyio.move_on_at(deadline):
            names = [item for item in call.items if "\n" not in item]
            stamps = await pipeline.file_stamps(names, (), call.offered_roots)
    work = partial(run_swarm, call, pipeline=pipeline, limits=state.swarm_limits)
    return await _start_and_wait(context, tool, arguments, work, deadline, stamps)


async def _start_and_wait(
    context: Context,
    tool: Tool,
    arguments: PromptArguments | SwarmArguments,
    work: RunFunction,
    deadline: float,
    stamps: Sequence[str] = (),
) -> Outcome | Task:
    """Start a run, or rejoin the run of the same call, and wait for it as long as its host waits.

    ``stamps`` identify the current content of the files that the call names.
    """
    from kimi_mcp.runs import Run
    from kimi_mcp.runs.run import STORE_WITHIN_S

    state = context.lifespan_context
    runs = await state.open_runs()
    caller, host, key = caller_of(context), client_quirks.host_of(context), call_key(tool, arguments, stamps)
    with state.store_within(deadline):
        run = rejoined = await runs.rejoin(caller=caller, host=host, key=key)
    # A run is begun and recorded before its host hears of it, however long the first call took to open all.
    deadline = max(deadline, anyio.current_time() + min(_patience(context), STORE_WITHIN_S))
    if run is None:
        run = Run(caller=caller, tool=tool.name, prompt=arguments.prompt, host=host, call_key=key)
        runs.start(run, work)
    request, stream = request_key(context, coerce_request_id(context.request_id or 0)), stream_of(context)
    if request is not None:
        state.waiting[request] = run
        state.answered.pop(request, None)
    if stream is not None:
        state.calls.add(stream, run, request)
    becomes_task = tool.becomes_task if tasks.declared(context) else "never"
    await _wait(context, run, deadline, run.begun if becomes_task == "at once" else run.wait)
    outcome = await run.current_outcome()
    if rejoined is not None:
        with anyio.move_on_at(deadline + STORE_WITHIN_S):  # written all the same: at worst its answer is given again
            await runs.abandon(run.id, False)
        outcome = results.rejoined(outcome)
    if stream is not None:
        stream.settled = True
    if request is not None and state.waiting.pop(request, None) is not None:
        state.answered[request] = run.id
        while len(state.answered) > _ANSWERED:
            del state.answered[next(iter(state.answered))]
    if outcome.status == "running" and becomes_task != "never":
        return tasks.created(context, run, outcome, rejoined=rejoined is not None)
    return outcome


def call_key(tool: Tool, arguments: Arguments, stamps: Sequence[str] = ()) -> str:
    """Equal for equal calls. Hashes a long value piece by piece: a data URI may have many megabytes."""
    digest = sha256(tool.name.encode())
    for name, value in (*arguments, ("stamps", list(stamps))):
        for each in cast(list[Any], value) if isinstance(value, list) else [value]:
            text = each if isinstance(each, str) else json.dumps(each)
            digest.update(f" {name} {type(each).__name__} {len(text)} ".encode())
            for at in range(0, len(text), _HASH_CHARS):
                digest.update(text[at : at + _HASH_CHARS].encode())
    return digest.hexdigest()


async def _offered_roots(context: Context) -> tuple[str, ...] | None:
    """The host's own roots; None where it offers none that can be read, or does not answer in time."""
    capabilities = context.session.client_capabilities
    if capabilities is None or capabilities.roots is None or not context.session.can_send_request:
        return None
    if context.lifespan_context.settings.remote_callers:  # its folders are not this machine's
        return None
    with anyio.move_on_after(context.lifespan_context.timings.roots_s):
        try:
            listed = await context.session.send_request(ListRootsRequest(), ListRootsResult)
        except (MCPError, ValidationError):
            return None
        return tuple(str(root.uri) for root in listed.roots)
    return None


def _deadline(context: Context, tool: Tool) -> float:
    """When a call that arrives now is answered at the latest, by anyio's clock.

    Never, where its host asked for progress and is known to wait as long as that comes.
    """
    now = anyio.current_time()
    if tool.becomes_task == "late" and tasks.declared(context):
        return now + min(context.lifespan_context.timings.task_after_s, _patience(context))
    requested = (context.meta or {}).get("progress_token") is not None
    if requested and client_quirks.has("waits_for_progress", client_quirks.host_of(context)):
        return inf
    return now + _patience(context)


def _patience(context: Context, wanted_s: float | None = None) -> float:
    """Seconds within which a call is answered: as it wants, else as it is set; less where its host gives it less."""
    settings, timings = context.lifespan_context.settings, context.lifespan_context.timings
    longest = settings.reply_within_s if wanted_s is None else wanted_s
    host = client_quirks.host_of(context)
    limit = None if "KIMI_REPLY_WITHIN_S" in settings.explicit else client_quirks.call_timeout_s(host)
    return longest if limit is None else min(longest, limit - timings.reply_earlier_s)


async def _run(context: Context, arguments: RunArguments) -> Outcome:
    state = context.lifespan_context
    if arguments.run_id is None and arguments.action not in ("wait", "status"):
        raise InvalidArguments(
            f"`action` {arguments.action} needs a `run_id`.", fix="Call kimi_run without arguments to see your runs."
        )
    now = anyio.current_time()
    deadline = now + _patience(context)
    runs = await state.open_runs()
    with state.store_within(deadline):
        if arguments.run_id is None:
            return Outcome(status="completed", answer=results.run_list(await runs.latest(caller_of(context))))
        run = await runs.find(arguments.run_id, caller_of(context), go_on=arguments.action != "cancel")
        state.calls.keep(run.id)
        if arguments.action == "continue":
            run = await _continued(context, run)
    match arguments.action:
        case "wait" | "continue":
            await _wait(context, run, now + _patience(context, arguments.wait_s), run.wait)
        case "cancel":
            with anyio.move_on_at(deadline):
                await run.cancel()
        case "answer" | "reasoning":
            return results.paged(await run.current_outcome(), arguments.action, arguments.offset)
        case "status":
            pass
    return await run.current_outcome()


async def _continued(context: Context, run: RunView) -> RunView:
    """The run, continuing its answer where that was cut; one that is running or complete as it is."""
    from kimi_mcp.pipeline.continuing import shows_files
    from kimi_mcp.runs.registry import RecordedRun

    outcome = await run.current_outcome()
    if outcome.status in ("running", "completed"):
        return run
    if not isinstance(run, RecordedRun):
        raise NotConfigured("The end of that run is not written down yet.", fix="Call again in a moment.")
    state, roots = context.lifespan_context, None
    if state.settings.roots is None and shows_files(run.record):
        roots = await _offered_roots(context)
    pipeline, runs = await state.open()
    return await runs.reopen(run.record, pipeline.continuation(run.record, roots))


async def _wait(context: Context, run: RunView, deadline: float, until: Callable[[], Awaitable[None]]) -> None:
    """Wait ``until`` the run has ended or begun, or the deadline is over, and report progress.

    ``deadline``: by anyio's clock, set when the call arrived.
    """
    start = anyio.current_time()
    state = context.lifespan_context
    timings = state.timings
    report_at, ended = start + timings.first_progress_s, False
    sent, last = len(run.reports.lines), 0.0
    while True:
        with anyio.move_on_at(min(report_at, deadline, state.answer_by)) as wait, run.reports.waking(wait):
            state.waits.add(wait)
            try:
                if len(run.reports.lines) == sent:
                    await until()
                    ended = True
            finally:
                state.waits.discard(wait)
        now = anyio.current_time()
        is_over = ended or now >= min(deadline, state.answer_by)
        messages, sent = run.reports.lines[sent:], len(run.reports.lines)
        for message in messages or ([] if is_over else [run.phase()]):
            last = max(round(now - start, 1), last + 0.01)  # it must grow with each
            await context.session.report_progress(last, message=message)
        if is_over:
            return
        report_at = anyio.current_time() + timings.progress_every_s


async def _handle_cancellation(ctx: Context, call_next: CallNext) -> HandlerResult:
    """A user's cancellation cancels the run; a host's own timeout leaves it, and its result can be fetched later."""
    if ctx.method == "notifications/cancelled":
        state = ctx.lifespan_context
        request_id = cancelled_request_id_from_params(ctx.params)
        key = None if request_id is None else request_key(ctx, coerce_request_id(request_id))
        host_timed_out = client_quirks.timed_out((ctx.params or {}).get("reason"))
        run = None if key is None else state.waiting.pop(key, None)
        run_id = run.id if run is not None else None if key is None else state.answered.pop(key, None)
        failure = "a cancellation could not be passed on"
        if key is not None and run_id is not None:
            state.calls.settle(key)
            state.calls.keep(run_id)
        if host_timed_out and run_id is not None:
            start_contained(state.tasks, failure, state.abandon, run_id)
        elif run is not None:
            start_contained(state.tasks, failure, run.cancel)
    return await call_next(ctx)
