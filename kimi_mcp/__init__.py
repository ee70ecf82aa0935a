"""kimi-mcp: an MCP server that gives Moonshot's Kimi models to other agents. Owns the version; no I/O."""

__version__ = "0.1.0"
