"""Media of a plan on their way: opened, converted where needed, then put into the body or uploaded. Does I/O.

What is small goes into the body as base64; what is larger is uploaded, where the provider takes uploads, and referred
to as ``ms://…``. The provider's own list tells what was uploaded before, by content and account: nothing is sent twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import anyio.to_thread

from kimi_mcp import policy
from kimi_mcp.core.errors import CallRefused, MediaRejected, PathRefused, PolicyRefused, UpstreamFailed
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.types import Adjustment, MediaPart, Part, Turn
from kimi_mcp.provider import Endpoint, Upload, Upstream
from kimi_mcp.provider.inline_media import InlineMedium
from kimi_mcp.provider.request_state import RequestState

if TYPE_CHECKING:  # most calls have no media: what reads them is imported by the first that has
    from kimi_mcp.media.loading import Medium
    from kimi_mcp.media.roots import Roots

INLINE_BYTES = 8 * 1024 * 1024
"""Bytes of a medium up to which it goes into the body; what is larger is uploaded where that is possible."""

INLINE_MOST_BYTES = 32 * 1024 * 1024
"""Bytes of a medium that go into a body at all. Ours: no provider publishes its own limit on a body."""

KEPT_BYTES = 32 * 1024 * 1024
"""Bytes of media that came as data URIs which are kept in memory for later turns of their conversations."""

_KEPT = "kept:"
"""Before the hash of a medium that came as a data URI."""

_SENT_AS_IT_IS = ("ms:",)


@dataclass(slots=True, kw_only=True)
class LoadedPlan:
    """A plan whose media are ready to be sent."""

    plan: Plan
    """The plan, each medium's part pointing at its placeholder or at its id."""
    inlined: dict[str, InlineMedium] = field(default_factory=dict[str, InlineMedium])
    """What goes into the body, by placeholder, in the order of the turns."""
    shown: tuple[Turn, ...] = ()
    """The plan's turns as a conversation remembers them: each medium by where it came from and its hash."""
    uploaded: dict[str, Medium] = field(default_factory=dict[str, "Medium"])
    """What was uploaded, by its URL in the plan."""


