"""Swarms: many agents at work on one question, each request of theirs through the pipeline and recorded as a step."""

from kimi_mcp.swarm.call import SwarmCall
from kimi_mcp.swarm.estimate import estimate_swarm
from kimi_mcp.swarm.orchestrate import prepare_resume, run_swarm, submit_swarm
from kimi_mcp.swarm.recovery import recovered_outcome

__all__ = ["SwarmCall", "estimate_swarm", "prepare_resume", "recovered_outcome", "run_swarm", "submit_swarm"]
