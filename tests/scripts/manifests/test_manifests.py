"""The manifests: what they say follows from the sources, holds no key, and starts nothing that is not ours."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from kimi_mcp import catalogue
from kimi_mcp.catalogue import credentials
from kimi_mcp.core.version import __version__
from kimi_mcp.server.prompts import prompts
from kimi_mcp.skill.document import AGENT_SKILL, load_skill
from scripts import generate, manifests
from scripts.manifests import facts as project_facts
from scripts.manifests import plugins
from scripts.manifests.documents import AIMS_FIELDS

ROOT = generate.ROOT
FOLDER = ROOT / "manifests"
FILES = manifests.files()
STARTING = [name for name, text in FILES.items() if '"kimi-mcp"' in text or "cmd: kimi-mcp" in text]


def read(name: str) -> Any:
    text = (FOLDER / name).read_text("utf-8")
    return {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}[name.rsplit(".", 1)[1]](text)


def frontmatter(name: str) -> tuple[dict[str, Any], str]:
    opening, head, body = (FOLDER / name).read_text("utf-8").split("---\n", 2)
    assert not opening
    return yaml.safe_load(head), body


# ------------------------------------------------------------------------------------------------- drift


def test_every_file_is_what_would_be_made_today_and_no_other_lies_there() -> None:
    lie = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in FOLDER.rglob("*") if path.is_file()}
    assert lie == FILES


def test_a_manifest_that_was_edited_by_hand_is_named_and_made_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in {file for file, _, _ in generate.PLACES}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    assert generate.main([], tmp_path) == 0
    edited, left = tmp_path / "manifests/zed/settings.json", tmp_path / "manifests/old/left.json"
    edited.write_text("{}", "utf-8")
    left.parent.mkdir()
    left.write_text("{}", "utf-8")
    assert generate.main(["--check"], tmp_path) == 1
    printed = capsys.readouterr().err
    assert "manifests/zed/settings.json" in printed
    assert "manifests/old/left.json" in printed
    assert edited.read_text("utf-8") == "{}"
    assert generate.main([], tmp_path) == 0
    assert edited.read_text("utf-8") == FILES["manifests/zed/settings.json"]
    assert not left.exists()


def test_the_same_sources_make_the_same_files() -> None:
    assert manifests.files() == FILES


def test_every_folder_stands_in_the_table() -> None:
    readme = FILES["manifests/README.md"]
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == set(
        re.findall(r"(?m)^\| `([\w-]+)` \|", readme)
    )


# ------------------------------------------------------------------------------------------------- not published yet


def test_nothing_fetches_a_package_that_is_not_ours() -> None:
    assert project_facts.PUBLISHED is False, "when it is, this test and the two below change with it"
    for name, text in FILES.items():
        if name != "manifests/mcp-registry/server.json":
            assert not re.search(r"\b(uvx|pipx|npx|pip install)\b", text), name


def test_what_needs_the_package_says_so_beside_itself() -> None:
    assert STARTING
    for name in STARTING:
        folder = "/".join(name.split("/")[:2])
        if folder != "manifests/mcpb":
            assert "not published" in FILES[f"{folder}/README.md"] or "no package yet" in FILES[f"{folder}/README.md"]


def test_one_constant_makes_every_manifest_start_the_package() -> None:
    made = manifests.files(published=True)
    for name in (
        "claude-code/kimi/.mcp.json",
        "gemini-cli/gemini-extension.json",
        "cursor/mcp.json",
        "vscode/mcp.json",
    ):
        assert re.search(r'"command": "uvx",\s+"args": \[\s+"kimi-mcp"', made[f"manifests/{name}"]), name
    assert 'command = "uvx"' in made["manifests/codex/config.toml"]
    assert [name for name in made if name.endswith("/README.md")] == [
        "manifests/README.md",
        "manifests/claude-code/kimi/README.md",
    ]
    assert "not published" not in made["manifests/README.md"]


@pytest.mark.parametrize("name", FILES)
def test_no_manifest_holds_a_key_or_a_path_of_a_machine(name: str) -> None:
    assert not re.search(r"\bsk-\w|/(?:home|Users|tmp|work|root)/", FILES[name].replace("/home/user/AIMS", ""))
    for variable in (row.name for row in credentials.variables(catalogue.load()) if row.secret):
        for value in re.findall(rf'"?{variable}"?\s*[:=]\s*"([^"]*)"', FILES[name]):
            assert value.startswith("${"), name


# ------------------------------------------------------------------------------------------------- AIMS and skills


def test_the_aims_document_has_its_fields_and_the_skills_text() -> None:
    head, body = frontmatter("aims/kimi-k2.5.skill.md")
    skill = load_skill()
    assert tuple(head) == AIMS_FIELDS
    assert head["triggers"] == list(skill.triggers)
    assert (head["id"], head["type"], head["status"], head["execution"]["target"]) == (
        "kimi-k2.5", "skill", "active", "mcp")  # fmt: skip
    assert body.strip() == skill.text.split("---\n", 2)[2].strip()


def typescript(name: str) -> dict[str, Any]:
    text = (FOLDER / "aims" / name).read_text("utf-8")
    return json.loads(re.split(r"export const \w+ = ", text)[1].removesuffix(" as const;\n"))


def test_the_aims_entries_have_every_field_that_its_lists_want() -> None:
    entry, tool = typescript("registry-entry.ts"), typescript("mcp-tool-entry.ts")
    assert set(entry) == {"id", "name", "type", "status", "triggers", "description", "execution", "priority",
                          "definitionFile", "icon", "color"}  # fmt: skip
    assert set(tool) == {"id", "name", "category", "triggers", "skillFile", "toolFile"}
    assert (FOLDER / "aims" / entry["definitionFile"]).is_file()
    assert tool["skillFile"] == entry["definitionFile"]
    assert all(word == word.lower() for word in (*entry["triggers"], *tool["triggers"])), "AIMS lowers the query alone"
    assert len(set(tool["triggers"])) == len(tool["triggers"])


def test_the_agent_skill_keeps_to_the_closed_set_of_fields() -> None:
    head, body = frontmatter(f"skills/{AGENT_SKILL}/SKILL.md")
    assert set(head) <= {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", head["name"])
    assert head["name"] == AGENT_SKILL
    assert len(head["description"]) <= 1024
    assert all(isinstance(value, str) for value in head["metadata"].values())
    assert body.strip() == load_skill().text.split("---\n", 2)[2].strip()


def test_every_copy_of_the_skill_is_the_same() -> None:
    copies = {text for name, text in FILES.items() if name.endswith("SKILL.md")}
    assert len(copies) == 1


# ------------------------------------------------------------------------------------------------- hosts


def test_every_version_and_name_is_the_projects_own() -> None:
    versions = [read(name)["version"] for name in ("mcp-registry/server.json", "mcpb/manifest.json",
                "agent-plugins/plugin.json", "gemini-cli/gemini-extension.json",
                "claude-code/kimi/.claude-plugin/plugin.json")]  # fmt: skip
    assert set(versions) == {__version__}
    server = read("mcp-registry/server.json")
    assert server["name"] == f"io.github.{project_facts.OWNER}/kimi-mcp"
    assert len(server["description"]) <= 100
    assert f"mcp-name: {server['name']}" in (ROOT / "README.md").read_text("utf-8")


def test_the_registry_knows_every_setting_and_which_are_secret() -> None:
    (package,) = read("mcp-registry/server.json")["packages"]
    rows = {row["name"]: row["isSecret"] for row in package["environmentVariables"]}
    secret = {row.name for row in credentials.variables(catalogue.load()) if row.secret} | {"KIMI_DATABASE_URL"}
    assert rows == {row.name: row.name in secret for row in credentials.variables(catalogue.load())}, (
        "a database's URL may hold a password"
    )


def test_forms_hide_the_key_and_hand_every_answer_on() -> None:
    for form, server in (
        (read("mcpb/manifest.json")["user_config"], read("mcpb/manifest.json")["server"]["mcp_config"]),
        (read("claude-code/kimi/.claude-plugin/plugin.json")["userConfig"],
         read("claude-code/kimi/.mcp.json")["mcpServers"]["kimi"]),
    ):  # fmt: skip
        assert form["kimi_api_key"]["sensitive"] is True
        assert not any(question["required"] for question in form.values())
        assert server["env"] == {name.upper(): f"${{user_config.{name}}}" for name in form}
    settings = {row["envVar"]: row["sensitive"] for row in read("gemini-cli/gemini-extension.json")["settings"]}
    assert settings == {"KIMI_API_KEY": True, "KIMI_PROVIDER": False, "KIMI_BASE_URL": False}


def test_the_bundle_lists_the_tools_of_the_skill() -> None:
    assert [tool["name"] for tool in read("mcpb/manifest.json")["tools"]] == [tool.name for tool in load_skill().tools]


def test_the_bundle_lists_the_prompts_with_a_place_for_each_argument_that_they_need() -> None:
    rows = {row["name"]: row for row in read("mcpb/manifest.json")["prompts"]}
    assert list(rows) == list(prompts(load_skill()))
    for name, prompt in prompts(load_skill()).items():
        needed = [argument.name for argument in prompt.arguments if argument.required]
        assert rows[name]["arguments"] == needed
        assert sorted(re.findall(r"\$\{arguments\.(\w+)\}", rows[name]["text"])) == sorted(needed)
        assert prompt.tool in rows[name]["text"]


def test_the_cursor_link_holds_what_the_file_holds() -> None:
    link = urlsplit((FOLDER / "cursor/install-link.txt").read_text("utf-8").strip())
    query = parse_qs(link.query)
    assert (link.scheme, link.netloc, link.path) == ("cursor", "anysphere.cursor-deeplink", "/mcp/install")
    entry = json.loads(base64.b64decode(query["config"][0]))
    assert {query["name"][0]: entry} == read("cursor/mcp.json")["mcpServers"]


def test_agent_plugins_hold_no_setting_for_nothing_is_filled_in_there() -> None:
    (server,) = read("agent-plugins/mcp.json")["mcpServers"].values()
    assert server == {"type": "stdio", "command": "kimi-mcp", "args": []}


def test_a_description_that_is_too_long_for_a_skill_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from scripts.manifests.documents import agent_skill

    facts = project_facts.read_facts()
    with pytest.raises(ValueError, match="shorten"):
        agent_skill(replace(facts, head={**facts.head, "description": "x" * 1100}))


def test_what_hosts_ask_for_has_a_title() -> None:
    assert set(project_facts.ASKED) <= plugins.TITLES.keys()
