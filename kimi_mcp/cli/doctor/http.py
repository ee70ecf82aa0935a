"""The checks of ``kimi-mcp serve --transport http``: would it start, who may call it, within which limits. Does I/O.

Reads the file of tokens; with a probe, asks who issues tokens.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kimi_mcp.cli.console import counted
from kimi_mcp.cli.doctor.diagnosis import Diagnosis
from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.profiles import dollars
from kimi_mcp.core.setting_values import is_https_or_local
from kimi_mcp.core.settings import Settings

if TYPE_CHECKING:
    from kimi_mcp.server.http.auth.verifiers import Verifiers

PREFIXES = (
    "KIMI_HTTP_",
    "KIMI_DRAIN_",
    "KIMI_OIDC_",
    "KIMI_INTROSPECTION_",
    "KIMI_QUOTA_",
    "KIMI_BUDGET_USD_PER_PRINCIPAL_",
)
"""How the settings of the HTTP server begin."""

UNKNOWN_VALUE = "kimi-mcp.doctor"
"""What a probe asks about: nobody's token."""

LOCAL_URL = "http://127.0.0.1:8000/mcp"
"""Where it is reached by default."""


async def check_http(found: Diagnosis, settings: Settings, probe: bool) -> None:
    """Look at its settings, where one is set."""
    given = (*settings.explicit, *settings.possible_keys, *settings.impossible_keys)
    if not any(name.startswith(PREFIXES) for name in given):
        return
    from kimi_mcp.server.http.auth.verifiers import Verifiers, kinds_set
    from kimi_mcp.server.http.start_check import check_names, check_roots

    kinds = [kind.variable for kind in kinds_set(settings)]
    try:
        check_names(settings)
        check_roots(settings)
        with _warnings():  # they are findings here
            verifiers = Verifiers(settings, settings.http_url or LOCAL_URL)
    except KimiError as error:
        found.add_error("http", error)
        return
    _check_reach(found, settings, kinds)
    _check_tokens(found, settings)
    _check_audience(found, settings)
    _check_limits(found, settings, kinds)
    if probe:
        await _ask_issuers(found, settings, verifiers)


def _check_reach(found: Diagnosis, settings: Settings, kinds: Sequence[str]) -> None:
    message = f"Over HTTP clients reach this server at {settings.http_url or 'the address that it prints'}"
    if settings.http_origins:
        message += f", pages of {counted(len(settings.http_origins), 'other origin')} too"
    card = ", a server card is published" if settings.http_card == "on" else ""
    access = f"callers need a token ({', '.join(kinds)})" if kinds else "callers need no token"
    roots = "the folders of KIMI_ROOTS" if settings.roots else "none of its files"
    message += f"; {access} and may read {roots}{card}; running calls get {settings.drain_s:g} s at the end."
    found.add("http", "ok", message)
    public = settings.http_url is not None and not _is_local(settings.http_url)
    if public and not kinds:
        message = "KIMI_HTTP_URL names another machine, but callers need no token: whoever reaches it can call."
        found.add("http", "warn", message, "Set KIMI_HTTP_TOKENS to a file; `kimi-mcp tokens add NAME` makes a token.")
    if public and settings.http_url is not None and not is_https_or_local(settings.http_url):
        message = "KIMI_HTTP_URL is plain http: whoever is on the way reads tokens and prompts."
        found.add("http", "warn", message, "Put a proxy with TLS in front, and make KIMI_HTTP_URL its https URL.")
    if any(origin.startswith("http://") and not _is_local(origin) for origin in settings.http_origins):
        message = "KIMI_HTTP_ORIGINS has an origin of plain http, which others on the network can pretend to be."
        found.add("http", "warn", message, "Name it with https://, or leave it out.")
    if settings.roots and (kinds or public):
        message = "KIMI_ROOTS is set on a server for others: every caller can read the files in its folders."
        found.add("http", "warn", message, "Unset KIMI_ROOTS unless that is meant.")
    if settings.drain_s == 0:
        message = "KIMI_DRAIN_S is 0: a restart ends running calls at once, and they are paid for."
        found.add("http", "warn", message, "Give it some seconds, and whoever sends SIGTERM more than that.")


