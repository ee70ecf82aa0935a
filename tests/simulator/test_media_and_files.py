"""Media in requests, and the files, token and balance endpoints."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

from kimi_mcp.simulator import Simulator
from kimi_mcp.simulator.files import FileStore
from kimi_mcp.simulator.media import sniff
from kimi_mcp.simulator.refusals import Refused
from tests.media.documents import encrypted, office, pdf
from tests.simulator.requests import KEY, THINK, answer, data_url, mp4, png, post, refusal, sdk, seeing

pytestmark = pytest.mark.anyio


def image(form: str, width: int, height: int) -> bytes:
    """A real image."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, form)
    return buffer.getvalue()


AVIH = struct.pack("<IIII", 40_000, 0, 0, 0) + struct.pack("<I", 50) + bytes(12) + struct.pack("<II", 320, 240)
AVI = b"RIFF\0\0\0\0AVI LIST\0\0\0\0hdrlavih" + struct.pack("<I", 56) + AVIH

BYTES: dict[str, tuple[bytes, str]] = {
    "image/png": (png(), "image png 3×2"),
    "image/jpeg": (image("JPEG", 64, 32), "image jpeg 64×32"),
    "image/gif": (image("GIF", 7, 5), "image gif 7×5"),
    "image/webp": (image("WEBP", 16, 8), "image webp 16×8"),
    "video/mp4": (mp4(), "video mp4"),
    "video/mov": (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "video mov"),
    "video/3gpp": (b"\0\0\0\x14ftyp3gp4\0\0\0\0isom", "video 3gpp"),
    "video/avi": (AVI, "video avi"),
    "video/webm": (b"\x1aE\xdf\xa3\x9fB\x86\x81\1B\x82\x84webm", "video webm"),
    "video/x-flv": (b"FLV\1\5\0\0\0\x09", "video x-flv"),
    "video/wmv": (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "video wmv"),
    "video/mpeg": (b"\0\0\1\xba\x44\0\4\0", "video mpeg"),
    "video/mpg": (b"\0\0\1\xb3\x14\0\xf0\x13", "video mpeg"),
}


@pytest.mark.parametrize("kind", BYTES)
async def test_each_documented_format_is_taken_and_described(sim: Simulator, kind: str) -> None:
    data, words = BYTES[kind]
    message = await answer(sim, seeing(kind.split("/")[0], data_url(kind, data)))
    digest = hashlib.sha256(data).hexdigest()[:16]
    assert f"Media: {words} {len(data)} bytes, sha256 {digest}." in message["content"]
    assert f"I look at {words}" in message["reasoning_content"]


@pytest.mark.parametrize("kind", BYTES)
def test_no_cut_header_breaks_the_sniffing(kind: str) -> None:
    data, _ = BYTES[kind]
    for length in range(len(data)):
        sniff(data[:length])


def test_a_header_with_wrong_sizes_breaks_nothing() -> None:
    data = bytearray(png())
    for at in range(len(data)):
        for value in (0, 1, 255):
            sniff(bytes(data[:at] + bytes([value]) + data[at + 1 :]))


async def upload(sim: Simulator, name: str, data: bytes, purpose: str) -> dict[str, Any]:
    async with sdk(sim) as client:
        made = await client.files.create(file=(name, data), purpose=purpose)  # pyright: ignore[reportArgumentType]
    return made.model_dump()


async def test_an_uploaded_image_is_seen_by_its_ms_id(sim: Simulator) -> None:
    made = await upload(sim, "a.png", png(), "image")
    assert made["bytes"] == len(png())
    message = await answer(sim, seeing("image", f"ms://{made['id']}"))
    assert "Media: image png 3×2" in message["content"]


async def test_a_file_of_another_purpose_is_no_image(sim: Simulator) -> None:
    made = await upload(sim, "a.png", png(), "file-extract")
    expected = (
        400,
        "invalid_request_error",
        f"Invalid request: file {made['id']} has purpose 'file-extract', not 'image'",
    )
    assert await refusal(sim, seeing("image", f"ms://{made['id']}")) == expected


