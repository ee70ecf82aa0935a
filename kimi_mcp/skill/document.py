"""``skill.md``, the source of the tools' names, texts and triggers. Reads that one file of the package.

The server registers exactly the tools that its frontmatter lists; ``tools.py`` holds what each of them does. A tool
that only one of the two knows is an error at start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast


class SkillError(Exception):
    """``skill.md`` can't be read, or does not fit the code; the message says what to mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillTool:
    """What the skill says of one tool."""

    name: str
    """Its name for hosts."""
    title: str
    """Its name for people."""
    summary: str
    """What it does, one sentence."""
    when: str
    """When to use it."""
    when_not: str
    """When to use another one."""
    triggers: tuple[str, ...]
    """Words of a request that mean it."""
    mode: str
    """``thinking``, ``instant`` or ``none``."""

    @property
    def description(self) -> str:
        """What a host shows its model."""
        return f"{self.summary} Use it for: {self.when}. Not for: {self.when_not}."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Skill:
    """The document."""

    text: str
    """The whole of it, frontmatter included."""
    id: str
    """What AIMS calls it."""
    name: str
    """Its name for people."""
    type: str
    """What it is to AIMS."""
    status: str
    """AIMS considers a skill that is ``active``."""
    priority: str
    """How AIMS ranks it: critical, high, medium, low or normal."""
    license: str
    """The licence of the model, in a sentence."""
    execution: Mapping[str, Any]
    """How AIMS runs it: ``target``, ``route``, ``command``."""
    dependencies: Mapping[str, Any]
    """What it needs: ``env``, ``packages``, ``apis``."""
    limits: Mapping[str, float]
    """What an agent has to know of sizes and waits, by name; the tests hold each against the code."""
    description: str
    """What the skill is for."""
    triggers: tuple[str, ...]
    """Words of a request that mean the skill."""
    default_tool: str
    """The tool that is meant where nothing says otherwise."""
    tools: tuple[SkillTool, ...]
    """Its tools, in order."""

    @property
    def routed_chars(self) -> int:
        """How much of a text routing reads, in code points."""
        return int(self.limits["routed_chars"])

    @property
    def instructions(self) -> str:
        """What a host's model is told when it connects: which tool when."""
        lines = [f"- {tool.name}: {tool.when}." for tool in self.tools]
        return (
            f"{self.description}\n" + "\n".join(lines) + "\n"
            "Leave temperature and model out unless the user asks for one: the right values belong to the mode. Read "
            "`error.fix` when a call fails, and `policy` when something was changed. A result with status running is "
            "paid for already: fetch it with kimi_run, never ask again."
        )


def skill_path() -> Path:
    """Where the document lies: in the installed package, or beside it in a checkout."""
    packaged = Path(__file__).with_name("skill.md")
    return packaged if packaged.is_file() else Path(__file__).parents[2] / "skill.md"


@cache
def load_skill(path: Path | None = None) -> Skill:
    """The document, read once. Raises ``SkillError``."""
    path = path or skill_path()
    try:
        whole = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise SkillError(f"{path.name} can't be read; reinstall kimi-mcp.") from None
    opening, frontmatter, *_ = [*whole.split("---\n", 2), ""]
    if opening or not frontmatter:
        raise SkillError(f"{path.name} does not begin with a frontmatter between two lines of ---.")
    head = _mapping(frontmatter, path.name)
    try:
        tools = tuple(_tool(row) for row in head["tools"])
        default = _text(head, "default_tool")
        limits = _numbers(head, "limits", "routed_chars")
        if default not in {tool.name for tool in tools}:
            raise SkillError(f"The default_tool of {path.name} is none of its tools.")
        return Skill(
            text=whole,
            id=_text(head, "id"),
            name=_text(head, "name"),
            type=_text(head, "type"),
            status=_text(head, "status"),
            priority=_text(head, "priority"),
            license=_text(head, "license"),
            execution=_table(head, "execution"),
            dependencies=_table(head, "dependencies"),
            limits=limits,
            description=_text(head, "description"),
            triggers=_words(head, "triggers"),
            default_tool=default,
            tools=tools,
        )
    except (KeyError, TypeError) as missing:
        raise SkillError(f"The frontmatter of {path.name} lacks {missing}, or has it in another form.") from None


def _mapping(frontmatter: str, name: str) -> dict[str, Any]:
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        head: Any = yaml.load(frontmatter, Loader=loader)  # noqa: S506 -- both are safe loaders
    except yaml.YAMLError:
        raise SkillError(f"The frontmatter of {name} is no YAML.") from None
    if not isinstance(head, dict):
        raise SkillError(f"The frontmatter of {name} is no mapping.")
    return cast(dict[str, Any], head)


def _tool(row: dict[str, Any]) -> SkillTool:
    said = {key: _text(row, key) for key in ("name", "title", "summary", "when", "when_not", "mode")}
    return SkillTool(**said, triggers=_words(row, "triggers"))


def _text(row: dict[str, Any], key: str) -> str:
    if not isinstance(value := row[key], str):
        raise TypeError(key)
    return value


def _table(row: dict[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(value := row[key], dict):
        raise TypeError(key)
    return cast(dict[str, Any], value)


def _numbers(row: dict[str, Any], key: str, *needed: str) -> dict[str, float]:
    numbers = _table(row, key)
    if not numbers.keys() >= set(needed) or not all(isinstance(number, int | float) for number in numbers.values()):
        raise TypeError(key)
    return numbers


def _words(row: dict[str, Any], key: str) -> tuple[str, ...]:
    words: Any = row[key]
    if not isinstance(words, list) or not all(isinstance(word, str) for word in cast(list[Any], words)):
        raise TypeError(key)
    return tuple(cast(list[str], words))
