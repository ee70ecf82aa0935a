"""Loads the media of a plan: opened, converted where needed, then inlined or uploaded. Does I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kimi_mcp import policy
from kimi_mcp.core.callers import LOCAL
from kimi_mcp.core.errors import CallRefused, MediaRejected, PolicyRefused, UpstreamFailed
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.types import MediaPart, Part, Turn
from kimi_mcp.pipeline.uploads import Uploadable, Uploads, sha256_of
from kimi_mcp.provider import Endpoint, Upstream
from kimi_mcp.provider.endpoint import InlineMedium
from kimi_mcp.provider.request_state import RequestState

if TYPE_CHECKING:  # most calls have no media: the first that has some imports what reads them
    from kimi_mcp.media.documents.pdf import PdfLimits, PdfReader
    from kimi_mcp.media.loading import Fetch, Medium
    from kimi_mcp.media.roots import Roots

_MIB = 1024 * 1024

_CACHED = "kept:"
"""Before the hash of a medium that came as a data URI; also in conversations that earlier versions stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """Where media go by their size, in bytes."""

    inline: int = 8 * _MIB
    """A medium up to this goes into the body; a larger one is uploaded where that is possible."""
    inline_most: int = 32 * _MIB
    """A larger medium never goes into a body. Our own limit: no provider publishes one."""
    cached: int = 32 * _MIB
    """Media that came as data URIs, kept in memory for later turns of their conversations, all together."""
    fetch: Fetch | None = None
    """Fetches URLs in tests; None: ``media.fetch`` does."""
    pdf: PdfLimits | None = None
    """What reading a PDF may take; None: as ``PdfLimits`` says."""


@dataclass(slots=True, kw_only=True)
class LoadedPlan:
    """A plan whose media are ready to be sent."""

    plan: Plan
    """Each medium's part has the URL that is sent: a placeholder or an ``ms://`` id."""
    caller: str = LOCAL
    """Whose they are."""
    inlined: dict[str, InlineMedium] = field(default_factory=dict[str, InlineMedium])
    """What goes into the body, by placeholder, in the order of the turns."""
    recorded_turns: tuple[Turn, ...] = ()
    """The turns as a conversation records them: each medium by its source and its hash."""
    uploaded: dict[str, Medium] = field(default_factory=dict[str, "Medium"])
    """What was uploaded, by its URL in the plan."""


