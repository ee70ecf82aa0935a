"""The documents of the view: what they weigh, how the modules are joined, and that no text in them is markup."""

from __future__ import annotations

import json
import re
import tomllib
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kimi_mcp.view import documents

WEIGHT = 150_000
"""Bytes that a page may weigh, uncompressed."""

LOADED = ("view.css", "library.js", "live.js")


class Elements(HTMLParser):
    """The elements of a document, with what stands in them."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.inside = False
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            tag, attributes, text = self.found[-1]
            self.found[-1] = (tag, attributes, text + data)

    def named(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, text) for found, attributes, text in self.found if found == tag]


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, **modules: str) -> None:
    """Modules in place of the view's own."""
    for name, source in modules.items():
        (folder / f"{name}.js").write_text(source, "utf-8")
    monkeypatch.setattr(documents, "ASSETS", folder)


def test_the_live_page_weighs_at_most_150_kb() -> None:
    total = len(documents.live_document().encode()) + sum(len(documents.asset(name)[0]) for name in LOADED)
    assert total <= WEIGHT


def test_the_file_of_a_run_weighs_at_most_150_kb_without_its_data() -> None:
    assert len(documents.still_document({}).encode()) <= WEIGHT


def test_the_app_of_a_host_weighs_at_most_150_kb() -> None:
    assert len(documents.app_document().encode()) <= WEIGHT


def test_every_library_is_the_one_that_the_lock_pins() -> None:
    vendor = documents.ASSETS / "vendor"
    lock = tomllib.loads((vendor / "lock.toml").read_text("utf-8"))
    pinned = {name: file["sha256"] for library in lock.values() for name, file in library["files"].items()}
    found = {file.name: sha256(file.read_bytes()).hexdigest() for file in vendor.iterdir() if file.name != "lock.toml"}
    assert found == pinned
    assert {name for name in pinned if name.endswith(".js")} == set(documents.LIBRARIES)


def test_the_live_page_has_no_script_of_its_own_and_loads_each_file_by_its_hash() -> None:
    page = Elements(documents.live_document("/looking"))
    loaded = [attributes["src"] for attributes, _ in page.named("script")]
    loaded += [attributes["href"] for attributes, _ in page.named("link") if attributes["rel"] == "stylesheet"]
    assert sorted(loaded, key=str) == sorted(
        f"/looking/assets/{name}?v={documents.asset_hash(name)}" for name in LOADED
    )
    assert not any(text.strip() for _, text in page.named("script"))


def test_a_base_is_never_markup() -> None:
    page = Elements(documents.live_document('/"><script>alert(1)</script>'))
    assert len(page.named("script")) == 2


def test_an_unknown_asset_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        documents.asset("../documents.py")


def test_a_runs_texts_stay_data_in_its_file() -> None:
    hostile = {"answer": "</script><script>alert(1)</script><!-- <script> --> {BASE} <!-- HEAD -->"}
    page = Elements(documents.still_document(hostile))
    ((_, data),) = [found for found in page.named("script") if found[0].get("type") == "application/json"]
    assert json.loads(data) == hostile
    assert len(page.named("script")) == 3


def test_the_policy_of_a_file_allows_its_own_scripts_and_styles_alone() -> None:
    page = Elements(documents.still_document({}))
    (policy,) = [found["content"] for found, _ in page.named("meta") if "http-equiv" in found]
    inline = [text for found, text in page.named("script") if found.get("type") != "application/json"]
    inline += [text for _, text in page.named("style")]
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in inline]
    assert sorted(re.findall(r"'sha256-(.+?)'", str(policy))) == sorted(hashes)
    assert str(policy).startswith("default-src 'none';")
    assert "unsafe" not in str(policy)


def test_a_module_stands_after_those_that_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(
        tmp_path,
        monkeypatch,
        live='// The page.\n\nimport { one } from "./one.js";\nimport { two } from "./two.js";\n\nshow(one, two());\n',
        one='import {\n  two,\n} from "./two.js";\n\n/** One.\n * @type {number} */\nexport const one = two();\n',
        two="/** Two. */\nexport function two() {\n  return 2;\n}\n",
    )
    assert documents.joined("live") == "function two() {\nreturn 2;\n}\nconst one = two();\nshow(one, two());\n"


def test_only_comments_that_have_their_lines_to_themselves_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = 'const a = "/*"; // kept\n  /* gone */\n/* kept */ const b = 1;\n\n\n/** gone,\n * too */\nshow(a, b);\n'
    written(tmp_path, monkeypatch, live=source)
    assert documents.joined("live") == 'const a = "/*"; // kept\n/* kept */ const b = 1;\nshow(a, b);\n'


@pytest.mark.parametrize(
    ("live", "other", "why"),
    [
        ('import { one } from "./other.js";\n', "export function two() {}\n", "exports no such name"),
        ('import { one } from "./other.js";\n', 'import { live } from "./live.js";\n', "imports itself"),
        ('import { one } from "./other.js";\nfunction two() {}\n', "const two = 2;\nexport const one = 1;\n", "both"),
        ('import one from "./other.js";\n', "", "can't be joined"),
        ("export default 1;\n", "", "can't be joined"),
    ],
    ids=["unknown-name", "circle", "one-name-twice", "default-import", "default-export"],
)
def test_a_module_against_the_convention_is_refused(
    live: str, other: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, monkeypatch, live=live, other=other)
    with pytest.raises(ValueError, match=why):
        documents.joined("live")
