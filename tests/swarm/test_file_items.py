"""Items that are files or globs: each agent gets its file whole, and what can't be an item is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.json_values import to_json
from kimi_mcp.media.roots import find_roots
from kimi_mcp.simulator import Simulator
from kimi_mcp.swarm.call import SwarmCall, check_items
from kimi_mcp.swarm.items import with_files
from tests.media.documents import pdf
from tests.swarm.scenarios import SYNTHESIS, agents, chats, swarm, task_of

TELL = "Review {{item}}."
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("src/a.py", "src/b.py", "src/deep/c.py", "notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n```\nfence\n```\n")
    return tmp_path


def found(root: Path, *items: str, prompt: str = "Review {{item}}.", **more: Any) -> SwarmCall:
    call = SwarmCall(prompt=prompt, items=items, **more)
    return check_items(with_files(call, find_roots(str(root), working=str(root)), {}))


def refused(root: Path, *items: str, **more: Any) -> KimiError:
    with pytest.raises(KimiError) as raised:
        found(root, *items, **more)
    return raised.value


def whole(tasks: Sequence[str], root: Path, *names: str) -> bool:
    """Whether each task has the text of one file, in their order."""
    return all((root / name).read_text() in task for name, task in zip(names, tasks, strict=True))


async def test_a_glob_makes_an_agent_of_each_file_who_gets_its_whole_text(sim: Simulator, root: Path) -> None:
    outcome = await swarm(sim, "Review {{item}}.", items=("src/**/*.py",), variables={"KIMI_ROOTS": str(root)})
    assert outcome.status == "completed", outcome.error
    names = ["src/a.py", "src/b.py", "src/deep/c.py"]
    assert [agent["name"] for agent in agents(outcome)] == names
    assert len(chats(sim, SYNTHESIS)) == 1
    tasks = sorted(task for request in chats(sim) if (task := task_of(request)).startswith("Review src"))
    assert whole(tasks, root, *names)


async def test_an_item_that_is_a_pdf_or_pages_of_one_is_read_here(sim: Simulator, root: Path) -> None:
    for name in ("one.pdf", "two.pdf"):
        (root / name).write_bytes(pdf(f"First of {name}", f"Second of {name}"))
    more = {"KIMI_ROOTS": str(root)}
    for items in (("*.pdf",), ("one.pdf", "two.pdf#page=2")):
        outcome = await swarm(sim, "Review {{item}}.", items=items, variables=more)
        assert outcome.status == "completed", outcome.error
    tasks = [task for task in map(task_of, chats(sim)) if task.startswith("Review")]
    assert [sum(f"First of {name}" in task for task in tasks) for name in ("one.pdf", "two.pdf")] == [2, 1]
    assert [sum(f"Second of {name}" in task for task in tasks) for name in ("one.pdf", "two.pdf")] == [2, 2]
    assert [request.path for request in sim.requests if "files" in request.path] == []


async def test_a_pdf_that_cannot_be_read_is_refused_before_anything_is_paid_for(sim: Simulator, root: Path) -> None:
    (root / "scan.pdf").write_bytes(pdf(""))
    outcome = await swarm(sim, "Review {{item}}.", items=("scan.pdf", "notes.md"), variables={"KIMI_ROOTS": str(root)})
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == ("failed", "media_rejected")
    assert "kimi_vision" in outcome.error.fix
    assert chats(sim) == []


async def test_forty_agents_get_forty_files_of_this_repository_whole(sim: Simulator) -> None:
    paths = sorted(REPOSITORY.glob("kimi_mcp/[c-r]*/*.py"))[:40]
    items = tuple(path.relative_to(REPOSITORY).as_posix() for path in paths)
    more = {"KIMI_ROOTS": str(REPOSITORY), "KIMI_BUDGET_USD_PER_SWARM": "100"}
    outcome = await swarm(sim, "Review {{item}}.", items=items, variables=more)
    assert outcome.status == "completed", outcome.error
    tasks = {task.split("\n")[0]: task for task in map(task_of, chats(sim))}
    for path, name in zip(paths, items, strict=True):
        assert path.read_text() in tasks[f"Review {name}."]


def test_files_and_globs_are_items_once_each_under_names_that_lead_back_to_them(root: Path) -> None:
    call = found(root, "src/b.py", "src/*.py", "notes.md", "./notes.md", "src/[a-b].py")
    assert call.items == ("src/b.py", "src/a.py", "notes.md")
    assert whole(call.tasks, root, *call.items)
    assert call.tasks[0].startswith("Review src/b.py.\n\n## src/b.py\n\n````\n")


def test_long_items_beside_files_are_looked_at_in_linear_time(root: Path) -> None:
    long = "[" * 1_000_000 + " ["
    assert found(root, "notes.md", long).items == ("notes.md", long)


def test_a_prompt_about_files_needs_no_place_for_them(root: Path) -> None:
    assert whole(found(root, "src/*.py", prompt="Review this.").tasks, root, "src/a.py", "src/b.py")


def test_items_that_name_no_file_stay_as_they_are(root: Path) -> None:
    for items in (("Rome", "Oslo"), ("src", "notes"), ("What is 2*3?", "Why [not]?"), ("a/b.py", "c/d.py")):
        assert found(root, *items) == SwarmCall(prompt="Review {{item}}.", items=items)
    mixed = found(root, "notes.md", "the rest of it")
    assert mixed.tasks[1] == "Review the rest of it."


@pytest.mark.parametrize(
    ("items", "code", "words"),
    [
        (("none/*.py",), "invalid_arguments", "fits no text file"),
        (("../*.py",), "path_refused", "outside the folders"),
        (("src/deep/*.py",), "invalid_arguments", "1 entry"),
        (("notes.md", "typo.md"), "invalid_arguments", "`items[1]` is no text file"),
        (("notes.md", ".env"), "path_refused", "keys or passwords"),
        (("notes.md", "picture.png"), "media_rejected", "is a picture"),
        (("notes.md", "../outside.md"), "invalid_arguments", "`items[1]` is no text file"),
        (("notes.md", "notes.pdf#page=0"), "invalid_arguments", "`#page=0` names no pages"),
        (("notes.md", "link.md"), "invalid_arguments", "`items[1]` is no text file"),
        (("many/*.txt",), "invalid_arguments", "more than 128"),
        (("notes.md", "src/*.py", "src/a.py"), "invalid_arguments", "`max_agents` allows 2"),
    ],
)
def test_what_can_not_be_an_item_is_refused(root: Path, items: tuple[str, ...], code: str, words: str) -> None:
    (root.parent / "outside.md").write_text("secret")
    (root / ".env").write_text("KEY=1")
    (root / "link.md").symlink_to(root.parent / "outside.md")
    (root / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    (root / "many").mkdir()
    for number in range(129):
        (root / "many" / f"{number}.txt").write_text("x")
    error = refused(root, *items, max_agents=2 if "max_agents" in words else None)
    assert error.code == code
    assert words in error.message
    assert str(root) not in error.message + error.fix


def test_a_glob_without_roots_is_refused_with_the_reason() -> None:
    with pytest.raises(KimiError) as raised:
        with_files(SwarmCall(prompt="Review {{item}}.", items=("*.py",)), find_roots(None, working="/"), {})
    assert raised.value.code == "path_refused"
    assert "KIMI_ROOTS" in raised.value.fix


async def test_items_that_only_look_like_files_are_reported(sim: Simulator, root: Path) -> None:
    outcome = await swarm(sim, TELL, items=("scr/a.py", "scr/b.py"), variables={"KIMI_ROOTS": str(root)})
    assert outcome.status == "completed"
    assert "though all look like files" in str(outcome.policy)


async def test_a_file_that_is_too_large_for_every_agent_is_refused_before_anything_is_sent(
    sim: Simulator, root: Path
) -> None:
    (root / "src" / "long.py").write_text("x = 1\n" * 200_000)
    outcome = await swarm(sim, items=("src/*.py",), variables={"KIMI_ROOTS": str(root)})
    assert outcome.error is not None
    assert outcome.error.code == "context_too_long"
    assert "long.py" in outcome.error.message
    assert chats(sim) == []


def test_a_recorded_swarm_has_the_texts_that_it_began_with(root: Path) -> None:
    call = found(root, "src/*.py")
    (root / "src" / "a.py").write_text("changed")
    assert SwarmCall.from_json(to_json(call)).tasks == call.tasks
