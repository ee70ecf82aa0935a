"""skill.md: the source of tools and triggers, and every way in which it can fail to be one."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimi_mcp.server.tools import TOOLS, listed_tools
from kimi_mcp.skill.document import Skill, SkillError, load_skill

HEAD = """\
---
id: kimi
name: Kimi
type: skill
status: active
priority: high
license: MIT
execution: {target: mcp}
dependencies: {env: [KIMI_API_KEY]}
limits: {routed_chars: 4000}
description: Ask Kimi.
triggers: [kimi]
default_tool: kimi_think
tools:
"""
TOOL = """\
  - name: {name}
    title: T
    mode: thinking
    summary: S.
    when: w
    when_not: n
    triggers: [t]
"""


def written(folder: Path, text: str, newline: str = "\n") -> Path:
    file = folder / "skill.md"
    file.write_text(text, encoding="utf-8", newline=newline)
    return file


def skill_of(folder: Path, *names: str) -> Skill:
    """The skill of these tools, the first of them its default."""
    rows = "".join(TOOL.format(name=name) for name in names)
    head = HEAD.replace("default_tool: kimi_think", f"default_tool: {names[0]}")
    return load_skill(written(folder, f"{head}{rows}---\n\n# Text\n"))


def test_the_skill_and_the_code_know_the_same_tools() -> None:
    skill = load_skill()
    assert [tool.name for tool, _ in listed_tools(skill)] == [tool.name for tool in skill.tools]
    assert {tool.name for tool in skill.tools} == set(TOOLS)
    assert skill.default_tool == "kimi_think"
    assert {"kimi", "kimi k2.5", "moonshot"} <= set(skill.triggers)


def test_the_skill_says_of_each_tool_the_mode_that_the_code_has() -> None:
    for tool in load_skill().tools:
        assert tool.mode == (TOOLS[tool.name].mode or "none")


def test_descriptions_say_when_and_when_not() -> None:
    skill = load_skill()
    for tool in skill.tools:
        assert tool.when in tool.description
        assert tool.when_not in tool.description
        assert tool.name in skill.instructions
        assert tool.triggers


def test_a_tool_that_nobody_built_stops_the_start(tmp_path: Path) -> None:
    skill = skill_of(tmp_path, *TOOLS, "kimi_dance")
    with pytest.raises(SkillError, match="kimi_dance"):
        listed_tools(skill)


@pytest.mark.parametrize("left_out", TOOLS)
def test_a_tool_that_the_skill_does_not_list_stops_the_start(tmp_path: Path, left_out: str) -> None:
    skill = skill_of(tmp_path, *(name for name in TOOLS if name != left_out))
    with pytest.raises(SkillError, match=left_out):
        listed_tools(skill)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# No frontmatter\n",
        "---\n",
        "---\nname: x\n",
        "text\n---\nname: x\n---\n",
        "---\n[1, 2]\n---\n",
        "---\njust words\n---\n",
        "---\na: [unclosed\n---\n",
        "---\n\ta: tab\n---\n",
        "---\na: !!python/object/apply:os.system [ls]\n---\n",
        "---\ndescription: x\n---\n",
        "---\ndescription: x\ntriggers: [a]\ndefault_tool: y\n---\n",
        "---\ndescription: x\ntriggers: [a]\ndefault_tool: y\ntools: 5\n---\n",
        "---\ndescription: x\ntriggers: [a]\ndefault_tool: y\ntools: null\n---\n",
        "---\ndescription: x\ntriggers: [a]\ndefault_tool: y\ntools: [5]\n---\n",
        "---\ndescription: x\ntriggers: [a]\ndefault_tool: y\ntools: [kimi_think]\n---\n",
        "---\ndescription: x\ntriggers: null\ndefault_tool: y\ntools: []\n---\n",
        f"{HEAD}  - name: kimi_think\n    title: T\n---\n",
    ],
    ids=ascii,
)
def test_a_broken_frontmatter_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(SkillError) as raised:
        load_skill(written(tmp_path, text))
    assert "skill.md" in str(raised.value)
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize(
    "line",
    [
        "default_tool: 5",
        "description: [a]",
        "default_tool: kimi_dance",
        "triggers: kimi",
        "execution: mcp",
        "limits: {a: b}",
        "limits: {}",
        "license: 5",
    ],
)
def test_a_value_of_the_wrong_kind_is_an_error_too(tmp_path: Path, line: str) -> None:
    name = line.partition(":")[0]
    kept = [row for row in HEAD.splitlines() if not row.startswith(f"{name}:")]
    rows = "".join(TOOL.format(name=tool) for tool in TOOLS)
    text = "\n".join([kept[0], line, *kept[1:]]) + "\n" + rows + "---\n"
    with pytest.raises(SkillError):
        listed_tools(load_skill(written(tmp_path, text)))


def test_a_file_that_is_missing_or_no_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SkillError, match=r"skill\.md"):
        load_skill(tmp_path / "skill.md")
    (tmp_path / "skill.md").write_bytes(b"---\n\xff\xfe\n---\n")
    with pytest.raises(SkillError, match=r"skill\.md"):
        load_skill(tmp_path / "skill.md")


def test_windows_line_ends_are_line_ends(tmp_path: Path) -> None:
    rows = "".join(TOOL.format(name=name) for name in TOOLS)
    skill = load_skill(written(tmp_path, f"{HEAD}{rows}---\n\n# Text\n", newline="\r\n"))
    assert [tool.name for tool in skill.tools] == list(TOOLS)
