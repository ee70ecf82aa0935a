"""The MCP server: tools, progress and cancellation, on the SDK's low-level ``Server``. I/O: by what it calls.

A handler never runs a call. It starts a run in the server's task group and waits for it, so the run outlives a handler
that the SDK cancels; the reason of the cancellation decides whether the run is cancelled too.

Only what lists the tools is imported here; the first call imports what answers it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server import Server
from mcp.server.context import HandlerResult, ServerRequestContext
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolRequestParams,
    ListRootsRequest,
    ListRootsResult,
    ListToolsResult,
    PaginatedRequestParams,
    ServerCapabilities,
)
from pydantic import ValidationError

from kimi_mcp.core import observing
from kimi_mcp.core.background import start_contained
from kimi_mcp.core.errors import InvalidArguments, KimiError, NotConfigured, RunNotFound, internal_error
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.version import __version__
from kimi_mcp.server import apps, client_quirks, prompts, resources, results, skills, tasks
from kimi_mcp.server.callers import caller_of
from kimi_mcp.server.cancellations import handle_cancellation, hear_cancellations
from kimi_mcp.server.confirming import confirmed
from kimi_mcp.server.host_user import HostUser, InputRequired
from kimi_mcp.server.middleware import refuse_cursor, wrap_invalid_arguments
from kimi_mcp.server.raising import answered
from kimi_mcp.server.request_ids import name_request, traceparent
from kimi_mcp.server.state import ServerState, Timings, make_pipeline
from kimi_mcp.server.streams import request_key, stream_of
from kimi_mcp.server.tools import (
    TOOLS,
    PromptArguments,
    RunArguments,
    SwarmArguments,
    Tool,
    call_key,
    listed_tools,
    parse_arguments,
)
from kimi_mcp.server.waiting import deadline_of, patience_of, wait_for
from kimi_mcp.skill.document import load_skill

if TYPE_CHECKING:
    from kimi_mcp.pipeline.pipeline import Pipeline
    from kimi_mcp.runs import RunFunction, RunView
    from kimi_mcp.swarm.limits import SwarmLimits

log = logging.getLogger(__name__)

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
                if settings.cluster == "on":
                    start_contained(running, "limits are not shared with other replicas", state.keep_limits)
                    start_contained(running, "cancellations at other replicas are not heard", hear_cancellations, state)
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
    server.extensions[apps.EXTENSION] = {}
    server.middleware += [name_request, handle_cancellation, refuse_cursor, wrap_invalid_arguments]
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
        outcome = await _outcome(context, params)
    except InputRequired as needed:
        return needed.result
    except MCPError:  # the state of a question is none of this call's
        raise
    except KimiError as error:
        outcome = _refused(params.name, error)
    except Exception as fault:
        log.exception("a call failed because of a bug in kimi-mcp, or of a module that can't be imported")
        outcome = _refused(params.name, internal_error(fault))
    if not isinstance(outcome, Outcome):
        return outcome
    return await apps.with_view(context, params.name, outcome, results.for_host(context, outcome))


def _refused(name: str, error: KimiError) -> Outcome:
    """The outcome of a call that did not become a run."""
    tool = name if name in TOOLS else "unknown"
    observing.emit(observing.CallEnded(tool=tool, status="failed", error=error.code))
    return Outcome(status="failed", error=error)


async def _outcome(context: Context, params: CallToolRequestParams) -> Outcome | Task:
    tool = TOOLS.get(params.name)
    if tool is None:
        raise InvalidArguments("There is no tool of that name.", fix=f"Call one of {', '.join(TOOLS)}.")
    match parse_arguments(tool, params.arguments):
        case PromptArguments() as chat if tool.mode is not None:
            return await _chat(context, tool, chat)
        case SwarmArguments() as swarm:
            return await _swarm(context, tool, swarm, HostUser(context, params))
        case RunArguments() as run:
            outcome = await _run(context, tool, run, HostUser(context, params))
            observing.emit(observing.CallEnded(tool=tool.name, status="completed"))
            return outcome
        case other:
            raise TypeError(f"{tool.name} takes {type(other).__name__}, which has no handler")


async def _chat(context: Context, tool: Tool, arguments: PromptArguments) -> Outcome | Task:
    assert tool.mode is not None
    deadline = deadline_of(context, tool)
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


async def _swarm(context: Context, tool: Tool, arguments: SwarmArguments, user: HostUser) -> Outcome | Task:
    from kimi_mcp.swarm import run_swarm, submit_swarm

    deadline, call, state = deadline_of(context, tool), arguments.call(), context.lifespan_context
    call = replace(call, asks=user.can_be_asked)
    if state.settings.roots is None:
        call = replace(call, offered_roots=await _offered_roots(context))
    pipeline, runs = await state.open()
    stamps: Sequence[str] = ()
    if call.items:
        stamps = (token_hex(16),)
        with anyio.move_on_at(deadline):
            names = [item for item in call.items if "\n" not in item]
            stamps = await pipeline.file_stamps(names, (), call.offered_roots)
    if (queue := runs.queue) is not None:
        work = partial(submit_swarm, call, pipeline=pipeline, queue=queue, limits=state.swarm_limits)
    else:
        work = partial(run_swarm, call, pipeline=pipeline, limits=state.swarm_limits)
    confirm = partial(confirmed, user, call, pipeline, state.swarm_limits)
    return await _start_and_wait(context, tool, arguments, work, deadline, stamps, user, confirm)


async def _start_and_wait(
    context: Context,
    tool: Tool,
    arguments: PromptArguments | SwarmArguments,
    work: RunFunction,
    deadline: float,
    stamps: Sequence[str] = (),
    user: HostUser | None = None,
    confirm: Callable[..., Awaitable[str | None]] | None = None,
) -> Outcome | Task:
    """Start a run, or rejoin the run of the same call, and wait for it as long as its host waits.

    ``stamps`` identify the current content of the files that the call names. ``user``: who may be asked for it.
    ``confirm`` asks before a run begins; it returns the id that one gets which was confirmed.
    """
    from kimi_mcp.runs import Run
    from kimi_mcp.runs.run import STORE_WITHIN_S

    state = context.lifespan_context
    runs = await state.open_runs()
    caller, host, key = caller_of(context), client_quirks.host_of(context), call_key(tool, arguments, stamps)
    plain_key, rejoined = call_key(tool, arguments) if stamps else key, None
    run = None if user is None else await answered(user, plain_key)
    if run is None:
        with state.store_within(deadline):
            run = rejoined = await runs.rejoin(caller=caller, host=host, key=key)
    run_id = None if run is not None or confirm is None else await confirm(key=plain_key, until=deadline)
    if run_id is not None:
        deadline = deadline_of(context, tool)
        with suppress(RunNotFound):  # an answer that came twice counts once
            run = await runs.find(run_id, caller)
    # A run is begun and recorded before its host hears of it, however long the first call took to open all.
    deadline = max(deadline, anyio.current_time() + min(patience_of(context), STORE_WITHIN_S))
    if run is None:
        run = Run(caller=caller, tool=tool.name, prompt=arguments.prompt, host=host, call_key=key)
        run.id, run.traceparent = run_id or run.id, traceparent()
        await state.start(run, work)
    else:
        state.keep(run)
    observing.add_ids(run_id=run.id, tool=tool.name)
    request, stream = request_key(context, coerce_request_id(context.request_id or 0)), stream_of(context)
    if request is not None:
        state.waiting[request] = run
        state.answered.pop(request, None)
    if stream is not None:
        state.calls.add(stream, run, request)
    becomes_task = tool.becomes_task if tasks.declared(context) else "never"
    until = run.begun if becomes_task == "at once" else run.wait
    try:
        await wait_for(context, run, deadline, until, user, plain_key)
    except InputRequired:  # it is answered with a question
        state.settle(request, stream, run)
        raise
    outcome = await run.current_outcome()
    if rejoined is not None:
        with anyio.move_on_at(deadline + STORE_WITHIN_S):  # written all the same: at worst its answer is given again
            await runs.abandon(run.id, False)
        outcome = results.rejoined(outcome)
    state.settle(request, stream, run)
    if outcome.status == "running" and becomes_task != "never":
        return tasks.created(context, run, outcome, rejoined=rejoined is not None)
    return outcome


async def _offered_roots(context: Context) -> tuple[str, ...] | None:
    """The host's own roots; None where it offers none, or does not answer in time. Over HTTP there are none for it."""
    if context.lifespan_context.settings.remote_callers:  # its folders are not this machine's
        return ()
    capabilities = context.session.client_capabilities
    if capabilities is None or capabilities.roots is None or not context.session.can_send_request:
        return None
    with anyio.move_on_after(context.lifespan_context.timings.roots_s):
        try:
            listed = await context.session.send_request(ListRootsRequest(), ListRootsResult)
        except (MCPError, ValidationError):
            return None
        return tuple(str(root.uri) for root in listed.roots) or None
    return None


