"""The prompts that a host offers to people, each a call of one tool. Reads ``prompts.toml``; no other I/O.

A prompt is data: its arguments, the call that they make, and what to do with the answer. Which are offered follows from
the tools that the skill lists.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.skill.document import Skill

_PLACE = re.compile(r"\{(\w+)(\[\])?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """What a prompt asks for."""

    name: str
    """Its name."""
    description: str
    """What it means, for people."""
    required: bool
    """Whether the prompt needs it."""
    default: str | None
    """What stands for it where it is left out; None: nothing does."""
    completes: str | Sequence[str]
    """What may be offered while it is typed: values, or the name of a source of them; empty: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One job."""

    name: str
    """Its name for hosts."""
    title: str
    """Its name for people."""
    description: str
    """What it does, one sentence."""
    tool: str
    """The tool that does it."""
    then: str
    """What the host's model does with the answer."""
    arguments: Sequence[Argument]
    """What it asks for, in order."""
    call: Mapping[str, Any]
    """The tool's arguments, with places for the prompt's."""

    def filled(self, said: Mapping[str, str] | None) -> dict[str, Any]:
        """The arguments of the tool's call. Raises ``InvalidArguments`` that names what is missing or unknown."""
        given = {name: value for name, value in (said or {}).items() if value.strip()}
        names = [argument.name for argument in self.arguments]
        if unknown := sorted(given.keys() - set(names)):
            raise InvalidArguments(
                f"The prompt {self.name} has no argument `{_plain(unknown[0])}`.", fix=f"Use these: {', '.join(names)}."
            )
        if missing := [each.name for each in self.arguments if each.required and each.name not in given]:
            raise InvalidArguments(f"The prompt {self.name} needs `{missing[0]}`.", fix=f"Give `{missing[0]}`.")
        values = {each.name: given.get(each.name, each.default) for each in self.arguments}
        made = {name: _fill(template, values) for name, template in self.call.items()}
        return {name: value for name, value in made.items() if value is not None}

    def text(self, said: Mapping[str, str] | None) -> str:
        """What the host's model is told. Raises ``InvalidArguments``."""
        call = json.dumps(self.filled(said), indent=2, ensure_ascii=False)
        return f"Call the tool {self.tool} once, with exactly these arguments:\n\n```json\n{call}\n```\n\n{self.then}"


def prompts(skill: Skill) -> Mapping[str, Prompt]:
    """The prompts whose tool the skill lists, by name."""
    listed = {tool.name for tool in skill.tools}
    return {prompt.name: prompt for prompt in _every() if prompt.tool in listed}


@cache
def _every() -> tuple[Prompt, ...]:
    rows: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    return tuple(_prompt(name, row) for name, row in rows.items())


def _prompt(name: str, row: dict[str, Any]) -> Prompt:
    arguments = [
        Argument(
            name=argument,
            description=told["description"],
            required=told.get("required", False),
            default=told.get("default"),
            completes=told.get("completes", ()),
        )
        for argument, told in row.pop("arguments").items()
    ]
    return Prompt(name=name, arguments=arguments, **row)


def _fill(template: Any, values: Mapping[str, str | None]) -> Any:
    """A template with its places filled; None where what it stands for was left out."""
    if isinstance(template, list):
        filled = [_fill(each, values) for each in template]  # pyright: ignore[reportUnknownVariableType]
        return filled if None not in filled else None
    if (place := _PLACE.fullmatch(template)) is not None:
        value = values[place[1]]
        if value is None or not place[2]:
            return value
        return [item.strip() for item in re.split(r"[,，、;；\n]", value) if item.strip()] or None
    lines = [
        line
        for line in template.strip().split("\n")
        if all(values[name] is not None for name, _ in _PLACE.findall(line))
    ]
    return _PLACE.sub(lambda place: values[place[1]] or "", "\n".join(lines))


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:80])
