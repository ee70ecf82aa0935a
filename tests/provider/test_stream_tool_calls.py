"""Tool calls, whatever pieces a provider streams them in."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_mcp.core.types import ToolCall
from tests.provider.events import ONE, accumulated, call, calling, chunk

# ── tool calls ────────────────────────────────────────────────────────────────────────────────────────────────────


TWO = ToolCall(id="functions.b:1", name="b", arguments='{"y": 2}')


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(
            [
                calling(call("a", "", index=0, id=ONE.id)),
                calling(call(None, '{"x"', index=0)),
                calling(call("b", '{"y"', index=1, id=TWO.id)),
                calling(call(None, ": 1}", index=0), call(None, ": 2}", index=1)),
            ],
            id="by index, mixed",
        ),
        pytest.param(
            [calling(call("a", '{"x": 1}', id=ONE.id)), calling(call("b", '{"y": 2}', id=TWO.id))],
            id="without an index, one chunk each",
        ),
        pytest.param(
            [calling(call("a", '{"x": 1}', id=ONE.id), call("b", '{"y": 2}', id=TWO.id))],
            id="without an index, in one list",
        ),
        pytest.param(
            [
                calling(call("a", '{"x"', index=0, id=ONE.id)),
                calling(call(None, ": 1}", index=0)),
                calling(call("b", '{"y"', index=0, id=TWO.id)),
                calling(call(None, ": 2}", index=0)),
            ],
            id="several ids on one index",
        ),
        pytest.param(
            [
                calling(call("a", '{"x"', index=0, id=ONE.id)),
                calling(call(None, ": 1}", index=0, id=ONE.id)),
                calling(call("b", '{"y": 2}', index=1, id=TWO.id)),
            ],
            id="the id again with every piece",
        ),
        pytest.param(
            [
                calling(call("a", None, index=0), call("b", None, index=1)),
                calling(call(None, '{"x": 1}', index=0, id=ONE.id), call(None, '{"y": 2}', index=1, id=TWO.id)),
            ],
            id="the id after the name",
        ),
        pytest.param(
            [{"choices": [{"message": {"tool_calls": [
                call("a", '{"x": 1}', id=ONE.id, type="function"), call("b", '{"y": 2}', id=TWO.id)]}}]}],
            id="whole",
        ),
    ],
)  # fmt: skip
def test_tool_calls_are_put_together_however_they_come(events: list[Any]) -> None:
    found = accumulated(*events)
    assert found.tool_calls == (ONE, TWO)
    assert found.malformed_calls == 0


def test_a_call_without_arguments_has_an_empty_object() -> None:
    assert accumulated(calling(call("a", index=0, id="x"))).tool_calls == (ToolCall(id="x", name="a", arguments="{}"),)


@pytest.mark.parametrize(
    "broken",
    [
        call("a", '{"x": ', index=1, id="y"),
        call("a", "[1]", index=1, id="y"),
        call("a", "null", index=1, id="y"),
        call(None, "{}", index=1, id="y"),
        call("", "{}", index=1, id="y"),
        call("a", "{}", index=1),
        call("a", "{}", index=1, id=""),
        call("a", "{}", index=1, id=None),
        call("b", "{}", index=1, id=ONE.id),
    ],
    ids=str,
)
def test_half_a_call_one_without_id_or_name_or_with_anothers_id_is_malformed(broken: dict[str, Any]) -> None:
    found = accumulated(calling(call("a", '{"x": 1}', index=0, id=ONE.id)), calling(broken))
    assert found.tool_calls == (ONE,)
    assert found.malformed_calls == 1


@pytest.mark.parametrize(
    "calls", [None, [], {}, "x", [None], [5], [{}], [{"function": None}], [{"index": "0"}]], ids=str
)
def test_odd_tool_calls_are_never_whole_ones(calls: Any) -> None:
    assert accumulated(chunk({"tool_calls": calls})).tool_calls == ()
