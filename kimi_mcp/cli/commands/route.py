"""``kimi-mcp route``: which tool a sentence means, and why. I/O: prints; ``-`` reads stdin."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kimi_mcp.cli.console import Printer, print_json


def route(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What somebody asks for. - reads it from stdin.")],
    images: Annotated[int, typer.Option(min=0, metavar="N", help="How many pictures are attached.")] = 0,
    videos: Annotated[int, typer.Option(min=0, metavar="N", help="How many clips are attached.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the routing as JSON.")] = False,
) -> None:
    """Show which tool a sentence means, and why.

    The score is the one by which AIMS would choose the skill; 0 means that the sentence does not name it. Asks no
    provider. Only the first 4,000 characters are read.
    """
    from kimi_mcp.skill.routing import route as routed

    found = routed(sys.stdin.buffer.read().decode("utf-8", "replace") if text == "-" else text, images, videos)
    if as_json:
        print_json(found.as_json())
        return
    page = Printer(label=9)
    page.heading(found.tool)
    page.row("why", found.why)
    page.row(
        "skill", f"{found.score} points by AIMS's formula" if found.meant else "not named: AIMS would not choose it"
    )
    page.row("triggers", ", ".join(found.matched) or "none")
    others = sorted(((points, tool) for tool, points in found.points.items() if tool != found.tool), reverse=True)
    if others:
        page.row("others", ", ".join(f"{tool} {points:g}" for points, tool in others), "quiet")
