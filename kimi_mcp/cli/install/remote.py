"""Servers at a URL, such as a team's: which URLs are taken, and what a host's file is to hold for one. Pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from kimi_mcp.cli.install.documents import MISSING, mapping, value_at
from kimi_mcp.cli.install.entry import DesiredEntry, HostRow, RemoteForm, named_in, question
from kimi_mcp.cli.install.jsonc import KeyPath
from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.core.loopback import is_loopback

Changes = tuple[Sequence[tuple[KeyPath, Any]], Sequence[KeyPath]]
"""What is put into a host's file, and what is cut from it."""

ENDPOINT = "/mcp"
"""Where kimi-mcp serves."""

_URL = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?(/[a-z0-9._~%@:+/-]*)?", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
_PLACEHOLDER = "YOUR_TOKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteServer:
    """A server that the host connects to."""

    url: str
    """As ``checked_url`` returns it."""
    variable: str | None = None
    """The variable that holds the token; None: the host has people sign in, or nobody is asked."""
    token: str | None = None
    """The token, where the host's file is the only place for it; None: a placeholder is shown."""


def checked_url(text: str) -> str:
    """A server's URL; the endpoint is added where it has no path. Raises ``InvalidArguments``, without repeating it."""
    text = text.strip()
    with suppress(ValueError):
        url = urlsplit(text)
        if url.username is not None:
            raise _refused("holds a name or password", "Leave them out; --token-env names the variable of a token.")
        if url.query or url.fragment:
            raise _refused("holds a query or fragment", "Leave it out; --token-env names the variable of a token.")
        if url.hostname and url.port != 0 and _URL.fullmatch(text):
            if url.scheme == "http" and not is_loopback(url.hostname):
                raise _refused(
                    "is plain http to another machine: token and prompts could be read on the way",
                    "Use https, or a tunnel that ends on this machine, such as `ssh -L`.",
                )
            return f"{url.scheme}://{url.netloc.lower()}{url.path.rstrip('/') or ENDPOINT}"
    raise _refused("is no http or https URL", "Write it like https://kimi.example.org/mcp; the operator knows it.")


def checked_token(text: str, variable: str) -> str:
    """A token as it can stand in a header. Raises ``InvalidArguments``, without repeating it."""
    if not _TOKEN.fullmatch(text):
        raise InvalidArguments(
            f"{variable} holds no token: a token is one word of letters, digits and -._~+/=.",
            fix=f"Set {variable} to the token alone, without `Bearer`, quotes or spaces.",
        )
    return text


def remote_entry(host: HostRow, name: str, server: RemoteServer) -> DesiredEntry:
    """The entry for a host that takes servers at a URL."""
    form = _form(host)
    filled = {"name": name, "url": server.url, "token": server.token or _PLACEHOLDER}
    token: dict[str, Any] = {} if server.variable is None else _filled(form.token, {}, server.variable)
    named = () if server.variable is None else (server.variable,)
    return DesiredEntry(
        entry=_filled({**form.entry, **token}, filled, None),
        fields={"url": form.url_field},
        inputs=tuple(question(host, variable) for variable in named if form.way == "input"),
        keys=named,
        in_clear=named if form.way == "plain" and server.token else (),
    )


def remote_updates(
    host: HostRow, path: tuple[str, ...], existing: Mapping[str, Any], entry: Mapping[str, Any]
) -> Changes:
    """What changes in an entry with a URL: that, and the token. What a person changed or added stays."""
    form = _form(host)
    puts = [
        ((*path, *place), value)
        for place, value in _leaves(entry)
        if value_at(existing, place) is MISSING or value_at(form.entry, place) != value
    ]
    wanted = {place for place, _ in _leaves(entry)}
    cuts: list[KeyPath] = []
    for place, _ in _leaves(form.token):
        if place in wanted or value_at(existing, place) is MISSING:
            continue
        while len(place) > 1 and len(mapping(value_at(existing, place[:-1]))) == 1:
            place = place[:-1]  # nothing else is in there
        cuts.append((*path, *place))
    return puts, cuts


def switched(
    path: tuple[str, ...], existing: Mapping[str, Any], entry: Mapping[str, Any], left: Mapping[str, Any]
) -> Changes:
    """What changes where an entry becomes one of the other kind; ``left`` is the template of the kind before.

    Hosts refuse an entry that has fields of both. What a person added or changed beside them stays.
    """
    puts = [
        ((*path, field), value) for field, value in entry.items() if field not in existing or left.get(field) != value
    ]
    return puts, [(*path, field) for field in existing if field in left and field not in entry]


def _form(host: HostRow) -> RemoteForm:
    assert host.remote is not None, "the caller asks first"
    return host.remote


def _filled(value: Any, texts: Mapping[str, str], variable: str | None) -> Any:
    """A template with its ``{names}`` and, for a variable, what names that filled in."""
    if isinstance(value, Mapping):
        return {key: _filled(inner, texts, variable) for key, inner in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list):
        return [_filled(each, texts, variable) for each in cast("list[Any]", value)]
    if not isinstance(value, str):
        return value
    text = value if variable is None else named_in(value, variable)
    return re.sub(r"\{(name|url|token)\}", lambda found: texts.get(found[1], found[0]), text)


def _leaves(value: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(cast("Mapping[str, Any]", inner), (*path, key))
        else:
            yield (*path, key), inner


def _refused(why: str, fix: str) -> InvalidArguments:
    return InvalidArguments(f"The --url {why}.", fix=fix)
