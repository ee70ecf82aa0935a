"""Media that are too large for a body: uploaded once for each content and account, reported, cancelled, sent anew."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kimi_mcp.pipeline.attachments import MediaLimits
from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from kimi_mcp.simulator.files import FileStore
from tests.server import clients
from tests.server.clients import ServerOptions
from tests.server.media import (
    CLIP,
    contents,
    data_uri,
    hashes,
    hashes_in,
    look,
    padded_clip,
    picture,
    uploads,
    urls,
    watch,
    write,
)
from tests.server.requests import body_of, chats
from tests.server.results import Result
from tests.server.uploading import UPLOADING, connect, connect_messages, names, requested

# ── once ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_large_is_uploaded_once_and_used_again_in_later_calls(
    sim: Simulator, mode: str, folder: Path
) -> None:
    shot = picture(1)
    write(folder, a_png=shot, same_png=shot, a_mp4=CLIP)
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        results = [await look(kimi, "a.png"), await look(kimi, "same.png", "a.png"), await watch(kimi, "a.mp4")]
        results += [await look(kimi, data_uri(shot)), await watch(kimi, "a.mp4")]
    assert [result.status for result in results] == ["completed"] * 5, [result.text for result in results]
    assert len(uploads(sim)) == 2
    shot_hash, clip_hash = (hashlib.sha256(content).hexdigest() for content in (shot, CLIP))
    assert names(sim) == [(f"kimi-mcp-{shot_hash}.png", "image"), (f"kimi-mcp-{clip_hash}.mp4", "video")]
    assert [contents(sim, each) for each in chats(sim)] == [[shot], [shot, shot], [CLIP], [shot], [CLIP]]
    assert hashes_in(results[1].answer) == hashes([shot, shot])
    assert all(url.startswith("ms://") for each in chats(sim) for url in urls(each))
    assert len(requested(sim, "GET")) == 1, "the list is asked for once"
    assert [result.structured["policy"] for result in results] == [[]] * 5


async def test_a_second_server_finds_what_the_first_one_uploaded(sim: Simulator, mode: str, folder: Path) -> None:
    write(folder, a_mp4=CLIP)
    for _ in range(2):
        async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
            assert (await watch(kimi, "a.mp4")).status == "completed"
    assert len(uploads(sim)) == 1
    assert [contents(sim, each) for each in chats(sim)] == [[CLIP], [CLIP]]


async def test_what_others_left_at_the_provider_is_not_taken_for_ours(sim: Simulator, folder: Path) -> None:
    write(folder, a_mp4=CLIP)
    sim.play({"match": {"path": "/v1/files"}, "body": {"data": [{"id": "theirs", "filename": "clip.mp4"}, 7, {}]}})
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        assert (await watch(kimi, "a.mp4")).status == "completed"
    assert len(uploads(sim)) == 1
    assert contents(sim) == [CLIP]


@pytest.mark.parametrize("step", [{"status": 500}, {"status": 404}, {"html": True}, {"body": "[]"}, {"body": "{"}])
async def test_a_provider_that_does_not_tell_what_it_has_is_no_hindrance(
    sim: Simulator, folder: Path, step: dict[str, Any]
) -> None:
    write(folder, a_mp4=CLIP)
    sim.play({"match": {"path": "/v1/files"}, **step})
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        result = await watch(kimi, "a.mp4")
    assert result.status == "completed", result.text
    assert contents(sim) == [CLIP]


async def test_two_calls_at_once_upload_the_same_clip_once(sim: Simulator, folder: Path) -> None:
    write(folder, a_mp4=CLIP)
    results: list[Result] = []
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:

        async def one() -> None:
            results.append(await watch(kimi, "a.mp4"))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(one)
    assert [result.status for result in results] == ["completed"] * 5
    assert len(uploads(sim)) == 1, "nothing is sent twice"


async def test_the_accounts_are_kept_apart(sim: Simulator, folder: Path) -> None:
    write(folder, a_mp4=CLIP)
    async with Simulator(provider="simulator") as other, connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        assert (await watch(kimi, "a.mp4")).status == "completed"
        async with connect(other, KIMI_ROOTS=str(folder)) as elsewhere:
            assert (await watch(elsewhere, "a.mp4")).status == "completed"
        assert len(uploads(other)) == len(uploads(sim)) == 1


async def test_requests_for_files_carry_the_key_and_ask_for_no_compression(folder: Path) -> None:
    write(folder, a_mp4=CLIP)
    key = "sk-Qx7pLm3Zr9Wv2Tn8Kd5Hs4Jf6Bg1Yc0Ea"
    async with Simulator("moonshot", require_key=key) as moonshot:
        async with connect(moonshot, provider="moonshot", MOONSHOT_API_KEY=key, KIMI_ROOTS=str(folder)) as kimi:
            result = await watch(kimi, "a.mp4")
        assert result.status == "completed", result.text
        assert len(requested(moonshot, "GET")) == len(uploads(moonshot)) == 1
        for request in moonshot.requests:
            assert request.headers["authorization"] == f"Bearer {key}"
            assert request.headers["accept-encoding"] == "identity", request.path
            assert request.headers["user-agent"].startswith("kimi-mcp/"), request.path


# ── gone ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_has_vanished_is_uploaded_anew_and_the_call_is_answered(
    sim: Simulator, mode: str, folder: Path
) -> None:
    shot = picture(1)
    write(folder, a_mp4=CLIP, a_png=shot, b_png=picture(2))
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        await look(kimi, "a.png", "b.png")
        first, second = (url.removeprefix("ms://") for url in urls(chats(sim)[0]))
        sim.files.delete(first)
        result = await look(kimi, "a.png", "b.png", "a.png")
        again = await look(kimi, "a.png")
    assert result.status == again.status == "completed", result.text
    assert contents(sim, chats(sim)[-2]) == [shot, picture(2), shot]
    assert len(uploads(sim)) == 3, "only what was gone"
    assert urls(chats(sim)[-2])[1] == f"ms://{second}"
    assert result.attempts == 2
    assert again.attempts == 1
    assert contents(sim) == [shot]


async def test_a_refusal_for_another_reason_uploads_nothing_anew(sim: Simulator, folder: Path) -> None:
    write(folder, a_mp4=CLIP)
    sim.play({"status": 400, "error_message": "Invalid request: the video is too long"})
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        result = await watch(kimi, "a.mp4")
    assert "the video is too long" in result.error["message"]
    assert len(uploads(sim)) == len(chats(sim)) == 1


async def test_the_providers_own_words_stand_where_its_list_cannot_be_had(sim: Simulator, folder: Path) -> None:
    write(folder, a_mp4=CLIP)
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        assert (await watch(kimi, "a.mp4")).status == "completed"
        sim.play({"status": 400, "error_message": "Invalid request: the video is too long"})
        sim.play({"match": {"path": "/v1/files"}, "status": 500})
        result = await watch(kimi, "a.mp4")
    assert "the video is too long" in result.error["message"], result.text


async def test_what_vanishes_again_and_again_ends_in_a_refusal(sim: Simulator, folder: Path) -> None:
    write(folder, a_mp4=CLIP)
    gone = {"status": 400, "error_message": "Invalid request: file simfile-000001 not found", "times": "always"}
    sim.play(gone, {"match": {"path": "/v1/files"}}, {"match": {"path": "/v1/files"}})
    sim.play({"match": {"path": "/v1/files"}, "body": {"data": []}, "times": "always"})
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        with anyio.fail_after(60):
            result = await watch(kimi, "a.mp4")
    assert result.status == "failed"
    assert len(chats(sim)) <= 2


# ── refused ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_full_account_says_so_and_how_to_make_room(sim: Simulator, mode: str, folder: Path) -> None:
    write(folder, a_mp4=CLIP)
    sim.files = FileStore(max_files=0)
    sim.play({"match": {"path": "/v1/files"}, "body": {"object": "list", "data": []}})
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        result = await watch(kimi, "a.mp4")
    assert result.status == "failed"
    assert result.code == "quota_exhausted", result.text
    assert "at most 0 files" in result.error["message"]
    assert "kimi-mcp files prune" in result.error["fix"]
    assert chats(sim) == []


@pytest.mark.parametrize(
    ("step", "code", "words"),
    [
        ({"status": 413}, "invalid_arguments", "413"),
        ({"status": 401}, "auth_failed", "key"),
        ({"status": 429, "error_type": "rate_limit_reached_error"}, "rate_limited", "rate limit"),
        ({"status": 503}, "overloaded", "capacity"),
        ({"body": "no JSON"}, "upstream_broken", "read"),
        ({"body": {"object": "file"}}, "upstream_broken", "read"),
        ({"truncate_at": 5}, "upstream_broken", "broke"),
    ],
)
async def test_an_upload_that_the_provider_refuses_is_a_clear_error(
    sim: Simulator, folder: Path, step: dict[str, Any], code: str, words: str
) -> None:
    write(folder, a_mp4=CLIP)
    sim.play({"match": {"path": "/v1/files"}, "body": {"data": []}}, {"match": {"path": "/v1/files"}, **step})
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        result = await watch(kimi, "a.mp4")
        assert result.code == code, result.text
        assert words in result.error["message"]
        assert chats(sim) == []
        assert (await watch(kimi, "a.mp4")).status == "completed", "the next call works"
    assert contents(sim) == [CLIP]


async def test_a_provider_that_hangs_up_in_the_middle_of_a_large_upload_is_a_clear_error(
    sim: Simulator, folder: Path
) -> None:
    clip = padded_clip(8_000_000)
    write(folder, a_mp4=clip)
    files = {"match": {"path": "/v1/files"}, "unchecked": True}
    sim.play({**files, "body": {"data": []}}, {**files, "status": 413})
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        with anyio.fail_after(60):
            result = await watch(kimi, "a.mp4")
            assert result.code == "invalid_arguments", result.text
            assert "413" in result.error["message"]
            assert (await watch(kimi, "a.mp4")).status == "completed", "the next call works"


async def test_a_medium_too_large_for_a_provider_without_uploads_is_rejected(mode: str, folder: Path) -> None:
    def up_to(size: int) -> ServerOptions:
        return ServerOptions(media_limits=MediaLimits(inline=200, inline_most=size))

    write(folder, a_png=picture(1))
    too_small, enough = up_to(len(picture(1)) - 1), up_to(len(picture(1)))
    root = str(folder)
    async with Simulator("vllm") as engine:
        async with connect(engine, mode, provider="vllm", options=too_small, KIMI_ROOTS=root) as kimi:
            result = await look(kimi, "a.png")
        assert result.code == "media_rejected", result.text
        assert "vllm" in result.error["message"]
        assert f"{len(picture(1)):,}" in result.error["message"]
        assert "provider" in result.error["fix"]
        async with connect(engine, mode, provider="vllm", options=enough, KIMI_ROOTS=root) as kimi:
            assert (await look(kimi, "a.png")).status == "completed"
        assert contents(engine) == [picture(1)]
        assert uploads(engine) == []


async def test_a_medium_above_what_any_provider_takes_is_rejected_before_it_is_read(
    sim: Simulator, mode: str, folder: Path
) -> None:
    with (folder / "huge.mp4").open("wb") as file:
        file.write(CLIP)
        file.truncate(10_000_000_000)
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        with anyio.fail_after(60):
            result = await watch(kimi, "huge.mp4")
    assert result.code == "media_rejected"
    assert "10,000,000,000" in result.error["message"]
    assert sim.requests == [] or chats(sim) == []


# ── while it goes ─────────────────────────────────────────────────────────────────────────────────────────────────

HELD_UPLOAD = [
    {"match": {"path": "/v1/files"}, "body": {"object": "list", "data": []}},
    {"match": {"path": "/v1/files"}, "gate": "upload"},
]


async def test_a_users_cancellation_ends_an_upload_within_a_second_and_closes_its_socket(
    sim: Simulator, mode: str, folder: Path
) -> None:
    write(folder, a_mp4=CLIP)
    sim.play(*HELD_UPLOAD)
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, kimi, "a.mp4")
            await sim.until(lambda: sim.waiting_at("upload") == 1)
            tasks.cancel_scope.cancel()
        await sim.client_gone()
        assert kimi.state.waiting == {}
        sim.reset()
        assert (await watch(kimi, "a.mp4")).status == "completed", "the next call works"
    assert contents(sim) == [CLIP]


async def test_a_cancellation_in_the_middle_of_the_bytes_ends_the_upload(sim: Simulator, folder: Path) -> None:
    clip = padded_clip(60_000_000)
    write(folder, a_mp4=clip)
    async with connect_messages(sim, KIMI_ROOTS=str(folder)) as host:
        await host.call("kimi_video", {"prompt": "What happens?", "video": "a.mp4"}, 1)
        with anyio.fail_after(60):
            while sum(one.raw for one in uploads(sim)) < 1_000_000:
                await anyio.lowlevel.checkpoint()
        await host.cancel(1, reason="the user pressed escape")
        await sim.client_gone()
    (upload,) = uploads(sim)
    assert upload.raw < len(clip)
    assert chats(sim) == []
    assert names(sim) == []


async def test_progress_reports_the_upload(sim: Simulator, mode: str, folder: Path) -> None:
    often = replace(UPLOADING, timings=Timings(warm_up_after_s=3600, first_progress_s=0.05, progress_every_s=0.05))
    clip = padded_clip(3_000_000)
    write(folder, a_mp4=clip)
    sim.play(*HELD_UPLOAD)
    messages: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        del progress, total
        messages.append(message or "")
        if "upload" in messages[-1]:
            sim.open_gate("upload")

    async with connect(sim, mode, options=often, KIMI_ROOTS=str(folder)) as kimi:
        with anyio.fail_after(60):
            result = await kimi.call(
                "kimi_video", {"prompt": "What happens?", "video": "a.mp4"}, progress_callback=on_progress
            )
    assert result.status == "completed", result.text
    assert any("upload (" in one and "of 3 MB" in one for one in messages), messages


async def test_an_upload_outlasts_a_host_whose_clock_ran_out(sim: Simulator, folder: Path) -> None:
    write(folder, a_mp4=CLIP)
    sim.play(*HELD_UPLOAD)
    async with clients.connect_messages(sim, options=UPLOADING, KIMI_ROOTS=str(folder)) as host:
        await host.call("kimi_video", {"prompt": "What happens?", "video": "a.mp4"}, 1)
        await sim.until(lambda: sim.waiting_at("upload") == 1)
        await host.cancel(1, reason="Request timed out")
        run_id = (await host.result("kimi_run", {}))["answer"].split()[0]
        assert (await host.result("kimi_run", {"run_id": run_id, "action": "status"}))["status"] == "running"
        sim.open_gate("upload")
        with anyio.fail_after(60):
            result = await host.result("kimi_run", {"run_id": run_id, "action": "wait"})
    assert result["status"] == "completed"
    assert hashes_in(result["answer"]) == hashes([CLIP])


async def test_an_id_of_the_provider_is_passed_on_as_it_is_and_a_foreign_one_is_answered_for(
    sim: Simulator, mode: str, folder: Path
) -> None:
    write(folder, a_png=picture(1))
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        await look(kimi, "a.png")
        (url,) = urls(chats(sim)[0])
        assert (await look(kimi, url)).status == "completed"
        unknown = await look(kimi, "ms://nowhere")
    assert urls(chats(sim)[1]) == [url]
    assert body_of(chats(sim)[1])["messages"] == body_of(chats(sim)[0])["messages"]
    assert unknown.status == "failed"
    assert "not found" in unknown.error["message"]


async def test_an_id_is_refused_by_a_provider_that_has_no_files(mode: str) -> None:
    async with Simulator("vllm") as engine, connect(engine, mode, provider="vllm") as kimi:
        result = await look(kimi, "ms://file-1")
    assert result.code == "media_rejected", result.text
    assert "ms://" in result.error["message"]
    assert chats(engine) == []
