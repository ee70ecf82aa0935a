"""Media and files that a call names: read and fetched safely, judged by content. Does I/O.

``roots``, ``walk``, ``files``: reading within the roots. ``matching``, ``tree``, ``secretive``, ``context``: text files
as context. ``addresses``, ``pinned``, ``fetch``, ``fetched``: https URLs. ``formats`` (pure), ``convert``: what a
medium is, and what no model takes made into what all take. ``medium``: all of it together.
"""
