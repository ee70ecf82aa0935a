"""``skill.md``, the source of the tools' names, texts and triggers. Reads it, and the Agent Skill made from it.

The server registers exactly the tools that its frontmatter lists; ``tools.py`` holds what each of them does. A tool
that only one of the two knows is an error at start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Strict, ValidationError, field_validator

AGENT_SKILL = "kimi-k2-5"
"""The name of the Agent Skill, and of its folder: only letters, digits and hyphens."""

Words = Annotated[tuple[str, ...], Strict(False)]  # YAML has lists only


class SkillError(Exception):
    """``skill.md`` can't be read, or does not fit the code; the message says what to correct."""


class SkillTool(BaseModel):
    """One tool, as the skill describes it."""

    model_config = ConfigDict(frozen=True, strict=True)

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
    triggers: Words
    """Words of a request that mean it."""
    mode: str
    """``thinking``, ``instant`` or ``none``."""

    @property
    def description(self) -> str:
        """What a host shows its model."""
        return f"{self.summary} Use it for: {self.when}. Not for: {self.when_not}."


class Skill(BaseModel):
    """The document."""

    model_config = ConfigDict(frozen=True, strict=True)

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
    execution: dict[str, Any]
    """How AIMS runs it: ``target``, ``route``, ``command``."""
    dependencies: dict[str, Any]
    """What it needs: ``env``, ``packages``, ``apis``."""
    limits: dict[str, float]
    """What an agent has to know of sizes and waits, by name; the tests hold each against the code."""
    description: str
    """What the skill is for."""
    triggers: Words
    """Words of a request that mean the skill."""
    default_tool: str
    """The tool that is meant where nothing says otherwise."""
    tools: Annotated[tuple[SkillTool, ...], Strict(False)]
    """Its tools, in order."""

    def __hash__(self) -> int:
        return id(self)

    @field_validator("limits")
    @classmethod
    def _has_routed_chars(cls, limits: dict[str, float]) -> dict[str, float]:
        if "routed_chars" not in limits:
            raise ValueError("routed_chars is missing")
        return limits

    @property
    def routed_chars(self) -> int:
        """How much of a text routing reads, in code points."""
        return int(self.limits["routed_chars"])

    @property
    def instructions(self) -> str:
        """The instructions that a host's model gets: which tool when."""
        lines = [f"- {tool.name}: {tool.when}." for tool in self.tools]
        return (
            f"{self.description}\n" + "\n".join(lines) + "\n"
            "A tool that is not loaded is found by a tool search for its name or for what it does.\n"
            "Leave temperature and model out unless the user asks for one: the right values belong to the mode. Read "
            "`error.fix` when a call fails, and `policy` when something was changed. A result with status running "
            "goes on and is paid for once: fetch it with kimi_run, do not repeat the call."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSkill:
    """The document as an Agent Skill of one file, which ``python -m scripts.generate`` makes."""

    text: str
    """The whole of that file."""
    head: Mapping[str, Any]
    """Its frontmatter."""


def _path(packaged: str, in_checkout: str) -> Path:
    """The path of a document: in the installed package, or in a checkout."""
    path = Path(__file__).parent / packaged
    return path if path.is_file() else Path(__file__).parents[2] / in_checkout


@cache
def load_agent_skill() -> AgentSkill:
    """The Agent Skill, read once. Raises ``SkillError``."""
    text, head = _read(_path(f"agent-skill/{AGENT_SKILL}/SKILL.md", f"manifests/skills/{AGENT_SKILL}/SKILL.md"))
    return AgentSkill(text=text, head=head)


@cache
def load_skill(path: Path | None = None) -> Skill:
    """The document, read once. Raises ``SkillError``."""
    path = path or _path("skill.md", "skill.md")
    whole, head = _read(path)
    try:
        skill = Skill.model_validate({**head, "text": whole})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise SkillError(f"The frontmatter of {path.name} lacks {place!r}, or has it in another form.") from None
    if skill.default_tool not in {tool.name for tool in skill.tools}:
        raise SkillError(f"The default_tool of {path.name} is none of its tools.")
    return skill


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """A document's whole text, and its frontmatter."""
    try:
        whole = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise SkillError(f"{path.name} can't be read; reinstall kimi-mcp.") from None
    opening, frontmatter, *_ = [*whole.split("---\n", 2), ""]
    if opening or not frontmatter:
        raise SkillError(f"{path.name} does not begin with a frontmatter between two lines of ---.")
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        head: Any = yaml.load(frontmatter, Loader=loader)  # noqa: S506 -- both are safe loaders
    except yaml.YAMLError:
        raise SkillError(f"The frontmatter of {path.name} is no YAML.") from None
    if not isinstance(head, dict):
        raise SkillError(f"The frontmatter of {path.name} is no mapping.")
    return whole, cast(dict[str, Any], head)
