"""Everything under ``manifests/``: what registries, hosts and AIMS install from. Reads the facts it is made from.

``python -m scripts.generate`` writes it; nobody edits it. ``facts`` holds the one constant that says whether the
package is published, and with it how every manifest starts the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kimi_mcp.skill.document import AGENT_SKILL
from scripts.manifests import documents, plugins
from scripts.manifests.facts import PLUGIN, PUBLISHED, ROOT, ProjectFacts, read_facts

__all__ = ["FOLDER", "MANIFESTS", "ManifestFolder", "files"]

FOLDER = "manifests"
"""Their folder in the checkout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFolder:
    """One folder of manifests: for whom, and what is in it."""

    folder: str
    """Its name."""
    reader: str
    """Who reads it."""
    use: str
    """How it is used."""
    files: Mapping[str, Callable[[ProjectFacts], str]]
    """Its files, and the function that makes each."""
    start: str = "command"
    """How the server is started: ``package`` needs the published one, ``command`` the installed one until then,
    ``own`` brings it along, ``none`` starts nothing."""


def _host(id: str) -> Callable[[ProjectFacts], str]:
    return lambda facts: plugins.host_snippet(facts, id)


_SKILL = f"skills/{AGENT_SKILL}/SKILL.md"

MANIFESTS: tuple[ManifestFolder, ...] = (
    ManifestFolder(
        folder="aims",
        reader="AIMS",
        use="Add the document to AIMS's skills, and the two entries to its registry and its list of MCP tools. "
        "`docs/guides/prompts-and-routing.md` says what an AIMS does with the target `mcp`.",
        files={
            documents.AIMS_FILE: documents.aims_document,
            "registry-entry.ts": documents.aims_registry_entry,
            "mcp-tool-entry.ts": documents.aims_tool_entry,
        },
    ),
    ManifestFolder(
        folder="mcp-registry",
        reader="the MCP registry",
        use="Submit it with the registry's publisher.",
        files={"server.json": plugins.registry},
        start="package",
    ),
    ManifestFolder(
        folder="mcpb",
        reader="Claude Desktop and other hosts that take bundles",
        use="`make bundle` packs `dist/kimi-mcp-VERSION.mcpb`; open it with the host.",
        files={"manifest.json": plugins.mcpb},
        start="own",
    ),
    ManifestFolder(
        folder="agent-plugins",
        reader="hosts that take Agent Plugins 1.0.0",
        use="Add the folder as a plugin.",
        files={
            "plugin.json": plugins.agent_plugin,
            "mcp.json": plugins.agent_plugin_servers,
            _SKILL: documents.agent_skill,
        },
    ),
    ManifestFolder(
        folder="claude-code",
        reader="Claude Code",
        use="`claude plugin marketplace add ./manifests/claude-code`, then `claude plugin install kimi@kimi-mcp`.",
        files={
            ".claude-plugin/marketplace.json": plugins.claude_marketplace,
            f"{PLUGIN}/.claude-plugin/plugin.json": plugins.claude_plugin,
            f"{PLUGIN}/.mcp.json": plugins.claude_servers,
            f"{PLUGIN}/README.md": documents.plugin_readme,
            f"{PLUGIN}/{_SKILL}": documents.agent_skill,
        },
    ),
    ManifestFolder(
        folder="gemini-cli",
        reader="Gemini CLI",
        use="`gemini extensions install ./manifests/gemini-cli`",
        files={"gemini-extension.json": plugins.gemini_extension, _SKILL: documents.agent_skill},
    ),
    ManifestFolder(
        folder="codex", reader="Codex", use="Put it into `~/.codex/config.toml`.", files={"config.toml": _host("codex")}
    ),
    ManifestFolder(
        folder="kimi-code",
        reader="Kimi Code",
        use="Put it into `~/.kimi-code/mcp.json`.",
        files={"mcp.json": _host("kimi-code")},
    ),
    ManifestFolder(
        folder="vscode",
        reader="VS Code",
        use="Put it into a project's `.vscode/mcp.json`.",
        files={"mcp.json": _host("vscode")},
    ),
    ManifestFolder(
        folder="cursor",
        reader="Cursor",
        use="Put it into `~/.cursor/mcp.json`, or open the link.",
        files={"mcp.json": _host("cursor"), "install-link.txt": plugins.cursor_link},
    ),
    ManifestFolder(
        folder="zed", reader="Zed", use="Put it into Zed's `settings.json`.", files={"settings.json": _host("zed")}
    ),
    ManifestFolder(
        folder="goose",
        reader="Goose",
        use="Put it into `~/.config/goose/config.yaml`.",
        files={"config.yaml": _host("goose")},
    ),
    ManifestFolder(
        folder="opencode",
        reader="opencode",
        use="Put it into `~/.config/opencode/opencode.jsonc`.",
        files={"opencode.jsonc": _host("opencode")},
    ),
    ManifestFolder(
        folder="qwen-code",
        reader="Qwen Code",
        use="Put it into `~/.qwen/settings.json`.",
        files={"settings.json": _host("qwen-code")},
    ),
    ManifestFolder(
        folder="copilot",
        reader="GitHub Copilot CLI",
        use="Put it into `~/.copilot/mcp-config.json`.",
        files={"mcp-config.json": _host("copilot")},
    ),
    ManifestFolder(
        folder="cline",
        reader="Cline",
        use="Put it into `~/.cline/data/settings/cline_mcp_settings.json`.",
        files={"cline_mcp_settings.json": _host("cline")},
    ),
    ManifestFolder(
        folder="kilo",
        reader="Kilo Code",
        use="Put it into `~/.config/kilo/kilo.jsonc`.",
        files={"kilo.jsonc": _host("kilo")},
    ),
    ManifestFolder(
        folder="skills",
        reader="hosts that read Agent Skills",
        use="Copy the folder in it to where the host keeps skills.",
        files={f"{AGENT_SKILL}/SKILL.md": documents.agent_skill},
        start="none",
    ),
)
"""Every folder, in the order of the README's table."""

