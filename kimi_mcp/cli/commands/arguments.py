"""What a command line names: which tool its options mean, and the folders of the files that were typed. I/O: the cwd.

A host's model may read within the roots alone. Whoever types a path into a shell of their own could read it anyway, so
the folder of a typed path counts as a root for that one call; where KIMI_ROOTS is set, it alone counts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from kimi_mcp.core.settings import Settings


class AskTool(StrEnum):
    """The tools that can be asked from a shell."""

    think = "think"
    instant = "instant"
    vision = "vision"
    video = "video"
    swarm = "swarm"


class AskMode(StrEnum):
    """How pictures and clips are looked at."""

    thinking = "thinking"
    instant = "instant"


_OF_SWARMS = ("--item", "--use", "--max-agents", "--max-steps", "--max-agent-steps", "--max-cost-usd")
_TAKES = {
    "--image": (AskTool.vision,),
    "--video": (AskTool.video,),
    "--file": (AskTool.think, AskTool.instant),
    "--mode": (AskTool.vision, AskTool.video),
    **dict.fromkeys(
        ("--system", "--max-tokens", "--temperature", "--schema", "--conversation"),
        (AskTool.think, AskTool.instant, AskTool.vision, AskTool.video),
    ),
    **dict.fromkeys(_OF_SWARMS, (AskTool.swarm,)),
}
"""Which tools an option belongs to; one that is not named belongs to all of them."""


def chosen_tool(said: AskTool | None, options: Mapping[str, object]) -> AskTool:
    """The tool that the options mean; raises ``BadParameter`` where they contradict each other.

    ``options``: what was said of each, by its name; None, or nothing in a list, where it was left out.
    """
    given = [name for name, value in options.items() if value is not None and value not in ([], ())]
    images, video = "--image" in given, "--video" in given
    if images and video:
        raise typer.BadParameter("a call takes pictures or a clip, not both.", param_hint="--image, --video")
    meant = AskTool.swarm if set(given) & set(_OF_SWARMS) else AskTool.think
    tool = said or (AskTool.vision if images else AskTool.video if video else meant)
    for option in given:
        takes = _TAKES.get(option, tuple(AskTool))
        if tool not in takes:
            instead = " Text is answered at once by --tool instant." if option == "--mode" else ""
            raise typer.BadParameter(
                f"it belongs to --tool {' or '.join(takes)}, not to {tool}.{instead}", param_hint=option
            )
    if tool is AskTool.vision and not images:
        raise typer.BadParameter("--tool vision needs a picture.", param_hint="--image")
    if tool is AskTool.video and not video:
        raise typer.BadParameter("--tool video needs a clip.", param_hint="--video")
    return tool


def with_typed_folders(settings: Settings, media: Sequence[str], files: Sequence[str]) -> Settings:
    """The settings with the working directory and the folders of what was typed as roots, unless KIMI_ROOTS is set."""
    if settings.roots is not None or not (media or files):
        return settings
    from dataclasses import replace

    paths = (path for source in media if (path := _path_of(source)) is not None)
    typed = (folder for name, wild in (*((path, False) for path in paths), *((file, True) for file in files))
             if (folder := _folder(name, may_be_wild=wild)) is not None)  # fmt: skip
    # In the variable's own words a folder can't hold its separator: what lies in such a one stays outside.
    roots = [folder for folder in dict.fromkeys((str(Path.cwd()), *typed)) if os.pathsep not in folder]
    return replace(settings, roots=os.pathsep.join(roots)) if roots else settings


def _path_of(source: str) -> str | None:
    """The path that a picture's or a clip's source is; None where it is something else."""
    from kimi_mcp.media.loading import part_of

    scheme, _, path = part_of("image", source).url.partition(":")
    return path if scheme == "path" else None


def _folder(name: str, *, may_be_wild: bool) -> str | None:
    """The absolute folder of a name, of a glob the one above its first wild part; None where there is none."""
    from kimi_mcp.media.globs import has_magic

    try:
        parts = Path(name).expanduser().parts
        wild = (at for at, part in enumerate(parts) if may_be_wild and has_magic(part))
        return os.path.normpath(Path.cwd().joinpath(*parts[: next(wild, len(parts) - 1)]))
    except (ValueError, OSError, RuntimeError):  # what no path can hold is refused where the call is made
        return None
