"""The settings: the environment variables we read, in one table. Pure: the environment comes in as a mapping.

The variables of providers' own keys stand in the catalogue, with the providers: ``kimi_mcp.catalogue.credentials``
puts the two
together. A server reads its settings before it loads the catalogue, so here every variable that no row knows is kept
as a possible key.

A value that still reads ``${…}`` counts as unset, and so does an empty one: hosts that expand no variables pass them
on literally. A value that can't be read is remembered, not raised: the server must start and list its tools whatever
the environment says; the first call then reports it as ``not_configured``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kimi_mcp.core.errors import NotConfigured

OWN_KEY = "KIMI_API_KEY"
"""The variable of the key for whatever provider is chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One environment variable: a row of the README's table, of ``doctor``, and of the reader below."""

    name: str
    """Its name in the environment."""
    meaning: str
    """One sentence for people."""
    default: str
    """The default, in words."""
    field: str | None = None
    """The field of ``Settings`` that it sets; None: it holds a key."""
    read: Callable[[str], Any] = str
    """From text to value; raises ``ValueError`` with what is allowed."""
    secret: bool = False
    """Whether its value must never be shown."""


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise ValueError(f"a whole number of at least {least}")
        return value

    return read


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ValueError("a number above 0")
    return value


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        for word in allowed:
            if text.lower() == word.lower():
                return word
        raise ValueError("one of " + ", ".join(allowed))

    return read


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def _lower(text: str) -> str:
    return text.strip().lower()


