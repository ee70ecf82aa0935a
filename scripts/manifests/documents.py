"""What models read: the skill for AIMS, the same as an Agent Skill, and AIMS's entries as TypeScript. Pure, no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kimi_mcp.skill.document import AGENT_SKILL
from scripts.manifests.facts import PLUGIN, ProjectFacts

AIMS_FIELDS = (
    "id",
    "name",
    "type",
    "status",
    "triggers",
    "description",
    "execution",
    "dependencies",
    "priority",
    "license",
)
"""The fields that AIMS's skill documents have, in their order."""

AIMS_FILE = "kimi-k2.5.skill.md"
"""The file name that AIMS looks for."""

MOST_DESCRIPTION = 1024
"""Characters that an Agent Skill's description may have."""

_LOOK = {"icon": "moon", "color": "#1a73e8"}
_CATEGORY = "ai"


def aims_document(facts: ProjectFacts) -> str:
    """The skill document with AIMS's own fields and no other."""
    return _document({name: facts.head[name] for name in AIMS_FIELDS}, facts.body)


def aims_registry_entry(facts: ProjectFacts) -> str:
    """The skill's entry in AIMS's registry, whose loader reads no frontmatter."""
    head = facts.head
    named = ("id", "name", "type", "status", "triggers", "description", "execution", "priority")
    entry = {name: head[name] for name in named} | {"definitionFile": AIMS_FILE, **_LOOK}
    return _typescript("kimiSkill", "Put this into the list of skills of AIMS's registry.", entry)


def aims_tool_entry(facts: ProjectFacts) -> str:
    """The server's entry in AIMS's list of MCP tools."""
    triggers = [*facts.head["triggers"], *(word for tool in facts.tools for word in tool.triggers)]
    entry = {
        "id": facts.name,
        "name": facts.head["name"],
        "category": _CATEGORY,
        "triggers": list(dict.fromkeys(word.lower() for word in triggers)),
        "skillFile": AIMS_FILE,
        "toolFile": facts.name,
    }
    return _typescript("kimiTool", "Put this into AIMS's list of MCP tools.", entry)


def agent_skill(facts: ProjectFacts) -> str:
    """The same document as an Agent Skill, whose set of fields is closed."""
    description = f"{facts.head['description']} Use it when a request names {', '.join(facts.head['triggers'])}."
    if len(description) > MOST_DESCRIPTION:
        raise ValueError(f"The description of the Agent Skill has {len(description)} characters; shorten skill.md's.")
    head = {
        "name": AGENT_SKILL,
        "description": description,
        "license": facts.license,
        "compatibility": f"Needs the MCP server {facts.name} in the host, and a key of one of its providers or an "
        "engine of one's own.",
        "metadata": {"id": str(facts.head["id"]), "version": facts.version, "mcp-server": facts.name},
    }
    return _document(head, facts.body)


def plugin_readme(facts: ProjectFacts) -> str:
    """A plugin's page; Claude Code's validator looks for the line that installs it."""
    tools = "\n".join(f"- `{tool.name}`: {tool.summary}" for tool in facts.tools)
    line = f"/plugin install {PLUGIN} --marketplace ./manifests/claude-code"
    how = f"In Claude Code 2.1.275 or later, started in the checkout:\n\n```text\n{line}\n```"
    return f"# Kimi\n\n{facts.head['description']}\n\n{tools}\n\n{how}\n"


def _document(head: Mapping[str, Any], body: str) -> str:
    import yaml

    front = yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{front}---\n\n{body}"


def _typescript(name: str, what: str, entry: Mapping[str, Any]) -> str:
    value = json.dumps(entry, indent=2, ensure_ascii=False)
    head = f"// Generated from skill.md by python -m scripts.generate. {what}"
    return f"{head}\n\nexport const {name} = {value} as const;\n"
