"""Which hosts of a URL are this machine."""

from __future__ import annotations

import pytest

from kimi_mcp.core.loopback import is_loopback


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "api.localhost", "127.0.0.1", "127.9.8.7", "::1"])
def test_this_machine_is_known_by_its_names_and_addresses(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "example.org", "localhost.example.org", "notlocalhost", "127.0.0.1.example.org", "10.0.0.1", "0.0.0.0"]
)
def test_another_machine_is_not_taken_for_this_one(host: str) -> None:
    assert not is_loopback(host)
