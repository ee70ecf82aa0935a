"""The settings, each with its environment variable. Pure: the environment is passed in as a mapping.

A value that still reads ``${…}`` counts as unset, and so does an empty one. A value that can't be read is kept as an
error, not raised: the server must start and list its tools whatever the environment holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from kimi_mcp.core import setting_values
from kimi_mcp.core.errors import NotConfigured

OWN_KEY = "KIMI_API_KEY"
"""The variable of the key for whatever provider is chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One environment variable: a row of the reference, of ``doctor``, and of the reader below."""

    name: str
    """Its name in the environment."""
    meaning: str
    """One sentence for people."""
    default: str = "none"
    """The default, in words."""
    read: Callable[[str], Any] = str
    """From text to value; raises ``ValueError`` with what is allowed."""
    secret: bool = False
    """Whether its value must never be shown."""


def _variable(
    name: str,
    meaning: str,
    *,
    default: Any = None,
    in_words: str | None = None,
    read: Callable[[str], Any] = str,
    shown: bool = True,
    secret: bool = False,
) -> Any:
    """A field that a variable sets; ``in_words`` is its default for people, ``shown`` whether its value may be.

    ``secret``: it must be hidden wherever it turns up.
    """
    if in_words is None:
        in_words = "none" if default is None else default if isinstance(default, str) else f"{default:g}"
    variable = Variable(name=name, meaning=meaning, default=in_words, read=read, secret=secret)
    return field(default=default, repr=shown and not secret, metadata={"variable": variable})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The environment's values, each parsed and checked once. What each means is in its variable."""

    provider: str | None = _variable(
        "KIMI_PROVIDER",
        "Who answers: the name of a provider of the catalogue.",
        in_words="with KIMI_BASE_URL the provider whose host it is, else vllm; without it the first whose key is set; "
        "with KIMI_API_KEY alone moonshot",
        read=str.lower,
    )
    base_url: str | None = _variable(
        "KIMI_BASE_URL", "Another base URL for that provider.", in_words="the provider's own"
    )
    model: str = _variable(
        "KIMI_MODEL",
        "A catalogue id such as kimi-k2.5, or the provider's own id.",
        in_words="auto: the first of the provider's list that it serves today, K2.5 first",
        default="auto",
    )
    allowed_providers: tuple[str, ...] = _variable(
        "KIMI_ALLOWED_PROVIDERS",
        "Providers, separated by commas, that the `provider` argument may name: a host's model must not "
        "choose who sees the data.",
        in_words="the chosen one alone",
        default=(),
        read=setting_values.names,
    )
    policy: Literal["adjust", "strict"] = _variable(
        "KIMI_POLICY",
        "`adjust`: a violation that can be fixed is fixed and reported. `strict`: what the caller asked for is "
        "refused instead. What the caller left open is chosen and reported in both.",
        default="adjust",
        read=setting_values.one_of("adjust", "strict"),
    )
    roots: str | None = _variable(
        "KIMI_ROOTS",
        "Folders that tools may read files from, separated as in PATH.",
        in_words="the roots that the host offers, else the working directory, unless that is `/`, a home or a system "
        "folder: then none, and the error says so",
    )
    data_dir: str | None = _variable(
        "KIMI_DATA_DIR",
        "Where runs and conversations are kept, by every server that names the same folder (folder 0700, files 0600).",
        in_words="the platform's user data folder",
    )
    database_url: str | None = _variable(
        "KIMI_DATABASE_URL",
        "Database URL for runs, conversations and swarm state.",
        in_words="SQLite in KIMI_DATA_DIR",
        shown=False,
    )
    journal: Literal["on", "off"] = _variable(
        "KIMI_JOURNAL",
        "`on`, or `off`: nothing is written to disk; conversations and late answers then live as long as the "
        "process, and of runs that have ended only the latest 64 and what they follow.",
        default="on",
        read=setting_values.one_of("on", "off"),
    )
    runs_keep_days: int = _variable(
        "KIMI_RUNS_KEEP_DAYS", "How long runs are kept, in days.", default=30, read=setting_values.whole(1)
    )
    reply_within_s: float = _variable(
        "KIMI_REPLY_WITHIN_S",
        "After this long a caller gets a run handle instead of waiting, unless its host is known to wait "
        "while progress comes.",
        default=45.0,
        read=setting_values.positive,
    )
    first_token_timeout_s: float = _variable(
        "KIMI_FIRST_TOKEN_TIMEOUT_S",
        "Upstream deadline for the first token; comments and keep-alives do not reset it.",
        default=120.0,
        read=setting_values.positive,
    )
    idle_timeout_s: float = _variable(
        "KIMI_IDLE_TIMEOUT_S",
        "Upstream deadline between two tokens; comments and keep-alives do not reset it.",
        default=60.0,
        read=setting_values.positive,
    )
    total_timeout_s: float = _variable(
        "KIMI_TOTAL_TIMEOUT_S",
        "Upstream deadline for one request, all attempts included.",
        default=1800.0,
        read=setting_values.positive,
    )
    reasoning_inline_chars: int = _variable(
        "KIMI_REASONING_INLINE_CHARS",
        "How much reasoning a result carries inline; all of it fills the host's context.",
        default=2000,
        read=setting_values.whole(0),
    )
    max_concurrency: int = _variable(
        "KIMI_MAX_CONCURRENCY",
        "Upstream requests in flight at once; of replicas (KIMI_CLUSTER=on) those of all together.",
        default=16,
        read=setting_values.whole(1),
    )
    budget_usd_per_call: float | None = _variable(
        "KIMI_BUDGET_USD_PER_CALL",
        "US dollars that one call may cost: one that would begin above it is refused, one that grows above "
        "it is stopped, with what has arrived. Where a price is unknown, the highest of the catalogue counts.",
        read=setting_values.positive,
    )
    budget_usd_per_day: float | None = _variable(
        "KIMI_BUDGET_USD_PER_DAY",
        "Spending limit of a day (UTC), for all servers on one store (KIMI_DATA_DIR or KIMI_DATABASE_URL) together.",
        read=setting_values.positive,
    )
    budget_usd_per_swarm: float = _variable(
        "KIMI_BUDGET_USD_PER_SWARM",
        "Spending limit of one swarm, in US dollars; `max_cost_usd` can lower it. Where a price is unknown, "
        "the highest of the catalogue counts.",
        default=2.0,
        read=setting_values.positive,
    )
    confirm_above_usd: float | None = _variable(
        "KIMI_CONFIRM_ABOVE_USD",
        "A swarm that may cost more, in US dollars, asks the host's user before it begins, where the host can ask. 0: "
        "every swarm does.",
        read=setting_values.not_negative,
    )
    continues: Literal["off", "auto"] = _variable(
        "KIMI_CONTINUE",
        "`auto`: an answer that was cut by its length is continued at once, three times at most and within the "
        "spending limits, where the provider can. `off`: `kimi_run` continues it when asked to.",
        default="off",
        read=setting_values.one_of("off", "auto"),
    )
    swarm_mcp: str | None = _variable(
        "KIMI_SWARM_MCP",
        "Path of an `mcpServers` JSON file, as hosts have them: more tools that sub-agents of a swarm may use.",
    )
    catalogue: str | None = _variable(
        "KIMI_CATALOGUE",
        "Folder that is laid over the catalogue: its `models/*.toml` and `providers/*.toml` change what they name, or "
        "add to it.",
    )
    cache_ttl: Literal["5m", "1h"] | None = _variable(
        "KIMI_CACHE_TTL",
        "How long prompts stay in the provider's cache after their last use, where it has that choice: `5m`, or `1h`, "
        "whose writes cost more.",
        in_words="5m; 1h for swarms whose agents share a long beginning, where that costs less",
        read=setting_values.one_of("5m", "1h"),
    )
    http_url: str | None = _variable(
        "KIMI_HTTP_URL",
        "The URL by which clients reach the HTTP server, where that is not the address it listens on: behind a proxy "
        "or a tunnel. Its host is then accepted too, and tokens must be issued for it.",
        read=setting_values.http_url,
    )
    http_tokens: str | None = _variable(
        "KIMI_HTTP_TOKENS",
        "The file of the HTTP server's own tokens, as `kimi-mcp tokens` writes it; callers then need a token.",
    )
    http_origins: tuple[str, ...] = _variable(
        "KIMI_HTTP_ORIGINS",
        "Origins, separated by commas, of web pages that may call the HTTP server beside those of this machine.",
        default=(),
        in_words="none",
        read=setting_values.origins,
    )
    http_card: Literal["on", "off"] = _variable(
        "KIMI_HTTP_CARD",
        "`on`: the HTTP server publishes a server card (SEP-2127, a draft), by which clients and registries find it.",
        default="off",
        read=setting_values.one_of("on", "off"),
    )
    http_ui: Literal["on", "off"] = _variable(
        "KIMI_HTTP_UI",
        "`on`: the HTTP server shows its callers their runs at `/ui`, live; with the scope kimi:admin everybody's. "
        "`off`: it does not.",
        default="on",
        read=setting_values.one_of("on", "off"),
    )
    drain_s: float = _variable(
        "KIMI_DRAIN_S",
        "How long running calls get to end once the HTTP server has to stop, in seconds.",
        default=30.0,
        read=setting_values.seconds,
    )
    quota_calls_per_minute: int = _variable(
        "KIMI_QUOTA_CALLS_PER_MINUTE",
        "Calls that each principal of the HTTP server may make within any 60 seconds; only those count that send "
        "something to the provider.",
        default=60,
        read=setting_values.whole(1),
    )
    quota_calls_at_once: int = _variable(
        "KIMI_QUOTA_CALLS_AT_ONCE",
        "Calls of each principal of the HTTP server that may run at once; a swarm is one.",
        default=8,
        read=setting_values.whole(1),
    )
    quota_all_calls_per_minute: int | None = _variable(
        "KIMI_QUOTA_ALL_CALLS_PER_MINUTE",
        "Calls that all principals of the HTTP server together may make within any 60 seconds.",
        read=setting_values.whole(1),
    )
    quota_all_calls_at_once: int = _variable(
        "KIMI_QUOTA_ALL_CALLS_AT_ONCE",
        "Calls of all principals of the HTTP server together that may run at once; KIMI_MAX_CONCURRENCY of their "
        "requests are sent, the others wait.",
        default=2000,
        read=setting_values.whole(1),
    )
    budget_usd_per_principal_day: float | None = _variable(
        "KIMI_BUDGET_USD_PER_PRINCIPAL_DAY",
        "Spending limit of a day (UTC) for each principal of the HTTP server, for all servers on one store "
        "(KIMI_DATA_DIR or KIMI_DATABASE_URL) together.",
        read=setting_values.positive,
    )
    oidc_issuer: str | None = _variable(
        "KIMI_OIDC_ISSUER",
        "Callers of the HTTP server bring JWTs of this issuer: its URL, exactly as its metadata gives it. Its keys "
        "are found by OpenID Connect Discovery or RFC 8414.",
        read=setting_values.issuer,
    )
    oidc_audience: str | None = _variable(
        "KIMI_OIDC_AUDIENCE",
        "The audience (`aud`) that tokens of KIMI_OIDC_ISSUER and of KIMI_INTROSPECTION_URL must name.",
        in_words="the URL by which clients reach it",
    )
    introspection_url: str | None = _variable(
        "KIMI_INTROSPECTION_URL",
        "The introspection endpoint (RFC 7662) for the tokens of the HTTP server's callers, which may be of any form.",
        read=setting_values.endpoint,
    )
    introspection_client_id: str | None = _variable(
        "KIMI_INTROSPECTION_CLIENT_ID", "The id of the HTTP server as a client of KIMI_INTROSPECTION_URL."
    )
    introspection_client_secret: str | None = _variable(
        "KIMI_INTROSPECTION_CLIENT_SECRET", "The secret of that client.", secret=True
    )
    cluster: Literal["on", "off"] = _variable(
        "KIMI_CLUSTER",
        "`on`: the HTTP server is one of several replicas on the PostgreSQL of KIMI_DATABASE_URL, which share runs, "
        "swarms and limits.",
        default="off",
        read=setting_values.one_of("on", "off"),
    )
    metrics_principals: Literal["on", "off"] = _variable(
        "KIMI_METRICS_PRINCIPALS",
        "`on`: calls, errors, tokens and costs in the metrics of the HTTP server have the caller's name as a label.",
        default="off",
        read=setting_values.one_of("on", "off"),
    )
    log_level: str = _variable(
        "KIMI_LOG_LEVEL",
        "Level of the JSON log lines on stderr: DEBUG, INFO, WARNING, ERROR or CRITICAL.",
        default="WARNING",
        read=setting_values.one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    )
    possible_keys: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """``KIMI_API_KEY`` and every variable that the table does not have, where the value could be a key; never shown.
    Which of them are keys is for the catalogue to say: ``credentials.keys``."""
    impossible_keys: frozenset[str] = frozenset()
    """The same variables where the value can't be a key; an error if it is for a key: ``credentials.unreadable``."""
    unreadable: tuple[NotConfigured, ...] = ()
    """One error for each variable of the table whose value can't be read."""
    explicit: frozenset[str] = field(default=frozenset(), compare=False)
    """Variables of the table that are set."""
    remote_callers: bool = False
    """Whether callers may be on other machines: then nothing of this disk is theirs but what ``roots`` names."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret that the table has, beside the keys."""
        found = (
            getattr(self, each.name) for each in fields(self) if each.metadata and each.metadata["variable"].secret
        )
        return tuple(filter(None, found))


