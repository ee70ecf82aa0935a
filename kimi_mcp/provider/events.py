"""What an accumulator says about a stream event that is no piece of an answer. Pure, no I/O.

``wire.Fold`` raises these while it is fed; ``upstream`` catches them and turns them into leaves of ``errors.py``.
Neither ever leaves the two rooms.
"""

from __future__ import annotations


class BadEvent(Exception):
    """An event that can't be read."""

    def __init__(self, kind: str = "json") -> None:
        super().__init__(kind)
        self.kind = kind
        """What is wrong with it: ``json``."""


class ErrorEvent(Exception):
    """An error that the provider reports inside the stream, or as the whole body of a 200."""

    def __init__(self, type: str = "", message: str = "", status: int | None = None) -> None:
        super().__init__(type)
        self.type = type
        """The provider's word for it (``error.type``, or ``error.code`` where that is a word); may be empty."""
        self.message = message
        """The provider's own message: foreign text, not for a caller before it is scrubbed."""
        self.status = status
        """The HTTP status it stands for, where the event says one."""
