"""The stdio transport: one host on stdin and stdout, from its first byte to a clean end. Does I/O.

``early`` answers a host before the SDK is imported, ``connection`` serves it from then on.
"""
