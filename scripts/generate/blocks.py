"""The generated blocks as Markdown, from the values that the program itself uses. Reads the package's data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from kimi_mcp import catalogue, policy
from kimi_mcp.catalogue.credentials import key_variables, variables
from kimi_mcp.cli import install, selfhost
from kimi_mcp.cli.console import counted
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Model, Profile, ServedModel, SourcedRecord
from kimi_mcp.core.settings import OWN_KEY
from kimi_mcp.core.types import Mode, user
from kimi_mcp.provider.encoding import encode
from kimi_mcp.server.prompts import prompts
from kimi_mcp.server.tools import Arguments, input_schema, listed_tools
from kimi_mcp.skill.document import load_skill
from scripts import facts
from scripts.generate.markdown import as_code, table
from scripts.manifests.facts import OWNER

SWITCHES = ("thinking", "chat_template_kwargs", "reasoning")
"""Fields of a request that switch thinking."""


def registry() -> str:
    """The line that proves to the MCP registry that this repository belongs to its entry."""
    return f"<!-- mcp-name: io.github.{OWNER}/kimi-mcp -->"


def tools() -> str:
    """What each tool is for."""
    rows = [(f"`{tool.name}`", entry.summary, entry.when, entry.when_not) for tool, entry in listed_tools(load_skill())]
    return table(("tool", "what it does", "use it for", "not for"), rows)


def arguments() -> str:
    """The arguments of each tool; tools with the same arguments share a table."""
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
        return as_code(row["enum"])
    least, most = row.get("minimum"), row.get("maximum")
    bounds = f", {least:g} to {most:g}" if most is not None else f", at least {least:g}" if least is not None else ""
    if row["type"] == "array":
        return f"list of {row['items']['type']}s"
    return f"{row['type']}{bounds}"


def settings() -> str:
    """Every environment variable; neighbours that differ only in the provider's name share a row."""
    facts = catalogue.load()
    of = key_variables(facts)
    every = ((each, each.meaning.replace(of.get(each.name, "\0"), "that provider", 1)) for each in variables(facts))
    rows: list[tuple[str, str, str]] = []
    for meaning, group in groupby(every, key=lambda pair: pair[1]):
        shared = [each for each, _ in group]
        names = (f"`{each.name}`" + (f" ({of[each.name]})" if each.name in of else "") for each in shared)
        rows.append(("<br>".join(names), meaning, shared[0].default))
    return table(("variable", "meaning", "default"), rows)


def rules() -> str:
    """Every rule of the policy."""
    rows = [
        (f"`{rule.id}`", rule.guards, rule.action, f"{rule.source} ({rule.date.isoformat()})")
        for rule in policy.load_rules().values()
    ]
    return table(("rule", "guards against", "does", "source (date)"), rows)


def models() -> str:
    """Every model, whoever serves it."""
    head = ("model", "released", "modes", "allowed temperature / top_p", "context", "default output", "facts of")
    return table(head, [_model(model) for model in catalogue.load().models.values()])


def _model(model: Model) -> tuple[str, ...]:
    fixed = (("thinking", model.thinking_sampling), ("instant", model.instant_sampling))
    allowed = [f"{mode}: {values['temperature']:g} / {values['top_p']:g}" for mode, values in fixed if values]
    first, *_, last = sorted(fact.checked.isoformat() for fact in model.facts.values())
    return (
        f"`{model.id}`",
        str(model.released or "not published"),
        "thinking, instant" if model.can_stop_thinking else "thinking",
        "<br>".join(allowed) or "not published",
        f"{model.context_tokens:,}",
        f"{model.default_output_tokens:,}" if model.default_output_tokens else "not published",
        (first if first == last else f"{first} to {last}") + _doubts(model.facts.values()),
    )


def _doubts(sourced: Iterable[SourcedRecord]) -> str:
    doubts = dict.fromkeys(fact.doubt for fact in sourced if fact.doubt)
    return "".join(f"<br>In doubt: {doubt}" for doubt in doubts)


