"""A replica whose swarms begin all their agents at once: ``kimi-mcp`` with the same arguments, launches not staged."""

from __future__ import annotations

from kimi_mcp.cli import main
from kimi_mcp.swarm.limits import SwarmLimits

if __name__ == "__main__":
    defaults = SwarmLimits.__init__.__kwdefaults__
    assert defaults is not None
    defaults["launch_interval_s"] = 0.0
    main()
