"""What every test starts from: asyncio, and an environment in which nobody has configured anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

KEYS = {
    "MOONSHOT_API_KEY",
    "NVIDIA_API_KEY",
    "HF_TOKEN",
    "OPENROUTER_API_KEY",
    "TOGETHER_API_KEY",
    "FIREWORKS_API_KEY",
    "NOVITA_API_KEY",
}
PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def nothing_configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No key, setting or proxy of the developer's machine reaches a test, nor a process that a test starts."""
    with pytest.MonkeyPatch.context() as environment:
        for name in list(os.environ):
            if name.startswith("KIMI_") or name in KEYS or name.upper() in PROXIES:
                environment.delenv(name)
        environment.setenv("KIMI_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True)
def data_dir(nothing_configured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's runs and conversations are kept: a folder that is not there yet, as for a new user."""
    folder = tmp_path / "data"
    monkeypatch.setenv("KIMI_DATA_DIR", str(folder))
    return folder
