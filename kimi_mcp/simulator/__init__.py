"""Owns a strict local stand-in for the providers' APIs, an oracle independent of the rest of kimi_mcp. I/O.

`async with Simulator(provider="moonshot") as sim:` listens on `sim.base_url`; `faults.py` documents scenarios.
"""

from kimi_mcp.simulator.accounts import RateLimits
from kimi_mcp.simulator.faults import Match, ScenarioError, ScriptedCall, Step, StepLike, load_scenario
from kimi_mcp.simulator.http import ReceivedRequest
from kimi_mcp.simulator.server import Simulator, SimulatorError, serve_simulator

__all__ = [
    "Match",
    "RateLimits",
    "ReceivedRequest",
    "ScenarioError",
    "ScriptedCall",
    "Simulator",
    "SimulatorError",
    "Step",
    "StepLike",
    "load_scenario",
    "serve_simulator",
]
