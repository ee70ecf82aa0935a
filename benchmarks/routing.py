"""What a routing takes: each labelled text, and texts packed with what routing looks for; microseconds of CPU.

Each text is timed on its own, by the median of many rounds; nothing is remembered from one round to the next but single
words and compiled patterns.
"""

from __future__ import annotations

import random
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.report import Row
from kimi_mcp.skill import routing
from kimi_mcp.skill.document import load_skill
from kimi_mcp.skill.routing import route
from tests.skill.routing.scoring import sentences

MOST_US = 10_000.0
"""The target, in microseconds a routing, for each text: more than a hundredth of a second could be noticed."""

PACKED_CHARS = 4_000
"""How long a packed text is: as much as routing reads."""


def measure(*, quick: bool) -> list[Row]:
    rounds = 9 if quick else 41
    read = sentences()
    for sentence in read:
        sentence.routed()  # patterns are compiled by the first text that needs them
    labelled = [_median_us(each.text, each.images, each.videos, rounds=rounds) for each in read]
    long = [took for each, took in zip(read, labelled, strict=True) if each.kind == "long"]
    slow = {name: _median_us(text, rounds=rounds) for name, text in packed().items()}
    slowest = max(slow, key=slow.__getitem__)
    return [
        Row(what="a routing of a labelled text, µs of CPU (mean)", ours=mean(labelled), most=MOST_US),
        Row(what="a routing of a labelled long text, µs of CPU (mean)", ours=mean(long), most=MOST_US),
        Row(what="a routing of the slowest labelled text, µs of CPU", ours=max(labelled), most=MOST_US),
        Row(what="a routing of a packed text, µs of CPU (mean)", ours=mean(slow.values()), most=MOST_US),
        Row(what=f"a routing of the slowest packed text ({slowest}), µs of CPU", ours=slow[slowest], most=MOST_US),
        Row(what="the first routing of a process, ms", ours=_first_ms()),
    ]


def packed() -> dict[str, str]:
    """Made-up texts, the same ones each time: words that routing matches, and others that nearly match."""
    phrases = list(_phrases())
    wide = [phrase for phrase in phrases if phrase[0] > "\u2fff"]
    spaced = [phrase for phrase in phrases if phrase.isascii()]
    denied = [phrase for row in _rows()["denials"]["rows"] for phrase in row["words"]]
    triggers = [*load_skill().triggers, *(trigger for tool in load_skill().tools for trigger in tool.triggers)]
    dice = random.Random(4_000)

    def text(among: list[str], *, share: float = 1, between: str = " ") -> str:
        made = ""
        while len(made) < PACKED_CHARS:
            made += _sentence(dice.choice(among), dice, share) + between
        return made[:PACKED_CHARS]

    return {
        "signs": text(phrases),
        "signs in capitals": text(phrases).upper(),
        "signs in Title Case": text(phrases).title(),
        "English signs": text(spaced),
        "English near-misses": text(spaced, share=0.5),
        "signs without spaces": text(phrases, between=""),
        "Chinese, Japanese and Korean signs": text(wide, between=""),
        "near-misses of these": text(wide, share=0.5, between=""),
        "denials": text(denied),
        "denied signs": text([f"{one} {other}" for one, other in zip(denied * 20, phrases, strict=False)]),
        "triggers": text(triggers, between=", "),
        "paragraphs of signs": "\n\n".join([text(phrases)[:199], text(phrases)[:3_598], text(phrases)[:199]]),
        "first words": text([phrase.split()[0] for phrase in phrases]),
        "one number": ("25 " * PACKED_CHARS)[:PACKED_CHARS],
        "one first word": ("is " * PACKED_CHARS)[:PACKED_CHARS],
        "one letter": ("a " * PACKED_CHARS)[:PACKED_CHARS],
        "one Chinese letter": "该" * PACKED_CHARS,
        "one denial": "不要" * (PACKED_CHARS // 2),
        "one near-miss": ("collect 50 " * PACKED_CHARS)[:PACKED_CHARS],
        "quotation marks": ("“' \"" * PACKED_CHARS)[:PACKED_CHARS],
    }


def _rows() -> dict[str, Any]:
    return tomllib.loads(Path(routing.__file__).with_name("signs.toml").read_text("utf-8"))


def _phrases() -> Iterator[str]:
    for tool in _rows()["tools"].values():
        for phrases in tool["signs"].values():
            yield from (phrase.removeprefix("^") for phrase in phrases)


def _sentence(phrase: str, dice: random.Random, share: float) -> str:
    """A phrase as somebody could say it, or the first part of it."""
    slots = phrase.split()
    words = [dice.choice(slot.removesuffix("?").split("|")) for slot in slots[: max(1, round(share * len(slots)))]]
    spoken = ["some of it" if word == ".." else word.replace("#", "25").replace("*", "s") for word in words]
    return ("" if phrase[0] > "\u2fff" else " ").join(spoken)


def _median_us(text: str, images: int = 0, videos: int = 0, *, rounds: int) -> float:
    took: list[float] = []
    route(text, images, videos)
    for _ in range(rounds):
        start = time.process_time_ns()
        route(text, images, videos)
        route(text, images, videos)
        took.append((time.process_time_ns() - start) / 2e3)
    return median(took)


def _first_ms() -> float:
    from kimi_mcp.skill.routing import read_vocabulary

    read_vocabulary.cache_clear()
    start = time.process_time()
    route("Prove that this screenshot is real.")
    return (time.process_time() - start) * 1e3
