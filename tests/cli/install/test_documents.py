"""Hosts' files as people write them: what is meant to change changes, and nothing else does."""

from __future__ import annotations

import json
import random
import tomllib
from typing import Any

import pytest
import yaml

from kimi_mcp.cli.install.documents import FORMATS, changed
from kimi_mcp.cli.install.jsonc import InvalidJson

ENTRY = {"command": "/opt/my tools/kimi-mcp", "args": [], "env": {"KIMI_MODEL": 'ki"mi ü'}}
WAY = ("servers", "kimi")

JSONC = {
    "comments": '{\n  // mine\n  "servers": {\n    "a": {"command": "x"} /* tail */\n  },\n  "z": 1 // last\n}\n',
    "comment-behind-the-last": '{\n  "servers": {\n    "a": {} // about a\n    // about nothing\n  }\n}\n',
    "trailing-commas": '{\n  "servers": {\n    "a": {},\n  },\n}\n',
    "tabs": '{\n\t"other": [\n\t\t1\n\t],\n\t"servers": {\n\t\t"a": {}\n\t}\n}',
    "odd-indentation": '{\n "servers" :\n      { "a":\n {} }\n     ,   "b": [ ] }',
    "crlf": '{\r\n    "servers": {\r\n        "a": {}\r\n    }\r\n}\r\n',
    "one-line": '{"servers": {"a": {"command": "x"}}, "é": "日本"}',
    "slashes-in-texts": '{\n  "servers": {\n    "a": {"command": "http://x/*y*/", "b": "\\"// no"}\n  }\n}\n',
    "no-servers": '{\n  "theme": "dark" // mine\n}\n',
    "empty-servers": '{\n  "servers": {}\n}\n',
    "only-comments-in-servers": '{\n  "servers": {\n    // none yet\n  }\n}\n',
    "comment-in-braces": '{"servers": {/* none yet */}} // end\n',
    "same-name-twice": '{\n  "servers": {"old": {}},\n  "servers": {\n    "a": {}\n  }\n}\n',
    "numbers-and-words": '{\n  "n": -1.5e3, "t": true, "f": false, "nil": null,\n  "servers": {\n    "a": {}\n  }\n}\n',
}

TOML = {
    "comments": 'model = "x" # mine\n\n[servers.a]\ncommand = "y"\n\n# about the features\n[features]\nweb = true\n',
    "crlf": '[servers.a]\r\ncommand = "x"\r\n',
    "no-line-end": "a = 1",
    "inline": 'servers = {a = {command = "x"}} # all\n',
    "dotted": 'servers.a.command = "x"\n\n[z]\nb = 1\n',
    "out-of-order": '[servers.a.env]\nX = "1"\n[z]\n[servers.c]\ncommand = "y"\n',
    "arrays": 'notify = [\n  "a", # one\n  "[servers.kimi]",\n]\n[servers.a]\ncommand = """\n[servers.kimi]\n"""\n',
    "comments-alone": "# nothing yet\n",
}

YAML = {
    "comments": "# mine\nservers:\n  a:\n    cmd: x # tail\n  # on b\n  b:\n    list:\n      - 1\n\n# the rest\nz: 1\n",
    "block-texts": "servers:\n  a:\n    text: |\n      one\n      two\n\nz: 1\n",
    "four-spaces": "servers:\n    a:\n        cmd: x\nz: 1\n",
    "crlf": "servers:\r\n  a:\r\n    cmd: x\r\nz: 1\r\n",
    "no-line-end": "z: 1\nservers:\n  a: {cmd: x}",
    "braces": "servers: {a: {cmd: x}} # all\nz: 1\n",
    "no-servers": "GOOSE_MODEL: é\n",
    "anchors": "base: &base\n  cmd: x\nservers:\n  a: *base\nz: 1\n",
    "document-marks": "---\nservers:\n  a: 1\n...\n",
}

CASES = [
    *(("jsonc", name, text) for name, text in JSONC.items()),
    *(("toml", name, text) for name, text in TOML.items()),
    *(("yaml", name, text) for name, text in YAML.items()),
]
each_text = pytest.mark.parametrize(("kind", "text"), [pytest.param(k, t, id=f"{k}-{n}") for k, n, t in CASES])


def put(kind: str, text: str, value: Any = None, way: tuple[str, ...] = WAY) -> str:
    return changed(FORMATS[kind], text, put=[(way, ENTRY if value is None else value)])


def stays(old: str, new: str) -> bool:
    """Whether every line of the old text stands in the new one, in its order; a comma may have come behind a value."""
    rest = iter(new.replace(",", "").splitlines())
    return all(any(line == there for there in rest) for line in old.replace(",", "").splitlines())