async def _run(context: Context, tool: Tool, arguments: RunArguments, user: HostUser) -> Outcome:
    state, key = context.lifespan_context, call_key(tool, arguments)
    if arguments.run_id is None and arguments.action not in ("wait", "status"):
        raise InvalidArguments(
            f"`action` {arguments.action} needs a `run_id`.", fix="Call kimi_run without arguments to see your runs."
        )
    now = anyio.current_time()
    deadline = now + patience_of(context)
    runs = await state.open_runs()
    with state.store_within(deadline):
        if arguments.run_id is None:
            return Outcome(status="completed", answer=results.run_list(await runs.latest(caller_of(context))))
        await answered(user, key)
        run = await runs.find(arguments.run_id, caller_of(context), go_on=arguments.action != "cancel")
        state.keep(run)
        observing.add_ids(run_id=run.id)
        if arguments.action == "continue":
            run = await _continued(context, run)
    match arguments.action:
        case "wait" | "continue":
            await wait_for(context, run, now + patience_of(context, arguments.wait_s), run.wait, user, key)
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
    from kimi_mcp.runs.recorded import RecordedRun

    outcome = await run.current_outcome()
    if outcome.status in ("running", "completed"):
        return run
    if not isinstance(run, RecordedRun):
        raise NotConfigured("The end of that run is not written down yet.", fix="Call again in a moment.")
    state, roots = context.lifespan_context, None
    if state.settings.roots is None and shows_files(run.record):
        roots = await _offered_roots(context)
    pipeline, _ = await state.open()
    return await state.reopen(run.record, pipeline.continuation(run.record, roots))
