"""Swarms: many agents at work on one question, each request of theirs along the one path and recorded as a step."""

from kimi_mcp.swarm.call import SwarmCall
from kimi_mcp.swarm.orchestrate import run_swarm, taken_up
from kimi_mcp.swarm.recovery import tallied

__all__ = ["SwarmCall", "run_swarm", "taken_up", "tallied"]
