"""Callers with tokens of an OpenID provider that nobody here wrote: npm's oidc-provider. I/O: npm, Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from kimi_mcp.server.http.auth.known_tokens import ACCEPTED_S
from kimi_mcp.simulator import Simulator
from tests.loop_time import LoopTime
from tests.npm import NODE, NPM, OIDC_PROVIDER, environment_of
from tests.server.http.identity_provider import AUDIENCE, CLIENT
from tests.server.http.served import HELLO, OLDER, bearer, message, served

pytestmark = pytest.mark.soak

SCRIPT = Path(__file__).with_name("oidc_provider.mjs")


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    """What the provider prints."""
    (tmp_path / "node_modules").symlink_to(NPM.path_of(OIDC_PROVIDER), target_is_directory=True)
    command = [NODE / "node", shutil.copy(SCRIPT, tmp_path), AUDIENCE]
    async with await anyio.open_process(
        command, cwd=tmp_path, env=environment_of(tmp_path), stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout is not None
            with anyio.fail_after(60):
                line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", 65_536)
            yield json.loads(line)
        finally:
            process.kill()


async def test_an_openid_provider_vouches_for_callers_by_signature_and_when_it_is_asked(
    sim: Simulator, provider: dict[str, Any], loop_time: LoopTime
) -> None:
    issuer = provider["issuer"]
    async with served(
        sim,
        KIMI_HTTP_URL=AUDIENCE,
        KIMI_OIDC_ISSUER=issuer,
        KIMI_INTROSPECTION_URL=f"{issuer}/token/introspection",
        KIMI_INTROSPECTION_CLIENT_ID=CLIENT[0],
        KIMI_INTROSPECTION_CLIENT_SECRET=CLIENT[1],
    ) as http:

        async def status(token: str) -> int:
            return (await http.post(message("initialize", HELLO), OLDER | bearer(token))).status_code

        for token in (*provider["signed"].values(), provider["opaque"]):
            async with http.client(token=token) as kimi:
                run = await kimi.think()
                assert await http.runs.store.find(run.run_id, f"{issuer}#alice") is not None
            assert await status(token[:-8] + "AAAAAAAA") == 401
        async with httpx2.AsyncClient(auth=("agent", "the agent's own"), trust_env=False) as agent:
            revoked = await agent.post(f"{issuer}/token/revocation", data={"token": provider["opaque"]})
            assert revoked.status_code == 200
        await loop_time.forward(ACCEPTED_S)
        assert await status(provider["opaque"]) == 401
