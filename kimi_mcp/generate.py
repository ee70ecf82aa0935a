"""What follows from the code: blocks of the documents, and the manifests. Writes them, or says which are stale.

``python -m kimi_mcp.generate`` rewrites every block of ``PLACES`` and every file under ``manifests/``; with ``--check``
it changes nothing and exits 1 where one is stale. A block stands between ``<!-- generated: NAME -->`` and
``<!-- end -->``; nothing depends on the day on which it is made.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from kimi_mcp import catalogue, errors, install, manifests, policy, selfhost
from kimi_mcp.catalogue.profile import Model, Profile, Serving
from kimi_mcp.errors import Code, KimiError
from kimi_mcp.manifests.facts import OWNER
from kimi_mcp.prompts import prompts
from kimi_mcp.settings import PROVIDER_KEYS, VARIABLES
from kimi_mcp.skill import load_skill
from kimi_mcp.tools import Arguments, input_schema, listed_tools
from kimi_mcp.types import Mode

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""


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


def registry() -> str:
    """The line by which the MCP registry knows that this repository and its entry belong together."""
    return f"<!-- mcp-name: io.github.{OWNER}/kimi-mcp -->"


def tools() -> str:
    """What each tool is for."""
    rows = [(f"`{tool.name}`", told.summary, told.when, told.when_not) for tool, told in listed_tools(load_skill())]
    return table(("tool", "what it does", "use it for", "not for"), rows)


def arguments() -> str:
    """What each tool takes; tools that take the same share a table."""
    shared: dict[type[Arguments], list[str]] = {}
    for tool, _ in listed_tools(load_skill()):
        shared.setdefault(tool.arguments, []).append(f"`{tool.name}`")
    return "\n\n".join(f"{' and '.join(names)}\n\n{_arguments(model)}" for model, names in shared.items())


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
    if row["type"] == "array":
        return f"list of {row['items']['type']}s"
    return f"{row['type']}{bounds}"


def settings() -> str:
    """Every environment variable; neighbours that differ in the provider's name alone share a row."""
    of = dict(PROVIDER_KEYS)
    rows: list[tuple[str, str, str]] = []
    shared = groupby(VARIABLES, key=lambda each: each.meaning.replace(of.get(each.name, "\0"), "that provider", 1))
    for meaning, group in shared:
        variables = list(group)
        names = (f"`{each.name}`" + (f" ({of[each.name]})" if each.name in of else "") for each in variables)
        rows.append(("<br>".join(names), meaning, variables[0].default))
    return table(("variable", "meaning", "default"), rows)


def rules() -> str:
    """Every rule of the policy."""
    rows = [
        (f"`{rule.id}`", rule.guards, rule.action, f"{rule.source} ({rule.date.isoformat()})")
        for rule in policy.load_rules().values()
    ]
    return table(("rule", "guards against", "does", "source (date)"), rows)


_NEXT: Mapping[Code, str] = {
    "invalid_arguments": "Change the argument that `fix` names.",
    "policy_refused": "`rule` names the rule, `fix` what it would take.",
    "not_configured": "Set the variable that `fix` names and restart the server.",
    "path_refused": "Name a file within the roots, or set KIMI_ROOTS. Keys and links are never read.",
    "url_refused": "Give a public https URL, or the path of a copy.",
    "media_rejected": "Give what `fix` asks for: a whole file, another format, a smaller one, or the other tool.",
    "budget_exceeded": "Raise the limit that `fix` names.",
    "run_not_found": "Call `kimi_run` without `run_id`: it lists the runs that are there.",
    "auth_failed": "Check which platform the key was made for, and where KIMI_PROVIDER and KIMI_BASE_URL send it.",
    "quota_exhausted": "Top up the account, or set another KIMI_PROVIDER. Asking again does not help.",
    "rate_limited": "Wait, or lower KIMI_MAX_CONCURRENCY or `max_tokens`: the limit counts what was asked for.",
    "overloaded": "Ask later, or set another KIMI_PROVIDER.",
    "model_not_served": "Leave `model` out, or name one that the provider serves.",
    "context_too_long": "Shorten the prompt, or name a model with a longer context.",
    "content_filtered": "Reword the prompt.",
    "upstream_timeout": "Ask again, or raise the timeout that `fix` names.",
    "upstream_broken": "Ask again; if it stays, look for a proxy that cuts streams.",
    "upstream_unreachable": "Check the network, the proxy variables and KIMI_BASE_URL.",
    "answer_cut_off": "Raise `max_tokens` to the number in `fix`, or ask for less at once.",
    "cancelled": "Ask again if the answer is still wanted.",
    "internal": "Report it with the server's log lines.",
}
"""What a caller does about each code, beside the ``fix`` that the error itself brings."""


