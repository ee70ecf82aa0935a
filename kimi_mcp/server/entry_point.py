"""``kimi-mcp serve``: starts the server on stdio, quickly. Owns the process: its environment, collector and exit.

Start-up time matters (a host may begin its first turn before a slow server is ready): nothing that a first call alone
needs is imported here, and the collector rests while modules load, since all they make lives as long as the process.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from kimi_mcp.core.settings import OWN_KEY

SELDOM = (20_000, 20, 20)
"""After how many new objects the collector looks for circles, and after how many such looks at older ones: a busy
server makes a thousand objects a request and hardly a circle, and looking took a tenth of its processor time."""


def rest_collector() -> None:
    """Let the collector pass over what was imported, and look seldom at the rest."""
    gc.freeze()
    gc.set_threshold(*SELDOM)
    gc.enable()


def keys_at_start(possible: Mapping[str, str]) -> list[str]:
    """The values of those variables that are quoted in a provider's file, as every key's is, and of ``KIMI_API_KEY``.

    The first call hides what the catalogue says is a key. Until then the files are only read as text: loading them,
    with what that imports, would hold up the answer to ``initialize`` by some 50 ms.
    """
    files = (Path(__file__).parents[1] / "catalogue" / "providers").glob("*.toml")
    text = "".join(file.read_text("utf-8", "replace") for file in files) + f'"{OWN_KEY}"'
    return [value for name, value in possible.items() if f'"{name}"' in text or f"'{name}'" in text]


def serve() -> NoReturn:
    """Serve one client on stdin and stdout until it leaves; ends the process."""
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # none is wanted, and looking for them takes 5 ms
    import anyio

    from kimi_mcp.core import json_logs
    from kimi_mcp.core.settings import read_settings
    from kimi_mcp.server.app import build_server
    from kimi_mcp.server.stdio import leave, serve_stdio
    from kimi_mcp.skill.document import SkillError

    settings = read_settings(os.environ)
    json_logs.configure(settings.log_level)
    json_logs.hide(*keys_at_start(settings.possible_keys))
    if sys.stdin.isatty():
        print(
            "kimi-mcp serves the Model Context Protocol on stdin and stdout: a host starts it. Press Ctrl-D to end. "
            "Try `kimi-mcp ask`, `kimi-mcp demo` or `kimi-mcp --help`.",
            file=sys.stderr,
        )
    try:
        server = build_server(settings)
    except SkillError as fault:
        print(f"kimi-mcp: {fault}", file=sys.stderr)
        leave(1)

    async def served() -> None:
        await serve_stdio(server)
        leave(0)  # from within: the loop's own end waits for every thread, and a resolver may take half a minute

    rest_collector()
    anyio.run(served)
    raise AssertionError("the process has left")