class Attachments:
    """Loads media for all calls of one pipeline."""

    def __init__(
        self, upstream: Upstream, uploads: Uploads, limits: MediaLimits, pdfs: Callable[[], PdfReader]
    ) -> None:
        self._upstream, self._uploads, self._limits, self._pdfs = upstream, uploads, limits, pdfs
        self._cache: dict[tuple[str, str | None], Medium] = {}  # by caller and hash

    @asynccontextmanager
    async def loaded(
        self,
        plan: Plan,
        endpoint: Endpoint,
        roots: Callable[[], Roots],
        request_state: RequestState,
        *,
        caller: str,
        strict: bool,
    ) -> AsyncGenerator[LoadedPlan]:
        """The plan with its media; they are held open until the block ends.

        Raises ``PathRefused``, ``UrlRefused``, ``MediaRejected``, under ``strict`` ``PolicyRefused`` for a picture that
        would have to be converted, and the leaves of ``UpstreamFailed`` for an upload.
        """
        loaded = LoadedPlan(plan=plan, caller=caller, recorded_turns=plan.turns)
        if not any(turn.media for turn in plan.turns):
            yield loaded
            return
        async with AsyncExitStack() as held:
            sent_turns: list[Turn] = []
            recorded_turns: list[Turn] = []
            for turn in plan.turns:
                sent: list[Part] = []
                recorded: list[Part] = []
                for part in turn.parts:
                    record = part
                    if isinstance(part, MediaPart):
                        argument = _argument(part, turn, is_last=turn is plan.turns[-1])
                        request_state.waits_for = f"the {part.kind}"
                        try:
                            medium = await self._open(part, endpoint, roots, held, caller)
                            if medium is not None:
                                loaded.plan = _report_conversion(loaded.plan, medium, argument, strict=strict)
                                record = await self._record(part, medium, caller)
                                url = await self._send_url(medium, part, loaded, endpoint, request_state)
                                part = replace(part, url=url)
                        except CallRefused as refused:
                            if not argument.endswith("]"):
                                raise
                            message = f"`{argument}`: {refused.message}"  # which of several pictures it is
                            raise type(refused)(message, fix=refused.fix, rule=refused.rule) from None
                    sent.append(part)
                    recorded.append(record)
                sent_turns.append(replace(turn, parts=tuple(sent)))
                recorded_turns.append(replace(turn, parts=tuple(recorded)))
            loaded.plan = replace(loaded.plan, turns=tuple(sent_turns))
            loaded.recorded_turns = tuple(recorded_turns)
            yield loaded

    async def check(self, plan: Plan, endpoint: Endpoint, roots: Callable[[], Roots], *, caller: str) -> None:
        """Open the media of a plan and close them again: nothing is uploaded. Raises as above."""
        async with AsyncExitStack() as held:
            for part in (part for turn in plan.turns for part in turn.media):
                await self._open(part, endpoint, roots, held, caller)

    async def upload_missing(self, loaded: LoadedPlan, endpoint: Endpoint, request_state: RequestState) -> bool:
        """Upload again what the provider no longer has; whether anything was missing, as far as it says."""
        if not loaded.uploaded:
            return False
        try:
            present = {f"ms://{file.id}" for file in await self._upstream.list_files(endpoint)}
        except UpstreamFailed:
            return False
        missing = {url: medium for url, medium in loaded.uploaded.items() if url not in present}
        for url, medium in missing.items():
            gone, file = url.removeprefix("ms://"), _uploadable(medium, loaded.caller)
            new = f"ms://{await self._uploads.replace(gone, file, endpoint, request_state)}"
            loaded.uploaded[new] = loaded.uploaded.pop(url)
            turns = tuple(_with_url(turn, url, new) for turn in loaded.plan.turns)
            loaded.plan = replace(loaded.plan, turns=turns)
        return bool(missing)

    async def _open(
        self, part: MediaPart, endpoint: Endpoint, roots: Callable[[], Roots], held: AsyncExitStack, caller: str
    ) -> Medium | None:
        """A medium, opened; None for the id of an upload. One of an earlier turn must be what it was then."""
        from kimi_mcp.media.loading import load

        if part.url.startswith("ms:"):
            if caller != LOCAL:  # no result names an upload, so none that a caller can name is its own
                raise MediaRejected(
                    "An ms:// id names a file of the account that all callers share, not one of yours.",
                    fix=f"Give the {part.kind} itself, as a data URI or an https URL.",
                )
            if not endpoint.provider.takes_uploads:
                raise MediaRejected(
                    f"{endpoint.provider.id} keeps no files: found an ms:// id, expected a path, an https URL or a "
                    "data URI.",
                    fix="Give the file itself, or name a `provider` that takes uploads.",
                )
            return None
        if part.url.startswith(_CACHED):
            medium = self._cache.get((caller, part.sha256))  # which a source that a call names does not have
            if medium is None:
                raise MediaRejected(
                    f"An earlier turn's {part.kind} came as a data URI, and those are not kept for long.",
                    fix=f"Show the {part.kind} again, in a new conversation.",
                )
            return medium
        medium = await load(part, roots, held, pdfs=self._pdfs, fetch=self._limits.fetch)
        if part.sha256 is not None and await sha256_of(medium) != part.sha256:
            raise MediaRejected(
                f"An earlier turn's {part.kind} has changed since it was shown.",
                fix=f"Put back what it was, or show the {part.kind} again in a new conversation.",
            )
        return medium

    async def _record(self, part: MediaPart, medium: Medium, caller: str) -> MediaPart:
        """The part as a later turn will find it. A data URI is not recorded, only kept in memory for a while."""
        sha256 = part.sha256 or await sha256_of(medium)
        url = part.url
        if url.startswith(("data:", _CACHED)):
            url = _CACHED + sha256
            self._keep(caller, sha256, medium)
        return replace(part, url=url, sha256=sha256, size=medium.size)

    def _keep(self, caller: str, sha256: str, medium: Medium) -> None:
        """Keep a medium, and drop the oldest of whoever holds the most where all are too much: never another one's."""
        self._cache[caller, sha256] = medium
        held = Counter[str]()
        for (whose, _), each in self._cache.items():
            held[whose] += each.size
        while held.total() > self._limits.cached:
            ((largest, _),) = held.most_common(1)
            oldest = next(key for key in self._cache if key[0] == largest)
            held[largest] -= self._cache.pop(oldest).size

    async def _send_url(
        self, medium: Medium, part: MediaPart, loaded: LoadedPlan, endpoint: Endpoint, request_state: RequestState
    ) -> str:
        """The URL in the body for a medium, which is uploaded or noted for inlining."""
        if medium.size > self._limits.inline and endpoint.provider.takes_uploads:
            file = _uploadable(medium, loaded.caller)
            url = f"ms://{await self._uploads.find_or_upload(file, endpoint, request_state)}"
            loaded.uploaded[url] = medium
            return url
        most = self._limits.inline_most
        if medium.size > most:
            raise MediaRejected(
                f"The {medium.info.name} is too large for {endpoint.provider.id}, which takes no uploads: found "
                f"{medium.size:,} bytes, expected {most:,} at most.",
                fix=f"Make the {part.kind} smaller, or name a `provider` that takes uploads.",
            )
        inline = InlineMedium(mime=medium.info.mime, size=medium.size, read_at=medium.read_at)
        loaded.inlined[inline.placeholder] = inline
        return inline.placeholder


