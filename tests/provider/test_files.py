"""Files at the provider: sent piece by piece, listed, removed; and what becomes of whatever is answered instead."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kimi_mcp.core import bounds
from kimi_mcp.core.errors import KimiError, PathRefused
from kimi_mcp.provider import Deadlines, RemoteFile, Upload, Upstream
from kimi_mcp.simulator import Simulator
from tests.loop_time import LoopTime, fail_after_real, others_wait
from tests.media.specimens import CLIPS, saved
from tests.provider.loopback import response, saying
from tests.provider.requests import KEY, close_all, endpoint, upstream

CLIP = (CLIPS / "clip.mp4").read_bytes()
FILES = {"match": {"path": "/v1/files"}}


def upload(content: bytes = CLIP, **more: Any) -> Upload:
    def chunks() -> Iterator[bytes]:
        for offset in range(0, len(content), 1000):
            yield content[offset : offset + 1000]

    fields: dict[str, Any] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "mime": "video/mp4",
        "purpose": "video",
        "size": len(content),
        "chunks": chunks,
    }
    return Upload(**{**fields, **more})


async def refused(call: Any) -> KimiError:
    with pytest.raises(KimiError) as caught, fail_after_real(60):
        await call
    assert caught.value.message
    assert caught.value.fix
    assert KEY not in caught.value.message + caught.value.fix
    return caught.value


async def overtaken(call: Any, sim: Simulator, loop_time: LoopTime) -> KimiError:
    """The error of a call whose time passes while the simulator holds it at the gate `never`."""
    errors: list[KimiError] = []

    async def fail() -> None:
        errors.append(await refused(call))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fail)
        await sim.until(lambda: sim.waiting_at("never") == 1)
        await loop_time.until(lambda: errors)
    return errors[0]


async def test_a_file_arrives_byte_for_byte_under_the_name_of_its_content(sim: Simulator) -> None:
    up, to, sent = upstream(), endpoint(sim.base_url), list[int]()
    identity = await up.upload(to, upload(on_sent=sent.append))
    (file,) = await up.list_files(to)
    digest = hashlib.sha256(CLIP).hexdigest()
    assert (file.id, file.name, file.size, file.purpose) == (identity, f"kimi-mcp-{digest}.mp4", len(CLIP), "video")
    assert file.sha256 == digest
    assert file.created > 0
    assert sim.files.get(identity).content == CLIP
    assert sent == [*range(1000, len(CLIP), 1000), len(CLIP)]
    sent = sim.requests[0]
    assert sent.headers["content-length"] == str(sent.raw)
    assert "transfer-encoding" not in sent.headers


async def test_what_looks_like_a_boundary_in_a_file_is_only_a_part_of_it(sim: Simulator) -> None:
    odd = (
        saved("PNG")
        + b'\r\n--kimi-mcp-0123456789abcdef\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    )
    up, to = upstream(), endpoint(sim.base_url)
    identity = await up.upload(to, upload(odd, mime="image/png", purpose="image"))
    stored = sim.files.get(identity)
    assert stored.content == odd
    assert stored.purpose == "image"


@pytest.mark.parametrize(
    ("mime", "ending"),
    [
        *(("image/png", "png"), ("image/jpeg", "jpeg"), ("video/x-flv", "flv"), ("video/3gpp", "3gpp")),
        *(("video/webm", "webm"), ("video/", "bin"), ("odd", "odd")),
    ],
)
def test_a_name_tells_the_content_and_reads_back(mime: str, ending: str) -> None:
    name = upload(mime=mime).name
    assert name.endswith(f".{ending}")
    file = RemoteFile(id="a", name=name, size=1, purpose="video", created=0)
    assert file.sha256 == hashlib.sha256(CLIP).hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        *("clip.mp4", "kimi-mcp-.mp4", f"kimi-mcp-{'g' * 64}.mp4", f"kimi-mcp-{'a' * 63}.mp4", ""),
        *(f"x-kimi-mcp-{'a' * 64}.mp4", f"kimi-mcp-{'a' * 64}", f"kimi-mcp-{'a' * 64}.mp4\n"),
        f"kimi-mcp-{'A' * 64}.mp4",
    ],
)
def test_a_name_of_somebody_elses_tells_nothing(name: str) -> None:
    assert RemoteFile(id="a", name=name, size=1, purpose="video", created=0).sha256 is None


async def test_a_removed_file_is_gone_and_removing_it_again_says_so(sim: Simulator) -> None:
    up, to = upstream(), endpoint(sim.base_url)
    identity = await up.upload(to, upload())
    await up.remove_file(to, identity)
    assert await up.list_files(to) == ()
    error = await refused(up.remove_file(to, identity))
    assert identity in error.message


async def test_an_id_cannot_lead_to_another_path(sim: Simulator) -> None:
    await refused(upstream().remove_file(endpoint(sim.base_url), "../models?x=1#y"))
    (requested,) = sim.requests
    assert requested.path == "/v1/files/..%2Fmodels%3Fx%3D1%23y"


@pytest.mark.parametrize("act", ["list", "upload", "remove"])
@pytest.mark.parametrize(
    ("step", "code"),
    [
        ({"status": 401, "echo_key": True}, "auth_failed"),
        ({"status": 403}, "auth_failed"),
        ({"status": 429, "error_type": "exceeded_current_quota_error"}, "quota_exhausted"),
        ({"status": 413}, "invalid_arguments"),
        ({"status": 400, "error_message": "Invalid request: at most 1000 files can be stored"}, "quota_exhausted"),
        ({"status": 500}, "upstream_broken"),
        ({"status": 503}, "overloaded"),
        ({"status": 307, "headers": {"location": "http://127.0.0.1:9/"}}, "upstream_broken"),
        ({"body": "no JSON"}, "upstream_broken"),
        ({"html": True}, "upstream_broken"),
        ({"body": "[" * 100_000}, "upstream_broken"),
        ({"truncate_at": 3}, "upstream_broken"),
        ({"reset_at": 3}, "upstream_broken"),
    ],
)
async def test_whatever_is_answered_instead_becomes_one_of_our_errors(
    sim: Simulator, act: str, step: dict[str, Any], code: str
) -> None:
    up, to = upstream(), endpoint(sim.base_url)
    identity = await up.upload(to, upload())
    path = f"/v1/files/{identity}" if act == "remove" else "/v1/files"
    sim.play({"match": {"path": path}, **step})
    error = await refused(_act(up, to, act, identity))
    assert error.code == code, error.message


def _act(up: Upstream, to: Any, act: str, identity: str) -> Any:
    match act:
        case "list":
            return up.list_files(to)
        case "upload":
            return up.upload(to, upload())
        case _:
            return up.remove_file(to, identity)


@pytest.mark.parametrize(
    "body", [{"object": "file"}, {"id": ""}, {"id": 7}, {"id": None}, {}], ids=["none", "empty", "number", "null", "{}"]
)
async def test_an_upload_that_is_answered_without_an_id_is_broken(sim: Simulator, body: dict[str, Any]) -> None:
    sim.play({**FILES, "body": body})
    error = await refused(upstream().upload(endpoint(sim.base_url), upload()))
    assert error.code == "upstream_broken"


@pytest.mark.parametrize(
    "rows",
    [None, [], "text", 7, {"a": 1}, [None, 7, "x", []], [{}], [{"id": None, "filename": 7, "bytes": "x"}]],
    ids=str,
)
async def test_a_list_of_odd_rows_is_no_fault_of_ours(sim: Simulator, rows: Any) -> None:
    sim.play({**FILES, "body": {"data": rows}})
    for file in await upstream().list_files(endpoint(sim.base_url)):
        assert file.sha256 is None


@pytest.mark.parametrize("number", [int("9" * 400), -1, True, 1.5, None])
async def test_a_size_or_a_date_that_is_none_is_nothing(sim: Simulator, number: Any) -> None:
    row = {"id": "x" * 1_000, "filename": "a.png", "bytes": number, "created_at": number, "purpose": "image"}
    sim.play({**FILES, "body": {"data": [row]}})
    (file,) = await upstream().list_files(endpoint(sim.base_url))
    assert (file.size, file.created, file.name) == (0, 0, "a.png")
    assert len(file.id) < 1_000


async def test_a_list_beyond_any_reason_is_cut_off() -> None:
    body = b'{"data": [' + b"1," * (bounds.LARGEST_DOCUMENT // 2) + b"1]}"
    async with saying(response(body, kind="application/json")) as server:
        error = await refused(upstream().list_files(endpoint(server.base_url)))
    assert error.code == "upstream_broken"


@pytest.mark.parametrize("act", ["list", "remove"])
async def test_a_provider_that_never_answers_is_waited_for_only_so_long(
    sim: Simulator, loop_time: LoopTime, act: str
) -> None:
    to = endpoint(sim.base_url)
    identity = await upstream().upload(to, upload())
    up = upstream(deadlines=Deadlines(files_s=20))
    sim.play({"match": {"path": f"/v1/files/{identity}" if act == "remove" else "/v1/files"}, "gate": "never"})
    error = await overtaken(_act(up, to, act, identity), sim, loop_time)
    assert error.code == "upstream_unreachable"
    await sim.client_gone()


def _large() -> Upload:
    """A file that no socket's buffers hold."""

    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield bytes(1_000_000)

    return upload(size=30_000_000, chunks=chunks)