async def test_an_upload_that_is_not_what_its_purpose_says_is_refused(sim: Simulator) -> None:
    with pytest.raises(openai.BadRequestError, match="the file is not a supported video"):
        await upload(sim, "a.mp4", png(), "video")
    with pytest.raises(openai.BadRequestError, match="purpose must be one of file-extract, image, video, batch"):
        await upload(sim, "a.png", png(), "assistants")


async def test_files_are_listed_read_and_deleted(sim: Simulator) -> None:
    made = await upload(sim, "notes.txt", b"Some notes", "file-extract")
    async with sdk(sim) as client:
        assert [one.id async for one in client.files.list()] == [made["id"]]
        assert (await client.files.retrieve(made["id"])).filename == "notes.txt"
        held = {
            "content": "Some notes",
            "file_type": "text/plain",
            "filename": "notes.txt",
            "title": "",
            "type": "file",
        }
        assert (await client.files.content(made["id"])).json() == held
        assert (await client.files.delete(made["id"])).deleted
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(made["id"])


@pytest.mark.parametrize("kind", ["pdf", "docx", "pptx", "xlsx", "epub"])
async def test_the_text_is_taken_out_of_a_document(sim: Simulator, kind: str) -> None:
    data = pdf("What it says") if kind == "pdf" else office(kind, "What it says")
    made = await upload(sim, f"a.{kind}", data, "file-extract")
    async with sdk(sim) as client:
        assert (await client.files.content(made["id"])).json()["content"].strip() == "What it says"


async def test_a_file_without_text_to_take_out_is_refused(sim: Simulator) -> None:
    refused = {"a.pdf": encrypted(), "b.pdf": b"%PDF-", "c.docx": b"PK\x03\x04", "d.docx": b"text", "e.exe": b"MZ"}
    for name, data in refused.items():
        with pytest.raises(openai.BadRequestError, match=r"text extract error|not supported"):
            await upload(sim, name, data, "file-extract")
    picture = await upload(sim, "a.png", png(), "image")
    async with sdk(sim) as client:
        with pytest.raises(openai.BadRequestError, match="not 'file-extract'"):
            await client.files.content(picture["id"])


async def test_a_large_upload_arrives_whole(sim: Simulator) -> None:
    data = png() + b"\0" * 5_000_000
    assert (await upload(sim, "large.png", data, "image"))["bytes"] == len(data)


async def upload_to(store: FileStore, name: str, data: bytes) -> None:
    request = httpx2.Request("POST", "http://x", files={"file": (name, data)}, data={"purpose": "batch"})

    async def chunks() -> AsyncIterator[bytes]:
        yield request.read()

    await store.upload(request.headers["content-type"], chunks())


async def test_files_are_bounded_in_size_and_number() -> None:
    store = FileStore(max_bytes=10_000, max_files=1)
    for size in (10_001, 200_000):
        with pytest.raises(Refused, match="the file exceeds 100 MB"):
            await upload_to(store, "large.bin", b"x" * size)
    await upload_to(store, "first.bin", b"x" * 10_000)
    with pytest.raises(Refused, match="at most 1 files can be stored"):
        await upload_to(store, "second.bin", b"x")
    store.close()


async def test_tokens_are_estimated_as_they_are_counted(sim: Simulator) -> None:
    estimate = (await post(sim, THINK, path="/tokenizers/estimate-token-count")).json()
    usage = (await post(sim, THINK)).json()["usage"]
    assert estimate == {"data": {"total_tokens": usage["prompt_tokens"]}}


async def test_an_image_of_any_size_is_estimated_as_1024_tokens(sim: Simulator) -> None:
    pictures = [seeing("image", data_url("image/png", png(width, width))) for width in (16, 800)]
    small, large = [
        (await post(sim, body, path="/tokenizers/estimate-token-count")).json()["data"]["total_tokens"]
        for body in pictures
    ]
    assert small == large > 1_024
    counted = [(await post(sim, body)).json()["usage"]["prompt_tokens"] for body in pictures]
    assert counted[0] < counted[1]


async def test_the_balance_is_reported(sim: Simulator) -> None:
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        got = await client.get(f"{sim.base_url}/users/me/balance", headers={"authorization": f"Bearer {KEY}"})
    assert got.json()["data"]["available_balance"] == 49.58894
