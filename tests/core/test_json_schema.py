"""Values held against JSON schemas, hostile ones included: decided in bounded time, and without asking anyone."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from kimi_mcp.core.json_schema import Undecided, misfit, schema_fault

DOUBLING: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/n0"}},
    "$defs": {
        **{f"n{i}": {"allOf": [{"$ref": f"#/$defs/n{i + 1}"}, {"$ref": f"#/$defs/n{i + 1}"}]} for i in range(40)},
        "n40": {"type": "string"},
    },
}


def test_a_value_that_fits_has_no_misfit() -> None:
    assert misfit({"n": 3}, {"type": "object", "properties": {"n": {"type": "integer"}}}) is None


def test_a_misfit_names_the_place_the_rule_and_what_was_wanted() -> None:
    fault = misfit({"of": [1, "two"]}, {"properties": {"of": {"items": {"type": "integer"}}}})
    assert fault is not None
    assert (fault.place, fault.rule, fault.wanted) == ("of/1", "type", "integer")


def test_a_reference_to_a_url_is_never_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        came: list[bool] = []

        def wait() -> None:
            try:
                listening.accept()[0].close()
                came.append(True)
            except TimeoutError:
                pass

        waiting = threading.Thread(target=wait)
        waiting.start()
        with pytest.raises(Undecided, match="reference"):
            misfit({}, {"$ref": f"http://127.0.0.1:{listening.getsockname()[1]}/schema"})
        waiting.join()
    assert not came


def test_references_that_double_at_each_step_end_at_the_count() -> None:
    with pytest.raises(Undecided, match="intricate"):
        misfit({"a": "x"}, DOUBLING)


def test_a_schema_that_is_itself_for_ever_ends() -> None:
    with pytest.raises(Undecided):
        misfit({}, {"$ref": "#"})


def test_a_search_that_goes_too_deep_is_undecided_wherever_that_is_noticed() -> None:
    """Where it is in the midst of jsonschema's tables, which are in Rust, Rust panics."""
    schema = {"not": {"$ref": "#"}, "type": ["object", "string"]}

    def search(frames: int) -> None:
        if frames:
            search(frames - 1)
        else:
            misfit({"a": 1}, schema)

    for frames in range(40):
        with pytest.raises(Undecided, match="reference"):
            search(frames)


def test_many_alike_items_that_can_not_be_sorted_end_at_the_count() -> None:
    with pytest.raises(Undecided, match="intricate"):
        misfit([{"i": i} for i in range(5000)], {"uniqueItems": True})


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(-?a+)*$",
        "(a[a-z]+)*$",
        "(-[a-]+)*$",
        "(-[^b]+)*$",
        "(-a*a*)*$",
        "(a?){30}a{30}",
        "a*a*a*a*a*a*a*a*b",
        "(a|a)*$",
        "(?:a|aa)+$",
        "(a*)*b",
        "((a*)*)*$",
    ],
)
def test_a_pattern_that_would_backtrack_for_ever_is_matched_at_once(pattern: str) -> None:
    good = ("-a" if pattern.startswith(("(-[", "(-a")) else "a") * 60
    good += "b" if pattern.endswith("b") else ""
    bad = f"!{good}!"
    pattern = f"^{pattern}"
    sorting = {"patternProperties": {pattern: {"type": "string"}}, "additionalProperties": False}
    for value, schema in ((good, {"pattern": pattern}), ({good: ""}, sorting), (bad, {"not": {"pattern": pattern}})):
        assert misfit(value, schema) is None
    for value, schema in ((bad, {"pattern": pattern}), ({good: 1}, sorting), ({bad: ""}, sorting)):
        assert misfit(value, schema) is not None


@pytest.mark.parametrize(
    "pattern", [r"(.*)\1x", "^(?=.*x)a", "a" * 3000, "(?:(?:a|b){99}){99}c", "[a&&b]", "[^[b]a]", r"[\][a]]", "(a"]
)
def test_a_pattern_that_can_not_be_matched_in_bounded_time_is_left_undecided(pattern: str) -> None:
    text = "a" * 2000
    sorting = {"patternProperties": {pattern: {"type": "string"}}, "additionalProperties": False}
    for value, schema in ((text, {"pattern": pattern}), ({text: 1}, sorting), (text, {"not": {"pattern": pattern}})):
        with pytest.raises(Undecided, match="pattern"):
            misfit(value, schema)


def test_many_names_under_many_patterns_end_at_the_count() -> None:
    names = {f"name-{number}": "" for number in range(3000)}
    with pytest.raises(Undecided, match="intricate"):
        misfit(names, {"patternProperties": {f"name-|{number}": {} for number in range(50)}})


COSTLY = {"properties": {"a": {"type": "string", "pattern": "(?:a{1,99}){1,99}$"}, "b": {"type": "integer"}}}


def test_what_breaks_another_rule_is_reported_beside_a_pattern_that_is_not_matched() -> None:
    fault = misfit({"a": "a" * 6000, "b": "x"}, COSTLY)
    assert fault is not None
    assert (fault.place, fault.rule) == ("b", "type")


def test_a_pattern_that_meets_no_long_text_is_matched_however_long_another_one_is() -> None:
    assert misfit({"a": "aaa", "c": "a" * 100_000}, COSTLY) is None
    fault = misfit({"a": "aab", "c": "a" * 100_000}, COSTLY)
    assert fault is not None
    assert fault.rule == "pattern"


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^[a-z0-9-]+$", "a-1", "A 1"),
        (r"^\d{4}-\d{2}-\d{2}$", "2026-11-24", "24.11.2026"),
        (r"^[^@]+@[^@]+\.[^@]+$", "someone@example.org", "someone"),
        (r"^(GET|POST)$", "GET", "PUT"),
        (r"^[a-z0-9]+(-[a-z0-9]+)*$", "a-slug-of-many-words-that-is-rather-long-as-they-are", "a--b" * 12),
        (r"^\d+(?:[.,]\d+)*$", "1.000.000.000.000.000.000.000", "1" * 30 + "."),
        (r"^https?://", "https://example.org/a/long/path" * 20, "ftp://example.org"),
    ],
)
def test_an_ordinary_pattern_is_matched(pattern: str, good: str, bad: str) -> None:
    assert misfit(good, {"pattern": pattern}) is None
    assert misfit(bad, {"pattern": pattern}) is not None


def test_properties_that_no_pattern_takes_are_still_refused() -> None:
    schema = {"patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": False}
    assert misfit({"x-a": "b"}, schema) is None
    assert misfit({"y": "b"}, schema) is not None


def test_a_schema_of_an_older_draft_is_read_as_such() -> None:
    older = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "array",
        "items": [{"type": "string"}],
        "additionalItems": False,
    }
    assert schema_fault(older) is None
    assert misfit(["a"], older) is None
    assert misfit(["a", "b"], older) is not None


def test_what_is_no_schema_is_reported_with_its_place() -> None:
    assert schema_fault({"properties": {"a": {"type": "strin"}}}) == "properties/a/type breaks the rule `anyOf`"
