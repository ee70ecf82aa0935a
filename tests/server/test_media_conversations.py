"""Media in conversations: shown again in every later turn, by where they came from, and only as they were."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from kimi_mcp.pipeline.attachments import MediaLimits
from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import everything, opened
from tests.server.clients import KimiClient, ServerOptions, connect
from tests.server.media import CLIP, data_uri, picture, uploads, write
from tests.server.requests import body_of, chats
from tests.server.results import Result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, in which the server works."""
    place = tmp_path / "project"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def shown(sim: Simulator) -> list[bytes]:
    """Every medium of the last request, in order."""
    found: list[bytes] = []
    for message in body_of(chats(sim)[-1])["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] != "text":
                url = part[part["type"]]["url"]
                found.append(base64.b64decode(url.partition(",")[2]) if url.startswith("data:") else url.encode())
    return found


async def look(kimi: KimiClient, *images: str, **more: str) -> Result:
    return await kimi.call("kimi_vision", {"prompt": "What is it?", "images": list(images), **more})


async def test_what_was_shown_is_shown_again_with_the_follow_up_after_a_restart_too(
    sim: Simulator, mode: str, folder: Path
) -> None:
    one, two = picture(1), picture(2)
    names = write(folder, one_png=one, two_png=two)
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        first = await look(kimi, names[0])
        assert first.status == "completed", first.text
        second = await look(kimi, names[1], conversation_id=first.structured["conversation_id"])
        assert second.status == "completed", second.text
        assert shown(sim) == [one, two]
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as later:
        third = await later.think("And which was larger?", conversation_id=first.structured["conversation_id"])
    assert third.status == "completed", third.text
    assert shown(sim) == [one, two]
    roles = [message["role"] for message in body_of(chats(sim)[-1])["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "user"]


@pytest.mark.parametrize("what", ["changed", "deleted"])
async def test_a_picture_that_is_no_longer_what_it_was_is_not_shown_as_if_it_were(
    sim: Simulator, folder: Path, what: str
) -> None:
    (name,) = write(folder, one_png=picture(1))
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        first = await look(kimi, name)
        requested = len(chats(sim))
        if what == "changed":
            write(folder, one_png=picture(2))
        else:
            (folder / name).unlink()
        refused = await kimi.think("And now?", conversation_id=first.structured["conversation_id"])
        assert refused.code in ("media_rejected", "path_refused")
        assert refused.structured["run_id"] is None
        assert len(chats(sim)) == requested
        if what == "changed":
            assert "changed" in refused.error["message"]
        assert "new conversation" in refused.error["fix"] or what == "deleted"
        write(folder, one_png=picture(1))
        again = await kimi.think("And now?", conversation_id=first.structured["conversation_id"])
        assert again.status == "completed", "what is put back is what it was"


async def test_a_data_uri_is_shown_again_as_long_as_it_is_kept_in_memory(sim: Simulator, data_dir: Path) -> None:
    content = picture(3)
    async with connect(sim) as kimi:
        first = await look(kimi, data_uri(content))
        conversation = first.structured["conversation_id"]
        assert (await kimi.think("And?", conversation_id=conversation)).status == "completed"
        assert shown(sim) == [content]
    assert base64.b64encode(content)[:60] not in everything(data_dir)
    requested = len(chats(sim))
    async with connect(sim) as later:
        refused = await later.think("And now?", conversation_id=conversation)
    assert refused.code == "media_rejected"
    assert "data URI" in refused.error["message"]
    assert "new conversation" in refused.error["fix"]
    assert len(chats(sim)) == requested


@pytest.mark.soak
async def test_data_uris_are_kept_up_to_a_bound(sim: Simulator) -> None:
    limited = ServerOptions(media_limits=MediaLimits(cached=3 * len(picture(1))))
    async with connect(sim, options=limited) as kimi:
        ids = [(await look(kimi, data_uri(picture(number)))).structured["conversation_id"] for number in range(6)]
        results = [await kimi.think("And?", conversation_id=each) for each in ids]
    assert results[0].code == "media_rejected"
    assert results[-1].status == "completed"


async def test_an_id_at_the_provider_goes_along_as_it_is(sim: Simulator, folder: Path) -> None:
    (name,) = write(folder, clip_mp4=CLIP)
    all_uploaded = ServerOptions(media_limits=MediaLimits(inline=1))
    async with connect(sim, options=all_uploaded, KIMI_ROOTS=str(folder)) as kimi:
        await kimi.call("kimi_video", {"prompt": "hi", "video": name})
    assert len(uploads(sim)) == 1
    (identity,) = shown(sim)
    assert identity.startswith(b"ms://")
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        first = await kimi.call("kimi_video", {"prompt": "And by its id?", "video": identity.decode()})
        assert first.status == "completed", first.text
    async with connect(sim, KIMI_ROOTS=str(folder)) as later:
        second = await later.think("And?", conversation_id=first.structured["conversation_id"])
    assert second.status == "completed", second.text
    assert shown(sim) == [identity]
    assert len(uploads(sim)) == 1


async def test_a_medium_is_kept_by_place_hash_and_size(sim: Simulator, folder: Path, data_dir: Path) -> None:
    content = picture(1)
    (name,) = write(folder, one_png=content)
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        await look(kimi, name)
    with opened(data_dir) as file:
        for column in ("request", "turns"):
            (stored,) = file.execute(f"SELECT {column} FROM runs").fetchone()
            assert f'"size":{len(content)}' in stored
            assert '"sha256":"' in stored
    assert content[-100:] not in everything(data_dir)