_FIELD_OF = {each.metadata["variable"].name: each.name for each in fields(Settings) if each.metadata}

VARIABLES: tuple[Variable, ...] = tuple(each.metadata["variable"] for each in fields(Settings) if each.metadata)
"""Every variable that sets a field of ``Settings``; ``credentials.variables`` adds those of keys."""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read every variable. Never raises: errors are in ``unreadable``."""
    values: dict[str, Any] = {}
    keys: dict[str, str] = {}
    impossible: set[str] = set()
    unreadable: list[NotConfigured] = []
    given = {name: text.strip() for name, text in environment.items() if text.strip() and "${" not in text}
    for name in (each for each in given if each not in _FIELD_OF):
        if given[name].isascii() and given[name].isprintable() and " " not in given[name]:
            keys[name] = given[name]
        else:
            impossible.add(name)
    for variable in (each for each in VARIABLES if each.name in given):
        try:
            values[_FIELD_OF[variable.name]] = variable.read(given[variable.name])
        except ValueError as allowed:
            unreadable.append(
                NotConfigured(f"{variable.name} can't be read.", fix=f"Set {variable.name} to {allowed}, or unset it.")
            )
    return Settings(
        **values,
        possible_keys=keys,
        impossible_keys=frozenset(impossible),
        unreadable=tuple(unreadable),
        explicit=frozenset(given.keys() & _FIELD_OF.keys()),
    )
