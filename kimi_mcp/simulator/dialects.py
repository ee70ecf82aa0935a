"""Owns what each provider's dialect is and which models it serves when: rows of data. Pure, no I/O.

Written from published sources alone (named beside each row); shares nothing with the product's catalogue.
"third party" marks a date or id that only third parties report; "assumed" marks what no source was found for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

FACTS_DAY = date(2026, 11, 23)
"""The day of the latest fact; what is served is judged as of this day unless another day is given."""

Switch = Literal["thinking", "chat_template_kwargs", "reasoning", "enable_thinking"]
"""The top-level field of a request that switches thinking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedModel:
    """What a model is, wherever it is served."""

    name: str
    """Its name in Moonshot's family, such as `kimi-k2.6`."""
    always_thinks: bool = False
    """Thinking can't be switched off."""
    keeps: bool = False
    """Takes `thinking.keep: null|"all"` (K2.6; platform docs, third-party OpenAPI copy)."""
    efforts: tuple[str, ...] = ()
    """Levels of a top-level `reasoning_effort`; such a model takes no `thinking` object."""
    forced_tools: bool = False
    """`tool_choice: "required"` is allowed while thinking."""
    context: int = 262_144
    """Tokens of prompt and answer together."""
    default_max_tokens: int = 32_768
    """Tokens of an answer where the request names no limit."""
    media: tuple[str, ...] = ("image", "video")
    """What it sees, where the provider takes it."""


