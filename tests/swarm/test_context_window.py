"""A context that fills: old tool results go first, the latest are shortened, everything else stays as it is."""

from __future__ import annotations

from kimi_mcp.core.types import TextPart, ToolCall, Turn, system, user
from kimi_mcp.swarm.agent import estimate_tokens, fit_turns


def turn(number: int, result: str) -> list[Turn]:
    """A call and its result."""
    call = ToolCall(id=f"functions.search:{number}", name="search", arguments='{"query": "x"}')
    turn = Turn(role="assistant", reasoning=f"thought {number} " * 20, tool_calls=(call,))
    return [turn, Turn(role="tool", parts=(TextPart(text=result),), tool_call_id=call.id)]


def talk(*results: str) -> tuple[Turn, ...]:
    turns = [each for number, result in enumerate(results) for each in turn(number, result)]
    return (system("s"), user("t"), *turns)


def test_what_fits_stays_the_same() -> None:
    turns = talk("x" * 900, "y" * 900)
    assert fit_turns(turns, estimate_tokens(turns)) == turns


def test_the_oldest_result_goes_first_and_says_so() -> None:
    turns = talk("x" * 30_000, "y" * 3_000, "z" * 3_000)
    made = fit_turns(turns, 9_000)
    assert made[3].text.startswith("[kimi-mcp: a tool result of 30,000 characters was removed")
    assert [each for place, each in enumerate(made) if place != 3] == [
        each for place, each in enumerate(turns) if place != 3
    ]


def test_the_context_is_shortened_for_a_while() -> None:
    turns = talk(*("x" * 6_000 for _ in range(6)))
    made = fit_turns(turns, estimate_tokens(turns) - 1)
    assert estimate_tokens(made) <= 0.7 * estimate_tokens(turns)
    assert fit_turns(made, estimate_tokens(turns) - 1) == made


def test_the_results_of_the_last_turn_are_shortened_only_where_nothing_else_helps() -> None:
    turns = talk("x" * 3_000, "begin" + "y" * 90_000 + "end")
    made = fit_turns(turns, 10_000)
    assert estimate_tokens(made) <= 10_000
    assert made[-1].text.startswith("begin")
    assert made[-1].text.endswith("end")
    assert "characters in all" in made[-1].text


def test_turns_of_the_assistant_are_never_touched() -> None:
    turns = talk(*("x" * 60_000 for _ in range(4)))
    made = fit_turns(turns, 5_000)
    assert [each for each in made if each.role != "tool"] == [each for each in turns if each.role != "tool"]
    assert [each.tool_call_id for each in made] == [each.tool_call_id for each in turns]


def test_short_results_stay() -> None:
    turns = talk("x" * 100, "y" * 90_000)
    assert fit_turns(turns, 10_000)[3] == turns[3]


def test_a_size_counts_reasoning_calls_and_tools() -> None:
    turns = talk("x")
    bare = (system("s"), user("t"))
    assert estimate_tokens(turns) > estimate_tokens(bare) + 60
    assert estimate_tokens((), ({"name": "search", "description": "d" * 300},)) > 100
