"""``python -m scripts.cluster``: plays it; exits with 1 where something was not as it should be."""

from __future__ import annotations

import sys

import anyio

from scripts.cluster.show import play

if __name__ == "__main__":
    try:
        sys.exit(not anyio.run(play))
    except KeyboardInterrupt:
        sys.exit(130)