def error_codes() -> str:
    """Every code that is raised today: when, and what to do; then the ones that nothing raises yet, if any."""
    text = "\n".join(_code_in_use(Path(errors.__file__).parent))
    raised: dict[Code, list[type[KimiError]]] = {}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, KimiError)]
    for leaf in (kind for kind in kinds if not kind.__subclasses__()):
        if re.search(rf"\b{leaf.__name__}\b", text):
            raised.setdefault(leaf.code, []).append(leaf)
    rows = [
        (
            f"`{code}`",
            " Or: ".join(str(leaf.__doc__).replace("``", "`") for leaf in leaves),
            "yes" if leaves[0].retryable else "no",
            _NEXT[code],
        )
        for code, leaves in raised.items()
    ]
    head = ("code", "when", "may work later unchanged", "what to do")
    later = _code(code for code in _NEXT if code not in raised)
    return table(head, rows) + (f"\n\nReserved, and raised by nothing yet: {later}." if later else "")


def _code_in_use(package: Path) -> Iterable[str]:
    """The package's code, but for the errors themselves, this file, and a folder that nobody outside it imports yet."""
    found = [(path.relative_to(package).parts, path.read_text("utf-8")) for path in package.rglob("*.py")]
    for (room, *inside), text in found:
        asked = re.compile(rf"kimi_mcp(\.| import [\w, ]*\b){room}\b")
        elsewhere = (other for place, other in found if place[0] != room)
        if any(map(asked.search, elsewhere)) if inside else room not in ("errors.py", "generate.py"):
            yield text


def models() -> str:
    """Every model, whoever serves it."""
    head = ("model", "released", "modes", "allowed temperature / top_p", "context", "output unless said", "facts of")
    return table(head, [_model(model) for model in catalogue.load().models.values()])


def _model(model: Model) -> tuple[str, ...]:
    fixed = {mode: values for mode, values in (model.fixed or {}).items() if values}
    allowed = [f"{mode}: {values['temperature']:g} / {values['top_p']:g}" for mode, values in fixed.items()]
    first, *_, last = sorted(day.isoformat() for _, day in model.facts.values())
    return (
        f"`{model.id}`",
        str(model.released or "not published"),
        "thinking, instant" if model.can_stop_thinking else "thinking",
        "<br>".join(allowed) or "not published",
        f"{model.context_tokens:,}",
        f"{model.default_output_tokens:,}" if model.default_output_tokens else "not published",
        first if first == last else f"{first} to {last}",
    )


def providers() -> str:
    """Every provider, in the order in which keys choose one."""
    rows = [
        (f"`{each.id}`<br>{each.name}", f"`{each.base_url}`<br>{_code(each.key_variables) or 'no key needed'}",
         ", ".join(f"{row.model}{_until(row)}" for row in each.models))
        for each in catalogue.load().providers.values()
    ]  # fmt: skip
    return table(("`KIMI_PROVIDER`", "base URL and key", "models, in the order of `auto`"), rows)


def _until(row: Serving) -> str:
    if row.until:
        return f" (until {row.until.isoformat()})"
    return f" (found gone {row.found_gone.isoformat()})" if row.found_gone else ""


