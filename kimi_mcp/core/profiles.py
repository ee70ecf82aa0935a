"""The catalogue's records: what a model is, how a provider serves it, ``Profile``, the two together, and prices. Pure.

``Model`` and ``Provider`` are also the form of the catalogue's TOML files: a field's alias is its place in the file. A
fact that is not published is ``"unknown"`` there and None here, and nothing is sent on a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator

from kimi_mcp.core.types import CacheTtl, MediaKind, Mode, SamplingName, Usage

ThinkingSwitch = Literal["thinking-object", "chat-template", "reasoning-object", "reasoning-effort", "none"]
"""How a request switches thinking: Moonshot's ``thinking: {type}``, an engine's ``chat_template_kwargs: {thinking}``,
a router's ``reasoning: {enabled}``, the top-level ``reasoning_effort`` of Moonshot's models that always think, or not
at all (then there is no instant mode)."""

ReasoningName = Literal["reasoning_content", "reasoning"]
"""A field of an assistant message that carries reasoning."""


def _read_as(words: Mapping[str, Any]) -> tuple[BeforeValidator, Any]:
    """Makes a field read each of these words as a value; error messages list the field's examples."""

    def read(value: Any) -> Any:
        return words[value] if isinstance(value, str) and value in words else value

    return BeforeValidator(read), Field(examples=list(words))


T = TypeVar("T")
OrUnknown = Annotated[T | None, *_read_as({"unknown": None})]
TrueOrUnknown = Annotated[bool, *_read_as({"unknown": False})]
Items = Annotated[tuple[T, ...], Strict(False)]  # TOML has lists only
Text = Annotated[str, Field(min_length=1)]
Tokens = Annotated[int, Field(gt=0)]
Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Sampling = Annotated[Mapping[SamplingName, float], AfterValidator(MappingProxyType)]

_BASE_URL = r"^https?://[A-Za-z0-9.:\[\]_-]+(/[^/\s?#\\]+)*$"
HOST = r"^[a-z0-9-]+(\.[a-z0-9-]+)+$"
_VARIABLE = r"^[A-Z][A-Z0-9_]*$"
_FORMULA = r"^[a-z0-9-]+/[a-z0-9_-]+:[a-z0-9.]+$"

_BUILTIN = r"^\$[a-z_]+$"

PATTERNS: Mapping[str, str] = {
    _BASE_URL: "an http or https URL without a slash at its end",
    HOST: "a host name in small letters, without scheme, port and path",
    _VARIABLE: "the name of an environment variable",
    _BUILTIN: "the name of a function of the provider's own, such as $web_search",
    _FORMULA: "a formula's URI such as moonshot/web-search:latest",
}
"""What each pattern allows, in words."""

VariableName = Annotated[str, Field(pattern=_VARIABLE)]


class CatalogueRecord(BaseModel):
    """Refuses unknown keys and values of another type, and never changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Price(CatalogueRecord):
    """US dollars per million tokens."""

    input: Dollars
    """Prompt tokens that were not cached."""
    cached: Dollars
    """Prompt tokens from the provider's cache."""
    output: Dollars
    """Reasoning and answer together."""
    write_1h: Dollars | None = None
    """Prompt tokens that are written to the provider's cache for an hour; None: not sold, or not published. Those that
    are written for five minutes cost ``input``."""

    def written_for(self, ttl: CacheTtl | None) -> Price:
        """The price where what is not cached yet is written for so long, as all of it counts."""
        return self if ttl != "1h" or self.write_1h is None else self.model_copy(update={"input": self.write_1h})


class SourcedRecord(CatalogueRecord):
    """Where a table's facts come from."""

    source: Text
    """Where a person can check them: a repository and file, an issue, a published page."""
    checked: date = Field(alias="date")
    """The day of the facts."""
    doubt: Text | None = None
    """What casts doubt on them; None: nothing is known that does."""


class ServedModel(SourcedRecord):
    """One model in a provider's list: a row of ``[[models]]``."""

    model: Text
    """Catalogue id, such as ``kimi-k2.5``."""
    wire_id: Text
    """The provider's own id for it."""
    until: OrUnknown[date] = None
    """First day on which it is no longer served; None: no end is known."""
    found_gone: OrUnknown[date] = None
    """The day on which it was found to be gone, where no end was announced; it may have ended long before."""
    price: OrUnknown[Price]
    """The provider's price."""
    image: bool | None = None
    """Whether images are accepted, where this model differs from the provider's rule."""
    video: bool | None = None
    """Whether videos are accepted, where this model differs from the provider's rule."""
    max_output_tokens: Tokens | None = Field(default=None, alias="max_tokens")
    """Largest limit on reasoning plus answer, where this model differs from the provider's."""

    def served_on(self, day: date) -> bool:
        """Whether the provider serves it on that day, as far as the catalogue knows."""
        return all(end is None or day < end for end in (self.until, self.found_gone))