@each_text
def test_an_entry_is_put_in_and_everything_else_stays(kind: str, text: str) -> None:
    before, after = FORMATS[kind].read(text), FORMATS[kind].read(put(kind, text))
    assert after["servers"].pop("kimi") == ENTRY
    assert after == before | {"servers": before.get("servers") or {}}


@each_text
def test_what_was_put_in_and_cut_out_again_leaves_the_text_as_it_was(kind: str, text: str) -> None:
    back = changed(FORMATS[kind], put(kind, text), cut=[WAY])
    if "servers" in FORMATS[kind].read(text):
        assert "".join(back.split()) == "".join(text.split())
        assert stays(text, back) or "\n {}" in text or 'servers": {}' in text
    else:
        assert stays(text, back)


IN_ONE_LINE = ("odd-indentation", "comment-in-braces", "one-line", "empty-servers", "braces", "inline")


@pytest.mark.parametrize(
    ("kind", "text"), [pytest.param(k, t, id=f"{k}-{n}") for k, n, t in CASES if n not in IN_ONE_LINE]
)
def test_no_line_is_lost_or_moved(kind: str, text: str) -> None:
    assert stays(text, put(kind, text))


@each_text
def test_line_ends_stay_what_they_are(kind: str, text: str) -> None:
    new = put(kind, text)
    assert new.count("\n") == new.count("\r\n") * (1 if "\r\n" in text else 0) or "\r\n" not in text
    assert ("\r\n" in new) == ("\r\n" in text)


@each_text
def test_every_reader_of_that_kind_reads_it(kind: str, text: str) -> None:
    new = put(kind, text)
    if kind == "toml":
        assert tomllib.loads(new)["servers"]["kimi"] == ENTRY
    elif kind == "yaml":
        assert yaml.safe_load(new)["servers"]["kimi"] == ENTRY
    elif not any(sign in text for sign in ("//", "/*", ",\n  }")):
        assert json.loads(new)["servers"]["kimi"] == ENTRY


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("text", ["", "\n", "  \n"])
def test_a_text_that_says_nothing_gets_the_entry_alone(kind: str, text: str) -> None:
    assert FORMATS[kind].read(put(kind, text)) == {"servers": {"kimi": ENTRY}}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_value_that_stands_already_changes_no_byte(kind: str) -> None:
    once = put(kind, "")
    assert put(kind, once) == once


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("jsonc", '{\n  "servers": {\n    "kimi": {\n      "command": "old", // mine\n      "x": 1\n    }\n  }\n}\n'),
        ("toml", '[servers.kimi]\ncommand = "old" # mine\nx = 1\n\n# about z\n[z]\n'),
        ("yaml", "servers:\n  kimi:\n    command: old\n    # mine\n    x: 1\n"),
    ],
)
def test_one_value_is_changed_in_its_place(kind: str, text: str) -> None:
    new = put(kind, text, "/new", (*WAY, "command"))
    assert FORMATS[kind].read(new)["servers"]["kimi"] == {"command": "/new", "x": 1}
    assert new.replace('"/new"', '"old"').replace("command: /new", "command: old") == text


def test_a_comment_that_follows_an_entry_stays() -> None:
    text = (
        '[servers.kimi]\ncommand = "x"\n\n[servers.kimi.env]\nA = "b"\n\n# about the features\n[features]\nweb = true\n'
    )
    assert changed(FORMATS["toml"], text, cut=[WAY]).strip() == "# about the features\n[features]\nweb = true"
    text = "servers:\n  kimi:\n    cmd: x\n  # about b\n  b: 1\n"
    assert changed(FORMATS["yaml"], text, cut=[WAY]) == "servers:\n  # about b\n  b: 1\n"


BROKEN = [
    ("json", '{"a": 1', "line 1, column 8"),
    ("json", '{"a": 1} x', "more than one value"),
    ("json", '{"a": 1,}', "comma too many"),
    ("json", "{\n  // no\n}", "comment, which this host does not allow, line 2, column 3"),
    ("json", "{'a': 1}", "no name in quotation marks"),
    ("json", '{"a" 1}', "no colon"),
    ("json", '{"a": 1 "b": 2}', "no comma"),
    ("json", '{"a": "x\n"}', "not closed"),
    ("json", '{"a": nil}', "no value"),
    ("jsonc", "{" * 5, "no name"),
    ("jsonc", "[" * 100_000, "without end"),
    ("jsonc", '{"servers": [1]}', "not of the kind that holds servers"),
    ("jsonc", "[1]", "not of the kind that holds servers"),
    ("toml", "a = \n", "line 1"),
    ("toml", "servers = 3\n", "not of the kind that holds servers"),
    ("yaml", "a: [1\n", "line 2"),
    ("yaml", "- 1\n", "not of the kind that holds servers"),
    ("yaml", "a: 1\n---\nb: 2\n", "document"),
    ("yaml", "servers: word\n", "not of the kind that holds servers"),
]