def serving() -> str:
    """Every model at every provider, with the source of each row."""
    head = ("provider: model, and its id there", "modes, media", "USD per M tokens: in / cached / out", "source (date)")
    facts = catalogue.load()
    listed = (facts.profile(each.id, row.model) for each in facts.providers.values() for row in each.models)
    return table(head, [_served(profile) for profile in listed if profile is not None])


def _served(profile: Profile) -> tuple[str, ...]:
    row, price = profile.serving, profile.price
    return (
        f"{profile.provider.id}: {row.model}{_until(row)}<br>`{row.wire_id}`",
        f"{', '.join(profile.modes)}<br>{', '.join(m for m in ('image', 'video') if profile.takes(m)) or 'text alone'}",
        f"{price.input:.2f} / {price.cached:.2f} / {price.output:.2f}" if price else "not known",
        f"{row.source} ({row.checked})",
    )


def offered_prompts() -> str:
    """The prompts that a host offers to people."""
    rows = [
        (
            f"`{each.name}`",
            each.description,
            ", ".join(f"`{one.name}`" + (" (required)" if one.required else "") for one in each.arguments),
            f"`{each.tool}`",
        )
        for each in prompts(load_skill()).values()
    ]
    return table(("prompt", "what it does", "asks for", "tool"), rows)


def commands() -> str:
    """Every command, with its arguments and options."""
    from typer.main import get_command

    from kimi_mcp.commands import app

    return table(("command", "what it does", "options"), _commands("kimi-mcp", get_command(app)))


def _commands(path: str, group: Any) -> Iterable[tuple[str, str, str]]:
    for name, command in group.commands.items():
        named = [
            f"{path} {name}",
            *(_placed(each) for each in command.params if each.param_type_name == "argument"),
        ]
        options = [each.opts[0] for each in command.params if each.param_type_name == "option"]
        yield f"`{' '.join(named)}`", command.help.split("\n\n")[0], _code(options)
        if hasattr(command, "commands"):
            yield from _commands(f"{path} {name}", command)


def _placed(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


# ── the skill ─────────────────────────────────────────────────────────────────────────────────────────────────────


def modes() -> str:
    """Each mode with the values that it allows, and whose they are."""
    whose: dict[tuple[Mode, str], list[str]] = {}
    for model in catalogue.load().models.values():
        for mode in ("thinking", "instant") if model.can_stop_thinking else ("thinking",):
            whose.setdefault((mode, _values(model, mode)), []).append(model.id)
    return table(("mode", "allows", "models"), [(mode, allows, _code(ids)) for (mode, allows), ids in whose.items()])


def _values(model: Model, mode: Mode) -> str:
    said = ", ".join(f"{name} {value:g}" for name, value in ((model.fixed or {}).get(mode) or {}).items())
    efforts = f"; effort {', '.join(model.efforts)}" if model.efforts else ""
    return (said or "not published") + efforts


def video() -> str:
    """Which provider takes clips, and for which models."""
    facts = catalogue.load()
    rows: list[tuple[str, str]] = []
    for each in facts.providers.values():
        listed = ((row, facts.profile(each.id, row.model)) for row in each.models)
        if takes := [f"`{row.model}`{_until(row)}" for row, one in listed if one is not None and one.video]:
            rows.append((f"`{each.id}`", ", ".join(takes)))
    return table(("provider", "takes clips for"), rows)


def access() -> str:
    """Where each provider is, and which variable holds its key."""
    rows = [
        (f"`{each.id}`", f"`{each.base_url}`", _code(each.key_variables) or "no key needed")
        for each in catalogue.load().providers.values()
    ]
    return table(("`KIMI_PROVIDER`", "base URL", "key"), rows)


def mistakes() -> str:
    """Every rule as a mistake, for an agent that is about to make it."""
    rows = [(rule.guards, f"`{rule.id}`", rule.action) for rule in policy.load_rules().values()]
    return table(("mistake", "rule", "the policy does"), rows)


def hosts() -> str:
    """Every host that kimi-mcp installs itself into."""
    rows = [
        (each.name, f"`kimi-mcp install {each.id}`", each.keys.told.replace("NAME", "the key's variable"))
        for each in install.load_hosts().values()
    ]
    return table(("host", "command", "how the key gets there"), rows)


def weights() -> str:
    """All weights in the engines that run them, and what each needs at least."""
    named, ways = selfhost.load()
    rows = [
        (
            f"{named[id].name}<br>`{named[id].repo}`",
            way.engine,
            f"{named[id].size_gb} GB" + (", in doubt" if named[id].doubt else ""),
            "<br>or ".join(_needs(each) for each in way.needs if each.weights == id),
            f"{named[id].source} ({named[id].date}); {way.source} ({way.date})",
        )
        for way in ways
        for id in way.weights
    ]
    return table(("weights", "engine", "size", "needs at least", "sources (date)"), rows)


def _needs(needs: selfhost.Needs) -> str:
    parts = (
        (needs.gpus > 1, f"{needs.gpus} GPUs"),
        (needs.gpu_gb, f"{needs.gpu_gb:,} GB of GPU memory"),
        (needs.ram_gb, f"{needs.ram_gb:,} GB of main memory"),
        (needs.together_gb, f"{needs.together_gb:,} GB of both together"),
    )
    return ", ".join(said for needed, said in parts if needed)


# ── the documents ─────────────────────────────────────────────────────────────────────────────────────────────────

PLACES: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("README.md", "registry", registry),
    ("README.md", "hosts", hosts),
    ("README.md", "tools", tools),
    ("README.md", "arguments", arguments),
    ("README.md", "settings", settings),
    ("README.md", "rules", rules),
    ("README.md", "models", models),
    ("README.md", "providers", providers),
    ("README.md", "serving", serving),
    ("README.md", "weights", weights),
    ("README.md", "errors", error_codes),
    ("README.md", "prompts", offered_prompts),
    ("README.md", "commands", commands),
    ("skill.md", "modes", modes),
    ("skill.md", "video", video),
    ("skill.md", "access", access),
    ("skill.md", "weights", weights),
    ("skill.md", "mistakes", mistakes),
)
"""Every generated block: the document, the block's name, and what makes it."""


