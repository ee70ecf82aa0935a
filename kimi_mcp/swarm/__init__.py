"""Swarms: a main agent, its sub-agents, and the tools that these have. Does I/O."""
