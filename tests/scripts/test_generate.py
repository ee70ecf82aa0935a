"""The documents: what follows from the code is up to date, and what was written by hand agrees with it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kimi_mcp import catalogue, policy
from kimi_mcp.catalogue import credentials
from kimi_mcp.core import errors
from kimi_mcp.core.outcome import Outcome, structured, text
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.types import Request, user
from kimi_mcp.server.tools import OUTPUT_SCHEMA
from kimi_mcp.simulator.dialects import FACTS_DAY
from scripts import generate
from scripts.generate import PLACES, ROOT, blocks, codes, main, renewed
from scripts.generate.markdown import table
from scripts.manifests.facts import OWNER
from tests import contract

README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "skill.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
PAGES = [path for path in DOCUMENTS if path.name not in ("CHANGELOG.md", "skill.md")]


def page(name: str) -> str:
    """One page under ``docs/``."""
    return (ROOT / "docs" / f"{name}.md").read_text("utf-8")


SETTINGS = page("reference/settings")


def copied(folder: Path) -> Path:
    """A folder with the generated documents in it."""
    for file in {file for file, _, _ in PLACES}:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / file)
    return folder


# ------------------------------------------------------------------------------------------------- blocks


def test_every_generated_block_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--check"])
    assert status == 0, capsys.readouterr().err


def test_the_check_names_the_stale_file_and_the_command_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = copied(tmp_path) / "docs/reference/settings.md"
    stale = SETTINGS.replace("| `KIMI_POLICY` |", "| `KIMI_POLITE` |")
    file.write_text(stale, "utf-8")

    assert main(["--check"], tmp_path) == 1

    printed = capsys.readouterr().err
    assert "docs/reference/settings.md" in printed
    assert "python -m scripts.generate" in printed
    assert file.read_text("utf-8") == stale


def test_a_stale_file_is_written_anew_and_nothing_outside_its_blocks_changes(tmp_path: Path) -> None:
    file = copied(tmp_path) / "docs/reference/settings.md"
    file.write_text(SETTINGS.replace("| `KIMI_POLICY` |", "| `KIMI_POLITE` |"), "utf-8")

    assert main([], tmp_path) == 0

    assert file.read_text("utf-8") == SETTINGS
    assert main(["--check"], tmp_path) == 0


def test_a_stale_skill_is_renewed_in_the_manifests_by_the_same_run(tmp_path: Path) -> None:
    skill = copied(tmp_path) / "skill.md"
    skill.write_text(skill.read_text("utf-8").replace("# Kimi", "# The Kimi", 1), "utf-8")

    assert main([], tmp_path) == 0

    copies = list(tmp_path.glob("manifests/**/SKILL.md"))
    assert len(copies) > 1
    assert all("# The Kimi" in file.read_text("utf-8") for file in copies)
    assert main(["--check"], tmp_path) == 0


@pytest.mark.parametrize(("file", "name"), [(file, name) for file, name, _ in PLACES])
def test_a_missing_block_is_named(file: str, name: str) -> None:
    whole = (ROOT / file).read_text("utf-8")
    with pytest.raises(ValueError, match=f"generated: {name} "):
        renewed(whole.replace(f"<!-- generated: {name} -->", "").replace(f"# generated: {name}\n", "#\n"), file)


def test_every_marker_in_a_document_belongs_to_a_place() -> None:
    marked = [
        (path.relative_to(ROOT).as_posix(), name)
        for path in DOCUMENTS
        for name in re.findall(r"(?m)^(?:<!--| *#) generated: (\w+)(?: -->)?$", path.read_text("utf-8"))
    ]
    assert sorted(marked) == sorted((file, name) for file, name, _ in PLACES)


def test_the_command_runs_as_the_check_says() -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "scripts.generate", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr


def test_no_block_asks_for_the_day() -> None:
    for file in Path(generate.__file__).parent.glob("*.py"):
        assert not re.search(r"\btoday\(|\bnow\(|\btime\.", file.read_text("utf-8")), file.name


def test_the_codes_are_those_of_the_contract() -> None:
    assert set(contract.CODES) == set(codes.NEXT)


def test_the_errors_page_lists_reserved_codes_only_where_there_are_some(tmp_path: Path) -> None:
    assert "Reserved" not in codes.error_codes()
    (tmp_path / "code.py").write_text("raise RunNotFound", "utf-8")
    named, _, reserved = codes.error_codes(tmp_path).partition("\n\nReserved, and raised by nothing yet: ")
    assert set(re.findall(r"(?m)^\| `(\w+)`", named)) == {"run_not_found"}
    assert set(re.findall("`(.+?)`", reserved)) == set(codes.NEXT) - {"run_not_found"}


def test_the_errors_page_has_the_sentence_of_every_error_that_is_raised() -> None:
    (row,) = re.findall(r"(?m)^\| `path_refused` .*", codes.error_codes())
    assert str(errors.PathRefused.__doc__) in row
    assert str(errors.TooManyFiles.__doc__) in row
    assert "| no Or: yes |" in row


def test_what_moonshot_no_longer_serves_is_not_listed_as_what_its_key_gets() -> None:
    assert "kimi-k2.5" not in blocks.moonshot()
    assert "kimi-k2.6" in blocks.moonshot()


def test_weights_need_the_gpu_that_the_table_names() -> None:
    assert "1 GPU, 48 GB of GPU memory, 600 GB of main memory" in blocks.weights()


def test_no_cell_breaks_its_table() -> None:
    made = table(("a|b", "c"), [("one\ntwo", "<|im_end|> and KIMI_MODEL, `KIMI_POLICY`")])
    assert made.splitlines()[-1] == r"| one two | `<\|im_end\|>` and `KIMI_MODEL`, `KIMI_POLICY` |"
    for block in (make() for _, name, make in PLACES if name not in ("registry", "keys")):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        columns = {re.sub(r"\\\|", "", row).count("|") for row in rows}
        assert rows
        assert len(columns) <= len(re.findall(r"(?m)^\| ---", block))


# ------------------------------------------------------------------------------------------------- the README


def test_the_result_page_explains_every_field_of_a_result_and_no_other() -> None:
    named = [name for cell in re.findall(r"(?m)^\| (`.+?`) \|", page("reference/result")) for name in cell.split(", ")]
    assert sorted(name.strip("`") for name in named) == sorted(OUTPUT_SCHEMA["properties"])
    assert set(OUTPUT_SCHEMA["properties"]) == set(structured(Outcome(status="running"), reasoning_chars=0))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_names_no_setting_that_is_not_read(path: Path) -> None:
    known = {variable.name for variable in credentials.variables(catalogue.load())}
    assert set(re.findall(r"\bKIMI_[A-Z_]+\b", path.read_text("utf-8"))) <= known


def test_the_readme_is_one_read() -> None:
    assert len(README.encode()) <= 10_000


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_has_lines_that_fit_an_editor(path: Path) -> None:
    written = re.sub(r"(?ms)^<!-- generated: .+?^<!-- end -->", "", path.read_text("utf-8"))
    assert [line for line in written.splitlines() if len(line) > 100 and not line.startswith(("|", ">"))] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_names_no_file_of_the_checkout_that_is_not_there(path: Path) -> None:
    text = path.read_text("utf-8")
    named = re.findall(r"`((?:kimi_mcp|tests|scripts|docs|benchmarks|requirements)/[\w./-]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
    modules = {file.name for top in ("kimi_mcp", "tests", "scripts") for file in (ROOT / top).rglob("*.py")}
    assert set(re.findall(r"`(\w+\.py)`", text)) <= modules


def test_every_rule_that_a_page_names_is_one() -> None:
    named = re.findall(r"`([a-z]+(?:-[a-z]+)+)`", page("reference/policy") + page("troubleshooting"))
    assert set(named) - {"moonshot-cn"} <= set(policy.load_rules())


def test_every_error_code_is_documented() -> None:
    for code in codes.NEXT:
        assert f"`{code}`" in page("reference/errors")


def test_the_line_that_the_readme_shows_is_what_the_policy_says() -> None:
    profile = catalogue.load().profile("simulator", "kimi-k2.5")
    assert profile is not None
    gathered = policy.PolicyContext(
        day=FACTS_DAY, base_url=profile.provider.base_url, allowed_providers=(profile.provider.id,)
    )
    request = Request(mode="thinking", turns=(user("?"),), sampling={"temperature": 0.3})
    plan = policy.decide(request, profile, gathered)
    assert isinstance(plan, Plan)
    assert text(Outcome(status="completed", policy=plan.adjustments)) in README


def test_what_the_readme_says_a_host_is_to_read_can_be_read() -> None:
    found = re.findall(r"```json\n(.+?)```", README + page("guides/install"), re.DOTALL)
    assert found
    for snippet in map(json.loads, found):
        (server,) = (snippet.get("mcpServers") or snippet["servers"]).values()
        assert server["command"] == "/path/to/kimi-mcp/.venv/bin/kimi-mcp"
        assert set(server["env"]) == {"MOONSHOT_API_KEY"}


def test_the_scenario_that_the_readme_shows_is_one(tmp_path: Path) -> None:
    from kimi_mcp.simulator import load_scenario

    (found,) = re.findall(r"```toml\n(.+?)```", page("guides/simulator"), re.DOTALL)
    (tmp_path / "faults.toml").write_text(found, "utf-8")
    assert len(load_scenario(tmp_path / "faults.toml")) == found.count("[[steps]]")


def test_the_registry_finds_its_line() -> None:
    assert f"mcp-name: io.github.{OWNER}/kimi-mcp" in README


# ------------------------------------------------------------------------------------------------- every document


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_document_sends_nobody_to_a_package_that_is_not_ours(path: Path) -> None:
    assert not re.search(r"\b(uvx|pipx|pip install|uv (add|tool|run)|npx)\b[^\n]*\bkimi-mcp\b", path.read_text("utf-8"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_document_links_to_is_there(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        file, _, heading = target.partition("#")
        if "://" in target:
            continue
        assert (path.parent / file).exists(), target
        if heading and not file:
            headings = re.findall(r"(?m)^#+ (.+)$", path.read_text("utf-8"))
            assert heading in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, target


def test_the_architecture_says_what_every_package_owns() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \|", page("architecture"))
    assert sorted(rows) == sorted(path.parent.name for path in (ROOT / "kimi_mcp").glob("*/__init__.py"))


def test_nothing_but_packages_stands_at_the_top() -> None:
    entries = {path.name for path in (ROOT / "kimi_mcp").iterdir() if path.name != "__pycache__"}
    files = entries - {path.parent.name for path in (ROOT / "kimi_mcp").glob("*/__init__.py")}
    assert files == {"__init__.py", "__main__.py", "py.typed"}
    assert len(entries - files) <= 14
