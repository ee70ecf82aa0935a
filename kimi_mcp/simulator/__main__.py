"""Owns the command line `python -m kimi_mcp.simulator`. I/O."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import anyio

from kimi_mcp.simulator.dialects import DIALECTS
from kimi_mcp.simulator.faults import ScenarioError
from kimi_mcp.simulator.server import SimulatorError, serve_simulator


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m kimi_mcp.simulator",
        description="A strict local stand-in for the API of a Kimi provider.",
    )
    parser.add_argument("--provider", choices=sorted(DIALECTS), default="simulator")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8731, help="0: any free one (default: 8731)")
    parser.add_argument("--faults", metavar="FILE", help="scenario, JSON or TOML (see kimi_mcp/simulator/faults.py)")
    options = parser.parse_args(arguments)
    try:
        anyio.run(serve_simulator, options.provider, options.host, options.port, options.faults)
    except (SimulatorError, ScenarioError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
