"""What a routing takes: every labelled sentence in turn, and texts as long as routing reads; microseconds of CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from benchmarks.report import Row
from kimi_mcp.routing import route
from tests.routing.scoring import Sentence, sentences

MOST_US = 100.0
"""The target, in microseconds a routing."""


def measure(*, quick: bool) -> list[Row]:
    read = sentences()
    for sentence in read:
        sentence.routed()  # patterns are compiled by the first text that needs them
    rounds = 3 if quick else 15
    short = [each for each in read if each.kind != "long"]
    long = [each for each in read if each.kind == "long"]
    return [
        Row(what="a routing of a labelled sentence, µs of CPU (mean)", ours=_mean_us(short, rounds), most=MOST_US),
        Row(what="a routing of a labelled long text, µs of CPU (mean)", ours=_mean_us(long, rounds), most=MOST_US),
        Row(what="the first routing of a process, ms", ours=_first_ms()),
    ]


def _mean_us(among: Sequence[Sentence], rounds: int) -> float:
    took: list[float] = []
    for _ in range(rounds):
        start = time.process_time()
        for sentence in among:
            route(sentence.text, sentence.images, sentence.videos)
        took.append((time.process_time() - start) / len(among) * 1e6)
    return median(took)


def _first_ms() -> float:
    from kimi_mcp.routing.vocabulary import read_vocabulary

    read_vocabulary.cache_clear()
    start = time.process_time()
    route("Prove that this screenshot is real.")
    return (time.process_time() - start) * 1e3