def providers() -> str:
    """Every provider, in the order in which keys choose one."""
    rows = [
        (f"`{each.id}`<br>{each.name}", f"`{each.base_url}`<br>{as_code(each.key_variables) or 'no key needed'}",
         ", ".join(f"{row.model}{_until(row)}" for row in each.models))
        for each in catalogue.load().providers.values()
    ]  # fmt: skip
    return table(("`KIMI_PROVIDER`", "base URL and key", "models, in the order of `auto`"), rows)


def _until(row: ServedModel) -> str:
    if row.until:
        return f" (until {row.until.isoformat()})"
    return f" (gone by {row.found_gone.isoformat()})" if row.found_gone else ""


def serving() -> str:
    """Every model at every provider, with the source of each row."""
    head = ("provider: model, and its id there", "modes, media", "USD per M tokens: in / cached / out", "source (date)")
    facts = catalogue.load()
    listed = (facts.profile(each.id, row.model) for each in facts.providers.values() for row in each.models)
    return table(head, [_served(profile) for profile in listed if profile is not None])


def moonshot() -> str:
    """The models that a key of Moonshot's own API could use when they were last checked, in the order of ``auto``."""
    facts = catalogue.load()
    checked = max(row.checked for row in facts.providers["moonshot"].models)
    rows = [
        (
            f"`{profile.serving.model}`{_until(profile.serving)}",
            ", ".join((*profile.modes, *(kind for kind in ("image", "video") if profile.takes(kind)))),
            f"{price.input:.2f} / {price.cached:.2f} / {price.output:.2f}" if (price := profile.price) else "not known",
        )
        for profile in facts.profiles("moonshot", checked)
    ]
    return table(("model", "modes and media", "USD per M tokens: in / cached / out"), rows)


def _served(profile: Profile) -> tuple[str, ...]:
    row, price = profile.serving, profile.price
    written = f"; to cache for 1h {price.write_1h:.2f}" if price and price.write_1h is not None else ""
    return (
        f"{profile.provider.id}: {row.model}{_until(row)}<br>`{row.wire_id}`",
        f"{', '.join(profile.modes)}<br>{', '.join(m for m in ('image', 'video') if profile.takes(m)) or 'text alone'}",
        f"{price.input:.2f} / {price.cached:.2f} / {price.output:.2f}{written}" if price else "not known",
        f"{row.source} ({row.checked}){_doubts([row])}",
    )


def other_facts() -> str:
    """What else is known, by topic: the facts that no code reads."""
    rows = [fact for fact in facts.facts() if fact.text]
    by_topic: dict[str, list[tuple[str, str]]] = {}
    for fact in sorted(rows, key=lambda fact: fact.day, reverse=True):
        doubt = f"<br>In doubt: {fact.doubt}" if fact.doubt else ""
        by_topic.setdefault(fact.table, []).append((f"{fact.text}{doubt}", f"{fact.source} ({fact.day})"))
    tables = (f"## {topic}\n\n{table(('fact', 'source (date)'), by_topic[topic])}" for topic in sorted(by_topic))
    return "\n\n".join(tables)


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

    from kimi_mcp.cli.commands import app

    return table(("command", "what it does", "options"), _commands("kimi-mcp", get_command(app)))


def _commands(path: str, group: Any) -> Iterable[tuple[str, str, str]]:
    for name, command in group.commands.items():
        named = [
            f"{path} {name}",
            *(_placed(each) for each in command.params if each.param_type_name == "argument"),
        ]
        options = [each.opts[0] for each in command.params if each.param_type_name == "option"]
        yield f"`{' '.join(named)}`", command.help.split("\n\n")[0], as_code(options)
        if hasattr(command, "commands"):
            yield from _commands(f"{path} {name}", command)


