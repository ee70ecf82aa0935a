"""``HttpUi``: the live page at ``/ui`` of the HTTP server, for whom its authentication lets in. ASGI; I/O: the store's.

With authentication a person signs in by a form with the token of their own, which the browser then keeps in a cookie
that no script and no other site can use. It is verified at every request, as a header is, so that any replica takes it
and a revoked token ends at once. A proxy that signs people in may send the header ``Authorization`` instead. Without
authentication the page is there for whom ``/mcp`` is: this machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

import anyio
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from kimi_mcp.core.callers import name_of
from kimi_mcp.core.settings import Settings
from kimi_mcp.server.callers import KEY, LOCAL, Principal
from kimi_mcp.server.http.allowed_names import AllowedNames
from kimi_mcp.server.http.auth.authentication import Authentication
from kimi_mcp.server.http.auth.scopes import ADMIN, USE
from kimi_mcp.server.http.gate import UI
from kimi_mcp.server.http.refusal import Refusal
from kimi_mcp.server.state import ServerState
from kimi_mcp.view.web.access import AccessRefused, ViewAccess, check_own_header, signed_out, viewer_of
from kimi_mcp.view.web.cookies import cookies_named, session_cookie
from kimi_mcp.view.web.page import view_app
from kimi_mcp.view.web.pages import message_page, sign_in_page
from kimi_mcp.view.web.routes import Viewer, view_routes

if TYPE_CHECKING:
    from kimi_mcp.runs import Runs
    from kimi_mcp.runs.store.store import RunStore


MAX_COOKIE_BYTES: Final = 3_800
"""Of a token: a browser keeps no cookie above 4,096 bytes, its name and attributes included."""

_COOKIE: Final = "kimi-ui"
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")

CountRequest = Callable[[Principal | None], AbstractContextManager[None]]
"""Counts an open request of a principal; raises ``Refusal`` where that has as many as it may."""


class HttpUi(ViewAccess):
    """The page of an HTTP server."""

    def __init__(
        self,
        settings: Settings,
        access: AllowedNames,
        authentication: Authentication,
        *,
        state: Callable[[], ServerState | None],
        counted: CountRequest,
        is_draining: Callable[[], bool],
        max_principal_streams: int,
    ) -> None:
        """``state``: that of the server; None: it is starting. ``is_draining``: whether it ends."""
        public = None if settings.http_url is None else urlsplit(settings.http_url)
        self._public_origin = None if public is None else f"{public.scheme}://{public.netloc}".lower()
        self._public_host = None if public is None else (public.hostname or "").lower()
        self._public_base = UI if public is None else public.path.rstrip("/").removesuffix("/mcp") + UI
        self._names, self._authentication, self._state = access, authentication, state
        self._counted, self._is_draining, self._max_streams = counted, is_draining, max_principal_streams
        self._streams_of: list[Principal | None] = []
        routes = view_routes(self._open_store, viewer_of, self._cancel, UI)
        super().__init__(view_app(routes, UI, public_base=self._public_base, name_of=_name_of), UI)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        scope[KEY] = None
        await super().__call__(scope, receive, send)

    def has_host(self, host: str | None) -> bool:
        """As for ``/mcp``."""
        try:
            self._names.check_host(host)
        except Refusal:
            return False
        return True

    def origins(self, host: str) -> Collection[str]:
        """The page's own alone: none that may call ``/mcp`` beside it, nor another port of this machine."""
        if self._public_origin is not None and _name(host) == self._public_host:
            return (self._public_origin,)
        return f"http://{host}", f"https://{host}"

    async def admit(self, scope: AsgiScope) -> Viewer:
        """Who shows a valid token, in a cookie or a header. Raises ``AccessRefused``.

        Everybody's runs are for who may call and has the scope of operators too: a token that has that scope alone, as
        Prometheus gets, opens no run.
        """
        if not self._authentication.required:
            return Viewer(caller=LOCAL, may_cancel=True)
        headers = [each for each in scope["headers"] if each[0].lower() == b"authorization"]
        if not headers:
            name = self._cookie_name(scope)
            headers = [(b"authorization", f"Bearer {token}".encode()) for token in cookies_named(name, scope)][:1]
        principal = scope[KEY] = await self._verified(scope, headers)
        return Viewer(caller=None if ADMIN in principal.scopes else principal.id, may_cancel=True)

    async def answer_own(self, name: str, request: Request) -> Response | None:
        """To sign in and out."""
        match name, request.method:
            case "" | "/sign-in", "POST" if self._authentication.required:
                return await self._sign_in(request)
            case "/sign-in", "GET":
                return sign_in_page(200) if self._authentication.required else self._to_page()
            case "/sign-out", "POST":
                check_own_header(request.headers)
                return self._with_cookie(Response(status_code=204), request, "")
            case _:
                return None

    def refused_page(self, refused: AccessRefused) -> Response:
        """The form, where that helps."""
        if refused.status == 401:
            return sign_in_page(401, "" if refused.code == "signed_out" else refused.message)
        return message_page(refused.status, "kimi-mcp", refused.message, refused.fix)

    @contextmanager
    def counted(self, scope: AsgiScope, *, is_stream: bool) -> Generator[None]:
        """With the requests of ``/mcp``, and the streams by themselves: each looks at the store again and again."""
        principal: Principal | None = scope[KEY]
        if is_stream and self._is_draining():
            raise _refused(503, "The server is about to stop.", "It is asked again in a moment.", {"Retry-After": "1"})
        if is_stream and self._streams_of.count(principal) >= self._max_streams:
            message = f"You have {self._max_streams} pages open, as many as you may."
            raise _refused(429, message, "Close one.", {"Retry-After": "5"})
        try:
            with self._counted(principal):
                if not is_stream:
                    yield
                    return
                self._streams_of.append(principal)
                try:
                    yield
                finally:
                    self._streams_of.remove(principal)
        except Refusal as refusal:
            raise _refused(refusal.status, str(refusal), "Close a page.", {"Retry-After": "5"}) from None

    async def _verified(self, scope: AsgiScope, headers: list[tuple[bytes, bytes]]) -> Principal:
        own: AsgiScope = {**scope, "headers": headers}
        try:
            await self._authentication.admit(own, USE)
        except Refusal as refusal:
            if refusal.status == 401 and not headers:
                raise signed_out("You are not signed in.", "Sign in with your token.") from None
            code = "token_refused" if refusal.status == 401 else "refused"
            raise AccessRefused(refusal.status, code, str(refusal), "Sign in with another token.") from None
        return own[KEY]

    async def _sign_in(self, request: Request) -> Response:
        """Take a token from the form, and let the browser keep it."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
            raise AccessRefused(415, "wrong_type", "That is not what the form sends.", "Use the form.")
        token = _token_in(await request.body())
        if len(token) > MAX_COOKIE_BYTES:
            message = f"That token has more than {MAX_COOKIE_BYTES:,} characters, which no browser keeps."
            return sign_in_page(400, message + " Ask for a shorter one, or let a proxy send it.")
        if not _TOKEN.fullmatch(token):
            return sign_in_page(400, "That is no token: it has letters, digits and - . _ ~ + / = alone.")
        try:
            request.scope[KEY] = await self._verified(request.scope, [(b"authorization", f"Bearer {token}".encode())])
        except AccessRefused as refused:
            return sign_in_page(refused.status, refused.message)
        return self._with_cookie(self._to_page(), request, token)

    def _to_page(self) -> Response:
        return RedirectResponse(self._public_base, 303)

    def _with_cookie(self, response: Response, request: Request, token: str) -> Response:
        name, secure = self._cookie_name(request.scope), self._is_https(request.scope)
        cookie = session_cookie(name, token, self._public_base, secure=secure, ended=not token)
        response.headers["Set-Cookie"] = cookie
        return response

    def _cookie_name(self, scope: AsgiScope) -> str:
        """Over https one that nothing but https can have set."""
        return f"__Secure-{_COOKIE}" if self._is_https(scope) else _COOKIE

    def _is_https(self, scope: AsgiScope) -> bool:
        """Whether a browser reached the page by the public URL, and that is https."""
        origin = self._public_origin or ""
        return origin.startswith("https:") and _name(Headers(scope=scope).get("host", "")) == self._public_host

    async def _open_store(self) -> RunStore:
        return (await self._runs()).store

    async def _runs(self) -> Runs:
        state = self._state()
        if state is None:
            raise _refused(503, "The server is starting.", "Try again in a moment.", {"Retry-After": "1"})
        with state.store_within():
            return await state.open_runs()

    async def _cancel(self, run_id: str, viewer: Viewer) -> None:
        from kimi_mcp.runs.recorded import CANCEL_WITHIN_S

        runs = await self._runs()
        run = await runs.find(run_id, viewer.caller, go_on=False)
        with anyio.move_on_after(CANCEL_WITHIN_S):
            await run.cancel()


def _name_of(request: Request) -> str | None:
    principal: Principal | None = request.scope[KEY]
    return None if principal is None else name_of(principal.id)


def _name(host: str) -> str:
    """A host without its port."""
    return urlsplit(f"//{host.strip().lower()}").hostname or ""


def _token_in(body: bytes) -> str:
    """The token of the form, without what is often copied with it; "" where there is none, or several."""
    try:
        tokens = parse_qs(body.decode("ascii"), max_num_fields=10).get("token", [])
    except ValueError:
        return ""
    token = tokens[0].strip().strip("\"'") if len(tokens) == 1 else ""
    return token[7:].strip() if token[:7].lower() == "bearer " else token


def _refused(status: int, message: str, fix: str, headers: dict[str, str]) -> AccessRefused:
    return AccessRefused(status, "busy", message, fix, headers)