class FileRecord(CatalogueRecord):
    """What the record of each file has."""

    id: str
    """Catalogue id: the file's name."""
    ancestors: Items[str] = ()
    """The ids that it inherits from, the first ancestor first."""
    facts: Mapping[str, SourcedRecord]
    """For each table of the file the source and the day of its facts."""
    name: Text = Field(alias="about.name")
    """Name for people."""


class Model(FileRecord):
    """What a model is, whoever serves it (``catalogue/models/*.toml``)."""

    released: OrUnknown[date] = Field(alias="about.released")
    """Day of its release."""
    can_stop_thinking: bool = Field(alias="thinking.can_stop")
    """Whether instant mode exists."""
    efforts: Items[Text] = Field(alias="thinking.efforts")
    """Values that ``reasoning_effort`` takes, least first; empty: the model has no such parameter."""
    default_effort: Annotated[Text | None, *_read_as({"none": None})] = Field(
        default=None, alias="thinking.default_effort"
    )
    """The effort of a request that names none; None (``"none"`` in the file) where there are no efforts."""
    forced_tool_choice_thinking: bool = Field(alias="thinking.forced_tool_choice")
    """Whether ``tool_choice: required`` is accepted while thinking; a named function never is."""
    thinking_sampling: OrUnknown[Sampling] = Field(alias="sampling.thinking")
    """The only sampling values accepted while thinking."""
    instant_sampling: Annotated[Sampling | None, *_read_as({"none": {}, "unknown": None})] = Field(
        alias="sampling.instant"
    )
    """The only sampling values accepted in instant mode; empty (``"none"`` in the file): there is no such mode."""
    context_tokens: Tokens = Field(alias="limits.context_tokens")
    """Prompt, reasoning and answer together."""
    default_output_tokens: OrUnknown[Tokens] = Field(alias="limits.default_output_tokens")
    """Reasoning plus answer where a request sets no limit."""
    image: TrueOrUnknown = Field(alias="media.image")
    """Whether it sees images."""
    video: TrueOrUnknown = Field(alias="media.video")
    """Whether it sees videos, where the provider takes them."""

    @model_validator(mode="after")
    def _facts_agree(self) -> Model:
        default = "missing" if self.default_effort is None else repr(self.default_effort)
        if self.efforts and self.default_effort not in self.efforts:
            raise ValueError(f"thinking.default_effort is {default}; allowed: {', '.join(self.efforts)}")
        if not self.efforts and self.default_effort is not None:
            raise ValueError(f"thinking.default_effort is {default}; allowed: nothing, because efforts is empty")
        if self.can_stop_thinking and self.instant_sampling == {}:
            raise ValueError("sampling.instant is none while thinking.can_stop is true; allowed: its values, unknown")
        if not self.can_stop_thinking and self.instant_sampling != {}:
            raise ValueError("sampling.instant is given while thinking.can_stop is false; allowed: none")
        if self.can_stop_thinking and (self.thinking_sampling is None) != (self.instant_sampling is None):
            raise ValueError("sampling.thinking and sampling.instant are known together or both unknown")
        return self