async def test_an_upload_over_a_slow_line_is_no_silence(loop_time: LoopTime) -> None:
    up, ids = upstream(deadlines=Deadlines(first_token_s=20)), list[str]()

    async def send() -> None:
        ids.append(await up.upload(endpoint(slow.base_url), _large()))

    async with saying(response(b'{"id": "one"}', kind="application/json"), reads_mb_every_s=1) as slow:
        with fail_after_real(120):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                while not ids:
                    taken = slow.taken_mb
                    await loop_time.forward(1)
                    while slow.taken_mb == taken and not ids:
                        await anyio.lowlevel.checkpoint()
    assert ids == ["one"]
    assert loop_time.passed > 20, "as a whole it took longer"


@pytest.mark.parametrize("silent", ["while it is sent", "once it is sent"])
async def test_an_upload_that_nobody_takes_on_or_answers_is_a_timeout(silent: str) -> None:
    up = upstream(deadlines=Deadlines(first_token_s=0.3))
    sending = silent == "while it is sent"
    async with saying(hold=True, reads_mb_every_s=3_600 if sending else None) as stuck:
        error = await refused(up.upload(endpoint(stuck.base_url), _large()))
        assert error.code == "upstream_timeout"
        assert "file" in error.message
        assert "KIMI_FIRST_TOKEN_TIMEOUT_S" in error.fix