class Attachments:
    """Media of all calls of one pipeline; remembers what lies at which account."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._known: dict[tuple[str, str | None], dict[str, str]] = {}
        self._kept: dict[str, Medium] = {}
        self._turns: WeakValueDictionary[tuple[str, str | None, str], anyio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def attached(
        self, plan: Plan, endpoint: Endpoint, roots: Callable[[], Roots], request_state: RequestState, *, strict: bool
    ) -> AsyncGenerator[LoadedPlan]:
        """The plan with its media; they are held open until the block ends.

        Raises ``PathRefused``, ``UrlRefused``, ``MediaRejected``, under ``strict`` ``PolicyRefused`` for a picture that
        would have to be converted, and the leaves of ``UpstreamFailed`` for an upload.
        """
        if not any(turn.media for turn in plan.turns):
            yield LoadedPlan(plan=plan, shown=plan.turns)
            return
        async with AsyncExitStack() as held:
            attached = LoadedPlan(plan=plan)
            turns: list[Turn] = []
            for turn in plan.turns:
                parts: list[Part] = []
                shown: list[Part] = []
                for part in turn.parts:
                    if isinstance(part, MediaPart):
                        argument = _argument(part, turn, asked=turn is plan.turns[-1])
                        with _telling(argument):
                            if part.url.startswith(_SENT_AS_IT_IS):
                                _require_uploads(endpoint)
                            else:
                                request_state.waits_for = f"the {part.kind}"
                                medium = await self._loaded(part, roots, held)
                                attached.plan = _reported(attached.plan, medium, argument, strict=strict)
                                shown.append(await self._remembered(part, medium))
                                url = await self._place(medium, part, attached, endpoint, request_state)
                                parts.append(replace(part, url=url))
                                continue
                    parts.append(part)
                    shown.append(part)
                turns.append(replace(turn, parts=tuple(parts)))
                attached.shown = (*attached.shown, replace(turn, parts=tuple(shown)))
            attached.plan = replace(attached.plan, turns=tuple(turns))
            yield attached

    async def renewed(self, attached: LoadedPlan, endpoint: Endpoint, request_state: RequestState) -> bool:
        """Upload anew what has vanished at the provider; whether anything had, as far as it tells."""
        if not attached.uploaded:
            return False
        try:
            there = {f"ms://{file.id}" for file in await self._upstream.list_files(endpoint)}
        except UpstreamFailed:
            return False
        gone = {url: medium for url, medium in attached.uploaded.items() if url not in there}
        for url, medium in gone.items():
            sha256 = await anyio.to_thread.run_sync(medium.sha256)
            async with self._turn(endpoint, sha256):
                ids = self._ids(endpoint)
                if f"ms://{ids.get(sha256)}" == url:  # else another call was faster
                    del ids[sha256]
                new = f"ms://{ids.get(sha256) or await self._upload(medium, sha256, endpoint, request_state)}"
            attached.uploaded[new] = attached.uploaded.pop(url)
            attached.plan = replace(
                attached.plan, turns=tuple(_pointed(turn, url, new) for turn in attached.plan.turns)
            )
        return bool(gone)

    async def _place(
        self, medium: Medium, part: MediaPart, attached: LoadedPlan, endpoint: Endpoint, request_state: RequestState
    ) -> str:
        if medium.size > INLINE_BYTES and endpoint.provider.takes_uploads:
            url = f"ms://{await self._uploaded(medium, endpoint, request_state)}"
            attached.uploaded[url] = medium
            return url
        if medium.size > INLINE_MOST_BYTES:
            raise MediaRejected(
                f"The {medium.info.name} is too large for {endpoint.provider.id}, which takes no uploads: found "
                f"{medium.size:,} bytes, expected {INLINE_MOST_BYTES:,} at most.",
                fix=f"Make the {part.kind} smaller, or name a `provider` that takes uploads.",
            )
        inline = InlineMedium(mime=medium.info.mime, size=medium.size, read_at=medium.read_at)
        attached.inlined[inline.placeholder] = inline
        return inline.placeholder

    async def _uploaded(self, medium: Medium, endpoint: Endpoint, request_state: RequestState) -> str:
        sha256 = await anyio.to_thread.run_sync(medium.sha256)
        async with self._turn(endpoint, sha256):
            if (endpoint.base_url, endpoint.key) not in self._known:
                await self._look(endpoint)
            return self._ids(endpoint).get(sha256) or await self._upload(medium, sha256, endpoint, request_state)

    async def _upload(self, medium: Medium, sha256: str, endpoint: Endpoint, request_state: RequestState) -> str:
        megabytes = medium.size / 1e6

        def sent(size: int) -> None:
            request_state.waits_for = f"the upload ({size / 1e6:.0f} of {megabytes:.0f} MB)"

        def chunks() -> Iterator[bytes]:
            digest = hashlib.sha256()
            for piece in medium.chunks():
                digest.update(piece)
                yield piece
            if digest.hexdigest() != sha256:  # what breaks off here never becomes a file at the provider
                raise PathRefused(
                    f"The {medium.info.name} was written to while it was sent.",
                    fix="Call again once it is written.",
                )

        file = Upload(
            sha256=sha256,
            mime=medium.info.mime,
            kind=medium.info.kind,
            size=medium.size,
            chunks=chunks,
            on_sent=sent,
        )
        identity = self._ids(endpoint)[sha256] = await self._upstream.upload(endpoint, file)
        return identity

    async def _look(self, endpoint: Endpoint) -> None:
        """Learn what lies at the account already; a provider that does not tell is no hindrance."""
        try:
            files = await self._upstream.list_files(endpoint)
        except UpstreamFailed:
            return
        self._ids(endpoint).update({file.sha256: file.id for file in files if file.sha256})

    async def _loaded(self, part: MediaPart, roots: Callable[[], Roots], held: AsyncExitStack) -> Medium:
        """A medium, opened; one of an earlier turn only where it still is what was shown then."""
        from kimi_mcp.media.loading import load

        if part.url.startswith(_KEPT):
            medium = self._kept.get(part.url.removeprefix(_KEPT))
            if medium is None:
                raise MediaRejected(
                    f"An earlier turn's {part.kind} came as a data URI, and those are not kept for long.",
                    fix=f"Show the {part.kind} again, in a new conversation.",
                )
            return medium
        medium = await load(part, roots(), held)
        if part.sha256 is not None and await anyio.to_thread.run_sync(medium.sha256) != part.sha256:
            raise MediaRejected(
                f"An earlier turn's {part.kind} has changed since it was shown.",
                fix=f"Put back what it was, or show the {part.kind} again in a new conversation.",
            )
        return medium

    async def _remembered(self, part: MediaPart, medium: Medium) -> MediaPart:
        """The part as a later turn will find it: never by content, which is not kept, but for a while in memory."""
        sha256 = part.sha256 or await anyio.to_thread.run_sync(medium.sha256)
        if not part.url.startswith(("data:", _KEPT)):
            return replace(part, sha256=sha256, size=medium.size)
        self._kept[sha256] = medium
        while sum(kept.size for kept in self._kept.values()) > KEPT_BYTES:
            del self._kept[next(iter(self._kept))]
        return replace(part, url=_KEPT + sha256, sha256=sha256, size=medium.size)

    def _turn(self, endpoint: Endpoint, sha256: str) -> anyio.Lock:
        """Held while a content is looked for or sent: calls that share it wait for one upload."""
        return self._turns.setdefault((endpoint.base_url, endpoint.key, sha256), anyio.Lock())

    def _ids(self, endpoint: Endpoint) -> dict[str, str]:
        return self._known.setdefault((endpoint.base_url, endpoint.key), {})


def _argument(part: MediaPart, turn: Turn, *, asked: bool) -> str:
    """The argument that names a medium, with its place where it is asked about among others: ``images[2]``."""
    if part.kind == "video":
        return "video"
    pictures = [each for each in turn.media if each.kind == part.kind]
    if len(pictures) == 1 or not asked:
        return "images"
    return f"images[{next(at for at, each in enumerate(pictures) if each is part)}]"


@contextmanager
def _telling(argument: str) -> Generator[None]:
    """Say in a refusal which of several pictures it is about."""
    try:
        yield
    except CallRefused as refused:
        if not argument.endswith("]"):
            raise
        raise type(refused)(f"`{argument}`: {refused.message}", fix=refused.fix, rule=refused.rule) from None


def _require_uploads(endpoint: Endpoint) -> None:
    """Refuse an id where there are no files that it could mean."""
    if not endpoint.provider.takes_uploads:
        raise MediaRejected(
            f"{endpoint.provider.id} keeps no files: found an ms:// id, expected a path, an https URL or a data URI.",
            fix="Give the file itself, or name a `provider` that takes uploads.",
        )


def _reported(plan: Plan, medium: Medium, argument: str, *, strict: bool) -> Plan:
    """The plan with the conversion of a medium told, and what got lost in it; refused under ``strict``."""
    if medium.converted_from is None:
        return plan
    note = policy.reported("media-converted", field=argument, asked=medium.converted_from, sent=medium.info.mime)
    if strict:
        raise PolicyRefused(note.why, fix=policy.load_rules()[note.rule].fix, rule=note.rule)
    lost = f" Only the first of its {medium.pages:,} pages is sent." if medium.pages > 1 else ""
    note = Adjustment(
        rule=note.rule, action="adjusted", field=note.field, asked=note.asked, sent=note.sent, why=note.why + lost
    )
    return replace(plan, adjustments=(*plan.adjustments, note))


def _pointed(turn: Turn, old: str, new: str) -> Turn:
    parts = (replace(part, url=new) if isinstance(part, MediaPart) and part.url == old else part for part in turn.parts)
    return replace(turn, parts=tuple(parts))
