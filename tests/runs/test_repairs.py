"""What a run says of a repair of its answer, before and after that is sent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kimi_mcp.core.errors import BudgetExceeded, Cancelled, KimiError
from kimi_mcp.core.types import Status, Usage
from kimi_mcp.policy import reported
from kimi_mcp.runs import Run
from tests.policy.requests import planned, profile, request_of

FIRST = Usage(prompt_tokens=5, completion_tokens=1_250, total_tokens=1_255)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("running", None),
        ("cancelled", Cancelled("It was cancelled.", fix="Call again.")),
        ("partial", BudgetExceeded("It costs too much.", fix="Raise the limit.")),
    ],
)
async def test_a_repair_that_was_never_sent_is_not_reported_and_the_first_answer_has_its_cost(
    status: Status, error: KimiError | None
) -> None:
    run = Run(caller="a test", tool="kimi_think", prompt="p")
    plan = planned(request_of(), profile("simulator", "kimi-k2.5"))
    await run.begin(plan)
    run.request_state.attempted(1)
    first = replace(run.snapshot("completed"), answer="It is 1.", usage=FIRST, cost_usd=0.004)
    note = reported("answer-repaired", field="response_schema", fault="it is not JSON")
    await run.begin_again(replace(plan, adjustments=(*plan.adjustments, note)), first)
    planned_only = run.cut_off(status, error) if error else run.snapshot()
    run.request_state.attempted(1)
    sent = run.cut_off(status, error) if error else run.snapshot()
    assert (planned_only.status, planned_only.error) == (status, error)
    assert (planned_only.policy, planned_only.cost_usd, planned_only.timing.attempts) == (first.policy, 0.004, 1)
    assert (sent.policy, sent.cost_usd, sent.timing.attempts) == ((*first.policy, note), None, 2)
    assert (planned_only.answer, planned_only.usage) == (sent.answer, sent.usage) == ("It is 1.", FIRST)