def _check_tokens(found: Diagnosis, settings: Settings) -> None:
    if settings.http_tokens is None:
        return
    from kimi_mcp.server.http.auth.token_file import TokenFile

    tokens, now = TokenFile.of(settings).read(), datetime.now(UTC)
    expired = [each.name for each in tokens if each.has_expired(now)]
    if len(expired) == len(tokens):
        message = f"KIMI_HTTP_TOKENS has no {'valid ' if tokens else ''}token: nobody can call with one."
        found.add("tokens", "warn", message, "`kimi-mcp tokens add NAME` makes one.")
    else:
        has = f"KIMI_HTTP_TOKENS has {counted(len(tokens) - len(expired), 'token')}"
        found.add("tokens", "ok", has + (f", and {len(expired)} more that expired." if expired else "."))
    if expired:
        message = f"Expired, and refused: {', '.join(expired[:5])}{' and others' if len(expired) > 5 else ''}."
        found.add("tokens", "warn", message, "`kimi-mcp tokens revoke NAME` takes one out, `tokens add` makes another.")
    if os.name == "posix":
        mode = Path(settings.http_tokens).expanduser().stat().st_mode
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            message = f"Others on this machine may write the file of KIMI_HTTP_TOKENS (mode {stat.S_IMODE(mode):o})."
            found.add("tokens", "warn", message, "Take that away: `chmod 600` it, as the user of the server.")


def _check_audience(found: Diagnosis, settings: Settings) -> None:
    if settings.oidc_issuer is None and settings.introspection_url is None:
        return
    audience = settings.oidc_audience or settings.http_url
    if audience is None:
        message = "Neither KIMI_OIDC_AUDIENCE nor KIMI_HTTP_URL is set: tokens have to be issued for a local address."
        found.add("tokens", "warn", message, "Set KIMI_HTTP_URL to the URL by which clients reach the server.")
    else:
        found.add("tokens", "ok", f"Tokens have to be issued for {audience} (`aud`).")


def _check_limits(found: Diagnosis, settings: Settings, kinds: Sequence[str]) -> None:
    if not kinds:
        return
    own, everyone = settings.budget_usd_per_principal_day, settings.budget_usd_per_day
    spend = "any amount" if own is None else dollars(own)
    together = "any amount" if everyone is None else dollars(everyone)
    message = (
        f"Each principal may make {settings.quota_calls_per_minute} calls a minute, {settings.quota_calls_at_once} at "
        f"once, and spend {spend} a day; all together {together}."
    )
    found.add("limits", "ok", message)
    if own is not None and everyone is not None and own > everyone:
        message = "KIMI_BUDGET_USD_PER_PRINCIPAL_DAY is above KIMI_BUDGET_USD_PER_DAY, which is reached before."
        found.add("limits", "warn", message, "Lower the one, or raise the other.")
    for name in ("calls_per_minute", "calls_at_once"):
        one, all_ = getattr(settings, f"quota_{name}"), getattr(settings, f"quota_all_{name}")
        if all_ is not None and one > all_:
            message = f"KIMI_QUOTA_{name.upper()} is above KIMI_QUOTA_ALL_{name.upper()}, which is reached before."
            found.add("limits", "warn", message, "Lower the one, or raise the other.")


async def _ask_issuers(found: Diagnosis, settings: Settings, verifiers: Verifiers) -> None:
    """Whether those who issue tokens answer as they must."""
    from kimi_mcp.server.http.refusal import Refusal

    questions = {
        "KIMI_OIDC_ISSUER": (settings.oidc_issuer, verifiers.ready, "publishes its keys"),
        "KIMI_INTROSPECTION_URL": (
            settings.introspection_url,
            lambda: verifiers.verify_token(UNKNOWN_VALUE),
            "says which tokens are valid",
        ),
    }
    for variable, (value, ask, does) in questions.items():
        if value is None:
            continue
        with _warnings() as logged:
            try:
                await ask()
            except Refusal:
                reason = logged[-1].rstrip(".") if logged else f"{variable} does not answer"
                fix = f"Correct {variable}, or see that the server can reach it; until then no token is accepted."
                found.add("tokens", "bad", f"{reason[0].upper()}{reason[1:]}.", fix)
            else:
                found.add("tokens", "ok", f"{variable} answers, and {does}.")


@contextmanager
def _warnings() -> Generator[list[str]]:
    """What verifiers log: the operator may know why a token could not be checked, a caller may not."""
    logged: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(record.getMessage())

    logger, listener = logging.getLogger("kimi_mcp.server.http.auth"), Listener(logging.WARNING)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(listener)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield logged
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagate


def _is_local(url: str) -> bool:
    """Whether a URL is this machine's own."""
    parts = urlsplit(url)
    return is_https_or_local(f"http://{parts.netloc}")
