"""What a command line names: the tool that its options mean, its files, and their folders. I/O: reads files.

A host's model may read within the roots alone. Whoever types a path into a shell could read it anyway, so the folder of
a typed path counts as a root for that one call; where KIMI_ROOTS is set, it alone counts.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import typer

from kimi_mcp.cli.console import OPTIONS
from kimi_mcp.core.errors import InvalidArguments

if TYPE_CHECKING:
    from kimi_mcp.core.settings import Settings


AskTool = Literal["think", "instant", "vision", "video", "swarm"]
"""The tools that can be called from a shell."""


def read_environment() -> Settings:
    """The settings of this shell; logging follows them, and hides its keys."""
    from kimi_mcp import catalogue
    from kimi_mcp.catalogue import credentials
    from kimi_mcp.core import json_logs, redaction
    from kimi_mcp.core.settings import read_settings

    settings = read_settings(os.environ)
    json_logs.configure(settings.log_level)
    redaction.hide(*credentials.keys(settings, catalogue.load_for(settings)).values(), *settings.secrets)
    return settings


def read_text(file: str) -> str:
    """The UTF-8 text of a file, of stdin for ``-``; raises ``InvalidArguments``."""
    try:
        return (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidArguments(f"{_name(file)} is no UTF-8 text.", fix="Give plain UTF-8 text.") from None
    except OSError as fault:
        message = f"{_name(file)} can't be read: {fault.strerror}."
        raise InvalidArguments(message, fix="Name a file that you may read.") from None


def read_json_object(file: str, fix: str) -> dict[str, Any]:
    """The JSON object in a file, in stdin for ``-``; raises ``InvalidArguments``, with ``fix`` where it is none."""
    text, name = read_text(file), _name(file)
    try:
        value: Any = json.loads(text)
    except json.JSONDecodeError as fault:
        where = f"line {fault.lineno}, column {fault.colno}"
        raise InvalidArguments(f"{name} is no JSON: {fault.msg}, {where}.", fix=fix) from None
    except (ValueError, RecursionError):
        raise InvalidArguments(f"{name} can't be read as JSON.", fix=fix) from None
    if not isinstance(value, dict):
        raise InvalidArguments(f"{name} holds JSON, but no object.", fix=fix)
    return cast("dict[str, Any]", value)


def _name(file: str) -> str:
    return "stdin" if file == "-" else Path(file).name


def chosen_tool(named: AskTool | None, given: Collection[str]) -> AskTool:
    """The tool that is named, or that the ``given`` arguments need; raises ``BadParameter`` where they contradict."""
    from kimi_mcp.server.tools import TOOLS

    def takers(argument: str) -> list[AskTool]:
        return [tool for tool in get_args(AskTool) if argument in TOOLS[f"kimi_{tool}"].arguments.model_fields]

    images, video = "images" in given, "video" in given
    if images and video:
        raise typer.BadParameter("a call takes pictures or a clip, not both.", param_hint="--image, --video")
    swarm = any(takers(argument) == ["swarm"] for argument in given)
    tool: AskTool = named or ("vision" if images else "video" if video else "swarm" if swarm else "think")
    for argument in given:
        if tool not in (takes := takers(argument)):
            instead = " Text is answered at once by --tool instant." if argument == "mode" else ""
            raise typer.BadParameter(
                f"it belongs to --tool {' or '.join(takes)}, not to {tool}.{instead}", param_hint=OPTIONS[argument]
            )
    if tool == "vision" and not images:
        raise typer.BadParameter("--tool vision needs a picture.", param_hint="--image")
    if tool == "video" and not video:
        raise typer.BadParameter("--tool video needs a clip.", param_hint="--video")
    return tool


def with_typed_folders(settings: Settings, media: Sequence[str], files: Sequence[str]) -> Settings:
    """The settings with the working directory and the folders of what was typed as roots, unless KIMI_ROOTS is set."""
    if settings.roots is not None or not (media or files):
        return settings
    from kimi_mcp.media.loading import part_of

    urls = (part_of("image", source).url.partition(":") for source in media)
    folders = [_folder(path, may_be_glob=False) for scheme, _, path in urls if scheme == "path"]
    folders += [_folder(file, may_be_glob=True) for file in files]
    # A folder with the separator in its name can't be written in the variable: it stays outside.
    roots = [folder for folder in dict.fromkeys((str(Path.cwd()), *folders)) if folder and os.pathsep not in folder]
    return replace(settings, roots=os.pathsep.join(roots)) if roots else settings


def _folder(name: str, *, may_be_glob: bool) -> str | None:
    """The absolute folder of a name, of a glob the one above its first wildcard; None where there is none."""
    from kimi_mcp.media.globs import has_magic

    try:
        parts = Path(name).expanduser().parts
        wild = (at for at, part in enumerate(parts) if may_be_glob and has_magic(part))
        return os.path.normpath(Path.cwd().joinpath(*parts[: next(wild, len(parts) - 1)]))
    except (ValueError, OSError, RuntimeError):  # the call itself refuses what can't be a path
        return None
