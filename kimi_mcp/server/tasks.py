"""Tasks (``io.modelcontextprotocol/tasks``, SEP-2663): a long call answers with a handle. I/O: that of the runs.

A task is a run, and its id the run's: like that it outlives its request, its connection and its server. Only a client
that declares the extension gets one; ``kimi_run`` is for all others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, cast

import anyio
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    ElicitRequest,
    ElicitResult,
    RequestParams,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, ValidationError

from kimi_mcp.core.errors import KimiError, RunNotFound
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.server import apps, raising, results
from kimi_mcp.server.callers import caller_of
from kimi_mcp.server.host_user import reply_of

if TYPE_CHECKING:
    from kimi_mcp.runs import RunView

EXTENSION = "io.modelcontextprotocol/tasks"
"""The extension's identifier."""

DAY_MS = 86_400_000
"""Milliseconds of a day."""


class TaskParams(RequestParams):
    """Parameters of ``tasks/get`` and ``tasks/cancel``."""

    task_id: str


class UpdateParams(TaskParams):
    """Parameters of ``tasks/update``."""

    input_responses: dict[str, Any]


class TaskNotification(BaseModel):
    """What a subscriber receives about a task: all that ``tasks/get`` says."""

    method: Literal["notifications/tasks"] = "notifications/tasks"
    params: dict[str, Any]


def declared(context: Any) -> bool:
    """Whether the request's client takes tasks. Each request declares it; the older era has no such extension."""
    capabilities = context.session.client_capabilities
    extensions = None if capabilities is None else capabilities.extensions
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS and EXTENSION in (extensions or ())


def created(context: Any, run: RunView, outcome: Outcome, *, rejoined: bool) -> dict[str, Any]:
    """The answer to a call that goes on as a task; its run must be one that ``tasks/get`` finds.

    ``rejoined``: it is the run of an earlier call, which the result reports.
    """
    if rejoined:
        context.lifespan_context.rejoined.append(run.id)
    return _task(context, run, outcome) | {"resultType": "task"}


async def _get(context: Any, params: TaskParams) -> dict[str, Any]:
    run = await _find(context, params.task_id)
    with _protocol_errors():
        return await _current(context, run)


async def _update(context: Any, params: UpdateParams) -> dict[str, Any]:
    """Take what the user answered; a response to another request than the one that is open is ignored."""
    run = await _find(context, params.task_id)
    with _protocol_errors():
        runs = await context.lifespan_context.open_runs()
        for form_id, response in params.input_responses.items():
            with suppress(ValidationError):
                await raising.answer(runs, run.id, form_id, reply_of(ElicitResult.model_validate(response)))
    return {}


async def _cancel(context: Any, params: TaskParams) -> dict[str, Any]:
    run = await _find(context, params.task_id, go_on=False)
    with _protocol_errors(), anyio.move_on_after(context.lifespan_context.settings.reply_within_s):
        await run.cancel()
    return {}


async def _listen(context: Any, params: SubscriptionsListenRequestParams) -> None:
    """Report the status of its tasks to the client until it cancels the request. No other subscription exists."""
    requested: Any = (params.notifications.model_extra or {}).get("taskIds", ())
    if not isinstance(requested, list | tuple) or not all(isinstance(each, str) for each in cast(list[Any], requested)):
        raise MCPError(INVALID_PARAMS, "`taskIds` must be a list of ids.")
    runs: list[RunView] = []
    for task_id in dict.fromkeys(cast(list[str], requested)):
        try:
            runs.append(await _find(context, task_id))
        except MCPError as error:
            if error.code != INVALID_PARAMS:
                raise
    meta = {SUBSCRIPTION_ID_META_KEY: context.request_id}
    agreed = SubscriptionFilter.model_validate({"taskIds": [run.id for run in runs]} if runs else {})
    acknowledged = SubscriptionsAcknowledgedNotification(
        params=SubscriptionsAcknowledgedNotificationParams(notifications=agreed, _meta=meta)
    )
    await context.session.send_notification(acknowledged, related_request_id=context.request_id)
    async with anyio.create_task_group() as listening:
        for run in runs:
            listening.start_soon(_report, context, run, meta)
        await anyio.sleep_forever()


async def _report(context: Any, run: RunView, meta: dict[str, Any]) -> None:
    with suppress(KimiError):  # the store fails: the client can still ask
        while True:
            task = await _current(context, run)
            notification: Any = TaskNotification(params={**task, "_meta": meta})
            await context.session.send_notification(notification, related_request_id=context.request_id)
            if task["status"] not in ("working", "input_required"):
                return
            with anyio.move_on_after(context.lifespan_context.timings.progress_every_s):
                await run.wait()


async def _find(context: Any, task_id: str, *, go_on: bool = True) -> RunView:
    """The run of a task; a protocol error for a client that declares no tasks, and where there is no such run."""
    if not declared(context):
        needed: Any = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        message = f"Only a client that declares {EXTENSION} can use tasks; kimi_run is for all others."
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, message, needed)
    state = context.lifespan_context
    with _protocol_errors(), state.store_within():
        run = await (await state.open_runs()).find(task_id, caller_of(context), go_on=go_on)
        state.keep(run)
        return run


@contextmanager
def _protocol_errors() -> Generator[None]:
    try:
        yield
    except RunNotFound as error:
        raise MCPError(INVALID_PARAMS, f"There is no task of that id: {error.message} {error.fix}") from None
    except KimiError as error:
        raise MCPError(INTERNAL_ERROR, f"{error.message} {error.fix}") from None


async def _current(context: Any, run: RunView) -> dict[str, Any]:
    """The status of a task, with the result of the call once there is one."""
    outcome = await run.current_outcome()
    task = _task(context, run, outcome)
    if task["status"] == "working" and (question := await raising.open_question(context, run)) is not None:
        form = raising.form_of(question)
        elicitation = ElicitRequest(params=form.params()).model_dump(by_alias=True, mode="json", exclude_none=True)
        waits = {"status": "input_required", "statusMessage": "waits for its user's answer"}
        return task | waits | {"inputRequests": {form.id: elicitation}}
    if task["status"] == "completed":
        if run.id in context.lifespan_context.rejoined:
            outcome = results.rejoined(outcome)
        result = await apps.with_view(context, run.tool, outcome, results.for_host(context, outcome))
        task["result"] = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return task


def _task(context: Any, run: RunView, outcome: Outcome) -> dict[str, Any]:
    from kimi_mcp.runs.store.records import moment

    settings, timings = context.lifespan_context.settings, context.lifespan_context.timings
    task: dict[str, Any] = {
        "taskId": run.id,
        "status": {"running": "working", "cancelled": "cancelled"}.get(outcome.status, "completed"),
        "createdAt": moment(run.started_at),
        "lastUpdatedAt": moment(run.started_at + outcome.timing.total_s),
        "ttlMs": settings.runs_keep_days * DAY_MS if settings.journal == "on" else None,
        "pollIntervalMs": round(timings.poll_every_s * 1000),
    }
    if outcome.status == "running":
        task["statusMessage"] = run.phase()
    elif outcome.status == "cancelled":  # such a task has no result
        task["statusMessage"] = f'kimi_run(run_id="{run.id}") returns what had arrived.'
    return task


METHODS: Mapping[str, tuple[type[RequestParams], Callable[..., Awaitable[dict[str, Any] | None]]]] = {
    "tasks/get": (TaskParams, _get),
    "tasks/update": (UpdateParams, _update),
    "tasks/cancel": (TaskParams, _cancel),
    "subscriptions/listen": (SubscriptionsListenRequestParams, _listen),
}
"""The extension's requests: what each takes, and who answers it."""
