"""The page to look at runs and swarms: one view in a browser, in a file, and inside hosts that show MCP Apps."""
