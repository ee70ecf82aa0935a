"""A run as a page that people look at: who worked when, on what, and what it brought. Pure, no I/O.

``trace.py`` makes lanes and bars of a run's record and its steps, ``page.py`` one self-contained page of those.
"""

from kimi_mcp.cli.html.page import page

__all__ = ["page"]