async def test_uploads_wait_for_a_slot_like_any_request(sim: Simulator) -> None:
    up, to = upstream(max_concurrency=1), endpoint(sim.base_url)
    sim.play({**FILES, "gate": "first"})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(up.upload, to, upload())
        await sim.until(lambda: sim.waiting_at("first") == 1)
        tasks.start_soon(up.upload, to, upload(saved("PNG"), mime="image/png", purpose="image"))
        await others_wait()
        assert len(sim.requests) == 1
        sim.open_gate("first")
    assert len(sim.requests) == 2


async def test_an_upload_ends_with_the_total_deadline_and_closes_its_socket(
    sim: Simulator, loop_time: LoopTime
) -> None:
    sim.play({**FILES, "gate": "never"})
    up = upstream(deadlines=Deadlines(total_s=20))
    error = await overtaken(up.upload(endpoint(sim.base_url), upload()), sim, loop_time)
    assert error.code == "upstream_timeout"
    assert "KIMI_TOTAL_TIMEOUT_S" in error.fix
    await sim.client_gone()


async def test_nobody_at_the_address_is_reported() -> None:
    error = await refused(upstream().upload(endpoint("http://127.0.0.1:9/v1"), upload()))
    await close_all()
    assert error.code == "upstream_unreachable"


def _breaking(after: int, raised: Callable[[], Exception]) -> Callable[[], Iterator[bytes]]:
    def chunks() -> Iterator[bytes]:
        yield CLIP[:after]
        raise raised()

    return chunks


async def test_a_file_that_cannot_be_read_to_its_end_is_reported_as_it_is_and_leaves_nothing_there(
    sim: Simulator,
) -> None:
    up, to = upstream(), endpoint(sim.base_url)
    gone = PathRefused("`a.mp4` became shorter while it was read.", fix="Call again once it is written.")
    for after in (0, 100, len(CLIP)):
        error = await refused(up.upload(to, upload(chunks=_breaking(after, lambda: gone))))
        assert error.code == "path_refused"
        assert error.message == gone.message
    assert await up.list_files(to) == ()
    assert await up.upload(to, upload()), "the next one works"


async def test_a_cancellation_closes_the_socket_and_leaves_nothing_there(sim: Simulator) -> None:
    up, to = upstream(), endpoint(sim.base_url)
    sim.play({**FILES, "gate": "upload"})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(up.upload, to, upload())
        await sim.until(lambda: sim.waiting_at("upload") == 1)
        tasks.cancel_scope.cancel()
    await sim.client_gone()
    assert await up.upload(to, upload()), "the next one works"


async def test_no_key_is_sent_where_there_is_none() -> None:
    async with Simulator("simulator") as open_to_all:
        up, to = upstream(), endpoint(open_to_all.base_url, key=None, provider="simulator")
        await up.upload(to, upload())
        await up.list_files(to)
        assert not any("authorization" in one.headers for one in open_to_all.requests)
        await close_all()


async def test_every_request_says_who_asks_and_asks_for_no_compression(sim: Simulator) -> None:
    up, to = upstream(), endpoint(sim.base_url)
    identity = await up.upload(to, upload())
    await up.list_files(to)
    await up.list_models(to)
    await up.remove_file(to, identity)
    assert len(sim.requests) == 4
    for one in sim.requests:
        assert one.headers["authorization"] == f"Bearer {KEY}"
        assert one.headers["accept-encoding"] == "identity"
        assert one.headers["user-agent"].startswith("kimi-mcp/")
        assert not [name for name in one.headers if name.startswith("x-stainless") or name == "cookie"]
