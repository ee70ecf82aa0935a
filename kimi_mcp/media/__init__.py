"""Media and files that a call names: read and fetched safely, judged by content. Does I/O.

``roots``, ``files``, ``secret_files``: reading within the roots. ``globs``, ``search``, ``text_files``:
text files as context. ``addresses``, ``fetch``: https URLs. ``formats`` (pure), ``convert``: what a medium is, and its
conversion to png or jpeg. ``loading``: all of it together, and recognising a repeated call.
"""
