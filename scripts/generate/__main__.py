"""``python -m scripts.generate``."""

from __future__ import annotations

import sys

from scripts.generate import main

sys.exit(main())
