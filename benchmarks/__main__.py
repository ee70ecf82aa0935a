"""``python -m benchmarks [--only NAME] [--quick]``: runs the benchmarks, prints one table. Needs Linux (``/proc``)."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from benchmarks import (
    calls,
    cluster,
    documents,
    fairness,
    http,
    media,
    memory,
    page,
    routing,
    startup,
    store,
    streaming,
    swarm,
)
from benchmarks.report import Row, table

BENCHMARKS = {
    "startup": startup,
    "streaming": streaming,
    "calls": calls,
    "store": store,
    "memory": memory,
    "media": media,
    "documents": documents,
    "swarm": swarm,
    "routing": routing,
    "http": http,
    "fairness": fairness,
    "cluster": cluster,
    "page": page,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed and memory, side by side.")
    parser.add_argument("--only", metavar="NAME", choices=BENCHMARKS, help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and shorter streams")
    arguments = parser.parse_args()
    if not Path("/proc/self/stat").exists():
        sys.exit("The benchmarks read CPU and memory of a process from /proc: they need Linux.")
    start = time.monotonic()
    rows: list[Row] = []
    for name, benchmark in BENCHMARKS.items():
        if arguments.only in (None, name):
            print(f"{name} …", file=sys.stderr, flush=True)
            rows += benchmark.measure(quick=arguments.quick)
    print(table(rows))
    print(
        f"\nPython {sys.version.split()[0]}, {os.cpu_count()} cores, {time.monotonic() - start:.0f} s. Medians; each "
        "ratio is the median of the rounds' own ratios. The top of each file in benchmarks/ describes how it measures."
    )


if __name__ == "__main__":
    main()
