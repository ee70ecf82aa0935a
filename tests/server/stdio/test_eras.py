"""What settles the era of a connection, and what a client may ask before it does."""

from __future__ import annotations

import json

import anyio
import pytest
from mcp_types import JSONRPCRequest

from kimi_mcp.server.stdio.early import EarlyReplies
from kimi_mcp.server.stdio.eras import reply_without_era
from kimi_mcp.server.stdio.framing import encode
from tests.server.processes import raw_server_process
from tests.server.stdio.test_early_replies import CLIENT, Message, envelope, initialize, request, sdk

PICTURED = {**CLIENT, "icons": [{"src": "https://x.org/y.png"}]}
FIELDS = envelope()["_meta"]

PROBES: dict[str, Message] = {
    "plain": request(1, "server/discover", envelope()),
    "of an unknown version": request(2, "server/discover", envelope("2030-01-01")),
    "of an older version": request(3, "server/discover", envelope("2025-11-25")),
    "of a version that is a number": request(4, "server/discover", envelope(2026)),
    "of a client with pictures": request(5, "server/discover", envelope(client=PICTURED)),
    "with unknown capabilities": request(6, "server/discover", envelope(capabilities={"tasks": {"list": {}}})),
    "with capabilities of a wrong type": request(7, "server/discover", envelope(capabilities=[1])),
    "without capabilities": request(8, "server/discover", {"_meta": dict(list(FIELDS.items())[:2])}),
    "with a token": request(9, "server/discover", {"_meta": {**FIELDS, "progressToken": 1}}),
    "with a token of a wrong type": request(10, "server/discover", {"_meta": {**FIELDS, "progressToken": []}}),
    "without an envelope": request(11, "server/discover", {}),
    "without parameters": request(12, "server/discover"),
    "a list in an unknown version": request(13, "tools/list", envelope("2030-01-01")),
    "a list without capabilities": request(14, "tools/list", {"_meta": dict(list(FIELDS.items())[:2])}),
}

BEGINNINGS: dict[str, Message] = {
    "a handshake": initialize("2025-11-25"),
    "a handshake in an envelope": request(1, "initialize", envelope()),
    "a list": request(1, "tools/list"),
    "a list in an envelope": request(1, "tools/list", envelope()),
    "a list in an odd envelope": request(1, "tools/list", envelope(capabilities=[1])),
    "an unknown method in an envelope": request(1, "no/such", envelope()),
}


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
async def test_a_probe_is_answered_as_the_sdk_does(probe: Message) -> None:
    reply = reply_without_era(JSONRPCRequest.model_validate(probe), EarlyReplies().discovery)
    assert reply is not None
    async with sdk() as answer:
        assert encode(reply) == await answer(json.dumps(probe).encode())


@pytest.mark.parametrize("message", BEGINNINGS.values(), ids=BEGINNINGS)
def test_what_begins_an_era_is_left_to_the_sdk(message: Message) -> None:
    assert reply_without_era(JSONRPCRequest.model_validate(message), EarlyReplies().discovery) is None


async def test_no_probe_settles_the_era() -> None:
    with anyio.fail_after(60):
        async with raw_server_process(None) as peer:
            await peer.send(*PROBES.values())
            assert {(await peer.receive())["id"] for _ in PROBES} == {probe["id"] for probe in PROBES.values()}
            hello = await peer.request(initialize("2025-06-18", id="hello"))
            assert hello["result"]["protocolVersion"] == "2025-06-18"
            assert (await peer.request(request("list", "tools/list")))["result"]["tools"]


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
def test_after_a_probe_a_handshake_is_still_answered_early(probe: Message) -> None:
    replies = EarlyReplies()
    replies.answer_line(json.dumps(probe).encode())
    reply = replies.answer_line(json.dumps(initialize("2025-11-25", id="hello")).encode())
    assert reply is not None
    assert json.loads(reply)["result"]["protocolVersion"] == "2025-11-25"