@pytest.mark.parametrize(("kind", "text", "message"), BROKEN)
def test_what_is_broken_is_reported_with_its_place(kind: str, text: str, message: str) -> None:
    with pytest.raises(InvalidJson, match=message.replace("[", r"\[")):
        put(kind, text)


@pytest.mark.parametrize("kind", FORMATS)
def test_cutting_what_is_not_there_changes_nothing(kind: str) -> None:
    text = put(kind, "")
    assert changed(FORMATS[kind], text, cut=[("servers", "other")]) == text


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ('{"servers": null, "z": 1}', '{"servers": {"kimi": 1}, "z": 1}'),
        (
            '{\n    // mine\n    "servers": null, // none yet\n    "z": 1\n}\n',
            '{\n    // mine\n    "servers": {\n        "kimi": 1\n    }, // none yet\n    "z": 1\n}\n',
        ),
    ],
)
def test_null_in_an_objects_place_gives_way_to_one(text: str, new: str) -> None:
    assert put("jsonc", text, 1) == new
    assert changed(FORMATS["jsonc"], text, cut=[WAY]) == text


def test_null_in_a_lists_place_gives_way_to_one() -> None:
    new = changed(FORMATS["json"], '{"inputs": null}', put=[(("inputs", 0), 1), (("inputs", 1), 2)])
    assert new == '{"inputs": [1, 2]}'


def test_items_of_a_list_are_added_and_cut() -> None:
    text = '{\n  "inputs": [\n    {"id": "a"} // mine\n  ]\n}\n'
    new = changed(FORMATS["jsonc"], text, put=[(("inputs", 1), {"id": "b"}), (("inputs", 2), {"id": "c"})])
    assert FORMATS["jsonc"].read(new) == {"inputs": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}
    assert changed(FORMATS["jsonc"], new, cut=[("inputs", 2), ("inputs", 1)]) == text


# ------------------------------------------------------------------------------------------------- any text at all


def some_value(dice: random.Random, depth: int = 0) -> Any:
    kind = dice.random()
    if depth > 3 or kind < 0.4:
        return dice.choice([1, -2.5, True, None, "t//x", "/* y */", 'é"\\n', "a,b", "}]", ""])
    if kind < 0.7:
        return {dice.choice("abcdef") + str(at): some_value(dice, depth + 1) for at in range(dice.randrange(4))}
    return [some_value(dice, depth + 1) for _ in range(dice.randrange(4))]


def some_blank(dice: random.Random, line_end: str) -> str:
    blanks = ["", " ", "\t", line_end, line_end + "  ", "/* c, } */", '// c ] "' + line_end]
    return "".join(dice.choice(blanks) for _ in range(dice.randrange(3)))


def written(dice: random.Random, value: Any, line_end: str) -> str:
    """A value as somebody may have written it."""

    def blank() -> str:
        return some_blank(dice, line_end)

    if not isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=dice.random() < 0.5)
    named = value.items() if isinstance(value, dict) else ((None, each) for each in value)
    items = [
        blank()
        + ("" if name is None else json.dumps(name) + blank() + ":" + blank())
        + written(dice, each, line_end)
        + blank()
        for name, each in named
    ]
    comma = "," if items and dice.random() < 0.3 else ""
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + ",".join(items) + comma + blank() + closing


@pytest.mark.parametrize("seed", range(300))
def test_whatever_a_text_looks_like_no_value_and_no_comment_is_lost(seed: int) -> None:
    dice = random.Random(seed)
    line_end = dice.choice(["\n", "\r\n"])
    value = {name: some_value(dice) for name in dice.sample("pqr", dice.randrange(4))}
    if dice.random() < 0.7:
        value["servers"] = {name: some_value(dice, 1) for name in dice.sample("xy", dice.randrange(3))}
    text = some_blank(dice, line_end) + written(dice, value, line_end) + some_blank(dice, line_end)

    new = put("jsonc", text)

    assert FORMATS["jsonc"].read(new) == value | {"servers": value.get("servers", {}) | {"kimi": ENTRY}}
    back = changed(FORMATS["jsonc"], new, cut=[WAY])
    for comment in ("/* c, } */", '// c ] "'):
        assert text.count(comment) == new.count(comment) == back.count(comment)