def renewed(text: str, file: str) -> str:
    """A document with each of its blocks made anew. Raises ``ValueError`` where one is missing."""
    for name, make in ((name, make) for place, name, make in PLACES if place == file):
        block = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        whole = f"\n{make()}\n\n"
        text, times = block.subn(lambda found, whole=whole: found[1] + whole + found[2], text)
        if times != 1:
            raise ValueError(f"{file} has {times} blocks between <!-- generated: {name} --> and <!-- end -->, not one.")
    return text


def main(said: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write what is stale, or with ``--check`` name it; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kimi_mcp.generate", description="Renews the generated documents.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where something is stale")
    check: bool = parser.parse_args(said).check
    try:
        old = {file: (root / file).read_text("utf-8") for file, _, _ in PLACES}
        new = {file: renewed(text, file) for file, text in old.items()}
        made = manifests.files(skill_text=new["skill.md"])
    except (FileNotFoundError, ValueError) as fault:
        print(f"{fault}\nThis needs a checkout of the repository, with its documents whole.", file=sys.stderr)
        return 1
    lie = {path.relative_to(root).as_posix(): path for path in (root / manifests.FOLDER).rglob("*") if path.is_file()}
    old |= {name: path.read_text("utf-8", "replace") for name, path in lie.items()}
    new |= made
    stale = [file for file in (*new, *(lie.keys() - made.keys())) if old.get(file) != new.get(file)]
    if check and stale:
        print(f"Stale: {', '.join(stale)}. Run: python -m kimi_mcp.generate", file=sys.stderr)
        return 1
    for file in stale:
        _put(root / file, new.get(file))
    print(f"Written: {', '.join(stale)}" if stale else "Everything that is generated is up to date.")
    return 0


def _put(path: Path, text: str | None) -> None:
    """Write a file; one that is not made any more goes."""
    if text is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8", newline="\n")


if __name__ == "__main__":
    sys.exit(main())