def _uploadable(medium: Medium, caller: str) -> Uploadable:
    info = medium.info
    return Uploadable(content=medium, name=f"The {info.name}", mime=info.mime, purpose=info.kind, caller=caller)


def _argument(part: MediaPart, turn: Turn, *, is_last: bool) -> str:
    """The argument that names a medium; with its index where the last turn has several: ``images[2]``.

    Where one of them may have named many pages, it is the page instead.
    """
    if part.kind == "video":
        return "video"
    pictures = [each for each in turn.media if each.kind == part.kind]
    if len(pictures) == 1 or not is_last:
        return "images"
    if any("#page=" in each.url[-16:] for each in pictures):
        _, named, page = part.url[-16:].rpartition("#page=")
        return f"images[…#page={page}]" if named else "images"
    return f"images[{next(index for index, each in enumerate(pictures) if each is part)}]"


def _report_conversion(plan: Plan, medium: Medium, argument: str, *, strict: bool) -> Plan:
    """The plan with the conversion of a medium reported, and what was lost in it; ``strict`` refuses instead."""
    if medium.converted_from is None:
        return plan
    note = policy.reported("media-converted", field=argument, asked=medium.converted_from, sent=medium.info.mime)
    if strict:
        raise PolicyRefused(note.why, fix=policy.load_rules()[note.rule].fix, rule=note.rule)
    lost = f" Only the first of its {medium.pages:,} pages is sent." if medium.pages > 1 else ""
    note = replace(note, action="adjusted", why=note.why + lost)
    return replace(plan, adjustments=(*plan.adjustments, note))


def _with_url(turn: Turn, old: str, new: str) -> Turn:
    parts = (replace(part, url=new) if isinstance(part, MediaPart) and part.url == old else part for part in turn.parts)
    return replace(turn, parts=tuple(parts))
