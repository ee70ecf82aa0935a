"""The MCP server: tools, resources, prompts, completions, and the transports that carry them. Does I/O."""