_K25 = SimulatedModel(name="kimi-k2.5")
_K26 = SimulatedModel(name="kimi-k2.6", keeps=True)
_K27 = SimulatedModel(name="kimi-k2.7-code", always_thinks=True)
_K3 = SimulatedModel(
    name="kimi-k3",
    always_thinks=True,
    efforts=("low", "high", "max"),
    forced_tools=True,
    context=1_048_576,
    default_max_tokens=131_072,
)
_K31 = replace(_K3, name="kimi-k3.1-pro")
_K31_FAST = replace(_K31, name="kimi-k3.1-pro-highspeed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model under the id that one provider gives it, with the days it is served."""

    id: str
    model: SimulatedModel
    since: date | None = None
    """First day; None: as long as anyone remembers."""
    until: date | None = None
    """Last day; None: no end known."""
    redirected_since: date | None = None
    """From this day on another model answers in its place."""
    redirected_to: str | None = None
    """The id of that other model."""

    def live(self, day: date) -> bool:
        """Whether the provider answers its id on that day."""
        return (self.since is None or self.since <= day) and (self.until is None or day <= self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one provider's chat-completions API differs from the others."""

    name: str
    serves: tuple[Served, ...]
    moonshot: bool = False
    """Moonshot's own strict API: fixed sampling values, its schema dialect, files, balance, `ms://` ids."""
    switches: tuple[Switch, ...] = ("chat_template_kwargs",)
    """Every field that a public source documents there for switching thinking; another is an unknown field.
    Empty: no switch is documented, and what can think always does."""
    reasoning_field: str = "reasoning_content"
    """The field with the reasoning, in answers and in assistant messages; any other name is silently dropped."""
    needs_key: bool = True
    retired_status: int = 404
    """Status for a model that is no longer served."""
    lists_retired: bool = False
    """`/models` still names retired models."""
    video: bool = True
    """Takes video for models that see it."""
    video_status: int = 400
    """Status for video where it can't be taken."""
    max_tokens_limit: int | None = None
    """Largest `max_tokens` that is taken."""
    extra_fields: frozenset[str] = frozenset()
    """Top-level fields of a request beyond those that everyone takes."""
    reports_reasoning_tokens: bool = False
    """Usage carries `completion_tokens_details.reasoning_tokens`."""

    def find(self, model_id: str) -> Served | None:
        """The row of that id, live or not."""
        return next((row for row in self.serves if row.id == model_id), None)

    def takes(self, kind: str, model: SimulatedModel) -> bool:
        """Whether that kind of media may be sent to that model."""
        return kind in model.media and (self.video or kind != "video")


_K26_ENDS = date(2026, 12, 31)  # third party

# models.dev PR 6101 (K2.5 was discontinued on 2026-08-31), diillson/chatcli#1344 (GET /v1/models on 2026-09-02),
# models.dev (K3.1, third party)
_FAMILY = (
    Served(id="kimi-k2.6", model=_K26, until=_K26_ENDS),
    Served(id="kimi-k2.7-code", model=_K27, until=_K26_ENDS),
    Served(id="kimi-k2.7-code-highspeed", model=replace(_K27, name="kimi-k2.7-code-highspeed"), until=_K26_ENDS),
    Served(id="kimi-k3", model=_K3),
    Served(id="kimi-k3.1-pro", model=_K31, since=date(2026, 10, 24)),
    Served(id=_K31_FAST.name, model=_K31_FAST, since=date(2026, 10, 24)),
)
_MOONSHOT = Dialect(
    name="moonshot",
    serves=(Served(id="kimi-k2.5", model=_K25, until=date(2026, 8, 30)), *_FAMILY),
    moonshot=True,
    switches=("thinking",),
    extra_fields=frozenset({"reasoning_effort", "prompt_cache_key", "safety_identifier"}),
)

_HOSTED_FIELDS = frozenset({"top_k", "min_p", "repetition_penalty", "reasoning_effort"})
_ENGINE_FIELDS = _HOSTED_FIELDS | {
    *("include_reasoning", "separate_reasoning", "structured_outputs", "guided_json", "mm_processor_kwargs"),
    *("add_generation_prompt", "continue_final_message", "cache_salt", "priority", "request_id"),
    *("ignore_eos", "min_tokens", "skip_special_tokens", "stop_token_ids"),
}
"""What self-hosted engines take on top (vLLM and SGLang OpenAI-server docs)."""

# The weights that Moonshot publishes, under the ids of their pages at Hugging Face (huggingface.co/moonshotai); an
# engine serves whichever it was started with (vllm-project/recipes Kimi-K2.5.yaml and Kimi-K3.yaml, July 2026).
_WEIGHTS = (
    Served(id="moonshotai/Kimi-K2.5", model=_K25),
    Served(id="moonshotai/Kimi-K2.6", model=_K26),
    Served(id="moonshotai/Kimi-K2.7-Code", model=_K27),
    Served(id="moonshotai/Kimi-K3", model=_K3),
)

# vLLM since 0.16 answers with `reasoning`, reads `reasoning` and drops `reasoning_content` (vllm-project/recipes);
# video answers 500 (vllm#42491). A server started without --api-key takes any caller.
_VLLM = Dialect(
    name="vllm",
    serves=_WEIGHTS,
    reasoning_field="reasoning",
    needs_key=False,
    video=False,
    video_status=500,
    extra_fields=_ENGINE_FIELDS,
)
# SGLang: `reasoning_content`; video not merged (sglang#37632).
_SGLANG = replace(_VLLM, name="sglang", reasoning_field="reasoning_content", video_status=400)
# NVIDIA/NemoClaw#2120 (K2.5), models.dev#3144 (K2.6: "no longer be supported after 07/07/2026"),
# NVIDIA/NemoClaw#11902 (410 while /models still lists them).
_NIM = Dialect(
    name="nim",
    serves=(
        Served(
            id="moonshotai/kimi-k2.5",
            model=_K25,
            until=date(2026, 5, 20),
            redirected_since=date(2026, 4, 30),
            redirected_to="moonshotai/kimi-k2.6",
        ),
        Served(id="moonshotai/kimi-k2.6", model=_K26, until=date(2026, 7, 7)),
        Served(id="moonshotai/kimi-k3", model=_K3),
    ),
    reasoning_field="reasoning",
    retired_status=410,
    lists_retired=True,
    video=False,
    max_tokens_limit=65_536,
    extra_fields=frozenset({"reasoning_effort"}),
)
# models.dev providers/huggingface (K2.6, K2.7 Code and K3 are listed there) and third parties. K2.5: third parties no
# longer name it in November, while its page still calls it inferable; taken as gone on the facts' day. Field assumed.
# No switch: "no shared toggle field is documented"
# (models.dev providers/huggingface Kimi-K2.6.toml, 2026-06-13); each host behind the router has its own.
_HUGGINGFACE = Dialect(
    name="huggingface",
    serves=(Served(id="moonshotai/Kimi-K2.5", model=_K25, until=date(2026, 11, 22)), *_WEIGHTS[1:]),
    switches=(),
    video=False,
    extra_fields=_HOSTED_FIELDS,
)
_GATEWAY_MODELS = (
    Served(id="moonshotai/kimi-k2.6", model=_K26),
    Served(id="moonshotai/kimi-k2.7-code", model=_K27),
    Served(id="moonshotai/kimi-k3", model=_K3),
)
# OpenRouter announced K2.5's removal for 2026-09-07; models.dev providers/openrouter lists the others. The switch
# is its own, whatever the host behind it takes: `reasoning: {enabled}` (openrouter.ai/docs, reasoning tokens).
_OPENROUTER = Dialect(
    name="openrouter",
    serves=(Served(id="moonshotai/kimi-k2.5", model=_K25, until=date(2026, 9, 6)), *_GATEWAY_MODELS),
    switches=("reasoning",),
    reasoning_field="reasoning",
    video=False,
    reports_reasoning_tokens=True,
    extra_fields=_HOSTED_FIELDS | {"include_reasoning", "provider", "models", "transforms", "usage"},
)
# Together stopped K2.5 on 2026-05-21 and removed K2.6 on 2026-08-19 (theopenco/llmgateway#3452). models.dev
# providers/togetherai lists K2.7 Code and K3, and video for K2.6 alone; its staff says that K2.7 Code takes pictures
# (Nutlope/napkins#19). The sources name three switches:
# `reasoning: {enabled}` (docs.together.ai/docs/inference/chat/reasoning, for K2.5 and K2.6 by name),
# `chat_template_kwargs: {thinking}` ("alternative", togethercomputer/skills reasoning-models.md) and
# `thinking: {type}` (what AIMS's gateway sends there). Which one wins over another is not written anywhere.
_TOGETHER = Dialect(
    name="together",
    serves=(
        Served(id="moonshotai/Kimi-K2.5", model=replace(_K25, media=("image",)), until=date(2026, 5, 20)),
        Served(id="moonshotai/Kimi-K2.6", model=_K26, until=date(2026, 8, 18)),
        *(replace(row, model=replace(row.model, media=("image",))) for row in _WEIGHTS[2:]),
    ),
    switches=("reasoning", "chat_template_kwargs", "thinking"),
    reasoning_field="reasoning",
    extra_fields=_HOSTED_FIELDS,
)
# Fireworks has answered K2.5 with errors since 2026-06-16 (pollinations/pollinations#11880); models.dev
# providers/fireworks-ai lists kimi-k2p6 and kimi-k2p7-code; K3 assumed by its naming.
_FIREWORKS = Dialect(
    name="fireworks",
    serves=(
        Served(id="accounts/fireworks/models/kimi-k2p5", model=_K25, until=date(2026, 6, 15)),
        Served(id="accounts/fireworks/models/kimi-k2p6", model=_K26),
        Served(id="accounts/fireworks/models/kimi-k2p7-code", model=_K27),
        Served(id="accounts/fireworks/models/kimi-k3", model=_K3),
    ),
    video=False,
    extra_fields=_HOSTED_FIELDS,
)
# models.dev of 2026-07-02: text, image and video; still named as serving it (NousResearch/hermes-agent#109895). K2.6,
# K2.7 Code and K3: models.dev providers/novita-ai; K3.1 Pro: novita.ai's page of it, which takes image and video too.
# The sources name two switches: `thinking: {type}` (models.dev providers/novita-ai kimi-k2.5.toml, "verified with
# Novita chat/completions on 2026-09-17: disabling removes reasoning_content") and `enable_thinking` (Novita's own
# reference of chat completions, which lists no Kimi, and its FAQ, which does so for kimi-k2-instruct).
_NOVITA = Dialect(
    name="novita",
    serves=(
        Served(id="moonshotai/kimi-k2.5", model=_K25),
        *_GATEWAY_MODELS,
        Served(id="moonshotai/kimi-k3.1-pro", model=_K31, since=date(2026, 10, 24)),
    ),
    switches=("thinking", "enable_thinking"),
    extra_fields=_HOSTED_FIELDS | {"separate_reasoning"},
)

DIALECTS: Mapping[str, Dialect] = {
    row.name: row
    for row in (
        _MOONSHOT,
        replace(_MOONSHOT, name="moonshot-cn"),
        _NIM,
        _HUGGINGFACE,
        _OPENROUTER,
        _TOGETHER,
        _FIREWORKS,
        _NOVITA,
        _VLLM,
        _SGLANG,
        replace(_SGLANG, name="ktransformers"),
        replace(
            _MOONSHOT,
            name="simulator",
            serves=(Served(id="kimi-k2.5", model=_K25), *(replace(row, until=None) for row in _FAMILY)),
            needs_key=False,
        ),
    )
}
"""Every dialect by its provider's name. `simulator` has Moonshot's and serves the whole family, K2.5 included."""