VARIABLES: tuple[Variable, ...] = (
    Variable(
        name="KIMI_PROVIDER",
        meaning="Who answers: the name of a provider of the catalogue.",
        default="with KIMI_BASE_URL the provider whose host it is, else vllm; without it the first whose key is set; "
        "with KIMI_API_KEY alone moonshot",
        field="provider",
        read=_lower,
    ),
    Variable(
        name="KIMI_BASE_URL",
        meaning="Another base URL for that provider.",
        default="the provider's own",
        field="base_url",
    ),
    Variable(
        name="KIMI_MODEL",
        meaning="A catalogue id such as kimi-k2.5, or the provider's own id.",
        default="auto: the first of the provider's list that it serves today, K2.5 first",
        field="model",
    ),
    Variable(
        name="KIMI_ALLOWED_PROVIDERS",
        meaning="Providers, separated by commas, that the `provider` argument may name: a host's model must not "
        "choose who sees the data.",
        default="the chosen one alone",
        field="allowed_providers",
        read=_names,
    ),
    Variable(name=OWN_KEY, meaning="Key for whatever provider is chosen.", default="none", field=None, secret=True),
    Variable(
        name="KIMI_POLICY",
        meaning="`adjust`: a mendable violation is mended and reported. `strict`: what the caller asked for is "
        "refused instead of mended. What the caller left open is chosen and reported in both.",
        default="adjust",
        field="policy",
        read=_one_of("adjust", "strict"),
    ),
    Variable(
        name="KIMI_ROOTS",
        meaning="Folders that tools may read files from, separated as in PATH.",
        default="the roots that the host offers, else the working directory, unless that is `/`, a home or a system "
        "folder: then none, and the error says so",
        field="roots",
    ),
    Variable(
        name="KIMI_DATA_DIR",
        meaning="Where runs and conversations are kept, by every server that names the same folder (folder 0700, "
        "files 0600).",
        default="the platform's user data folder",
        field="data_dir",
    ),
    Variable(
        name="KIMI_DATABASE_URL",
        meaning="Database URL for runs, conversations and swarm state.",
        default="SQLite in KIMI_DATA_DIR",
        field="database_url",
    ),
    Variable(
        name="KIMI_JOURNAL",
        meaning="`on`, or `off`: nothing is written down; conversations and late answers then live as long as the "
        "process, and of runs that have ended only the latest 64 and what they follow.",
        default="on",
        field="journal",
        read=_one_of("on", "off"),
    ),
    Variable(
        name="KIMI_RUNS_KEEP_DAYS",
        meaning="How long runs are kept, in days.",
        default="30",
        field="runs_keep_days",
        read=_whole(1),
    ),
    Variable(
        name="KIMI_REPLY_WITHIN_S",
        meaning="After this long a caller gets a run handle instead of waiting, unless its host is known to wait "
        "while progress comes.",
        default="45",
        field="reply_within_s",
        read=_positive,
    ),
    Variable(
        name="KIMI_FIRST_TOKEN_TIMEOUT_S",
        meaning="Upstream deadline for the first token; comments and keep-alives do not reset it.",
        default="120",
        field="first_token_timeout_s",
        read=_positive,
    ),
    Variable(
        name="KIMI_IDLE_TIMEOUT_S",
        meaning="Upstream deadline between two tokens; comments and keep-alives do not reset it.",
        default="60",
        field="idle_timeout_s",
        read=_positive,
    ),
    Variable(
        name="KIMI_TOTAL_TIMEOUT_S",
        meaning="Upstream deadline for one call, all attempts included.",
        default="1800",
        field="total_timeout_s",
        read=_positive,
    ),
    Variable(
        name="KIMI_REASONING_INLINE_CHARS",
        meaning="How much reasoning a result carries inline; it all lands in the host's context.",
        default="2000",
        field="reasoning_inline_chars",
        read=_whole(0),
    ),
    Variable(
        name="KIMI_MAX_CONCURRENCY",
        meaning="Upstream requests in flight at once.",
        default="16",
        field="max_concurrency",
        read=_whole(1),
    ),
    Variable(
        name="KIMI_BUDGET_USD_PER_CALL",
        meaning="US dollars that one call may cost: one that would begin above it is refused, one that grows above "
        "it is stopped, with what has arrived. Where a price is unknown, the dearest of the catalogue counts.",
        default="none",
        field="budget_usd_per_call",
        read=_positive,
    ),
    Variable(
        name="KIMI_BUDGET_USD_PER_DAY",
        meaning="Spending limit of a day (UTC), for all servers on one KIMI_DATA_DIR together.",
        default="none",
        field="budget_usd_per_day",
        read=_positive,
    ),
    Variable(
        name="KIMI_BUDGET_USD_PER_SWARM",
        meaning="Spending limit of one swarm, in US dollars; `max_cost_usd` can lower it. Where a price is unknown, "
        "the dearest of the catalogue counts.",
        default="2",
        field="budget_usd_per_swarm",
        read=_positive,
    ),
    Variable(
        name="KIMI_SWARM_MCP",
        meaning="Path of an `mcpServers` JSON file, as hosts have them: the tools that sub-agents of a swarm may use.",
        default="none",
        field="swarm_mcp",
    ),
    Variable(
        name="KIMI_LOG_LEVEL",
        meaning="Level of the JSON log lines on stderr: DEBUG, INFO, WARNING, ERROR or CRITICAL.",
        default="WARNING",
        field="log_level",
        read=_one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    ),
)
"""Every variable that is read, but for providers' own keys (``access.variables`` has those too)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says, each value read and checked once."""

    provider: str | None = None
    """``KIMI_PROVIDER``; None: chosen by base URL or key."""
    base_url: str | None = None
    """``KIMI_BASE_URL``; None: the provider's own."""
    model: str = "auto"
    """``KIMI_MODEL``."""
    allowed_providers: tuple[str, ...] = ()
    """``KIMI_ALLOWED_PROVIDERS``; empty: the chosen one alone."""
    policy: Literal["adjust", "strict"] = "adjust"
    """``KIMI_POLICY``."""
    roots: str | None = None
    """``KIMI_ROOTS`` as it stands; None: the host's roots, else the working directory."""
    reply_within_s: float = 45.0
    """``KIMI_REPLY_WITHIN_S``, seconds."""
    first_token_timeout_s: float = 120.0
    """``KIMI_FIRST_TOKEN_TIMEOUT_S``, seconds."""
    idle_timeout_s: float = 60.0
    """``KIMI_IDLE_TIMEOUT_S``, seconds."""
    total_timeout_s: float = 1800.0
    """``KIMI_TOTAL_TIMEOUT_S``, seconds."""
    reasoning_inline_chars: int = 2000
    """``KIMI_REASONING_INLINE_CHARS``, code points."""
    max_concurrency: int = 16
    """``KIMI_MAX_CONCURRENCY``, requests."""
    data_dir: str | None = None
    """``KIMI_DATA_DIR``; None: the platform's user data folder."""
    database_url: str | None = field(default=None, repr=False)
    """``KIMI_DATABASE_URL``; None: SQLite in the data folder. It may hold a password: never shown."""
    journal: Literal["on", "off"] = "on"
    """``KIMI_JOURNAL``."""
    runs_keep_days: int = 30
    """``KIMI_RUNS_KEEP_DAYS``, days."""
    budget_usd_per_call: float | None = None
    """``KIMI_BUDGET_USD_PER_CALL``, US dollars; None: no limit."""
    budget_usd_per_day: float | None = None
    """``KIMI_BUDGET_USD_PER_DAY``, US dollars; None: no limit."""
    budget_usd_per_swarm: float = 2.0
    """``KIMI_BUDGET_USD_PER_SWARM``, US dollars."""
    swarm_mcp: str | None = None
    """``KIMI_SWARM_MCP`` as it stands; None: sub-agents have no tools of the operator's."""
    log_level: str = "WARNING"
    """``KIMI_LOG_LEVEL``."""
    possible_keys: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """``KIMI_API_KEY`` and every variable that the table does not have, where the value could be a key; never shown.
    Which of them are keys is for the catalogue to say: ``access.keys``."""
    impossible_keys: frozenset[str] = frozenset()
    """The same variables where the value can't be a key; an error if one of them is a key's: ``access.unreadable``."""
    unreadable: tuple[NotConfigured, ...] = ()
    """One error for each variable of the table whose value can't be read."""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read every variable of the table. Never raises: what can't be read stands in ``unreadable``."""
    table = {variable.name: variable for variable in VARIABLES if variable.field is not None}
    values: dict[str, Any] = {}
    keys: dict[str, str] = {}
    impossible: set[str] = set()
    unreadable: list[NotConfigured] = []
    for name, text in environment.items():
        text = text.strip()
        if name in table or not text or "${" in text:
            continue
        if text.isascii() and text.isprintable() and " " not in text:
            keys[name] = text
        else:
            impossible.add(name)
    for variable in table.values():
        text = environment.get(variable.name, "").strip()
        if not text or "${" in text:
            continue
        assert variable.field is not None
        try:
            values[variable.field] = variable.read(text)
        except ValueError as allowed:
            unreadable.append(
                NotConfigured(f"{variable.name} can't be read.", fix=f"Set {variable.name} to {allowed}, or unset it.")
            )
    return Settings(**values, possible_keys=keys, impossible_keys=frozenset(impossible), unreadable=tuple(unreadable))
