"""``HostUser``: the user of a request's host, who can be asked where the host has declared that. I/O: host and store.

In the handshake era a host gets a request (``elicitation/create``) while its call waits. In the newest era a call is
answered with what is asked (``input_required``), and the host makes it again with the answer and the state that came
with the question. That state is sealed by a key of the store, which all replicas have, and names caller, call and
time: of what a client sends back nothing but the user's answer is trusted.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import anyio
from mcp.server.request_state import AESGCMRequestStateCodec, InvalidRequestState
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from kimi_mcp.core.redaction import clean
from kimi_mcp.server.callers import caller_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from kimi_mcp.runs import Runs
    from kimi_mcp.runs.store.store import RunStore

STATE_S = 900.0
"""Seconds for which the state of a question is taken back; with an older one the question is asked again."""

_KEY = "request_state_key"

ReplyAction = Literal["accept", "decline", "cancel", "unanswered", "failed"]
"""What a user did; ``unanswered``: nothing in time; ``failed``: the host could not ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionForm:
    """What a user is asked."""

    id: str
    """What tells it apart from other questions of the same call."""
    message: str
    """In words, for people; part of it may be from a model."""
    fields: Mapping[str, Mapping[str, Any]]
    """What is to be filled in, by name: JSON schemas. Empty: it is to be accepted or declined, no more."""

    def params(self) -> ElicitRequestFormParams:
        """The question as the protocol has it."""
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {name: dict(row) for name, row in self.fields.items()},
            **({"required": list(self.fields)} if self.fields else {}),
        }
        return ElicitRequestFormParams(message=clean(self.message, "host"), requested_schema=schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserReply:
    """What a user has answered."""

    action: ReplyAction
    content: Mapping[str, Any]
    """What was filled in, as the client sent it: of any type."""


class InputRequired(Exception):
    """Raised where a call of the newest era is answered with a question."""

    def __init__(self, form: QuestionForm, state: str) -> None:
        super().__init__(form.id)
        requests: Any = {form.id: ElicitRequest(params=form.params())}
        self.result = InputRequiredResult(input_requests=requests, request_state=state)
        """The answer to the call."""


def can_be_asked(context: Any) -> bool:
    """Whether the host of a request can show its user a form.

    Not in a session of the handshake era with one of several replicas: the answer may come to another one.
    """
    capabilities = context.session.client_capabilities
    elicitation = None if capabilities is None else capabilities.elicitation
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return False
    if is_newest(context):
        return True
    return context.session.can_send_request and context.lifespan_context.settings.cluster == "off"


def is_newest(context: Any) -> bool:
    """Whether a request is one of the newest era."""
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS


class HostUser:
    """The user of the host that made a call."""

    def __init__(self, context: Any, params: CallToolRequestParams) -> None:
        self._context, self._state = context, context.lifespan_context
        self._request_state = params.request_state
        self._responses = params.input_responses or {}
        self.can_be_asked = can_be_asked(context)
        """Whether it can be asked in this request."""
        self.is_newest = is_newest(context)
        """Whether its call is answered with the question."""
        self.caller = caller_of(context)
        """Whose call it is."""

    async def open_runs(self) -> Runs:
        """The server's runs."""
        return await self._state.open_runs()

    async def claims(self, purpose: str, call: str, *, ever: bool = False) -> Mapping[str, Any] | None:
        """What the server wrote into the state that came with the question; None: there is no state, or an old one.

        ``call``: the hash of tool and arguments; ``ever``: whether an old one is taken. Raises a protocol error for a
        state that is not of this server, this caller and this call.
        """
        if self._request_state is None or not self.is_newest:
            return None
        store = (await self._state.open_runs()).store
        codec = await _codec(store)
        try:
            claims: Any = json.loads(codec.unseal(self._request_state))
        except (InvalidRequestState, ValueError):
            raise _invalid() from None
        if (claims["caller"], claims["call"]) != (self.caller, call):
            raise _invalid()
        return claims if claims["purpose"] == purpose and (ever or store.now() < claims["until"]) else None

    def reply(self, form_id: str) -> UserReply | None:
        """The answer that came with the call; None: there is none to that question."""
        found = self._responses.get(form_id)
        return reply_of(found) if isinstance(found, ElicitResult) else None

    async def ask_again(self, form: QuestionForm, purpose: str, call: str, **claims: Any) -> InputRequired:
        """What to raise for the call to be answered with a question, and made again; ``claims`` come back with it."""
        store = (await self._state.open_runs()).store
        codec = await _codec(store)
        known = {"purpose": purpose, "caller": self.caller, "call": call, "until": store.now() + STATE_S}
        return InputRequired(form, codec.seal(json.dumps(known | claims).encode()))

    async def ask_now(self, form: QuestionForm, until: float, *, reports: bool = True) -> UserReply:
        """Ask while the call waits, in the handshake era; ``until``: by anyio's clock.

        ``reports``: whether the host hears meanwhile that its call waits.
        """
        state, timings, params = self._state, self._state.timings, form.params()
        reply = UserReply(action="unanswered", content={})
        until = min(until, anyio.current_time() + timings.answer_s, state.answer_by)

        async def report() -> None:
            start = anyio.current_time()
            await anyio.sleep(timings.first_progress_s)
            while True:
                waited = anyio.current_time() - start
                await self._context.session.report_progress(waited, message="waits for its user's answer")
                await anyio.sleep(timings.progress_every_s)

        async with anyio.create_task_group() as tasks:
            if reports:
                tasks.start_soon(report)
            with anyio.move_on_at(until) as wait:
                state.waits.add(wait)
                try:
                    elicit = self._context.session.elicit_form
                    given = await elicit(params.message, params.requested_schema, self._context.request_id)
                    reply = reply_of(given)
                except (MCPError, ValidationError):
                    reply = UserReply(action="failed", content={})
                finally:
                    state.waits.discard(wait)
            tasks.cancel_scope.cancel()
        return reply


def reply_of(given: ElicitResult) -> UserReply:
    """An answer, as the protocol has it."""
    return UserReply(action=given.action, content=given.content or {})


async def _codec(store: RunStore) -> AESGCMRequestStateCodec:
    """Seals what clients bring back; the key is the store's, made by the first server that needs it."""
    found = await store.read(partial(_known_key)) or await store.write_locked((_KEY,), _made_key)
    return AESGCMRequestStateCodec([found])


def _known_key(connection: Connection) -> str | None:
    from kimi_mcp.runs.store.tables import read_fact

    return read_fact(connection, _KEY)


def _made_key(connection: Connection) -> str:
    from kimi_mcp.runs.store.tables import write_fact

    if (found := _known_key(connection)) is not None:
        return found
    made = secrets.token_hex(32)
    write_fact(connection, _KEY, made)
    return made


def _invalid() -> MCPError:
    return MCPError(INVALID_PARAMS, "Invalid or expired requestState", {"reason": "invalid_request_state"})
