"""The parts of the documents that follow from the code: writes them, or says which are stale. I/O: the checkout's files.

``python -m kimi_mcp.generate`` rewrites every block of ``PLACES``; with ``--check`` it changes nothing and exits 1 where
one is stale. A block stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. The functions that make the
blocks don't ask for today's date: what they return changes with the code and its data alone.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from kimi_mcp import catalogue, errors, policy
from kimi_mcp.catalogue.profile import Model, Profile, Provider, Serving
from kimi_mcp.errors import Code, KimiError
from kimi_mcp.plan import Plan
from kimi_mcp.settings import PROVIDER_KEYS, VARIABLES, Variable
from kimi_mcp.skill import load_skill
from kimi_mcp.tools import Arguments, input_schema, listed_tools
from kimi_mcp.types import Request, user

OWNER = "kimi-mcp"
"""The GitHub account that the MCP registry's name for this server begins with."""

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""

COMMAND = "/path/to/kimi-mcp/.venv/bin/kimi-mcp"
"""What stands in a host's file for the command of somebody's checkout."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [tuple(head), ("---",) * len(head), *(tuple(_cell(cell) for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text as it may stand in a cell: names of variables and control tokens as code, no bare pipe."""
    parts = re.sub(r"<\|\w+\|>", r"`\g<0>`", text).split("`")
    parts[::2] = [re.sub(r"\b[A-Z]+(?:_[A-Z]+)+\b", r"`\g<0>`", part) for part in parts[::2]]
    return " ".join("`".join(parts).replace("|", r"\|").split())


