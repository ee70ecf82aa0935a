"""Every way of spelling an address that is not public: a listening canary is contacted zero times."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

import anyio
import pytest

from kimi_mcp.core.errors import UrlRefused
from kimi_mcp.media.addresses import is_public, read_url
from kimi_mcp.media.fetch import fetch

HOSTS = [
    host
    for line in """
127.0.0.1 127.0.0.1. 127.1 127.0.1 127.255.255.254 2130706433 2130706433. 0x7f000001 0x7F000001 0x7f.0.0.1 0x7f.1
0x7f.0x0.0x0.0x1 0X7F.0X0.0X0.0X1 017700000001 0177.0.0.1 0177.0.0.01 00000177.0.0.1 127.0.0.01 127.0.0.0x1
127.00.00.01 0 0.0.0.0 0x0 00 0.0 0.1.2.3 255.255.255.255 256.0.0.1 127.0.0.1.2 4294967295 18446744071562067969
10.0.0.1 10.255.255.255 012.0.0.1 167772161 100.64.0.1 100.127.255.254 100.100.100.200 169.254.169.254 169.254.170.2
2852039166 0xa9fea9fe 0xA9.0xFE.0xA9.0xFE 0251.0376.0251.0376 169.16689662 168.63.129.16 172.16.0.1 172.31.255.255
192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 192.168.1.1 0300.0250.0.1 198.18.0.1 198.19.255.255 198.51.100.7
203.0.113.9 224.0.0.1 239.255.255.250 240.0.0.1 [::1] [0:0:0:0:0:0:0:1] [0000:0000:0000:0000:0000:0000:0000:0001] [::]
[::ffff:127.0.0.1] [::ffff:7f00:1] [::FFFF:7F00:0001] [0:0:0:0:0:ffff:127.0.0.1] [::ffff:10.0.0.1]
[::ffff:169.254.169.254] [::ffff:a9fe:a9fe] [::ffff:93.184.216.34] [::ffff:0:127.0.0.1] [::127.0.0.1] [::7f00:1]
[64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b::a9fe:a9fe] [64:ff9b::10.0.0.1] [64:ff9b:1::7f00:1]
[64:ff9b:1::127.0.0.1] [2002:7f00:1::] [2002:7f00:0001::1] [2002:a9fe:a9fe::] [2002:0a00:0001::]
[2001:0:0:0:0:0:80ff:fffe] [2001::f5ff:fffe] [2001:0:53aa:64c:0:5efe:80ff:fffe] [2606:4700::5efe:127.0.0.1]
[2606:4700::200:5efe:a00:1] [2001:db8::1] [2001:2::1] [2001:10::1] [2001:20::1] [3fff::1] [5f00::1] [100::1] [fc00::1]
[fd00:ec2::254] [fd12:3456:789a::1] [fe80::1] [fe80::1%25lo] [fe80::1%lo] [::1%25lo] [::1%lo] [2606:4700::1%25lo]
[fec0::1] [ff02::1] [ff0e::1] [::1]. [127.0.0.1] [v1.127.0.0.1] [::1]127.0.0.1 [::1]@127.0.0.1 localhost LOCALHOST
LocalHost. localhost.localdomain foo.localhost ip6-localhost loopback router intranet metadata
metadata.google.internal METADATA.GOOGLE.INTERNAL. instance-data.ec2.internal printer.local nas.lan fritz.home
wiki.corp kubernetes.default.svc.cluster.local kubernetes.default.svc 1.0.0.127.in-addr.arpa router.home.arpa
site.onion 127.0.0.1.nip.example rebound.example partly.example mapped.example linklocal.example nat64.example
shortened.example ⓛocalhost ｌｏｃａｌｈｏｓｔ １２７.０.０.１
127。0。0。1 ①②⑦.⓪.⓪.① 127.0.0.１ localhost%00.example localhost%2eexample
127.0.0.1%2f.example %31%32%37.0.0.1 %6c%6f%63%61%6c%68%6f%73%74 127.0.0.1%09 127.0.0.1%20 user@127.0.0.1
user:swordfish@127.0.0.1 pictures.example@127.0.0.1 pictures.example:443@127.0.0.1 @127.0.0.1
127.0.0.1@rebound.example -127.0.0.1 .. . .127.0.0.1 127..0.0.1 127.0.0.1.. a..b.example -a.example {long}.example
""".splitlines()
    for host in line.split()
]
"""Hosts as one might write them after `https://`."""

WHOLE = """
http://127.0.0.1:{port}/
HTTP://127.0.0.1:{port}/
http://pictures.example:{port}/
ftp://127.0.0.1:{port}/
file:///etc/passwd
file://127.0.0.1:{port}/x
gopher://127.0.0.1:{port}/_x
dict://127.0.0.1:{port}/x
ldap://127.0.0.1:{port}/
ws://127.0.0.1:{port}/
wss://127.0.0.1:{port}/
jar:https://127.0.0.1:{port}/!/
view-source:https://127.0.0.1:{port}/
https:127.0.0.1:{port}/
https:/127.0.0.1:{port}/
https:///127.0.0.1:{port}/
https:////127.0.0.1:{port}/
https:\\\\127.0.0.1:{port}/
https:/\\127.0.0.1:{port}/
//127.0.0.1:{port}/
127.0.0.1:{port}/
https://127.0.0.1:{port}\\@pictures.example/
https://pictures.example\\@127.0.0.1:{port}/
https://127.0.0.1:{port}#@pictures.example/
https://127.0.0.1:{port}?@pictures.example/
https://pictures.example#@127.0.0.1:{port}/
https://rebound.example:0/
https://rebound.example:65536/
https://rebound.example:-1/
https://rebound.example:+443/
https://rebound.example:４４３/
https://rebound.example:/
https://rebound.example:443:443/
https://rebound.example:{port}{port}/
https://
https://:{port}/
https://?
""".strip().splitlines()
"""Whole URLs."""

HOLDING_BLANKS = [
    "https://127.0.0.1:{port}\t/",
    "https://127.0.0.1 :{port}/",
    "https://pictures.example:{port} @127.0.0.1/",
    "\nhttps://127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/\r\nHost: pictures.example",
    "ht\ntps://127.0.0.1:{port}/",
    "https://127.0.0.\r1:{port}/",
    "https://127.0.0.1\x00.pictures.example:{port}/",
    "https://rebound.example:{port}/\ud800",
    "https://127.0.0.1\x7f:{port}/",
    "https://local\xadhost:{port}/",
    "https://local\u200bhost:{port}/",
    "https://" + "a" * 9_000,
    "",
    " ",
]

INNER = {
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "rebound.example": ["127.0.0.1"],
    "partly.example": ["93.184.216.34", "127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "linklocal.example": ["fe80::1%lo"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "shortened.example": ["127.1"],
    "a.example": ["::1"],
}
"""What the names of the tests resolve to."""


@pytest.fixture
def canary() -> Iterator[tuple[int, list[object]]]:
    """A listener on every address of this machine, and who has called."""
    calls: list[object] = []
    v4 = socket.create_server(("0.0.0.0", 0))
    port = v4.getsockname()[1]
    listeners = [v4]
    if socket.has_ipv6:
        v6 = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            v6.bind(("::", port))
            v6.listen()
            listeners.append(v6)
        except OSError:
            v6.close()
    over = threading.Event()

    def listen(listener: socket.socket) -> None:
        listener.settimeout(0.05)
        while not over.is_set():
            try:
                connection, who = listener.accept()
            except TimeoutError:
                continue
            calls.append(who)
            connection.close()

    threads = [threading.Thread(target=listen, args=(listener,)) for listener in listeners]
    for thread in threads:
        thread.start()
    yield port, calls
    over.set()
    for thread in threads:
        thread.join()
    for listener in listeners:
        listener.close()


async def resolve(host: str, port: int) -> list[str]:
    """The names of the tests, and every number as the system reads it: what ought to be refused would be found."""
    if host in INNER:
        return INNER[host]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [str(entry[4][0]) for entry in found]


async def test_the_canary_is_contacted_zero_times(canary: tuple[int, list[object]]) -> None:
    port, calls = canary
    hosts = [host.replace("{long}", "a" * 64) for host in HOSTS]
    urls = [f"https://{host}:{port}/shot?token=swordfish" for host in hosts]
    urls += [f"https://{host}/shot" for host in hosts]
    urls += [url.replace("{port}", str(port)) for url in (*WHOLE, *HOLDING_BLANKS)]
    assert len(urls) > 350
    fetched: list[str] = []
    for url in urls:
        try:
            with anyio.fail_after(60):
                (await fetch(url, cap_bytes=1_000, deadline_s=2, resolve=resolve)).close()
        except UrlRefused as error:
            text = error.message + error.fix
            assert "swordfish" not in text
            assert text.isprintable()
            if "can't be reached" in text or "broke the connection" in text or "took too long" in text:
                fetched.append(url)
        else:
            fetched.append(url)
    assert fetched == []
    assert calls == []
    with socket.create_connection(("127.0.0.1", port)) as connection:  # the canary does live
        connection.recv(1)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "address",
    [
        *(
            "1.1.1.1",
            "8.8.8.8",
            "93.184.216.34",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "192.169.0.1",
        ),
        *("198.17.0.1", "198.20.0.1", "223.255.255.254", "168.63.129.17", "169.253.0.1", "192.0.1.1", "11.0.0.1"),
        *("2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450::1", "64:ff9b::808:808", "2001:200::1", "2003::1"),
    ],
)
def test_the_public_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))
    host = f"[{address}]" if ":" in address else address
    assert read_url(f"https://{host}:8443/a?b").address == ip_address(address)


def test_no_wrapping_makes_an_inner_address_public() -> None:
    rng = random.Random(7)
    inner = [
        IPv4Address(rng.choice([0x7F000000, 0x0A000000, 0xC0A80000, 0xA9FE0000]) | rng.randrange(1 << 16))
        for _ in range(500)
    ]
    for address in inner:
        number = int(address)
        tail = rng.randrange(1 << 64)
        wrapped = [
            number,
            0xFFFF << 32 | number,
            0xFFFF << 48 | number,
            0x64FF9B << 96 | number,
            0x64FF9B0001 << 80 | tail << 16 | number & 0xFFFF,
            0x2002 << 112 | number << 80 | tail,
            0x20010000 << 96 | tail << 32 | number ^ 0xFFFFFFFF,
            0x26064700 << 96 | 0x5EFE << 32 | number,
            0x26064700 << 96 | 0x02005EFE << 32 | number,
        ]
        assert not is_public(address)
        assert not any(is_public(IPv6Address(one)) for one in wrapped)


def test_no_url_makes_the_reader_fail_otherwise() -> None:
    rng = random.Random(11)
    pieces = [
        "https://",
        "a.example",
        "127.1",
        "[",
        "]",
        "::1",
        "@",
        ":",
        "/",
        "?",
        "#",
        "%",
        "\\",
        ".",
        "é",
        "。",
        "\u0130",
    ]
    pieces += ["xn--", "xn--a", "-", "443", "٣", "\u200d", "ﬀ", "₁", " ", "\u2028", "😀", "ß", "0x"]
    for _ in range(20_000):
        url = ("https://" if rng.random() < 0.8 else "") + "".join(rng.choices(pieces, k=rng.randrange(8)))
        try:
            target = read_url(url)
        except UrlRefused:
            continue
        assert target.host.isascii()
        assert target.path.isascii()
        assert target.path[0] == "/"
        assert target.address is None or is_public(target.address)
        assert read_url(target.url) == target
