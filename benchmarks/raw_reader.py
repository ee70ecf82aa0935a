"""The least that reading streams can cost in Python: raw sockets, one ``json.loads`` a line. A process of its own.

``python -m benchmarks.raw_reader URL STREAMS PROMPT`` asks for so many streams at once, reads them to their ends and
prints the CPU seconds (user and system) that this took and the events it saw. It knows no HTTP beyond finding the
lines that begin with ``data:``, so it is a floor, not a client.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from urllib.parse import urlsplit


def read(url: str, streams: int, prompt: str) -> tuple[float, int]:
    """CPU seconds and events."""
    parts = urlsplit(url)
    body = json.dumps(
        {"model": "kimi-k2.5", "stream": True, "messages": [{"role": "user", "content": prompt}]}
    ).encode()
    request = (
        f"POST {parts.path}/chat/completions HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    start, events = time.process_time(), 0
    with selectors.DefaultSelector() as selector:
        for _ in range(streams):
            connection = socket.create_connection((parts.hostname or "", parts.port or 80))
            connection.sendall(request)
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ, [b""])
        while selector.get_map():
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                lines = (key.data[0] + key.fileobj.recv(65536)).split(b"\n")
                key.data[0] = lines.pop()
                for line in lines:
                    if line == b"data: [DONE]":
                        selector.unregister(key.fileobj)
                        key.fileobj.close()
                        break
                    if line.startswith(b"data: "):
                        json.loads(line[6:])
                        events += 1
    return time.process_time() - start, events


if __name__ == "__main__":
    cpu_s, events = read(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    print(json.dumps({"cpu_s": cpu_s, "events": events}))
