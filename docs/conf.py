"""Sphinx's settings: ``make docs`` builds the site from these pages. Fetches nothing, and the pages load nothing."""

project = "kimi-mcp"
html_title = "kimi-mcp"
extensions = ["myst_parser"]
exclude_patterns = ["requirements*"]
html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
myst_heading_anchors = 3
nitpicky = True
suppress_warnings = ["toc.not_included"]