class Provider(FileRecord):
    """How a provider serves its models (``catalogue/providers/*.toml``)."""

    order: int = Field(alias="about.order")
    """Its rank among the providers: the first one whose key is set is chosen."""
    base_url: str = Field(alias="about.base_url", pattern=_BASE_URL)
    """OpenAI-compatible base URL, without a slash at the end."""
    hosts: Items[Annotated[str, Field(pattern=HOST)]] = Field(alias="about.hosts")
    """The provider's own hosts, which alone get its key by default; empty for engines that run anywhere."""
    telemetry_name: Text | None = Field(default=None, alias="about.telemetry_name")
    """Its name in OpenTelemetry (``gen_ai.provider.name``), where the conventions have one; None: its id."""
    self_hosted: bool = Field(alias="about.self_hosted")
    """Whether it is an engine that the user runs."""
    needs_key: bool = Field(alias="key.needed")
    """Whether requests without a key are refused."""
    key_variables: Items[VariableName] = Field(alias="key.variables")
    """Environment variables that may hold its key, first one first."""
    borrowed_key_variables: Items[VariableName] = Field(alias="key.borrowed")
    """Variables of another provider's key that are used only where ``KIMI_PROVIDER`` names this provider."""
    switch: ThinkingSwitch = Field(alias="dialect.switch")
    """How thinking is switched for models that can stop."""
    reasoning_read: Items[ReasoningName] = Field(alias="dialect.reasoning_read", min_length=1)
    """Names under which reasoning may come, likeliest first (all known names are read everywhere)."""
    reasoning_send: Items[ReasoningName] = Field(alias="dialect.reasoning_send", min_length=1)
    """Names under which an assistant turn's reasoning is sent back."""
    sends_sampling: bool = Field(alias="dialect.sends_sampling")
    """True: temperature and top_p are always sent (self-hosted engines). False: fixed values are left out."""
    output_limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(alias="output.limit_field")
    """What the provider calls the limit on reasoning plus answer."""
    max_output_tokens: OrUnknown[Tokens] = Field(alias="output.max_tokens")
    """Largest value of that field; None: the model's context is the limit."""
    response_format: Annotated[Items[Literal["json_object", "json_schema"]], *_read_as({"unknown": ()})] = Field(
        alias="output.response_format"
    )
    """What ``response_format`` takes besides text; empty: the schema is described in the prompt."""
    moonshot_schemas: bool = Field(alias="output.moonshot_schemas")
    """Whether tool and response schemas must be in Moonshot's own dialect."""
    takes_image: TrueOrUnknown = Field(alias="media.image")
    """Whether images are accepted, as data URLs."""
    takes_video: TrueOrUnknown = Field(alias="media.video")
    """Whether videos are accepted, as data URLs."""
    takes_uploads: TrueOrUnknown = Field(alias="media.uploads")
    """Whether ``/v1/files`` takes media, which are then named as ``ms://…``."""
    extracts_files: TrueOrUnknown = Field(default=False, alias="media.file_extract")
    """Whether ``/v1/files`` takes documents too, and gives their text (purpose ``file-extract``)."""
    lists_models: TrueOrUnknown = Field(alias="features.lists_models")
    """Whether ``GET /models`` lists what is served today."""
    streams_usage: TrueOrUnknown = Field(alias="features.streams_usage")
    """Whether it knows ``stream_options: {include_usage}``."""
    estimates_tokens: TrueOrUnknown = Field(default=False, alias="account.estimates")
    """Whether it counts a request's tokens beforehand (``POST /tokenizers/estimate-token-count``)."""
    balance_currency: OrUnknown[Literal["USD", "CNY"]] = Field(default=None, alias="account.balance")
    """The currency in which ``GET /users/me/balance`` reports what an account has left; None: there is no such
    request."""
    continues_answers: bool = Field(default=False, alias="features.continues_answers")
    """Whether it continues an assistant turn that has ``partial: true``."""
    formulas: Items[Annotated[str, Field(pattern=_FORMULA)]] = Field(default=(), alias="tools.formulas")
    """URIs of the search tools that it runs itself; empty: none are known."""
    free_formulas: Items[Annotated[str, Field(pattern=_FORMULA)]] = Field(default=(), alias="tools.free_formulas")
    """URIs of those that cost nothing, such as the one that fetches a page."""
    builtin_search: Annotated[str, Field(pattern=_BUILTIN)] | None = Field(default=None, alias="tools.builtin")
    """The search that it runs inside a chat, in instant mode only; used where there are no formulas."""
    cache_ttls: Items[CacheTtl] = Field(default=(), alias="cache.ttls")
    """How long a request may have its prompt cached (``prompt_cache_options.ttl``), the default first; empty: there is
    no such choice. What an hour costs is ``Price.write_1h``."""
    formula_price: Annotated[Dollars, *_read_as({"unknown": 0.0})] = Field(default=0.0, alias="tools.call_price")
    """US dollars of one search; 0 where it is unknown."""
    models: Items[ServedModel] = Field(min_length=1)
    """Its models, the preferred first: the order in which ``auto`` tries them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One model at one provider: all that the rest of the program may know of either."""

    model: Model
    """What the model is."""
    provider: Provider
    """How the provider serves it."""
    serving: ServedModel
    """The provider's row for this model."""

    @property
    def switch(self) -> ThinkingSwitch:
        """How a request switches thinking: instead of Moonshot's object, models with efforts take an effort."""
        own = self.provider.switch
        return "reasoning-effort" if own == "thinking-object" and self.model.efforts else own

    @property
    def efforts(self) -> tuple[str, ...]:
        """The efforts that a request may name, least first; empty: the model has none, or the provider no field."""
        return () if self.switch == "none" else self.model.efforts

    @property
    def can_stop_thinking(self) -> bool:
        """Whether instant mode is available: the model has it, and the provider has a switch for it."""
        return self.model.can_stop_thinking and self.provider.switch != "none"

    def takes(self, kind: MediaKind) -> bool:
        """Whether media of that kind can be sent: the model sees them, and the provider takes them."""
        model, provider, serving = self.model, self.provider, self.serving
        if kind == "image":
            return model.image and (provider.takes_image if serving.image is None else serving.image)
        return model.video and (provider.takes_video if serving.video is None else serving.video)

    @property
    def price(self) -> Price | None:
        """The provider's price for this model; None: unknown."""
        return self.serving.price

    def price_of(self, answered: str | None) -> Price | None:
        """The provider's price for the model that answered (None: the requested one); None: unknown."""
        if not answered or same_model(answered, self.serving.wire_id):
            return self.price
        rows = (row for row in self.provider.models if same_model(answered, row.wire_id))
        return next((row.price for row in rows), None)

    @property
    def cache_ttls(self) -> tuple[CacheTtl, ...]:
        """How long a request may have its prompt cached; an hour only where its price is known."""
        hour = self.price is not None and self.price.write_1h is not None
        return tuple(ttl for ttl in self.provider.cache_ttls if ttl != "1h" or hour)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The available modes."""
        return ("thinking", "instant") if self.can_stop_thinking else ("thinking",)

    def fixed(self, mode: Mode) -> Mapping[str, float] | None:
        """The only sampling values accepted in that mode; None: not published."""
        values = self.model.thinking_sampling if mode == "thinking" else self.model.instant_sampling
        return None if values is None else {**values}

    @property
    def output_ceiling(self) -> int:
        """The largest limit on reasoning plus answer that makes sense, in tokens."""
        limit = self.serving.max_output_tokens or self.provider.max_output_tokens
        return self.model.context_tokens if limit is None else min(limit, self.model.context_tokens)


def same_model(one: str, other: str) -> bool:
    """Whether two ids mean one model: a path before the name, a route after it and a date don't matter."""
    return _bare(one) == _bare(other)


