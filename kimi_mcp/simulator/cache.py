"""Owns the simulator's prompt cache, and what a request costs by it. Pure; the clock is passed in.

Hits are found by the prompt's beginning, in chunks of 256 tokens, or for the very same prompt as a whole; the tools
belong to the beginning, a cache key does nothing (Leechael/pi-provider-kimi-code docs/caching.md, 2026-11). What is
written stays for five minutes or an hour, and each hit begins that anew (forum.moonshot.ai t/613;
MoonshotAI/kimi-code#3942). Written for five minutes it costs what other input does, for an hour what each model's row
says (the same, and docs.apiyi.com kimi-k3-1 overview).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kimi_mcp.simulator import tokens
from kimi_mcp.simulator.dialects import ListPrice, SimulatedModel
from kimi_mcp.simulator.refusals import invalid
from kimi_mcp.simulator.shapes import JsonObject, as_object

CHUNK = 256
"""Tokens."""

TTLS: Mapping[str, float] = {"5m": 300.0, "1h": 3_600.0}
"""Seconds of each time, by its name on the wire; the first is the default."""

MOST_ENTRIES = 65_536
"""What is kept at most; the oldest goes first."""


def read_ttl(fields: JsonObject, model: SimulatedModel) -> str:
    """How long the prompt stays in the cache; an hour is taken where it has a price (assumed)."""
    options = as_object(fields.get("prompt_cache_options")) or {}
    for name in options:
        if name != "ttl":
            invalid(f"Invalid request: unknown field 'prompt_cache_options.{name}'")
    ttl = options.get("ttl", next(iter(TTLS)))
    if ttl not in TTLS:
        invalid(f"invalid prompt_cache_options.ttl: only {', '.join(TTLS)} are allowed")
    if ttl == "1h" and (model.price is None or model.price.write_1h is None):
        invalid("invalid prompt_cache_options.ttl: 1h is not supported by this model")
    return str(ttl)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted:
    """How the tokens of one prompt were met."""

    read: int
    """From the cache."""
    written: int
    """Into the cache."""
    rest: int
    """Neither: what fills no chunk."""

    def usd(self, price: ListPrice, ttl: str, completion_tokens: int) -> float:
        """US dollars of the whole request."""
        write = price.write_1h if ttl == "1h" and price.write_1h is not None else price.input
        spent = self.read * price.hit + self.written * write + self.rest * price.input
        return (spent + completion_tokens * price.output) / 1e6


class PromptCache:
    """The automatic context cache of one provider."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[bytes, tuple[float, float]] = {}
        """For each beginning, by its hash, when it is lost and how long a use keeps it."""

    def use(self, scope: str, prompt: str, prompt_tokens: int, ttl: str) -> Prompted:
        """Read and write a prompt; what is in ``scope`` shares nothing with other scopes."""
        found = tokens.pieces(prompt)
        digest = hashlib.sha256(scope.encode("utf-8", "surrogatepass"))
        beginnings: list[bytes] = []
        for at in range(0, len(found) - CHUNK + 1, CHUNK):
            digest.update("".join(found[at : at + CHUNK]).encode("utf-8", "surrogatepass"))
            beginnings.append(digest.digest())
        whole = hashlib.sha256(f"{scope}\0{prompt}".encode("utf-8", "surrogatepass")).digest()
        is_repeated = self._renew(whole)
        hits = 0
        for beginning in beginnings:
            if not self._renew(beginning):
                break
            hits += 1
        for key in (*beginnings[hits:], *(() if is_repeated else (whole,))):
            self._entries[key] = (self._clock() + TTLS[ttl], TTLS[ttl])
        while len(self._entries) > MOST_ENTRIES:
            del self._entries[next(iter(self._entries))]
        read = prompt_tokens if is_repeated else hits * CHUNK
        written = 0 if is_repeated else (len(beginnings) - hits) * CHUNK
        return Prompted(read=read, written=written, rest=prompt_tokens - read - written)

    def _renew(self, key: bytes) -> bool:
        """Whether it is there still, in which case its time begins anew."""
        until, kept_s = self._entries.get(key, (0.0, 0.0))
        if until <= self._clock():
            self._entries.pop(key, None)
            return False
        self._entries[key] = (self._clock() + kept_s, kept_s)
        return True
