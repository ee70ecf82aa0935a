"""``view_app``: the page, its scripts and its data as one app; ``ViewAccess`` stands before it. ASGI, reads assets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Receive, Scope, Send

from kimi_mcp.view.web.access import not_found, viewer_of

FOR_EVER: Final = "public, max-age=31536000, immutable"
"""How long a browser keeps what is at an address with its hash."""


def view_app(
    routes: Iterable[BaseRoute],
    base: str,
    *,
    public_base: str | None = None,
    name_of: Callable[[Request], str | None] = lambda request: None,
) -> Router:
    """The document and its assets beside the ``routes`` of the data.

    ``base``: the path that all are below here; ``public_base``: the same as browsers have it, behind a proxy.
    ``name_of``: the name of who has signed in; None: nobody has to.
    """
    page = _Documents(public_base or base, name_of)
    own = [
        Route(base, page.document, methods=["GET"]),
        Route(f"{base}/assets/{{name}}", page.asset, methods=["GET"]),
        Route(f"{base}/api/session", page.session, methods=["GET"]),
    ]
    return Router([*own, *routes], redirect_slashes=False, default=_not_found)


class _Documents:
    def __init__(self, base: str, name_of: Callable[[Request], str | None]) -> None:
        self._base, self._name_of = base, name_of

    async def document(self, request: Request) -> Response:
        from kimi_mcp.view.documents import live_document

        return HTMLResponse(await anyio.to_thread.run_sync(live_document, self._base))

    async def asset(self, request: Request) -> Response:
        from kimi_mcp.view.documents import asset, asset_hash

        name: str = request.path_params["name"]
        try:
            content, content_type = await anyio.to_thread.run_sync(asset, name)
        except KeyError:
            raise not_found() from None
        is_exact = request.query_params.get("v") == asset_hash(name)
        headers = {"Content-Type": content_type, "Cache-Control": FOR_EVER if is_exact else "no-cache"}
        return Response(content, headers=headers)

    async def session(self, request: Request) -> Response:
        """Who has signed in, and so can sign out, and whether they see everybody's runs."""
        viewer = await viewer_of(request)
        return JSONResponse({"name": self._name_of(request), "sees_all": viewer.caller is None})


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise not_found()
