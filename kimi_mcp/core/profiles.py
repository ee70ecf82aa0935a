"""``Profile``: what one model is and how one provider serves it, in one frozen record. Pure, no I/O.

Policy, wire and tools read a Profile and nothing else; no code compares a model's or a provider's name. A value that
the published facts leave open is None here ("unknown") and is treated with care: it is never sent on a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal

from kimi_mcp.core.types import MediaKind, Mode

ThinkingSwitch = Literal["thinking-object", "chat-template", "reasoning-object", "reasoning-effort", "none"]
"""How thinking is switched on the wire: Moonshot's ``thinking: {type}``, an engine's ``chat_template_kwargs:
{thinking}``, a router's ``reasoning: {enabled}``, the top-level ``reasoning_effort`` of Moonshot's models that always
think, or not at all (nothing is said, and there is no instant mode)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens."""

    input: float
    """Prompt tokens that were not cached."""
    cached: float
    """Prompt tokens from the provider's cache."""
    output: float
    """Reasoning and answer together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One model in a provider's list."""

    model: str
    """Catalogue id, such as ``kimi-k2.5``."""
    wire_id: str
    """The provider's own id for it."""
    until: date | None
    """First day on which it is no longer served; None: no end is known."""
    price: Price | None
    """The provider's price; None: unknown."""
    source: str
    """Where this row's facts come from."""
    checked: date
    """The day of those facts."""
    image: bool | None = None
    """Whether pictures are taken for this model, where that differs from the provider's rule."""
    video: bool | None = None
    """Whether clips are taken for this model, where that differs from the provider's rule."""
    max_output_tokens: int | None = None
    """Largest bound on reasoning plus answer, where that differs from the provider's."""
    found_gone: date | None = None
    """The day on which it was found to be gone, where nobody says when it ended; it may have ended long before."""

    def served_on(self, day: date) -> bool:
        """Whether the provider serves it on that day, as far as the catalogue knows."""
        return all(end is None or day < end for end in (self.until, self.found_gone))


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What a model is, whoever serves it (``catalogue/models/*.toml``)."""

    id: str
    """Catalogue id: the file's name."""
    name: str
    """Name for people."""
    released: date | None
    """Day of its release; None: unknown."""
    can_stop_thinking: bool
    """Whether instant mode exists. K2.7 and K3 always think."""
    efforts: tuple[str, ...]
    """Values that ``reasoning_effort`` takes, least first; empty where the model has no such switch."""
    default_effort: str | None
    """The effort that holds when none is said."""
    forced_tool_choice_thinking: bool
    """Whether ``tool_choice: required`` (or a named function) is taken while thinking."""
    replays_all_reasoning: bool
    """Whether reasoning of finished turns is used by the model's template too (K2.7: always kept)."""
    keeps_reasoning_on_request: bool = False
    """Whether ``thinking.keep: "all"`` makes its template use the reasoning of finished turns (K2.6)."""
    fixed: Mapping[Mode, Mapping[str, float]] | None
    """Per mode the sampling values that alone are allowed, by wire name; None: not published."""
    context_tokens: int
    """Prompt, reasoning and answer together."""
    default_output_tokens: int | None
    """The provider's default of ``max_completion_tokens``; None: unknown."""
    image: bool
    """Whether it sees pictures."""
    video: bool
    """Whether it sees clips, where the provider takes them."""
    facts: Mapping[str, tuple[str, date]]
    """For each table of its file the source and the day of its facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """How a provider serves its models (``catalogue/providers/*.toml``)."""

    id: str
    """Catalogue id: the file's name."""
    name: str
    """Name for people."""
    base_url: str
    """OpenAI-compatible base URL, without a slash at the end."""
    hosts: tuple[str, ...]
    """The hosts that are this provider's own: its key goes to these and nowhere else by itself."""
    key_variables: tuple[str, ...]
    """Environment variables that may hold its key, first one first."""
    borrowed_key_variables: tuple[str, ...]
    """Variables of another provider's key that serve here only where ``KIMI_PROVIDER`` names this provider."""
    needs_key: bool
    """False for self-hosted engines."""
    self_hosted: bool
    """Whether it is an engine that the user runs."""
    switch: ThinkingSwitch
    """How this provider switches thinking for models that can stop."""
    reasoning_read: tuple[str, ...]
    """Names under which reasoning may come, likeliest first (all known names are read everywhere)."""
    reasoning_send: tuple[str, ...]
    """Names under which an assistant turn's reasoning is sent back."""
    says_sampling: bool
    """True: temperature and top_p are always said (self-hosted engines). False: fixed values are left out."""
    output_limit_field: Literal["max_tokens", "max_completion_tokens"]
    """What the provider calls the bound on reasoning plus answer."""
    max_output_tokens: int | None
    """Largest value of that field; None: unknown, the model's context bounds it."""
    response_format: tuple[Literal["json_object", "json_schema"], ...]
    """What ``response_format`` takes; empty: unknown, the schema is asked for in words."""
    moonshot_schemas: bool
    """Whether tool and response schemas must be in Moonshot's own dialect."""
    takes_image: bool
    """Whether image parts are accepted."""
    takes_video: bool
    """Whether video parts are accepted; denied unless a fact says so."""
    takes_uploads: bool
    """Whether ``/v1/files`` takes media that are then named as ``ms://…``."""
    lists_models: bool
    """Whether ``GET /models`` is there and tells what is served today."""
    caches_by_key: bool
    """Whether ``prompt_cache_key`` is known there."""
    streams_usage: bool
    """Whether ``stream_options: {include_usage}`` is known there."""
    formulas: tuple[str, ...]
    """URIs of the search tools that it runs itself; empty: none are known."""
    formula_price: float
    """US dollars of one call of them; 0 where nothing is known."""
    models: tuple[ServedModel, ...]
    """Its models, the preferred first: what ``auto`` goes through."""
    facts: Mapping[str, tuple[str, date]]
    """For each table of its file the source and the day of its facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One model at one provider: all that policy, wire and tools may know of either."""

    model: Model
    """What the model is."""
    provider: Provider
    """How the provider serves it."""
    serving: ServedModel
    """The provider's row for this model."""

    @property
    def switch(self) -> ThinkingSwitch:
        """How thinking is told on the wire: where Moonshot's own object is spoken, models with efforts take theirs."""
        own = self.provider.switch
        return "reasoning-effort" if own == "thinking-object" and self.model.efforts else own

    @property
    def can_stop_thinking(self) -> bool:
        """Whether instant mode can be had: the model has it, and the provider has a switch for it."""
        return self.model.can_stop_thinking and self.provider.switch != "none"

    @property
    def video(self) -> bool:
        """Whether video can be sent: the model sees it and the provider takes it."""
        takes = self.provider.takes_video if self.serving.video is None else self.serving.video
        return self.model.video and takes

    @property
    def image(self) -> bool:
        """Whether pictures can be sent: the model sees them and the provider takes them."""
        takes = self.provider.takes_image if self.serving.image is None else self.serving.image
        return self.model.image and takes

    def takes(self, kind: MediaKind) -> bool:
        """Whether media of that kind can be sent."""
        return self.video if kind == "video" else self.image

    @property
    def price(self) -> Price | None:
        """The provider's price for this model; None: unknown."""
        return self.serving.price

    def price_of(self, answered: str | None) -> Price | None:
        """The provider's price for the model that an answer names; None: unknown. An answer that names none is ours."""
        if not answered or same_model(answered, self.serving.wire_id):
            return self.price
        rows = (row for row in self.provider.models if same_model(answered, row.wire_id))
        return next((row.price for row in rows), None)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes that can be had."""
        return ("thinking", "instant") if self.can_stop_thinking else ("thinking",)

    def fixed(self, mode: Mode) -> Mapping[str, float] | None:
        """The sampling values that alone are allowed in that mode; None: not published."""
        return None if self.model.fixed is None else self.model.fixed.get(mode, {})

    @property
    def output_ceiling(self) -> int:
        """The largest bound on reasoning plus answer that makes sense, in tokens."""
        limit = self.serving.max_output_tokens or self.provider.max_output_tokens
        return self.model.context_tokens if limit is None else min(limit, self.model.context_tokens)


def same_model(one: str, other: str) -> bool:
    """Whether two names on the wire mean one model: the path before it, a route after it and its date say nothing."""
    return _bare(one) == _bare(other)


def _bare(model: str) -> str:
    unrouted = model.rsplit("/", 1)[-1].lower().partition(":")[0]
    return re.sub(r"([-@](?:20)?\d{6}|[-@]20\d\d-\d\d-\d\d|-\d{4})$", "", unrouted)
