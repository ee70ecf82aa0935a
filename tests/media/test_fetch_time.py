from __future__ import annotations

import asyncio
import os
from pathlib import Path

import anyio
import pytest

from kimi_mcp.core.errors import KimiError, NotConfigured, UrlRefused
from kimi_mcp.media.fetch import IN_MEMORY, fetch
from tests.loop_time import LoopTime
from tests.media.sites import PUBLIC, URL, Authority, Site, get, refused, says, site


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


# ------------------------------------------------------------------------------------------------ time


async def overtaken(here: Site, begun: asyncio.Event, loop_time: LoopTime) -> KimiError:
    """The error of a fetch whose time passes once it has come that far."""
    errors: list[KimiError] = []

    async def fail() -> None:
        errors.append(await refused(here, deadline_s=20))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fail)
        await begun.wait()
        await loop_time.until(lambda: errors)
    return errors[0]


async def test_a_body_that_trickles_stops_at_the_deadline(authority: Authority, loop_time: LoopTime) -> None:
    begun = asyncio.Event()

    async def shot(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        begun.set()
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(3)

    async with site(authority, shot=shot) as here:
        error = await overtaken(here, begun, loop_time)
        assert "after 20 s" in error.message
        with anyio.fail_after(60):
            await here.gone.wait()


@pytest.mark.parametrize("silent", ["resolving", "connecting", "handshake", "headers"])
async def test_silence_stops_at_the_deadline_wherever_it_falls(
    authority: Authority, loop_time: LoopTime, silent: str
) -> None:
    begun = asyncio.Event()

    async def shot(request: bytes, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await here.gone.wait()

    async def wait(host: str, port: int) -> list[str]:
        begun.set()
        await anyio.sleep_forever()
        raise AssertionError

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await reader.read(-1)
        writer.close()
        here.gone.set()

    async with site(authority, shot=shot) as here:
        server: asyncio.Server | None = None
        if silent == "resolving":
            here.resolve = wait
        elif silent == "connecting":
            here.connect = wait  # type: ignore[assignment]
        elif silent == "handshake":
            server = await asyncio.start_server(mute, "127.0.0.1", 0)
            here.port = server.sockets[0].getsockname()[1]
        assert "took too long: found 0 bytes" in (await overtaken(here, begun, loop_time)).message
        if server is not None:
            with anyio.fail_after(60):
                await here.gone.wait()
            server.close()
            await server.wait_closed()
        here.gone.set()


async def test_a_cancelled_fetch_closes_its_connection(authority: Authority) -> None:
    begun = asyncio.Event()

    async def shot(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (IN_MEMORY + 1))
        await writer.drain()
        begun.set()
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with site(authority, shot=shot) as here:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: get(here, cap=1 << 30))
            await begun.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(60):
            await here.gone.wait()


# ------------------------------------------------------------------------------------------------ certificates


async def test_a_certificate_that_nobody_vouches_for_is_refused(authority: Authority, tmp_path: Path) -> None:
    async with site(authority, shot=says(b"x")) as here:
        here.trusted = Authority(tmp_path).trust()
        assert "certificate" in (await refused(here)).message
        assert here.requests == []


async def test_a_certificate_of_another_name_is_refused(authority: Authority) -> None:
    async with site(authority, shot=says(b"x")) as here:
        assert "certificate" in (await refused(here, "https://third.example/shot")).message
        assert "certificate" in (await refused(here, f"https://{PUBLIC}/shot".replace(PUBLIC, "1.1.1.1"))).message
        assert here.requests == []


async def test_the_systems_certificates_are_trusted_by_default(authority: Authority) -> None:
    async with site(authority, shot=says(b"x")) as here:
        with pytest.raises(UrlRefused, match="certificate"):
            await fetch(URL, cap_bytes=9, deadline_s=5, resolve=here.resolve, connect=here.connect)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
async def test_other_tasks_go_on_while_the_certificates_are_read(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(pipe := tmp_path / "certificates.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(pipe))

    async def fill() -> None:
        while True:
            try:
                end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # once somebody reads
                break
            except OSError:
                await anyio.sleep(0.001)
        os.write(end, b"garbage")
        os.close(end)

    async with site(authority, shot=says(b"x")) as here, anyio.create_task_group() as tasks:
        tasks.start_soon(fill)
        with pytest.raises(NotConfigured) as caught:
            await fetch(URL, cap_bytes=9, deadline_s=60, resolve=here.resolve, connect=here.connect)
        assert "SSL_CERT_FILE" in caught.value.message
        assert "SSL_CERT_FILE" in caught.value.fix


async def test_certificates_are_read_once(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file := tmp_path / "root.pem").write_text(authority.root)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    async with site(authority, shot=says(b"x")) as here:
        (await fetch(URL, cap_bytes=9, deadline_s=60, resolve=here.resolve, connect=here.connect)).close()
        file.unlink()
        (await fetch(URL, cap_bytes=9, deadline_s=60, resolve=here.resolve, connect=here.connect)).close()