def _code(names: Iterable[object]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# ── hosts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """How one host is told of a server that it starts."""

    name: str
    """Its name for people."""
    where: str
    """Where the snippet goes, as a half sentence."""
    snippet: str
    """What is put there."""
    language: str = "json"
    """What the snippet is written in."""


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


_SERVERS = _json({"mcpServers": {"kimi": {"command": COMMAND, "env": {"MOONSHOT_API_KEY": "YOUR_KEY"}}}})
_VSCODE = _json(
    {
        "inputs": [{"type": "promptString", "id": "moonshot", "description": "Moonshot API key", "password": True}],
        "servers": {
            "kimi": {"type": "stdio", "command": COMMAND, "env": {"MOONSHOT_API_KEY": "${input:moonshot}"}},
        },
    }
)

HOSTS: tuple[Host, ...] = (
    Host(name="Claude Desktop", where="`claude_desktop_config.json` (Settings, Developer, Edit Config)", snippet=_SERVERS),
    Host(
        name="Claude Code",
        where="in the checkout, once",
        snippet='claude mcp add kimi --scope user --env MOONSHOT_API_KEY=YOUR_KEY -- "$PWD/.venv/bin/kimi-mcp"',
        language="sh",
    ),
    Host(name="Cursor", where="`~/.cursor/mcp.json`, or `.cursor/mcp.json` of a project", snippet=_SERVERS),
    Host(name="VS Code", where="`.vscode/mcp.json`; it asks for the key and keeps it", snippet=_VSCODE),
    Host(
        name="Codex",
        where="in the checkout, once",
        snippet='codex mcp add kimi --env MOONSHOT_API_KEY=YOUR_KEY -- "$PWD/.venv/bin/kimi-mcp"',
        language="sh",
    ),
    Host(
        name="Gemini CLI",
        where="in the checkout, once",
        snippet='gemini mcp add --scope user -e MOONSHOT_API_KEY=YOUR_KEY kimi "$PWD/.venv/bin/kimi-mcp"',
        language="sh",
    ),
    Host(name="Kimi Code", where="`~/.kimi-code/mcp.json`, or `.kimi-code/mcp.json` of a project", snippet=_SERVERS),
)
"""The hosts that the README shows, one row each."""


def hosts() -> str:
    """A snippet for each host."""
    return "\n\n".join(
        f"**{host.name}**: {host.where}\n\n```{host.language}\n{host.snippet}\n```" for host in HOSTS
    )


def registry() -> str:
    """The line by which the MCP registry knows that this repository and its entry belong together."""
    return f"<!-- mcp-name: io.github.{OWNER}/kimi-mcp -->"


# ── tools and settings ────────────────────────────────────────────────────────────────────────────────────────────


def tools() -> str:
    """What each tool is for."""
    rows = [(f"`{tool.name}`", told.summary, told.when, told.when_not) for tool, told in listed_tools(load_skill())]
    return table(("tool", "what it does", "use it for", "not for"), rows)


def arguments() -> str:
    """What each tool takes; tools that take the same share a table."""
    listed = [tool for tool, _ in listed_tools(load_skill())]
    shared: dict[type[Arguments], list[str]] = {}
    for tool in listed:
        shared.setdefault(tool.arguments, []).append(tool.name)
    return "\n\n".join(
        f"{' and '.join(f'`{name}`' for name in names)}\n\n{_arguments(model)}" for model, names in shared.items()
    )


def _arguments(model: type[Arguments]) -> str:
    schema = input_schema(model)
    rows = [
        (f"`{name}`" + (" (required)" if name in schema["required"] else ""), _kind(row), row["description"])
        for name, row in schema["properties"].items()
    ]
    return table(("argument", "kind", "meaning"), rows)


def _kind(row: Mapping[str, Any]) -> str:
    if "enum" in row:
        return _code(row["enum"])
    least, most = row.get("minimum"), row.get("maximum")
    bounds = f", {least:g} to {most:g}" if most is not None else f", at least {least:g}" if least is not None else ""
    return f"{row['type']}{bounds}"


def settings() -> str:
    """Every environment variable; neighbours that differ in the provider's name alone share a row."""
    of = dict(PROVIDER_KEYS)

    def meaning(variable: Variable) -> str:
        provider = of.get(variable.name)
        return variable.meaning if provider is None else variable.meaning.replace(provider, "that provider", 1)

    rows: list[tuple[str, str, str]] = []
    for sentence, group in groupby(VARIABLES, key=meaning):
        variables = list(group)
        names = "<br>".join(
            f"`{each.name}`" + (f" ({of[each.name]})" if len(variables) > 1 else "") for each in variables
        )
        rows.append((names, sentence, variables[0].default))
    return table(("variable", "meaning", "default"), rows)


# ── policy and errors ─────────────────────────────────────────────────────────────────────────────────────────────

_DOES: Mapping[policy.Action, str] = {"adjust": "mends and reports", "warn": "warns", "refuse": "refuses"}


def rules() -> str:
    """Every rule of the policy."""
    rows = [
        (f"`{rule.id}`", rule.guards, _DOES[rule.action], f"{rule.source} ({rule.date.isoformat()})")
        for rule in policy.load_rules().values()
    ]
    return table(("rule", "guards against", "does", "source (date)"), rows)


def adjustment() -> str:
    """What a result's ``policy`` says of a temperature that the model does not take: asked of the policy itself."""
    facts = catalogue.load()
    profile = next(each for each in _profiles(facts.providers["moonshot"]) if each.can_stop_thinking)
    gathered = policy.Gathered(
        day=profile.serving.checked, base_url=profile.provider.base_url, allowed_providers=(profile.provider.id,),
        served=frozenset({profile.serving.wire_id}),
    )  # fmt: skip
    request = Request(mode="thinking", turns=(user("Is 2027 a prime?"),), sampling={"temperature": 0.3})
    plan = policy.decide(request, profile, gathered)
    assert isinstance(plan, Plan), plan
    return f"```json\n{_json([each.as_json() for each in plan.adjustments])}\n```"


_NEXT: Mapping[Code, str] = {
    "invalid_arguments": "Change the argument that `fix` names.",
    "policy_refused": "`rule` names the rule, `fix` what it would take.",
    "not_configured": "Set the variable that `fix` names and restart the server.",
    "path_refused": "Name a file within the roots.",
    "url_refused": "Give a public https URL.",
    "media_rejected": "Convert the picture or the clip.",
    "budget_exceeded": "Raise the limit that `fix` names.",
    "run_not_found": "Call `kimi_run` without `run_id`: it lists the runs that are there.",
    "auth_failed": "Check which platform the key was made for, and where KIMI_PROVIDER and KIMI_BASE_URL send it.",
    "quota_exhausted": "Top up the account, or set another KIMI_PROVIDER. Asking again does not help.",
    "rate_limited": "Wait, or lower KIMI_MAX_CONCURRENCY or `max_tokens`: the limit counts what was asked for.",
    "overloaded": "Ask later, or set another KIMI_PROVIDER.",
    "model_not_served": "Leave `model` out, or name one that the provider serves.",
    "context_too_long": "Shorten the prompt, or name a model with a longer context.",
    "content_filtered": "Reword the prompt.",
    "upstream_timeout": "Ask again, or raise the KIMI_…_TIMEOUT_S that `fix` names.",
    "upstream_broken": "Ask again; if it stays, look for a proxy that cuts streams.",
    "upstream_unreachable": "Check the network, the proxy variables and KIMI_BASE_URL.",
    "answer_cut_off": "Raise `max_tokens` to the number in `fix`, or ask for less at once.",
    "cancelled": "Ask again if the answer is still wanted.",
    "internal": "Report it with the server's log lines.",
}
"""What a caller does about each code, beside the ``fix`` that the error itself brings."""


def error_codes() -> str:
    """Every code that is raised today: when, and what to do; then the ones that nothing raises yet."""
    code_of = "\n".join(
        path.read_text("utf-8")
        for path in sorted(Path(errors.__file__).parent.rglob("*.py"))
        if path.name not in ("errors.py", "generate.py")
    )
    whens: dict[Code, list[type[KimiError]]] = {}
    for leaf in _leaves(KimiError):
        if re.search(rf"\b{leaf.__name__}\b", code_of):
            whens.setdefault(leaf.code, []).append(leaf)
    rows = [
        (f"`{code}`", " Or: ".join(_sentence(leaf) for leaf in leaves), "yes" if leaves[0].retryable else "no", _NEXT[code])
        for code, leaves in whens.items()
    ]  # fmt: skip
    later = [code for code in _NEXT if code not in whens]
    reserved = f"\n\nReserved, and raised by nothing yet: {_code(later)}." if later else ""
    return table(("code", "when", "may the same call work later?", "what to do"), rows) + reserved


def _leaves(kind: type[KimiError]) -> list[type[KimiError]]:
    below = kind.__subclasses__()
    return [leaf for each in below for leaf in _leaves(each)] if below else [kind]


def _sentence(leaf: type[KimiError]) -> str:
    return (leaf.__doc__ or "").strip().splitlines()[0].replace("``", "`")


# ── the catalogue ─────────────────────────────────────────────────────────────────────────────────────────────────


def _profiles(provider: Provider) -> list[Profile]:
    facts = catalogue.load()
    return [profile for row in provider.models if (profile := facts.profile(provider.id, row.model))]


def models() -> str:
    """Every model, whoever serves it."""
    head = ("model", "released", "modes", "allowed temperature / top_p", "context", "output unless said", "facts of")
    return table(head, [_model(model) for model in catalogue.load().models.values()])


def _model(model: Model) -> tuple[str, ...]:
    allowed = [
        f"{mode}: {values['temperature']:g} / {values['top_p']:g}"
        for mode, values in (model.fixed or {}).items()
        if values
    ]
    days = sorted(day for _, day in model.facts.values())
    return (
        f"`{model.id}`",
        model.released.isoformat() if model.released else "not published",
        "thinking, instant" if model.can_stop_thinking else "thinking" + "".join(f" ({_code(model.efforts)})" if model.efforts else ""),
        "<br>".join(allowed) or "not published",
        f"{model.context_tokens:,}",
        f"{model.default_output_tokens:,}" if model.default_output_tokens else "not published",
        _span(days[0].isoformat(), days[-1].isoformat()),
    )  # fmt: skip


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def providers() -> str:
    """Every provider, in the order in which keys choose one."""
    rows = [
        (f"`{each.id}`", each.name, f"`{each.base_url}`", _code(each.key_variables) or "none needed",
         ", ".join(f"{row.model}{_until(row)}" for row in each.models))
        for each in catalogue.load().providers.values()
    ]  # fmt: skip
    return table(("`KIMI_PROVIDER`", "name", "base URL", "key", "models, in the order of `auto`"), rows)


def _until(row: Serving) -> str:
    return f" (until {row.until.isoformat()})" if row.until else ""


def serving() -> str:
    """Every model at every provider, with the source of each row."""
    head = ("provider", "model", "its id there", "USD per M tokens: in / cached / out", "sees", "source (date)")
    rows = [
        (provider.id, f"{profile.model.id}{_until(profile.serving)}", f"`{profile.serving.wire_id}`",
         f"{price.input:.2f} / {price.cached:.2f} / {price.output:.2f}" if (price := profile.price) else "not known",
         ", ".join(kind for kind in ("image", "video") if profile.takes(kind)) or "text alone",
         f"{profile.serving.source} ({profile.serving.checked.isoformat()})")
        for provider in catalogue.load().providers.values()
        for profile in _profiles(provider)
    ]  # fmt: skip
    return table(head, rows)


# ── the documents ─────────────────────────────────────────────────────────────────────────────────────────────────

PLACES: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("README.md", "registry", registry),
    ("README.md", "adjustment", adjustment),
    ("README.md", "hosts", hosts),
    ("README.md", "tools", tools),
    ("README.md", "arguments", arguments),
    ("README.md", "settings", settings),
    ("README.md", "rules", rules),
    ("README.md", "models", models),
    ("README.md", "providers", providers),
    ("README.md", "serving", serving),
    ("README.md", "errors", error_codes),
)
"""Every generated block: the document, the block's name, and what makes it."""


