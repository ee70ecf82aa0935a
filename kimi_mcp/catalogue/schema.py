"""The form of the catalogue's files: which tables and keys they have and what each may hold. Pure, no I/O.

Strict: nothing is coerced and no key is ignored. Only the loader imports this module, when the catalogue is first
read; the rest of the house sees the frozen records of ``profile.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

UNKNOWN = "unknown"
"""What a file writes where the published facts leave a value open."""

NO_MODE = "none"
"""What a model's file writes for the sampling values of a mode that it does not have."""


@dataclass(frozen=True, slots=True)
class AlsoAllowed:
    """Marks a key that takes words beside its own type, so that error messages can offer them."""

    words: tuple[str, ...]
    """What may stand there instead of a value."""


def _read_words(value: Any) -> Any:
    if value == UNKNOWN:
        return None
    return {} if value == NO_MODE else value


T = TypeVar("T")
OrUnknown = Annotated[
    T | None,
    BeforeValidator(lambda value: None if value == UNKNOWN else value),
    AlsoAllowed(words=(UNKNOWN,)),
]
"""A value, or ``"unknown"``, which becomes None."""

NonEmptyText = Annotated[str, StringConstraints(min_length=1, strip_whitespace=False)]
"""Text that says something."""

Tokens = Annotated[int, Field(gt=0)]
"""A number of tokens."""

Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""US dollars per million tokens."""

_BASE_URL = r"^https?://[^/\s]+(/[^/\s]+)*$"
_HOST = r"^[a-z0-9-]+(\.[a-z0-9-]+)+$"
_VARIABLE = r"^[A-Z][A-Z0-9_]*$"
_FORMULA = r"^[a-z0-9-]+/[a-z0-9_-]+:[a-z0-9.]+$"

PATTERNS: Mapping[str, str] = {
    _BASE_URL: "an http or https URL without a slash at its end",
    _HOST: "a host name in small letters, without scheme, port and path",
    _VARIABLE: "the name of an environment variable",
    _FORMULA: "a formula's URI such as moonshot/web-search:latest",
}
"""What each pattern asks for, in words."""

BaseUrl = Annotated[str, StringConstraints(pattern=_BASE_URL)]
"""An absolute URL without a slash at its end."""

HostName = Annotated[str, StringConstraints(pattern=_HOST)]
"""A host name in small letters, without scheme, port and path."""

VariableName = Annotated[str, StringConstraints(pattern=_VARIABLE)]
"""The name of an environment variable."""

Formula = Annotated[str, StringConstraints(pattern=_FORMULA)]
"""The URI of a formula: owner, name and version."""

SamplingName = Literal["temperature", "top_p", "n", "presence_penalty", "frequency_penalty"]
"""A sampling value, by its name on the wire."""

Sampling = dict[SamplingName, float]
"""The values that alone are allowed in a mode."""

ReasoningName = Literal["reasoning_content", "reasoning"]
"""A name under which an assistant turn carries its reasoning."""


class StrictModel(BaseModel):
    """Refuses unknown keys and values of the wrong type."""

    # A table's own validator is never asked, only that of its file: deferring it halves the time of the first load.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class DatedFacts(StrictModel):
    """A group of facts that were learned together."""

    source: NonEmptyText
    """Where a human can check them: a repository and file, an issue, a published page."""
    date: date
    """The day of the facts."""


class ModelAbout(DatedFacts):
    """``[about]`` of a model: what it is called."""

    name: NonEmptyText
    """Name for people."""
    released: OrUnknown[date]
    """Day of its release."""


class ModelThinking(DatedFacts):
    """``[thinking]`` of a model: what can be said about its reasoning."""

    can_stop: bool
    """Whether instant mode exists."""
    efforts: list[NonEmptyText]
    """Values of ``reasoning_effort``, least first; empty where there is no such switch."""
    default_effort: NonEmptyText | None = None
    """The effort that holds when none is said; left out where there are no efforts."""
    forced_tool_choice: bool
    """Whether a forced tool choice is taken while thinking."""
    replays_all: bool
    """Whether the reasoning of finished turns is always used."""
    keeps_on_request: bool
    """Whether ``thinking.keep: "all"`` makes it use the reasoning of finished turns."""

    @model_validator(mode="after")
    def _default_is_an_effort(self) -> ModelThinking:
        default = "missing" if self.default_effort is None else repr(self.default_effort)
        if self.efforts and self.default_effort not in self.efforts:
            raise ValueError(f"default_effort is {default}; allowed: {', '.join(self.efforts)}")
        if not self.efforts and self.default_effort is not None:
            raise ValueError(f"default_effort is {default}; allowed: nothing, because efforts is empty")
        return self


class ModelSampling(DatedFacts):
    """``[sampling]`` of a model: per mode, the values that alone are allowed."""

    thinking: OrUnknown[Sampling]
    """While thinking."""
    instant: Annotated[Sampling | None, BeforeValidator(_read_words), AlsoAllowed(words=(NO_MODE, UNKNOWN))]
    """Without thinking; empty, written ``"none"``: there is no instant mode."""

    @model_validator(mode="after")
    def _known_together(self) -> ModelSampling:
        if self.instant != {} and (self.thinking is None) != (self.instant is None):
            raise ValueError("thinking and instant are known together or both unknown")
        return self


class ModelLimits(DatedFacts):
    """``[limits]`` of a model, in tokens."""

    context_tokens: Tokens
    """Prompt, reasoning and answer together."""
    default_output_tokens: OrUnknown[Tokens]
    """Reasoning plus answer where the request sets no bound."""


class ModelMedia(DatedFacts):
    """``[media]`` of a model: what it can see."""

    image: OrUnknown[bool]
    """Pictures; unknown counts as no."""
    video: OrUnknown[bool]
    """Clips; unknown counts as no."""


class ModelFile(StrictModel):
    """A file of ``models/``; its id is its name."""

    about: ModelAbout
    """What it is called."""
    thinking: ModelThinking
    """How it reasons."""
    sampling: ModelSampling
    """What it lets be sampled."""
    limits: ModelLimits
    """How much it holds."""
    media: ModelMedia
    """What it sees."""

    @model_validator(mode="after")
    def _instant_fits(self) -> ModelFile:
        if self.thinking.can_stop and self.sampling.instant == {}:
            raise ValueError("sampling.instant is none while thinking.can_stop is true; allowed: its values, unknown")
        if not self.thinking.can_stop and self.sampling.instant != {}:
            raise ValueError("sampling.instant is given while thinking.can_stop is false; allowed: none")
        return self


class ProviderAbout(DatedFacts):
    """``[about]`` of a provider: who it is and where."""

    name: NonEmptyText
    """Name for people."""
    order: int
    """Its place among the providers: the first whose key is set is chosen."""
    base_url: BaseUrl
    """OpenAI-compatible base URL."""
    hosts: list[HostName]
    """Hosts that are its own; empty for engines that run anywhere."""
    self_hosted: bool
    """Whether it is an engine that the user runs."""


class ProviderKey(DatedFacts):
    """``[key]`` of a provider."""

    needed: bool
    """Whether requests without a key are refused."""
    variables: list[VariableName]
    """Environment variables that hold its key, first one first."""
    borrowed: list[VariableName]
    """Another provider's variables that serve where the user names this provider."""


