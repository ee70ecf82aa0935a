from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import httpcore2
import pytest

from kimi_mcp.core.errors import MediaRejected, UrlRefused
from kimi_mcp.media.fetch import HOPS_MAX, IN_MEMORY
from tests.media.sites import PUBLIC, Authority, Handler, get, redirects, refused, says, site

CHUNKED = "transfer-encoding: chunked"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


# ------------------------------------------------------------------------------------------------ what arrives


async def test_a_body_arrives_whole_with_what_the_server_says_of_it(authority: Authority) -> None:
    body = os.urandom(70_000)
    async with site(authority, shot=says(body, "content-type: Image/PNG; charset=x")) as here:
        with await get(here) as fetched:
            assert fetched.file.read() == body
            assert (fetched.size, fetched.on_disk) == (70_000, False)
            assert (fetched.content_type, fetched.host) == ("image/png", "pictures.example")
            assert fetched.read_at(10, 5) == body[10:15]
            assert fetched.read_at(69_998, 5) == body[-2:]
        assert fetched.file.closed
        assert here.names == ["pictures.example"]
        assert here.connected == [(PUBLIC, 443)]
        assert here.resolved == ["pictures.example"]


async def test_nothing_of_ours_goes_along(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    shot = says(b"x", "set-cookie: taste=sweet", "location: /shot/2", status="307 Temporary Redirect")

    async def first_redirect(request: bytes, writer: asyncio.StreamWriter) -> None:
        await (says(b"y") if b"/shot/2" in request else shot)(request, writer)

    async with site(authority, shot=first_redirect) as here:
        (await get(here)).close()
        for request in here.requests:
            names = {line.split(b":")[0].lower() for line in request.split(b"\r\n")[1:] if line}
            assert names == {b"host", b"user-agent", b"accept", b"accept-encoding", b"connection"}
            assert b"\r\nHost: pictures.example\r\n" in request
            assert b"\r\nAccept-Encoding: identity\r\n" in request
        assert here.paths() == ["/shot?token=swordfish", "/shot/2"]


async def test_a_large_body_goes_to_disk_while_memory_stays_flat(authority: Authority) -> None:
    piece, times = os.urandom(1 << 20), 24

    async def shot(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: video/mp4\r\n\r\n")
        for _ in range(times):
            writer.write(piece)
            await writer.drain()

    async with site(authority, shot=shot) as here:
        tracemalloc.start()
        try:
            fetched = await get(here, cap=64 << 20)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        with fetched:
            assert fetched.on_disk
            assert fetched.size == times << 20
            assert fetched.file.fileno() > 2
            wanted = hashlib.sha256()
            for _ in range(times):
                wanted.update(piece)
            assert hashlib.file_digest(fetched.file, "sha256").digest() == wanted.digest()
        assert peak < 3 * IN_MEMORY


async def test_a_temporary_file_has_no_name(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with site(authority, shot=says(b"x" * (IN_MEMORY + 1))) as here:
        with await get(here, cap=64 << 20) as fetched:
            assert fetched.on_disk
            if sys.platform != "win32":
                assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "host", "address", "port", "path"),
    [
        ("HTTPS://PICTURES.Example./shot", "pictures.example", PUBLIC, 443, "/shot"),
        ("https://pictures.example:8443/shot#part", "pictures.example:8443", PUBLIC, 8443, "/shot"),
        ("https://pictures.example:443/shot", "pictures.example", PUBLIC, 443, "/shot"),
        ("https://bücher.example/shot", "xn--bcher-kva.example", PUBLIC, 443, "/shot"),
        ("https://BÜCHER。example/shot", "xn--bcher-kva.example", PUBLIC, 443, "/shot"),
        ("https://pictures.example/shot/ü b?ä=[1]", "pictures.example", PUBLIC, 443, "/shot/%C3%BC%20b?%C3%A4=%5B1%5D"),
        ("https://pictures.example/shot/%2e%2E/a%zz", "pictures.example", PUBLIC, 443, "/shot/%2e%2E/a%zz"),
    ],
)
async def test_a_url_is_asked_for_as_it_was_judged(
    authority: Authority, url: str, host: str, address: str, port: int, path: str
) -> None:
    async with site(authority, shot=says(b"x")) as here:
        (await get(here, url)).close()
        assert here.connected == [(address, port)]
        assert here.paths() == [path]
        assert f"\r\nHost: {host}\r\n".encode() in here.requests[0]


async def test_the_next_address_is_tried_where_one_does_not_answer(authority: Authority) -> None:
    async with site(authority, shot=says(b"x")) as here:
        here.addresses["pictures.example"] = [["2606:4700::1111", PUBLIC]]
        reach = here.connect

        async def connect(address: str, port: int) -> httpcore2.AsyncNetworkStream:
            if ":" in address:
                here.connected.append((address, port))
                raise httpcore2.ConnectError
            return await reach(address, port)

        here.connect = connect
        (await get(here)).close()
        assert here.connected == [("2606:4700::1111", 443), (PUBLIC, 443)]


# ------------------------------------------------------------------------------------------------ redirects


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_a_hop_of_its_own(authority: Authority, status: str) -> None:
    elsewhere = redirects("https://other.example/there?a=b", status)
    async with site(authority, shot=elsewhere, there=says(b"here")) as here:
        with await get(here) as fetched:
            assert fetched.file.read() == b"here"
            assert fetched.host == "other.example"
        assert here.resolved == here.names == ["pictures.example", "other.example"]
        assert here.paths() == ["/shot?token=swordfish", "/there?a=b"]


async def test_redirects_come_to_an_end(authority: Authority) -> None:
    async with site(authority, shot=redirects("/shot?token=swordfish&again")) as here:
        error = await refused(here)
        assert isinstance(error, UrlRefused)
        assert len(here.requests) == HOPS_MAX + 1


@pytest.mark.parametrize(
    "to",
    [
        "http://pictures.example/shot",
        "http://127.0.0.1/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://[::ffff:127.0.0.1]/",
        "//169.254.169.254/latest/meta-data/",
        "//localhost/",
        "https://user:swordfish@other.example/",
        "file:///etc/passwd",
        "ftp://other.example/",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "https://inner.example/",
        "https://[",
        "https://other.example:99999/",
        "\\\\other.example\\share",
        "https://other.example\\@127.0.0.1/",
        "https://other.example/\x00",
        "https://\xff\xfe.example/",
    ],
)
async def test_a_redirect_leads_nowhere_else(authority: Authority, to: str) -> None:
    async with site(authority, shot=redirects(to)) as here:
        here.addresses["inner.example"] = [["10.0.0.7"]]
        error = await refused(here)
        assert isinstance(error, UrlRefused)
        assert error.rule == ("media-inline" if to[:5] in ("http:", "file:", "ftp:/", "data:", "javas") else None)
        assert len(here.connected) == len(here.requests) == 1


# ------------------------------------------------------------------------------------------------ names


async def test_a_name_that_changes_its_mind_changes_nothing(authority: Authority) -> None:
    async with site(authority, shot=says(b"x")) as here:
        here.addresses["pictures.example"] = [[PUBLIC], ["127.0.0.1"]]
        (await get(here)).close()
        assert here.resolved == ["pictures.example"]
        assert here.connected == [(PUBLIC, 443)]
        assert isinstance(await refused(here), UrlRefused)
        assert here.connected == [(PUBLIC, 443)]


async def test_a_name_is_checked_again_at_each_hop(authority: Authority) -> None:
    async with site(authority, shot=redirects("/there"), there=says(b"x")) as here:
        here.addresses["pictures.example"] = [[PUBLIC], ["169.254.169.254"]]
        assert "not public" in (await refused(here)).message
        assert here.connected == [(PUBLIC, 443)]


@pytest.mark.parametrize(
    "answer",
    [
        ["10.1.2.3"],
        [PUBLIC, "10.1.2.3"],
        ["10.1.2.3", PUBLIC],
        [PUBLIC, "::1"],
        ["fe80::1%eth0"],
        ["64:ff9b::a00:1"],
        [],
    ],
)
async def test_every_address_of_a_name_must_be_public(authority: Authority, answer: list[str]) -> None:
    async with site(authority, shot=says(b"x")) as here:
        here.addresses["pictures.example"] = [answer]
        assert isinstance(await refused(here), UrlRefused)
        assert here.connected == []


async def test_a_site_behind_nat64_is_public(authority: Authority) -> None:
    async with site(authority, shot=says(b"x")) as here:
        here.addresses["pictures.example"] = [["64:ff9b::5db8:d822"]]
        (await get(here)).close()
        assert here.connected == [("64:ff9b::5db8:d822", 443)]


async def test_an_unknown_name_is_reported(authority: Authority) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise OSError("swordfish")

    async with site(authority, shot=says(b"x")) as here:
        here.resolve = resolve
        assert "not known" in (await refused(here)).message


# ------------------------------------------------------------------------------------------------ bodies


BODIES: dict[str, tuple[Handler, str]] = {
    "shorter than announced": (says(b"x" * 50, length=100), "truncated: found 50 bytes, expected 100"),
    "longer than allowed": (says(b"x" * 2_000), "too large: found 2,000 bytes, 1,000 are allowed"),
    "announced as huge": (says(b"x", length=10**15), "too large: found 1,000,000,000,000,000 bytes"),
    "no length, too long": (
        says(b"x" * 2_000, length=None),
        "too large: found more than 1,000 bytes, 1,000 are allowed",
    ),
    "chunks cut off": (says(b"3e8\r\n" + b"x" * 1_000, CHUNKED, length=None), "truncated: found 1,000 bytes"),
    "chunks too long": (says(b"7d0\r\n" + b"x" * 2_000, CHUNKED, length=None), "found more than 1,000 bytes"),
    "gzip": (says(b"\x1f\x8b" + b"x" * 90, "content-encoding: gzip"), "compressed"),
    "brotli": (says(b"x" * 90, "content-encoding: identity, br"), "compressed"),
    "empty": (says(b""), "found 0 bytes"),
    "empty without a length": (says(b"", length=None), "found 0 bytes"),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_is_not_what_it_should_be_is_rejected(authority: Authority, name: str) -> None:
    page, message = BODIES[name]
    async with site(authority, shot=page) as here:
        error = await refused(here, cap=1_000)
        assert isinstance(error, MediaRejected)
        assert message in error.message


async def test_what_follows_the_announced_length_is_not_taken(authority: Authority) -> None:
    async with site(authority, shot=says(b"x" * 900, length=100)) as here:
        with await get(here) as fetched:
            assert fetched.size == 100


async def test_a_body_without_a_length_is_taken_to_its_end(authority: Authority) -> None:
    async with site(authority, shot=says(b"x" * 900, length=None)) as here:
        with await get(here, cap=900) as fetched:
            assert fetched.size == 900


@pytest.mark.parametrize(
    "status",
    [
        "201 Created",
        "204 No Content",
        "206 Partial",
        "300 Choices",
        "304 Not Modified",
        "401 Who",
        "404 No",
        "503 Later",
    ],
)
async def test_an_answer_without_the_file_is_reported_by_its_status(authority: Authority, status: str) -> None:
    async with site(
        authority, shot=says(b"" if status[:3] in ("204", "304") else b"an error page", status=status)
    ) as here:
        error = await refused(here)
        assert isinstance(error, UrlRefused)
        assert f"answered {status[:3]}" in error.message


@pytest.mark.parametrize(
    "what",
    [b"", b"\x89PNG\r\n\x1a\n", b"HTTP/1.1 2", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 40_000],
    ids=["nothing", "a picture", "half a line", "another protocol", "endless headers"],
)
async def test_an_answer_that_is_no_http_is_refused(authority: Authority, what: bytes) -> None:
    async def shot(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(what)
        await writer.drain()

    async with site(authority, shot=shot) as here:
        assert isinstance(await refused(here), UrlRefused)


# ------------------------------------------------------------------------------------------------ start-up


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys; import kimi_mcp.media.loading, kimi_mcp.media.addresses, kimi_mcp.media.convert; "
        "print(sorted({'httpx2', 'httpcore2', 'PIL', 'pillow_heif', 'idna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]"
