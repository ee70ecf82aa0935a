"""``GrowingText``: a text of many pieces, which can be read while it grows. Pure, no I/O."""

from __future__ import annotations

import re

_BLOCK_PIECES = 1_024
_LOST = "\ufffd"


class GrowingText:
    """A text while its pieces arrive: kept in blocks, each character mended once, however often it is read."""

    __slots__ = ("_blocks", "_half", "_pieces", "add")

    def __init__(self) -> None:
        self._blocks: list[str] = []  # fit to be written down
        self._half = ""  # the first half of a surrogate pair behind them, whose other half may follow
        self._pieces: list[str] = []
        self.add = self._pieces.append
        """Take another piece."""

    def __bool__(self) -> bool:
        return bool(self._blocks or self._half or self._pieces)

    def settle(self, escaped: bool) -> None:
        """Join what has come in many pieces: each of them takes some fifty bytes beside its own."""
        if self._pieces and (escaped or len(self._pieces) >= _BLOCK_PIECES):
            self._join(escaped)

    def read(self, escaped: bool) -> str:
        """The text so far; ``escaped``: there may be halves of surrogate pairs in it."""
        if self._pieces:
            self._join(escaped)
        if len(self._blocks) > 1:
            self._blocks = ["".join(self._blocks)]
        text = self._blocks[0] if self._blocks else ""
        return text + _LOST if self._half else text

    def _join(self, escaped: bool) -> None:
        new = "".join((self._half, *self._pieces))
        self._pieces.clear()
        if escaped:
            self._half = new[-1] if "\ud800" <= new[-1] <= "\udbff" else ""
            new = joined_pairs(new.removesuffix(self._half) if self._half else new)
        self._blocks.append(new)


def joined_pairs(text: str) -> str:
    """The text with split surrogate pairs joined, and U+FFFD for half of one."""
    return _PAIR.sub(_joined, text).translate(_HALVES) if _HALF.search(text) else text


def _joined(pair: re.Match[str]) -> str:
    first, second = pair[0]
    return chr(0x10000 + ((ord(first) - 0xD800) << 10) + ord(second) - 0xDC00)


_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")
_HALVES = dict.fromkeys(range(0xD800, 0xE000), _LOST)
