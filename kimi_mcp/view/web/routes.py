"""The routes of the page's data: lists, runs, steps, costs, and cancelling. I/O: the store's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from kimi_mcp.core.errors import (
    CallRefused,
    Internal,
    InvalidArguments,
    KimiError,
    NotConfigured,
    Overloaded,
    RunNotFound,
)
from kimi_mcp.runs.store.listing import FILTERS, RunCursor, RunFilter
from kimi_mcp.view import feed, model, reading
from kimi_mcp.view.live import LiveRuns
from kimi_mcp.view.web.streams import Streams

if TYPE_CHECKING:
    from kimi_mcp.runs.store.store import RunStore

MOST_DAYS = 366
"""Days of costs at most."""

MOST_VALUES = 50
"""Values of one filter at most."""

MOST_CHARS = 500
"""Characters of a filter's value, of a run's id or of a step's key at most."""

NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Headers of all data."""

CANCEL_HEADER = "X-Kimi-View"
"""The header without which nothing is cancelled: a page of another origin can't send it."""

_FILTERS = {"status": "statuses", "tool": "tools", "host": "hosts", "caller": "callers"}
assert set(_FILTERS.values()) == set(FILTERS)


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Who looks at the page, as far as it decides what is shown."""

    caller: str | None
    """Whose runs are seen; None: everybody's."""
    may_cancel: bool
    """Whether the viewer may cancel what it sees."""


OpenStore = Callable[[], Awaitable["RunStore"]]
FindViewer = Callable[[Request], Awaitable[Viewer]]
CancelRun = Callable[[str, Viewer], Awaitable[None]]


def view_routes(open_store: OpenStore, viewer: FindViewer, cancel: CancelRun, base: str = "/ui") -> list[BaseRoute]:
    """The routes of the data, below ``base``.

    ``viewer``: who sends a request; what it raises leaves these routes as it is, unless it is a ``KimiError``.
    ``cancel``: cancels a run, which is the viewer's to cancel.
    """
    data = _Data(open_store, viewer, cancel)
    api = f"{base}/api"
    return [
        Route(f"{api}/runs", _answered(data.list), methods=["GET"]),
        Route(f"{api}/events", _answered(data.list_events), methods=["GET"]),
        Route(f"{api}/facets", _answered(data.facets), methods=["GET"]),
        Route(f"{api}/costs", _answered(data.costs), methods=["GET"]),
        Route(f"{api}/runs/{{run_id}}", _answered(data.run), methods=["GET"]),
        Route(f"{api}/runs/{{run_id}}/events", _answered(data.run_events), methods=["GET"]),
        Route(f"{api}/runs/{{run_id}}/steps/{{key:path}}", _answered(data.step), methods=["GET"]),
        Route(f"{api}/runs/{{run_id}}/cancel", _answered(data.cancel), methods=["POST"]),
    ]