def _placed(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


# ── the skill ─────────────────────────────────────────────────────────────────────────────────────────────────────


def modes() -> str:
    """Each mode with the values that it allows, and for which models."""
    whose: dict[tuple[Mode, str], list[str]] = {}
    for model in catalogue.load().models.values():
        for mode in ("thinking", "instant") if model.can_stop_thinking else ("thinking",):
            whose.setdefault((mode, _values(model, mode)), []).append(model.id)
    return table(("mode", "allows", "models"), [(mode, allows, as_code(ids)) for (mode, allows), ids in whose.items()])


def _values(model: Model, mode: Mode) -> str:
    fixed = model.thinking_sampling if mode == "thinking" else model.instant_sampling
    values = ", ".join(f"{name} {value:g}" for name, value in (fixed or {}).items())
    efforts = f"; effort {', '.join(model.efforts)}" if model.efforts else ""
    return (values or "not published") + efforts


def video() -> str:
    """Which provider takes clips, and for which models."""
    facts = catalogue.load()
    rows: list[tuple[str, str]] = []
    for each in facts.providers.values():
        listed = ((row, facts.profile(each.id, row.model)) for row in each.models)
        if takes := [f"`{row.model}`{_until(row)}" for row, one in listed if one is not None and one.takes("video")]:
            rows.append((f"`{each.id}`", ", ".join(takes)))
    return table(("provider", "takes clips for"), rows)


def by_hand() -> str:
    """How a caller of an API switches thinking off, and under which names reasoning comes and goes back."""
    facts = catalogue.load()
    alike: dict[tuple[str, str, str], list[str]] = {}
    for each in facts.providers.values():
        profile = next(one for row in each.models if (one := facts.profile(each.id, row.model)))
        body = encode(Plan(mode="instant", turns=(user(""),), profile=profile))
        switch = next((f'"{name}": {json.dumps(body[name])}' for name in SWITCHES if name in body), None)
        off = f"`{switch}`" if switch else "not documented"
        alike.setdefault((off, f"`{each.reasoning_read[0]}`", as_code(each.reasoning_send)), []).append(each.id)
    rows = [(as_code(ids), *cells) for cells, ids in alike.items()]
    return table(("at", "without thinking", "reasoning comes in", "and goes back in"), rows)


def access() -> str:
    """Where each provider is, and which variable holds its key."""
    rows = [
        (f"`{each.id}`", f"`{each.base_url}`", as_code(each.key_variables) or "no key needed")
        for each in catalogue.load().providers.values()
    ]
    return table(("`KIMI_PROVIDER`", "base URL", "key"), rows)


def keys() -> str:
    """The variables that may hold a key, as the frontmatter lists them."""
    return f"  env: [{', '.join((*key_variables(catalogue.load()), OWN_KEY))}]"


def mistakes() -> str:
    """Every rule as a mistake to avoid, for agents."""
    rows = [(rule.guards, f"`{rule.id}`", rule.action) for rule in policy.load_rules().values()]
    return table(("mistake", "rule", "the policy does"), rows)


def hosts() -> str:
    """Every host that kimi-mcp installs itself into."""
    rows = [
        (each.name, f"`kimi-mcp install {each.id}`", each.keys.hint.replace("NAME", "the key's variable"))
        for each in install.load_hosts().values()
    ]
    return table(("host", "command", "how the key gets there"), rows)


def remote_hosts() -> str:
    """How each host is connected to a server at a URL."""
    rows = [
        (each.name, "–", str(each.no_remote), "–")
        if each.remote is None
        else (
            each.name,
            f"`kimi-mcp install {each.id} --url URL`",
            each.remote.hint.replace("NAME", "the variable", 1),
            each.remote.login,
        )
        for each in install.load_hosts().values()
    ]
    return table(("host", "command", "with a token", "where you sign in"), rows)


def weights() -> str:
    """All weights in the engines that run them, and the least that each needs."""
    named, options = selfhost.load()
    rows = [
        (
            f"{named[id].name}<br>`{named[id].repo}`",
            option.engine,
            f"{named[id].size_gb} GB" + (", in doubt" if named[id].doubt else ""),
            "<br>or ".join(_needs(each) for each in option.needs if each.weights == id),
            f"{named[id].source} ({named[id].checked}); {option.source} ({option.checked})",
        )
        for option in options
        for id in option.weights
    ]
    return table(("weights", "engine", "size", "needs at least", "sources (date)"), rows)


def _needs(needs: selfhost.Needs) -> str:
    parts = (
        (needs.gpus, counted(needs.gpus, "GPU")),
        (needs.gpu_gb, f"{needs.gpu_gb:,} GB of GPU memory"),
        (needs.ram_gb, f"{needs.ram_gb:,} GB of main memory"),
        (needs.together_gb, f"{needs.together_gb:,} GB of both together"),
    )
    return ", ".join(text for needed, text in parts if needed)
