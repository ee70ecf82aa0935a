"""What a routing takes: each labelled text, and texts packed with what routing looks for; microseconds of CPU.

Each text is timed on its own, by the median of many rounds; nothing is remembered from one round to the next but
compiled patterns.
"""

from __future__ import annotations

import random
import time
from statistics import mean, median

from benchmarks.report import Row
from kimi_mcp.skill.routing import route
from tests.skill.routing.scoring import sentences

MOST_US = 10_000.0
"""The target, in microseconds a routing, for each text: more than a hundredth of a second could be noticed."""

PACKED_CHARS = 4_000
"""How long a packed text is: as much as routing reads."""


def measure(*, quick: bool) -> list[Row]:
    rounds = 9 if quick else 41
    read = sentences()
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
    """Made-up texts, the same ones each time: many requests in one, and words that routing looks for over and over."""
    dice = random.Random(4_000)
    read = sentences()
    dice.shuffle(read)
    short = [each.text for each in read if len(each.text) < 200]

    def text(among: list[str], between: str = " ") -> str:
        return between.join(among)[:PACKED_CHARS]

    return {
        "requests": text(short),
        "requests in capitals": text(short).upper(),
        "requests without spaces": "".join(text(short).split()),
        "requests in Chinese, Japanese and Korean": text(
            [each.text for each in read if each.lang in ("zh", "ja", "ko")]
        ),
        "denials": text([each.text for each in read if each.kind == "negated"]),
        "paragraphs of requests": "\n\n".join([text(short)[:199], text(short)[:3_598], text(short)[:199]]),
        "one number": ("25 " * PACKED_CHARS)[:PACKED_CHARS],
        "one first word": ("is " * PACKED_CHARS)[:PACKED_CHARS],
        "one letter": ("a " * PACKED_CHARS)[:PACKED_CHARS],
        "one Chinese letter": "该" * PACKED_CHARS,
        "one denial": "不要" * (PACKED_CHARS // 2),
        "one near-miss": ("collect 50 " * PACKED_CHARS)[:PACKED_CHARS],
        "quotation marks": ("“' \"" * PACKED_CHARS)[:PACKED_CHARS],
    }


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
