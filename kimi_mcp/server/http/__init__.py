"""The HTTP transport: many clients on the SDK's streamable HTTP app. Does I/O; imported by ``--transport http`` alone.

``gate`` checks each request before the SDK sees it (``allowed_names``: Host and Origin; ``bodies``: bounded reading),
``app`` puts the routes together, ``connections`` bounds what a client may do with a socket, ``start_check`` names the
settings with which no server starts, ``serving`` owns the process from the first byte to the end of the last call.
"""
