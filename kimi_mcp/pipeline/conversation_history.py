"""The conversation before a call, and whose turn it is to continue it. I/O: the store's."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kimi_mcp import policy
from kimi_mcp.core.errors import InvalidArguments, RunNotFound
from kimi_mcp.core.types import Adjustment, Turn
from kimi_mcp.runs import Run
from kimi_mcp.runs.store import errors
from kimi_mcp.runs.store.records import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationHistory:
    """What a call continues."""

    turns: tuple[Turn, ...] = ()
    """The turns until now, the oldest first, each assistant turn with its exact reasoning."""
    model_asked: str | None = None
    """The model that the last call named; None: nothing came before."""
    model_id: str | None = None
    """The catalogue's id of the model that was sent last time."""
    provider: str | None = None
    """The provider of the last answer."""

    def sendable(self, *, thinking: bool) -> ConversationHistory:
        """Without the tool calls of instant answers, and their results, for a request that ``thinking`` answers.

        Such a request takes no tool call without reasoning; the answers themselves stay.
        """
        kept: list[Turn] = []
        drops = False
        for turn in self.turns if thinking else ():
            if turn.role != "tool":
                drops = bool(turn.tool_calls) and turn.reasoning is None
            if not drops:
                kept.append(turn)
        return replace(self, turns=tuple(kept)) if len(kept) < len(self.turns) and thinking else self

    def left_out(self, provider: str) -> Adjustment:
        """The report of what ``sendable`` leaves out."""
        return policy.reported(
            "reasoning-replayed",
            field="conversation_id",
            action="adjust",
            index=next(at for at, turn in enumerate(self.turns) if turn.tool_calls and turn.reasoning is None),
            fault="calls tools without reasoning, as instant answers do",
            provider=provider,
            note="Such calls and their results are left out; the answers stay.",
        )

    def with_turns(self, added: Sequence[Turn]) -> tuple[Turn, ...]:
        """The whole conversation with a call's turns at its end; of several system prompts the latest counts, first."""
        turns = (*self.turns, *added)
        latest = next((turn for turn in reversed(turns) if turn.role == "system"), None)
        others = tuple(turn for turn in turns if turn.role != "system")
        return others if latest is None else (latest, *others)


async def before(conversation_id: str | None, run: Run) -> ConversationHistory:
    """The history before a run, once it is the run's turn; the turn ends when the run's end is recorded.

    ``conversation_id`` None starts a conversation; a run's id starts one that branches off behind that run. Raises
    ``RunNotFound`` for an unknown id, and ``InvalidArguments`` for a run that nothing can follow.
    """
    if conversation_id is None:
        run.conversation_id, run.holds_turn = _id_after(run), True
        return ConversationHistory()
    if conversation_id.startswith("run_"):
        record = _completed(await run.store.find(conversation_id, run.caller), run)
        run.conversation_id, run.follows, run.holds_turn = _id_after(run), record.id, True
        history = await _up_to(record, run)
        if not history.turns:
            raise InvalidArguments(
                "The request of that run was not recorded: it can't be followed.",
                fix="Leave `conversation_id` out to start a new conversation, and put what it needs into `prompt`.",
            )
        return history
    conversation = await run.store.conversation(conversation_id)
    if conversation is None or conversation.caller != run.caller:
        raise _not_found("conversation", run)
    run.conversation_id = conversation_id
    run.request_state.waits_for = "its turn in the conversation"
    run.holds_turn = True  # set first: a run that is cancelled while its turn is recorded has it all the same
    await run.store.take_turn(conversation_id, run.id, run.is_live)
    conversation = await run.store.conversation(conversation_id)
    run.follows = None if conversation is None else conversation.head
    if run.follows is None:
        return ConversationHistory()  # its first turn was cut
    head = await run.store.find(run.follows, run.caller)
    if head is None:
        raise errors.gone()
    return await _up_to(head, run)


async def again(record: RunRecord, run: Run) -> ConversationHistory:
    """The history before a run that is continued after its end, which then has a turn in its conversation.

    Where that went on meanwhile without it, it branches off: its answer begins a conversation of its own.
    """
    run.follows = record.follows
    found = None if record.conversation_id is None else await run.store.conversation(record.conversation_id)
    if found is not None and found.head == record.follows:
        run.request_state.waits_for = "its turn in the conversation"
        run.holds_turn = True
        await run.store.take_turn(found.id, run.id, run.is_live)
        found = await run.store.conversation(found.id)
    if found is None or found.head != record.follows:
        run.conversation_id, run.holds_turn = f"conv_{secrets.token_hex(12)}", True
    return await _up_to(record, run)  # it left no turns of its own


def _id_after(run: Run) -> str:
    """The id of the conversation that a new run begins, as random as its own."""
    return run.id.replace("run_", "conv_", 1)


def _not_found(what: str, run: Run) -> RunNotFound:
    return RunNotFound(
        f"No {what} of that id is known to this server.",
        fix="Give a `conversation_id` that a result named, or leave it out to start a new conversation. "
        + run.store.retention_note,
    )


def _completed(record: RunRecord | None, run: Run) -> RunRecord:
    if record is None:
        raise _not_found("run", run)
    if record.running:
        raise InvalidArguments(
            "That run has not ended: nothing can follow it yet.",
            fix="Wait for it with kimi_run, then give its `run_id` as `conversation_id` again.",
        )
    if record.outcome.status != "completed":
        raise InvalidArguments(
            f"That run is {record.outcome.status}: it left no answer that could be followed.",
            fix="Give the id of a completed run, or of its conversation, as `conversation_id`.",
        )
    return record


async def _up_to(record: RunRecord, run: Run) -> ConversationHistory:
    return ConversationHistory(
        turns=await run.store.history(record.id),
        model_asked=record.outcome.model_asked,
        model_id=record.model_id,
        provider=record.outcome.provider,
    )
