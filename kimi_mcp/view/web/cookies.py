"""The cookies of a request and of a response, without a parser that guesses. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.types import Scope


def cookies_named(name: str, scope: Scope) -> Iterator[str]:
    """The values of every cookie of that name in a request: another port or path of the host can set one more."""
    for header, value in scope["headers"]:
        if header.lower() == b"cookie":
            for pair in value.decode("latin-1").split(";"):
                found, equals, text = pair.strip().partition("=")
                if equals and found == name:
                    yield text


def session_cookie(name: str, value: str, path: str, *, secure: bool = False, ended: bool = False) -> str:
    """A ``Set-Cookie`` that ends with the browser, for no script and no other site; ``ended``: it is forgotten now."""
    more = ("; Secure" if secure else "") + ("; Max-Age=0" if ended else "")
    return f"{name}={value}; Path={path}; HttpOnly; SameSite=Strict{more}"