class _Data:
    """The endpoints."""

    def __init__(self, open_store: OpenStore, viewer: FindViewer, cancel: CancelRun) -> None:
        self._open_store, self._viewer, self._cancel = open_store, viewer, cancel
        self._live, self._streams = LiveRuns(), Streams()

    async def list(self, request: Request) -> Any:
        viewer = await self._viewer(request)
        wanted, cursor = wanted_runs(request.query_params, viewer), request.query_params.get("cursor")
        store = await self._open_store()
        return await reading.list_view(store, wanted, None if not cursor else RunCursor.parse(cursor))

    async def facets(self, request: Request) -> Any:
        viewer = await self._viewer(request)
        return await reading.facets_view(await self._open_store(), viewer.caller)

    async def costs(self, request: Request) -> Any:
        viewer = await self._viewer(request)
        days = request.query_params.get("days", "30")
        if not (days.isascii() and days.isdecimal() and 1 <= int(days[:9]) <= MOST_DAYS):
            raise InvalidArguments("`days` is no number of days.", fix=f"Give one from 1 to {MOST_DAYS}.")
        return await reading.costs_view(await self._open_store(), viewer.caller, int(days))

    async def run(self, request: Request) -> Any:
        viewer = await self._viewer(request)
        store = await self._open_store()
        live = await self._live.open(store, _path(request, "run_id"), viewer.caller)
        return live.view(may_cancel=viewer.may_cancel)

    async def list_events(self, request: Request) -> Any:
        viewer = await self._viewer(request)
        wanted = wanted_runs(request.query_params, viewer)
        return self._streams.stream(feed.list_events(await self._open_store(), wanted))

    async def run_events(self, request: Request) -> Any:
        viewer = await self._viewer(request)
        store = await self._open_store()
        live = await self._live.open(store, _path(request, "run_id"), viewer.caller)
        cursor = request.headers.get("last-event-id") or request.query_params.get("since", "")
        agent = _bounded("agent", request.query_params.get("agent", ""))
        events = feed.run_events(store, live, cursor=cursor, may_cancel=viewer.may_cancel, agent=agent)
        return self._streams.stream(events)

    async def step(self, request: Request) -> Any:
        viewer = await self._viewer(request)
        store = await self._open_store()
        return await reading.step_view(store, _path(request, "run_id"), viewer.caller, _path(request, "key"))

    async def cancel(self, request: Request) -> Any:
        viewer = await self._viewer(request)
        if request.headers.get(CANCEL_HEADER) != "1":
            refused = InvalidArguments("This request does not come from the page.", fix=f"Send `{CANCEL_HEADER}: 1`.")
            return error_response(refused, 403)
        store, run_id = await self._open_store(), _path(request, "run_id")
        record = await reading.find(store, run_id, viewer.caller)
        if not viewer.may_cancel:
            refused = InvalidArguments("You may not cancel this run.", fix="Open the page as somebody who may.")
            return error_response(refused, 403)
        if record.running:
            await self._cancel(run_id, viewer)
            record = await reading.find(store, run_id, viewer.caller)
        return {"run": model.summary(record)}


def wanted_runs(query: QueryParams, viewer: Viewer) -> RunFilter:
    """The runs that a query asks for, of those that the viewer may see; raises ``InvalidArguments``."""
    found: dict[str, Any] = {}
    for name, field in _FILTERS.items():
        found[field] = tuple(_bounded(name, value) for value in query.getlist(name))
        if len(found[field]) > MOST_VALUES:
            raise InvalidArguments(f"`{name}` has too many values.", fix=f"Give at most {MOST_VALUES}.")
    day = query.get("day")
    return RunFilter(
        caller=viewer.caller,
        day=_day(day) if day else None,
        words=_bounded("q", query.get("q", "")).strip(),
        **found,
    )


def _day(text: str) -> float:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise InvalidArguments("`day` is no day.", fix="Write it as in 2026-11-30; it is one of UTC.") from None


def _path(request: Request, name: str) -> str:
    return _bounded(name, request.path_params[name])


def _bounded(name: str, value: str) -> str:
    if len(value) > MOST_CHARS or "\0" in value:
        raise InvalidArguments(f"`{name}` is too long.", fix=f"Give at most {MOST_CHARS} characters.")
    return value


def _answered(endpoint: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint whose result, or error, is the JSON of a response."""

    async def answer(request: Request) -> Response:
        try:
            result = await endpoint(request)
            return result if isinstance(result, Response) else json_response(result)
        except KimiError as error:
            return error_response(error)

    return answer


def json_response(content: Any, status: int = 200) -> Response:
    """Data as a response that nobody keeps."""
    return Response(to_json(content, inf_nan_mode="null"), status, NO_STORE, media_type="application/json")


def error_response(error: KimiError, status: int | None = None) -> Response:
    """An error as a response; ``status``: None: one that fits."""
    return json_response(model.error_view(error), status or status_of(error))


def status_of(error: KimiError) -> int:
    """The HTTP status of an error."""
    match error:
        case RunNotFound():
            return 404
        case NotConfigured() | Overloaded():
            return 503
        case CallRefused():
            return 400
        case Internal():
            return 500
        case _:
            return 502
