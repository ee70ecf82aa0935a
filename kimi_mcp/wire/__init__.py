"""The wire: a plan becomes a chat-completions body, a stream of events becomes a completion. Pure, no I/O."""

from kimi_mcp.wire.encoding import encode
from kimi_mcp.wire.folding import FINISH_REASONS, REASONING_NAMES, Fold

__all__ = ["FINISH_REASONS", "REASONING_NAMES", "Fold", "encode"]