class ProviderDialect(DatedFacts):
    """``[dialect]`` of a provider: how thinking and sampling are said."""

    switch: Literal["thinking-object", "chat-template", "reasoning-object", "reasoning-effort", "none"]
    """How thinking is switched for models that can stop."""
    reasoning_read: Annotated[list[ReasoningName], Field(min_length=1)]
    """Names under which reasoning comes, likeliest first."""
    reasoning_send: Annotated[list[ReasoningName], Field(min_length=1)]
    """Names under which it is sent back."""
    says_sampling: bool
    """Whether temperature and top_p are always said."""


class ProviderOutput(DatedFacts):
    """``[output]`` of a provider: how an answer is bounded and shaped."""

    limit_field: Literal["max_tokens", "max_completion_tokens"]
    """The bound on reasoning plus answer."""
    max_tokens: OrUnknown[Tokens]
    """Its largest value."""
    response_format: OrUnknown[list[Literal["json_object", "json_schema"]]]
    """What ``response_format`` takes besides text; unknown counts as nothing."""
    moonshot_schemas: bool
    """Whether schemas must be in Moonshot's own dialect."""


class ProviderMedia(DatedFacts):
    """``[media]`` of a provider: which parts it takes; unknown counts as no."""

    image: OrUnknown[bool]
    """Pictures as data URLs."""
    video: OrUnknown[bool]
    """Clips as data URLs."""
    uploads: OrUnknown[bool]
    """Files named as ``ms://…``."""


class ProviderFeatures(DatedFacts):
    """``[features]`` of a provider; unknown counts as no."""

    lists_models: OrUnknown[bool]
    """``GET /models`` tells what is served today."""
    caches_by_key: OrUnknown[bool]
    """``prompt_cache_key``."""
    streams_usage: OrUnknown[bool]
    """``stream_options: {include_usage}``."""


class ProviderTools(DatedFacts):
    """``[tools]`` of a provider: tools that it runs itself; without the table there are none."""

    formulas: Annotated[list[Formula], Field(min_length=1)]
    """Its formulas that search, by their URI."""
    call_price: OrUnknown[Dollars]
    """US dollars of one call; unknown counts as nothing."""


class ListedPrice(StrictModel):
    """``price`` of a ``[[models]]`` row, in US dollars per million tokens."""

    input: Dollars
    """Prompt tokens that were not cached."""
    cached: Dollars
    """Prompt tokens from the cache."""
    output: Dollars
    """Reasoning and answer together."""


class ProviderModel(DatedFacts):
    """A row of ``[[models]]``: one model as this provider serves it."""

    model: NonEmptyText
    """Catalogue id."""
    wire_id: NonEmptyText
    """The provider's own id."""
    until: OrUnknown[date] = None
    """First day on which it is no longer served; left out or unknown: no end is known."""
    found_gone: date | None = None
    """The day on which somebody found it gone, where nobody says when it ended."""
    price: OrUnknown[ListedPrice]
    """The provider's price."""
    image: bool | None = None
    """Pictures, where this model differs from ``[media]``."""
    video: bool | None = None
    """Clips, where this model differs from ``[media]``."""
    max_tokens: Tokens | None = None
    """Largest bound on reasoning plus answer, where this model differs from ``[output]``."""


class ProviderFile(StrictModel):
    """A file of ``providers/``; its id is its name."""

    about: ProviderAbout
    """Who and where."""
    key: ProviderKey
    """What opens it."""
    dialect: ProviderDialect
    """How thinking and sampling are said."""
    output: ProviderOutput
    """How an answer is bounded and shaped."""
    media: ProviderMedia
    """What it takes besides text."""
    features: ProviderFeatures
    """What else it knows."""
    tools: ProviderTools | None = None
    """What it runs itself."""
    models: Annotated[list[ProviderModel], Field(min_length=1)]
    """What it serves, the preferred first."""
