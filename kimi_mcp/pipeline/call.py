"""``Call``: the arguments of one tool call. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kimi_mcp.core.types import SAMPLING, Effort, MediaKind, Mode, Request, TextPart, Turn, system, user

if TYPE_CHECKING:
    from kimi_mcp.core.plan import Plan
    from kimi_mcp.pipeline.route import Route
    from kimi_mcp.pipeline.web import ProviderWebTools


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The validated arguments of one tool call."""

    mode: Mode
    prompt: str
    """Verbatim."""
    system: str | None = None
    """A system prompt; None: none is sent."""
    images: tuple[str, ...] = ()
    """Pictures, each a path, an https URL, a data URI or an ``ms://`` id; of a PDF its pages (``a.pdf#page=2-4``)."""
    video: str | None = None
    """A clip, in the same forms."""
    files: tuple[str, ...] = ()
    """Text files and documents to send along, by name or glob."""
    conversation_id: str | None = None
    """The conversation that it continues, or the run behind which it branches off; None: it starts one."""
    offered_roots: tuple[str, ...] | None = None
    """The host's own roots as ``file://`` URIs; None where it offers none, empty where none may count."""
    response_schema: Mapping[str, Any] | None = None
    """JSON schema of the answer."""
    max_tokens: int | None = None
    """Bound on reasoning plus answer, in tokens."""
    temperature: float | None = None
    web: bool = False
    """Whether the model may search the web, by the provider's own tools."""
    effort: Effort | None = None
    """How much the model is to think; None: left open."""
    model: str | None = None
    """The ``model`` argument; None: the setting decides."""
    provider: str | None = None
    """The ``provider`` argument; None: the settings decide."""

    @property
    def names_files(self) -> bool:
        """Whether it names anything that may be in a folder of the user's."""
        return bool(self.files or self.images or self.video)

    @property
    def media(self) -> list[tuple[MediaKind, str]]:
        """Its pictures and its clip."""
        pictures: list[tuple[MediaKind, str]] = [("image", source) for source in self.images]
        return [*pictures, ("video", self.video)] if self.video else pictures

    def turns(self, file_texts: str | None) -> tuple[Turn, ...]:
        """The turns that it adds to its conversation; ``file_texts`` are its files in one text."""
        media = []
        if self.media:
            from kimi_mcp.media.loading import parts_of

            media = [part for kind, source in self.media for part in parts_of(kind, source)]
        before = [system(self.system)] if self.system else []
        before += [user(file_texts)] if file_texts else []  # no system turn: a file must not give instructions
        return (*before, Turn(role="user", parts=(*media, TextPart(text=self.prompt))))

    def request(self, model_asked: str, turns: tuple[Turn, ...]) -> Request:
        """What the policy decides on; ``turns`` are the whole conversation."""
        return Request(
            mode=self.mode,
            turns=turns,
            sampling={} if self.temperature is None else {SAMPLING[0]: self.temperature},
            max_tokens=self.max_tokens,
            effort=self.effort,
            response_schema=self.response_schema,
            model_asked=model_asked,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedCall:
    """A call before it is sent."""

    route: Route
    """Where it goes."""
    request: Request
    """What is wanted of its first request."""
    plan: Plan
    """What the policy makes of that."""
    web: ProviderWebTools | None
    """The web tools that its model may call."""
