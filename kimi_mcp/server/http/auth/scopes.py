"""The scopes of tokens, and what each opens. Pure, no I/O; imports nothing, so that commands start fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

Scope = Literal["kimi:call", "kimi:swarm", "kimi:admin"]

CALL: Final[Scope] = "kimi:call"
"""The tools that call a model once, and ``kimi_run`` where it continues an answer."""

SWARM: Final[Scope] = "kimi:swarm"
"""``kimi_swarm``."""

ADMIN: Final[Scope] = "kimi:admin"
"""What the operator watches: ``/metrics``, and at ``/ui``, beside one of ``USE``, everybody's runs. No tool."""

ALL: Final[tuple[Scope, ...]] = get_args(Scope)

USE: Final[tuple[Scope, ...]] = (CALL, SWARM)
"""Either of them opens all that sends nothing upstream: connecting, lists, prompts, completions, and one's own runs.
A token of the server's own has both, unless it was made with others."""

OF_TOOLS: Final[Mapping[str, Scope]] = {"kimi_swarm": SWARM}
"""The scope of each tool that needs another than ``CALL``."""
