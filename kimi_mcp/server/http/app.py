"""``HttpApp``: the routes, and the state of the server behind them. ASGI, no I/O of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

from mcp.server import Server
from mcp.server.context import CallNext, HandlerResult
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.settings import Settings
from kimi_mcp.server.callers import LOCAL
from kimi_mcp.server.http import card
from kimi_mcp.server.http.allowed_names import AllowedNames
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.http.gate import ENDPOINT, HEALTH, Gate
from kimi_mcp.server.state import ServerState


class HttpApp:
    """A server's HTTP side."""

    def __init__(
        self, settings: Settings, server: Server[ServerState], limits: HttpLimits, *, host: str, url: str
    ) -> None:
        """``host``: the address that is listened on; ``url``: where clients reach the endpoint."""
        self.state: ServerState | None = None
        """None before the server runs."""
        lifespan = server.lifespan

        @asynccontextmanager
        async def kept(server: Server[ServerState]) -> AsyncGenerator[ServerState]:
            async with lifespan(server) as self.state:
                yield self.state

        server.lifespan = kept
        server.middleware.append(_forget_body)
        live, ready = HEALTH
        routes = [Route(live, self._live), Route(ready, self._ready)]
        if settings.http_card == "on":
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
        self.gate = Gate(app, AllowedNames(settings, host), limits)
        """Every request comes in here."""

    @property
    def busy(self) -> bool:
        """Whether a run is running, or a call waits for one."""
        state = self.state
        return state is not None and (len(state.calls) > 0 or (state.opened is not None and bool(state.opened[1].live)))

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _ready(self, request: Request) -> Response:
        """Whether a call would be taken, and recorded."""
        if self.gate.draining or self.state is None:
            return JSONResponse({"status": "stopping"}, 503)
        try:
            with self.state.store_within():
                await (await self.state.open_runs()).latest(LOCAL, 1)
        except KimiError as error:
            return JSONResponse({"status": "the store does not answer", "error": error.as_json()}, 503)
        return JSONResponse({"status": "ok"})


async def _forget_body(ctx: Any, call_next: CallNext) -> HandlerResult:
    """Starlette keeps a request's body as long as the request, the medium of a call as long as that runs."""
    if ctx.request is not None:
        cast("dict[str, Any]", vars(ctx.request)).pop("_body", None)
    return await call_next(ctx)