class Misplaced(Exception):
    """A document has no such block, or more than one; the message names both."""


def renewed(text: str, file: str) -> str:
    """A document with each of its blocks made anew. Raises ``Misplaced``."""
    for name, make in ((name, make) for place, name, make in PLACES if place == file):
        block = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        whole = f"\n{make()}\n\n"
        text, times = block.subn(lambda found, whole=whole: found[1] + whole + found[2], text)
        if times != 1:
            raise Misplaced(f"{file} has {times} blocks `<!-- generated: {name} -->` … `<!-- end -->`; there must be one.")
    return text


def main(said: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write what is stale, or with ``--check`` name it; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kimi_mcp.generate", description="Renews the generated documents.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where something is stale")
    check: bool = parser.parse_args(said).check
    stale: list[str] = []
    for file in dict.fromkeys(file for file, _, _ in PLACES):
        path = root / file
        try:
            old = path.read_text("utf-8")
            new = renewed(old, file)
        except FileNotFoundError:
            print(f"{file} is not there: this is for a checkout of the repository.", file=sys.stderr)
            return 1
        except Misplaced as fault:
            print(fault, file=sys.stderr)
            return 1
        if old != new:
            stale.append(file)
            if not check:
                path.write_text(new, "utf-8")
    if check and stale:
        print(f"{', '.join(stale)} is stale. Run: python -m kimi_mcp.generate", file=sys.stderr)
        return 1
    print(f"{', '.join(stale)} written." if stale else "Everything is up to date.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
