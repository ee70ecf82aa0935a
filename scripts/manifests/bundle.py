"""``make bundle``: packs the ``.mcpb`` that hosts install with a click. I/O: reads the checkout, writes ``dist/``.

The bundle has our code; uv, which such hosts include, downloads its dependencies in the versions of the lock.
"""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

from kimi_mcp.skill.document import AGENT_SKILL
from scripts.manifests.documents import agent_skill
from scripts.manifests.facts import ROOT, ProjectFacts, read_facts
from scripts.manifests.plugins import mcpb

_PIN = re.compile(r"^([A-Za-z0-9._-]+==[^\s;\\]+(?: ; [^\\\n]+?)?)\s*\\?$", re.MULTILINE)
_DAY = (1980, 1, 1, 0, 0, 0)

_SERVER = '''"""Starts the server of this bundle."""

from kimi_mcp.server.entry_point import serve

if __name__ == "__main__":
    serve()
'''


def contents(root: Path = ROOT) -> dict[str, bytes]:
    """Every file of the bundle, by its name in it."""
    facts = read_facts(root)
    package = root / "kimi_mcp"
    code = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    made = {"manifest.json": mcpb(facts), "pyproject.toml": _project(facts, root), "server.py": _SERVER}
    return {
        **{name: text.encode() for name, text in made.items()},
        "LICENSE": (root / "LICENSE").read_bytes(),
        "kimi_mcp/skill/skill.md": (root / "skill.md").read_bytes(),
        f"kimi_mcp/skill/agent-skill/{AGENT_SKILL}/SKILL.md": agent_skill(facts).encode(),
        **code,
    }


def pack(folder: Path, root: Path = ROOT) -> Path:
    """Pack the bundle into a folder; the same checkout gives the same bytes. Returns its path."""
    facts = read_facts(root)
    folder.mkdir(parents=True, exist_ok=True)
    bundle = folder / f"{facts.name}-{facts.version}.mcpb"
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in contents(root).items():
            archive.writestr(zipfile.ZipInfo(name, _DAY), raw, zipfile.ZIP_DEFLATED)
    return bundle


def _project(facts: ProjectFacts, root: Path) -> str:
    """A ``pyproject.toml`` for uv: nothing to build, and the lock's versions as constraints."""
    import tomlkit

    pins = _PIN.findall((root / "requirements" / "runtime.txt").read_text("utf-8"))
    project = {
        "name": facts.name,
        "version": facts.version,
        "requires-python": facts.python,
        "dependencies": list(facts.dependencies),
    }
    return tomlkit.dumps({"project": project, "tool": {"uv": {"package": False, "constraint-dependencies": pins}}})


if __name__ == "__main__":
    sys.stdout.write(f"{pack(ROOT / 'dist').relative_to(ROOT)}\n")
