"""The facts in every manifest, from ``pyproject.toml`` and ``skill.md``. Reads these two files."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from kimi_mcp import catalogue
from kimi_mcp.catalogue import credentials
from kimi_mcp.cli.install import LaunchCommand
from kimi_mcp.core.settings import Variable
from kimi_mcp.core.version import __version__
from kimi_mcp.server.prompts import Prompt, prompts
from kimi_mcp.skill.document import SkillTool, load_skill

OWNER = "kimi-mcp"
"""The GitHub account that the MCP registry's name for this server begins with."""

PUBLISHED = False
"""Whether the package index has our ``kimi-mcp``. Until then nothing may fetch a package of that name: whoever
registers it first would be run. True makes every manifest start the published package."""

SERVER = "kimi"
"""The server's name in a host, as ``kimi-mcp install`` writes it."""

PLUGIN = "kimi"
"""The plugin's name in hosts that have plugins."""

ASKED = ("KIMI_API_KEY", "KIMI_PROVIDER", "KIMI_BASE_URL")
"""Settings in a host's form: a key, its provider, and the address of the user's own engine."""

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectFacts:
    """What manifests are made of."""

    name: str
    """The distribution."""
    version: str
    """Its version."""
    description: str
    """One line, at most 100 characters: the MCP registry takes no more."""
    license: str
    """That of our own code and texts; the page's libraries in the wheel have theirs."""
    author: str
    """Who made it."""
    keywords: tuple[str, ...]
    """Words to find it by."""
    python: str
    """The supported versions of Python."""
    dependencies: tuple[str, ...]
    """Its dependencies."""
    head: Mapping[str, Any]
    """The frontmatter of ``skill.md``."""
    body: str
    """The rest of it."""
    tools: tuple[SkillTool, ...]
    """Its tools."""
    prompts: tuple[Prompt, ...]
    """The prompts that it offers to people."""
    published: bool
    """Whether manifests start the published package."""

    @property
    def repository(self) -> str:
        """The address of the code."""
        return f"https://github.com/{OWNER}/{self.name}"


def read_facts(root: Path = ROOT, skill_text: str | None = None, *, published: bool = PUBLISHED) -> ProjectFacts:
    """The facts of a checkout; ``skill_text`` is the new text of its ``skill.md``."""
    import yaml

    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    skill = load_skill(root / "skill.md")
    _, frontmatter, body = (skill_text or skill.text).split("---\n", 2)
    return ProjectFacts(
        name=project["name"],
        version=__version__,
        description=project["description"],
        license=project["license"].partition(" AND ")[0],
        author=project["authors"][0]["name"],
        keywords=tuple(project["keywords"]),
        python=project["requires-python"],
        dependencies=tuple(project["dependencies"]),
        head=cast("Mapping[str, Any]", yaml.safe_load(frontmatter)),
        body=body.lstrip("\n"),
        tools=skill.tools,
        prompts=tuple(prompts(skill).values()),
        published=published,
    )


def started(facts: ProjectFacts) -> LaunchCommand:
    """How a manifest starts the server: the published package, or the command that is installed already."""
    return LaunchCommand(command="uvx", args=(facts.name,)) if facts.published else LaunchCommand(command=facts.name)


def form_variables() -> list[Variable]:
    """The settings that a host's form asks for."""
    known = {row.name: row for row in credentials.variables(catalogue.load())}
    return [known[name] for name in ASKED]


def plain(meaning: str) -> str:
    """A setting's meaning without Markdown."""
    return meaning.replace("`", "")


def as_json(value: Any) -> str:
    """A JSON file."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
