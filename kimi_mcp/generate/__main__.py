"""``python -m kimi_mcp.generate``."""

from __future__ import annotations

import sys

from kimi_mcp.generate import main

sys.exit(main())
