"""What a running swarm asks its host's user, shown by whoever waits for it: a call, a ``kimi_run`` or a task.

I/O: the store's, where questions and answers lie, and the host's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from math import isfinite
from typing import TYPE_CHECKING, Any

import anyio

from kimi_mcp.core.errors import KimiError
from kimi_mcp.server.host_user import HostUser, QuestionForm, UserReply, can_be_asked

if TYPE_CHECKING:
    from kimi_mcp.runs import Runs, RunView
    from kimi_mcp.runs.store.questions import BudgetQuestion, BudgetQuestions

PURPOSE = "budget"
"""What such a question's state is for; its forms have ids that begin so."""

FIELD = "more_usd"
"""The field of its form."""

LOOK_EVERY_S = 2.0
"""Seconds between two looks for a question, where no notification comes."""

LOOK_IN_SILENCE_S = 0.5
"""The same where none can come, and at the least."""


def form_of(question: BudgetQuestion) -> QuestionForm:
    """The form of a question."""
    field: dict[str, Any] = {
        "type": "number",
        "title": "US dollars more",
        "description": "How much more the swarm may use, in US dollars.",
        "minimum": 0,
        "default": question.suggested_usd,
    }
    if question.most_usd is not None:
        field["maximum"] = question.most_usd
    return QuestionForm(id=f"{PURPOSE}-{question.number}", message=question.message, fields={FIELD: field})


async def open_question(context: Any, run: RunView) -> BudgetQuestion | None:
    """The question of a run that the host of a request can ask; None: there is none, or it can't."""
    if run.tool != "kimi_swarm" or not can_be_asked(context):
        return None
    return await _questions(await context.lifespan_context.open_runs(), run.id).open()


async def answer(runs: Runs, run_id: str, form_id: str, reply: UserReply) -> None:
    """Let a swarm have its user's answer; one to another question than the open one changes nothing."""
    questions = _questions(runs, run_id)
    question = await questions.open()
    if question is None or form_of(question).id != form_id or reply.action == "unanswered":
        return
    more = _usd(reply.content)
    accepted = reply.action == "accept" and more > 0
    refused = "decline" if reply.action in ("accept", "decline") else "cancel"
    await questions.answer(question.number, "accept" if accepted else refused, more)


async def answered(user: HostUser, call: str) -> RunView | None:
    """The run whose question a call of the newest era answers, once the answer is written; None: it answers none.

    ``call``: the hash of tool and arguments. Raises ``RunNotFound``, and as ``HostUser.claims`` does.
    """
    claims = await user.claims(PURPOSE, call, ever=True)
    if claims is None:
        return None
    runs = await user.open_runs()
    run, form_id = await runs.find(str(claims["run_id"]), user.caller), str(claims["form_id"])
    if (reply := user.reply(form_id)) is not None:
        await answer(runs, run.id, form_id, reply)
    return run


@asynccontextmanager
async def questions_shown(user: HostUser | None, run: RunView, call: str, until: float) -> AsyncGenerator[None]:
    """While a call waits for a run, show its questions to the user of the host, if that can be asked.

    ``call``: the hash of the call; ``until``: by anyio's clock, when it is answered. Raises ``InputRequired``.
    """
    if user is None or not user.can_be_asked or run.tool != "kimi_swarm":
        yield
        return
    runs = await user.open_runs()
    found: list[BudgetQuestion] = []
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:

        async def show() -> None:
            question = await _next(runs, run.id)
            if user.is_newest:
                found.append(question)
                tasks.cancel_scope.cancel()
                return
            form = form_of(question)
            reply = await user.ask_now(form, until, reports=False)
            await answer(runs, run.id, form.id, reply)

        async def keep_showing() -> None:
            while not found:
                try:
                    await show()
                except KimiError:  # the store is away
                    await anyio.sleep(LOOK_EVERY_S)

        tasks.start_soon(keep_showing)
        try:
            yield
        except Exception as fault:  # noqa: BLE001 - it is raised below, where no task group wraps it
            failure = fault
        finally:
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if found:
        form = form_of(found[0])
        raise await user.ask_again(form, PURPOSE, call, run_id=run.id, form_id=form.id)


async def _next(runs: Runs, run_id: str) -> BudgetQuestion:
    """The open question of a run, once there is one."""
    questions = _questions(runs, run_id)
    async with runs.store.notifications.waiting("steps", run_id) as waiter:
        while True:
            if (question := await questions.open()) is not None:
                return question
            await anyio.sleep(LOOK_IN_SILENCE_S)
            await waiter.next(LOOK_EVERY_S, deaf_s=0)


def _questions(runs: Runs, run_id: str) -> BudgetQuestions:
    from kimi_mcp.runs.store.questions import BudgetQuestions

    return BudgetQuestions(runs.store, run_id)


def _usd(content: Mapping[str, Any]) -> float:
    """The amount that was filled in; 0 for none, and for what is no amount: nobody has agreed to the suggested one."""
    given = content.get(FIELD)
    if isinstance(given, bool) or not isinstance(given, int | float) or not isfinite(given):
        return 0.0
    return float(given)