_STARTS: Mapping[str, str] = {
    "none": "starts nothing",
    "own": "contains the server",
    "package": "needs the published package: **don't use it before the package is published**",
    "command": "starts `kimi-mcp`, which must be on the PATH",
}
_STARTS_PUBLISHED = {**_STARTS, "package": "needs the published package", "command": "starts the published package"}


def files(root: Path = ROOT, skill_text: str | None = None, *, published: bool = PUBLISHED) -> dict[str, str]:
    """Every file under ``manifests/``, by its path in the checkout; ``skill_text`` is the next text of ``skill.md``."""
    facts = read_facts(root, skill_text, published=published)
    made = {f"{FOLDER}/{one.folder}/{name}": make(facts) for one in MANIFESTS for name, make in one.files.items()}
    if not published:
        needing = [manifest for manifest in MANIFESTS if manifest.start in ("package", "command")]
        made |= {f"{FOLDER}/{manifest.folder}/README.md": _note(manifest) for manifest in needing}
    return {f"{FOLDER}/README.md": _readme(published), **made}


def _note(manifest: ManifestFolder) -> str:
    """The note beside a manifest while the package is not published."""
    what = (
        "It names the package `kimi-mcp` of PyPI. This project has not published it yet: a package of that name from "
        "elsewhere is not this one. Don't use or submit this file before."
        if manifest.start == "package"
        else "It starts the command `kimi-mcp`, because this project has published no package yet: a package of that "
        "name from elsewhere is not this one. Run `make demo` in the checkout, and either put `.venv/bin` on the PATH "
        "of the host or write the command's absolute path in place of its name."
    )
    return f"# For {manifest.reader}\n\n{manifest.use}\n\n{what}\n"


def _readme(published: bool) -> str:
    starts = _STARTS_PUBLISHED if published else _STARTS
    rows = "\n".join(f"| `{one.folder}` | {one.reader} | {one.use} | {starts[one.start]} |" for one in MANIFESTS)
    status = (
        "The package is published; manifests that start a package start it."
        if published
        else "The package is **not published yet**. A note beside each manifest that needs it says so; the others "
        "start the command `kimi-mcp` that you installed from the checkout. `PUBLISHED` in "
        "`scripts/manifests/facts.py` switches all of them."
    )
    return f"""# Manifests

Made by `python -m scripts.generate` from `pyproject.toml` and `skill.md`; edit those, not these. Most people need none
of them: `kimi-mcp install HOST` writes the entry, with the command's absolute path.

{status}

| folder | for | how | the server |
|---|---|---|---|
{rows}
"""
