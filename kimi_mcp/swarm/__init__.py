"""Swarms: many agents at work on one question, each request of theirs along the one path and recorded as a step."""

from kimi_mcp.swarm.asked import SwarmCall
from kimi_mcp.swarm.left import tallied
from kimi_mcp.swarm.orchestrate import run_swarm, taken_up

__all__ = ["SwarmCall", "run_swarm", "taken_up", "tallied"]
