"""Manifests of registries and of hosts' plugins: pure functions from the facts to the files' texts. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from kimi_mcp import catalogue
from kimi_mcp.catalogue import credentials
from kimi_mcp.cli.install import LaunchCommand, load_hosts, snippet
from kimi_mcp.cli.install.entry import is_secret
from kimi_mcp.server.prompts import Prompt
from scripts.manifests.facts import OWNER, PLUGIN, SERVER, ProjectFacts, as_json, form_variables, plain, started

REGISTRY_SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
"""The MCP registry's schema that ``server.json`` follows."""

PLUGIN_SCHEMAS = "https://agent-plugins.org/schemas/1.0.0/"
"""The address of the schemas of Agent Plugins."""

TITLES: Mapping[str, str] = {
    "KIMI_API_KEY": "Key",
    "KIMI_PROVIDER": "Provider",
    "KIMI_BASE_URL": "Base URL",
    "KIMI_ROOTS": "Folder that may be read",
}
"""What a host's form calls a setting."""


def registry(facts: ProjectFacts) -> str:
    """``server.json`` for the MCP registry: it names the package on PyPI, so submit it only after that is published."""
    variables = [
        {"name": row.name, "description": plain(row.meaning), "isRequired": False, "isSecret": is_secret(row.name)}
        for row in credentials.variables(catalogue.load())
    ]
    package = {
        "registryType": "pypi",
        "identifier": facts.name,
        "version": facts.version,
        "runtimeHint": "uvx",
        "transport": {"type": "stdio"},
        "environmentVariables": variables,
    }
    return as_json(
        {
            "$schema": REGISTRY_SCHEMA,
            "name": f"io.github.{OWNER}/{facts.name}",
            "title": "Kimi",
            "description": facts.description,
            "repository": {"url": facts.repository, "source": "github"},
            "version": facts.version,
            "packages": [package],
        }
    )


def mcpb(facts: ProjectFacts) -> str:
    """``manifest.json`` of a bundle: the bundle contains its code, uv downloads the dependencies."""
    env = {row.name: f"${{user_config.{row.name.lower()}}}" for row in form_variables()}
    form = {row.name.lower(): _form(row.name, plain(row.meaning), secret=row.secret) for row in form_variables()}
    folder = _form("KIMI_ROOTS", "Tools read only files in this folder. If empty, they read none.", secret=False)
    return as_json(
        {
            "manifest_version": "0.4",
            "name": facts.name,
            "display_name": "Kimi",
            "version": facts.version,
            "description": facts.description,
            "author": {"name": facts.author},
            "repository": {"type": "git", "url": facts.repository},
            "server": {
                "type": "uv",
                "entry_point": "server.py",
                "mcp_config": {
                    "command": "uv",
                    "args": ["run", "--project", "${__dirname}", "${__dirname}/server.py"],
                    "env": env | {"KIMI_ROOTS": "${user_config.kimi_roots}"},
                },
            },
            "tools": [{"name": tool.name, "description": tool.summary} for tool in facts.tools],
            "prompts": [_prompt(prompt) for prompt in facts.prompts],
            "prompts_generated": True,
            "keywords": list(facts.keywords),
            "license": facts.license,
            "compatibility": {"platforms": ["darwin", "win32", "linux"], "runtimes": {"python": facts.python}},
            "user_config": form | {"kimi_roots": folder | {"type": "directory"}},
        }
    )


def _prompt(prompt: Prompt) -> dict[str, Any]:
    """A prompt for a host that fills it in. It can leave nothing out, so it has only the required arguments."""
    needed = [argument.name for argument in prompt.arguments if argument.required]
    text = prompt.text({name: f"${{arguments.{name}}}" for name in needed})
    return {"name": prompt.name, "description": prompt.description, "arguments": needed, "text": text}


def _form(name: str, description: str, *, secret: bool) -> dict[str, Any]:
    """One question of a host's form."""
    question = {"type": "string", "title": TITLES[name], "description": description, "required": False}
    return question | ({"sensitive": True} if secret else {})


def agent_plugin(facts: ProjectFacts) -> str:
    """``plugin.json`` of Agent Plugins."""
    return as_json({"$schema": f"{PLUGIN_SCHEMAS}plugin.schema.json", **_about(facts)})


def agent_plugin_servers(facts: ProjectFacts) -> str:
    """``mcp.json`` of Agent Plugins. Hosts expand no variables in it, so it holds no key and no setting."""
    server = {"type": "stdio", **_start(started(facts))}
    return as_json({"$schema": f"{PLUGIN_SCHEMAS}mcp.schema.json", "mcpServers": {SERVER: server}})


def claude_plugin(facts: ProjectFacts) -> str:
    """``.claude-plugin/plugin.json``: asks for the key once and keeps it in the system's keychain."""
    form = {row.name.lower(): _form(row.name, plain(row.meaning), secret=row.secret) for row in form_variables()}
    return as_json({**_about(facts), "userConfig": form})


def claude_servers(facts: ProjectFacts) -> str:
    """``.mcp.json`` of that plugin. ``alwaysLoad`` shows the tools to the host's model without a search."""
    env = {row.name: f"${{user_config.{row.name.lower()}}}" for row in form_variables()}
    server = {"type": "stdio", **_start(started(facts)), "env": env, "alwaysLoad": True}
    return as_json({"mcpServers": {SERVER: server}})


def claude_marketplace(facts: ProjectFacts) -> str:
    """``.claude-plugin/marketplace.json``: a marketplace with this one plugin."""
    plugin = {"name": PLUGIN, "source": f"./{PLUGIN}", "description": facts.description}
    return as_json(
        {
            "name": facts.name,
            "description": facts.description,
            "owner": {"name": facts.author},
            "plugins": [plugin],
        }
    )


def gemini_extension(facts: ProjectFacts) -> str:
    """``gemini-extension.json``: the host asks for the settings, and keeps a key in the system's keychain."""
    settings = [
        {"name": TITLES[row.name], "description": plain(row.meaning), "envVar": row.name, "sensitive": row.secret}
        for row in form_variables()
    ]
    return as_json(
        {
            "name": facts.name,
            "version": facts.version,
            "description": facts.description,
            "settings": settings,
            "mcpServers": {SERVER: _start(started(facts))},
        }
    )


def host_snippet(facts: ProjectFacts, host: str) -> str:
    """A host's own file with this server alone, as ``kimi-mcp install HOST --print`` shows it."""
    return snippet(load_hosts()[host], SERVER, started(facts), {}, {})


def cursor_link(facts: ProjectFacts) -> str:
    """The link by which Cursor installs the server after asking; its configuration is base64 of JSON."""
    import base64
    import json

    entry = json.loads(host_snippet(facts, "cursor"))["mcpServers"][SERVER]
    config = base64.b64encode(json.dumps(entry, separators=(",", ":")).encode()).decode()
    return f"cursor://anysphere.cursor-deeplink/mcp/install?name={SERVER}&config={quote(config, safe='')}\n"


def _about(facts: ProjectFacts) -> dict[str, Any]:
    return {
        "name": PLUGIN,
        "version": facts.version,
        "description": facts.description,
        "author": {"name": facts.author},
        "repository": facts.repository,
        "license": facts.license,
        "keywords": list(facts.keywords),
    }


def _start(start: LaunchCommand) -> dict[str, Any]:
    return {"command": start.command, "args": list(start.args)}
