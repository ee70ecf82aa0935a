"""``confirmed``: asks a host's user before a swarm begins that may cost more than ``KIMI_CONFIRM_ABOVE_USD``.

I/O: the host's, and what the estimate of a swarm needs. Nothing is recorded, counted or paid for before the answer.
"""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING

from kimi_mcp.core.errors import BudgetExceeded
from kimi_mcp.core.profiles import dollars
from kimi_mcp.server.host_user import HostUser, QuestionForm, ReplyAction

if TYPE_CHECKING:
    from kimi_mcp.pipeline.pipeline import Pipeline
    from kimi_mcp.swarm import SwarmCall
    from kimi_mcp.swarm.estimate import SwarmMost
    from kimi_mcp.swarm.limits import SwarmLimits

FORM = "confirm"
"""The id of the question."""

HEAD_CHARS = 300
"""Characters of a swarm's task that its user sees."""

EQUAL = 1 + 1e-6
"""Sums of US dollars that differ by less are equal."""


async def confirmed(
    user: HostUser, call: SwarmCall, pipeline: Pipeline, limits: SwarmLimits | None, *, key: str, until: float
) -> str | None:
    """The id for the run of a swarm that its user wants; None: there was no reason to ask, or nobody to be asked.

    The same answer brought twice has the same id. ``key``: the hash of the call; ``until``: by anyio's clock, when the
    call is to be answered. Raises ``BudgetExceeded`` where the user does not want it, what refuses the swarm
    otherwise, and ``InputRequired``.
    """
    above = pipeline.settings.confirm_above_usd
    if above is None or not user.can_be_asked:
        return None
    most = await _most_of(user, call, pipeline, limits)
    if most.usd <= above * EQUAL:
        return None
    form = QuestionForm(id=FORM, message=_message(call, most), fields={})
    run_id = f"run_{token_hex(12)}"
    if user.is_newest:
        claims, reply = await user.claims(FORM, key), user.reply(FORM)
        if claims is None or reply is None or most.usd > claims["usd"] * EQUAL:
            raise await user.ask_again(form, FORM, key, usd=most.usd, run_id=run_id)
        run_id = str(claims["run_id"])
    else:
        reply = await user.ask_now(form, until)
    if reply.action != "accept":
        raise _refused(reply.action, most.usd, above)
    return run_id


async def _most_of(user: HostUser, call: SwarmCall, pipeline: Pipeline, limits: SwarmLimits | None) -> SwarmMost:
    from kimi_mcp.runs import Run
    from kimi_mcp.swarm.estimate import most_of
    from kimi_mcp.swarm.limits import SwarmLimits

    run = Run(caller=user.caller, tool="kimi_swarm", prompt=call.prompt)  # never started: it is what estimates take
    return await most_of(call, run, pipeline, limits or SwarmLimits())


def _message(call: SwarmCall, most: SwarmMost) -> str:
    agents = f"{most.agents} sub-agent{'' if most.agents == 1 else 's'}"
    task = " ".join(call.prompt[: 2 * HEAD_CHARS].split())
    task = task if len(task) <= HEAD_CHARS else f"{task[:HEAD_CHARS]}…"
    return (
        f"Begin a swarm that may cost up to {dollars(most.usd)}? It has at most {agents}, on {most.model} at "
        f"{most.provider}.\n\nIts task: {task}"
    )


def _refused(action: ReplyAction, usd: float, above: float) -> BudgetExceeded:
    cheaper = f" A swarm with a `max_cost_usd` of at most {above:g} begins without a question." if above > 0 else ""
    if action in ("unanswered", "failed"):
        why = "the user did not answer in time" if action == "unanswered" else "the host could not ask its user"
        return BudgetExceeded(
            f"The swarm may cost up to {dollars(usd)}, and {why} whether it may begin.",
            fix=f"Call again once the user is there; KIMI_CONFIRM_ABOVE_USD sets what is asked about.{cheaper}",
        )
    declined = "declined" if action == "decline" else "dismissed the question of"
    return BudgetExceeded(
        f"The user {declined} this swarm, which may cost up to {dollars(usd)}; it was not begun.",
        fix=f"Do not make the same call again unless the user wants it.{cheaper}",
    )