def _bare(model: str) -> str:
    unrouted = model.rsplit("/", 1)[-1].lower().partition(":")[0]
    return re.sub(r"([-@](?:20)?\d{6}|[-@]20\d\d-\d\d-\d\d|-\d{4})$", "", unrouted)


# ── what tokens cost ──────────────────────────────────────────────────────────────────────────────────────────────────

MILLION = 1_000_000
"""Prices are for so many tokens."""


def cost_usd(usage: Usage | None, price: Price | None) -> float | None:
    """US dollars of a request: cached input at its own price, reasoning as output; None where anything is unknown."""
    if usage is None or price is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    cached = min(usage.cached_tokens or 0, usage.prompt_tokens)
    fresh = usage.prompt_tokens - cached
    return rounded((fresh * price.input + cached * price.cached + usage.completion_tokens * price.output) / MILLION)


def rounded(usd: float) -> float:
    """An amount to the hundred millionth of a US dollar; the cheapest token of the catalogue costs a ten millionth."""
    return round(usd, 8)


def dollars(usd: float | None, *, estimated: bool = False) -> str:
    """An amount for people, the same everywhere; ``unknown`` where it is None. One that is ``estimated`` says so."""
    if usd is None:
        return "unknown"
    if 0 < usd < 0.0001:
        return "under 0.0001 USD"
    about = "about " if estimated else ""
    return f"{about}{usd:,.2f} USD" if usd >= 1 or usd == 0 else f"{about}{usd:.4f} USD"


def counted_usd(prompt_tokens: int, completion_tokens: int, price: Price) -> float:
    """US dollars that a limit counts for so many tokens, none of them cached."""
    return (prompt_tokens * price.input + completion_tokens * price.output) / MILLION
