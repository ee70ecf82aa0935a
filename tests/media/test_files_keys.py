"""Key and password files are refused by name and by content, even when they are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimi_mcp.errors import PathRefused
from kimi_mcp.media import walk
from kimi_mcp.media.files import open_within
from kimi_mcp.media.roots import find_roots


@pytest.fixture(params=["by descriptor", "by path"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "BY_DESCRIPTOR", request.param == "by descriptor")


def write(root: Path, name: str, content: bytes) -> Path:
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def read(root: Path, name: str) -> bytes:
    with open_within(name, find_roots(str(root), working=str(root))) as file:
        return file.read_all(1000)


def refusal(root: Path, name: str) -> str:
    with pytest.raises(PathRefused) as refused:
        read(root, name)
    assert str(root) not in refused.value.message + refused.value.fix
    return refused.value.message


KEYS = [".env", ".env.local", ".ENV", "prod.env", ".envrc", "id_rsa", "id_ed25519_work", "ID_RSA.bak", "server.pem",
        "tls.key", "cert.p12", "cert.pfx", "vault.kdbx", ".netrc", "_netrc", ".npmrc", ".pypirc", "credentials",
        ".credentials.json", "credentials.json", "terraform.tfstate", "terraform.tfstate.backup", ".git-credentials",
        "service-account-prod.json", "service_account.json", ".aws/config", ".ssh/config", ".ssh/known_hosts",
        ".gnupg/trustdb.gpg", ".kube/config", ".docker/config.json", ".git/config", "\uff0eenv",
        ".e\u200bnv", ".env."]  # fmt: skip
HARMLESS = [".env.example", ".env.sample", ".env.local.template", "id_rsa.pub", ".ssh/id_ed25519.pub", "environment.py",
            "keys.py", "credentials.py", "monkey", "config.json", "pemmican.txt"]  # fmt: skip


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", KEYS)
def test_a_key_or_password_file_is_refused_even_when_named(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, b"TOKEN=1")
    said = refusal(tmp_path, name)
    assert "holds keys or passwords" in said
    assert "TOKEN" not in said
    path.unlink()
    assert refusal(tmp_path, name) == said, "not even whether it exists is told"


@pytest.mark.parametrize("name", HARMLESS)
def test_a_name_that_only_resembles_one_is_read(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, b"TOKEN=")
    assert read(tmp_path, name) == b"TOKEN="


def test_a_root_within_a_key_folder_gives_nothing_away(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "notes").write_text("x")
    with pytest.raises(PathRefused, match="keys or passwords"):
        open_within("notes", find_roots(str(tmp_path / ".ssh")))


PEM = "-----BEGIN {}PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END {}PRIVATE KEY-----\n"
KEY_TEXTS = [PEM.format(kind, kind).encode() for kind in ("", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ")] + [
    b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n",
    b"\xef\xbb\xbf \r\n" + PEM.format("", "").encode(),
    PEM.format("", "").encode("utf-16"),
    b"\xfe\xff" + PEM.format("", "").encode("utf-16-be"),
    b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n" + PEM.format("", "").encode(),
    b"Bag Attributes\n    friendlyName: x\n" + PEM.format("", "").encode(),
    b"PuTTY-User-Key-File-3: ssh-ed25519\n",
    b"# created: 2026-01-01T00:00:00Z\n# public key: age1\nAGE-SECRET-KEY-1ABC\n",
    b'{"type": "service_account", "private_key": "x"}',
]


@pytest.mark.parametrize("content", KEY_TEXTS)
def test_a_private_key_is_known_by_its_content_whatever_its_name(content: bytes, tmp_path: Path) -> None:
    write(tmp_path, "notes.txt", content)
    assert "holds keys or passwords" in refusal(tmp_path, "notes.txt")


def test_what_only_mentions_a_key_or_holds_a_certificate_is_read(tmp_path: Path) -> None:
    for content in (
        'HEADER = "-----BEGIN PRIVATE KEY-----"\n',
        "-----BEGIN CERTIFICATE-----\nMIIB\n",
        "# created: today\n",
    ):
        write(tmp_path, "notes.txt", content.encode())
        assert read(tmp_path, "notes.txt") == content.encode()
