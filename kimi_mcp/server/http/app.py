"""``HttpApp``: the routes, and the state of the server behind them. ASGI, no I/O of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
from anyio import to_thread
from mcp.server import Server
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
from mcp.server.context import CallNext, HandlerResult
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.observing import observed_by
from kimi_mcp.core.settings import Settings
from kimi_mcp.server.callers import LOCAL, Principal
from kimi_mcp.server.http import card
from kimi_mcp.server.http.access_log import AccessLog
from kimi_mcp.server.http.allowed_names import AllowedNames
from kimi_mcp.server.http.auth.authentication import Authentication
from kimi_mcp.server.http.auth.scopes import ADMIN
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.http.gate import ENDPOINT, HEALTH, METRICS, Gate
from kimi_mcp.server.http.membership import Membership
from kimi_mcp.server.http.metrics import Metrics
from kimi_mcp.server.http.refusal import Refusal
from kimi_mcp.server.http.sessions import PortableSessions
from kimi_mcp.server.state import ServerState

if TYPE_CHECKING:
    from kimi_mcp.runs.jobs import Role
    from kimi_mcp.server.http.ui import HttpUi


class HttpApp:
    """A server's HTTP side."""

    def __init__(
        self,
        settings: Settings,
        server: Server[ServerState],
        limits: HttpLimits,
        *,
        host: str,
        url: str,
        role: Role = "all",
    ) -> None:
        """``host``: the address that is listened on; ``url``: where clients reach the endpoint.

        Raises ``NotConfigured``, for what the settings of authentication name.
        """
        self.authentication = Authentication(settings, url)
        """Who may call."""
        self._server, self._max_concurrency = server, settings.max_concurrency
        self.state: ServerState | None = None
        """None before the server runs."""
        self.started = anyio.Event()
        """Set once there is its state."""
        self.membership: Membership | None = None
        """Its place among replicas; None: it is alone."""
        lifespan, by_principal = server.lifespan, settings.metrics_principals == "on"
        self._metrics = metrics = Metrics(now=self._gauges(), by_principal=by_principal)

        @asynccontextmanager
        async def kept(server: Server[ServerState]) -> AsyncGenerator[ServerState]:
            with observed_by(metrics):
                async with lifespan(server) as self.state:
                    self.started.set()
                    yield self.state

        server.lifespan = kept
        self.middleware = server.middleware
        """Around each request of MCP."""
        server.middleware.append(_forget_body)
        live, ready = HEALTH
        metrics_route = Route(METRICS, self.authentication.requires(ADMIN, self._show_metrics))
        routes = [Route(live, self._live), Route(ready, self._ready), metrics_route, *self.authentication.routes()]
        if settings.http_card == "on" and role != "worker":
            routes += card.routes(server, url)
        app = server.streamable_http_app(
            streamable_http_path=ENDPOINT,
            max_sessions=limits.max_sessions,
            # The gate has checked Host and Origin by then, with words of its own.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            custom_starlette_routes=routes,
        )
        # The gate has bounded and read the body, too: another copy would be held as long as its call runs.
        manager = server.session_manager
        manager.asgi_app = getattr(manager.asgi_app, "app", manager.asgi_app)
        # What the SDK binds to its caller finds that in the context.
        inner: ASGIApp = AuthContextMiddleware(app)
        if settings.cluster == "on":
            inner = PortableSessions(inner, lambda whose: self._sessions(whose) >= limits.max_principal_sessions)
        access, speaks = AllowedNames(settings, host), role != "worker"
        ui = self._answer_ui if speaks and settings.http_ui == "on" else None
        self.gate = Gate(inner, access, limits, self.authentication, self._sessions, speaks=speaks, ui=ui)
        """What every request passes."""
        self.gate.on_drain = self._end_event_streams
        self._make_ui = partial(self._import_ui, settings, access, limits.max_principal_streams)
        self.ui: HttpUi | None = None
        """The live page; None before the first request for it."""
        self.entrance = AccessLog(self.gate, unknown=None if self.authentication.required else LOCAL)
        """Where every request comes in."""

    def _sessions(self, principal: Principal) -> int:
        """How many sessions of the handshake era a principal has open."""
        owners = cast("dict[str, AuthorizationContext]", vars(self._server.session_manager)["_session_owners"])
        whose = [(owner["issuer"], owner["subject"]) for owner in owners.values()]
        return whose.count((principal.issuer, principal.subject))

    def _end_event_streams(self) -> None:
        """End the event streams of the live page, so that browsers connect again, elsewhere or later."""
        if self.ui is not None:
            self.ui.end_streams()

    async def _answer_ui(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The live page; the first request for it imports what it needs, with SQLAlchemy."""
        if self.ui is None:
            if self.state is None:
                raise Refusal(503, "The server is starting: try again in a moment.", headers={"Retry-After": "1"})
            await self.state.open_runs()  # first, since it imports the same
            made = await to_thread.run_sync(self._make_ui)
            self.ui = self.ui or made
        await self.ui(scope, receive, send)

    def _import_ui(self, settings: Settings, access: AllowedNames, max_principal_streams: int) -> HttpUi:
        from kimi_mcp.server.http.ui import HttpUi

        return HttpUi(
            settings,
            access,
            self.authentication,
            state=lambda: self.state,
            counted=self.gate.counted,
            is_draining=lambda: self.gate.draining,
            max_principal_streams=max_principal_streams,
        )

    @property
    def busy(self) -> bool:
        """Whether a run is running, or a call is about to begin one or waits for one."""
        return self._running() > 0 or self.gate.calling or (self.state is not None and len(self.state.calls) > 0)

    def _gauges(self) -> dict[str, tuple[str, Callable[[], float]]]:
        """What metrics show of this moment."""
        return {
            "calls_running": ("Calls that run now.", self._running),
            "upstream_waiting": ("Requests to providers that wait for a slot.", self._waiting),
            "upstream_slots": ("Requests to providers at once that this replica may send.", self._slots),
            "replicas": ("Replicas among which limits are divided, this one included.", self._replicas),
        }

    def _slots(self) -> float:
        pipeline = None if self.state is None else self.state.pipeline
        return self._max_concurrency if pipeline is None else pipeline.upstream.slots

    def _replicas(self) -> int:
        limits = None if self.state is None else self.state.replica_limits
        return 1 if limits is None else limits.replicas

    def _running(self) -> int:
        runs = None if self.state is None else self.state.runs
        return 0 if runs is None else len(runs.live)

    def _waiting(self) -> int:
        pipeline = None if self.state is None else self.state.pipeline
        return 0 if pipeline is None else pipeline.upstream.waiting

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _ready(self, request: Request) -> Response:
        """Whether a call would be taken, and recorded."""
        if self.gate.leaving or self.state is None:
            return JSONResponse({"status": "draining"}, 503)
        if self.gate.joining:
            error = None if self.membership is None else self.membership.error
            more = {} if error is None else {"error": error.as_json()}
            return JSONResponse({"status": "joining the cluster", **more}, 503)
        try:
            await self.authentication.ready()
        except Refusal:
            return JSONResponse({"status": "the identity provider does not answer"}, 503)
        try:
            with self.state.store_within():
                await (await self.state.open_runs()).latest(LOCAL, 1)
        except KimiError as error:
            return JSONResponse({"status": "the store does not answer", "error": error.as_json()}, 503)
        return JSONResponse({"status": "ok"})

    async def _show_metrics(self, request: Request) -> Response:
        page, content_type = await to_thread.run_sync(self._metrics.page, request.headers.get("accept", ""))
        return Response(page, headers={"Content-Type": content_type})


async def _forget_body(ctx: Any, call_next: CallNext) -> HandlerResult:
    """Starlette keeps a request's body as long as the request, the medium of a call as long as that runs."""
    if ctx.request is not None:
        cast("dict[str, Any]", vars(ctx.request)).pop("_body", None)
    return await call_next(ctx)
