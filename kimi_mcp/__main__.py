"""``python -m kimi_mcp`` is the same as ``kimi-mcp``."""

from kimi_mcp.cli import main

main()
