"""How much of anything a provider may send: one table of limits, each with its reason. Pure, no I/O.

Whatever passes one of these limits ends the request with an error that names it; what had arrived is kept. A hostile
answer costs at most about 100 MB and no long pause of the event loop (``tests/soak/test_hostile_upstreams.py``).
Headers are bounded by h11 (100 KiB), time by ``provider.Deadlines``.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

LARGEST_EVENT = 8 * MIB
"""Bytes of one event, or of a whole JSON body: all the text of an answer, in case it comes in one piece."""

UNCOUNTED_EVENT = MIB
"""Bytes of JSON that are parsed without counting the values in them: at worst 25 MB of memory and 0.1 s."""

MOST_VALUES = 500_000
"""Commas and brackets in larger JSON. ``[],`` takes 3 bytes here and 64 in memory; prose has one in a hundred."""

LARGEST_TEXT = 4 * MIB
"""Bytes, in UTF-8, of reasoning and answer together: some 900,000 tokens of English, seven times K3's default output.
They are in memory several times while an answer is recorded, at worst with four bytes for each."""

MOST_PIECES = 2 * 1_048_576
"""Pieces of reasoning, answer or tool call in one answer: twice the tokens of the longest context."""

MOST_BYTES = 512 * MIB
"""Bytes of an answer's body, framing included: the longest context at 500 bytes a token."""

MOST_SILENT_BYTES = 16 * MIB
"""Bytes in a row that bring no piece of an answer: comments, empty deltas, whatever follows the end. Keep-alives of
half an hour are some 40 kB; twice the largest event, which is silent until it is whole."""

LARGEST_DOCUMENT = 4 * MIB
"""Bytes of any other answer: lists of models and files, formulas and what they return."""

LARGEST_FILE_TEXT = 16 * MIB
"""Bytes of the text of an uploaded file: the longest context takes a quarter of it."""

LONGEST_NAME = 512
"""Characters of a model's name, of an identifier, of a tool's name: all of them have some dozens."""

MOST_CALLS = 256
"""Tool calls in one answer: a swarm has at most 100 agents, a request at most 128 tools."""

LARGEST_ARGUMENTS = MIB
"""Bytes, in UTF-8, of the arguments of all tool calls together, which are parsed as JSON. The 131,072 tokens of K3's
default output are about 600,000."""

MOST_CHOICES = 128
"""Choices in one event: one is requested, and it is not always the first of the list."""

MOST_TOKENS = 1_000_000_000
"""Tokens in one field of ``usage``: a thousand times the longest context. More is no count, and read as unknown."""

LONGEST_MESSAGE = 4_000
"""Characters of a provider's error message that are read: 300 are shown, the key is searched in all of them."""


class OutOfBounds(Exception):
    """A provider sent more than one of these limits allows."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        """What it sent, as part of a sentence: ``a model name of more than 512 characters``."""


def check_values(payload: bytes | bytearray) -> None:
    """Raise ``OutOfBounds`` for JSON that would take far more memory than it has bytes."""
    if len(payload) > UNCOUNTED_EVENT and sum(map(payload.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise OutOfBounds(f"JSON of more than {MOST_VALUES:,} values")
