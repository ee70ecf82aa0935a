"""Key and password files are refused by name and by content, even when they are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimi_mcp.cli.install import load_hosts
from kimi_mcp.core.errors import PathRefused
from kimi_mcp.media.files import open_file
from kimi_mcp.media.roots import find_roots
from tests.media.ways import WAYS, opened


def write(root: Path, name: str, content: bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read(root: Path, name: str, way: str = "by descriptor") -> bytes:
    roots = opened(find_roots(str(root), working=str(root)), way)
    with open_file(roots.resolve(name)) as file:
        return file.read_at(0, 1000)


def refusal(root: Path, name: str, way: str = "by descriptor") -> str:
    with pytest.raises(PathRefused) as refused:
        read(root, name, way)
    assert str(root) not in refused.value.message + refused.value.fix
    return refused.value.message


KEYS = [".env", ".env.local", ".ENV", "prod.env", ".envrc", "id_rsa", "id_ed25519_work", "ID_RSA.bak", "server.pem",
        "tls.key", "cert.p12", "cert.pfx", "vault.kdbx", ".netrc", "_netrc", ".npmrc", ".pypirc", "credentials",
        ".credentials.json", "credentials.json", "terraform.tfstate", "terraform.tfstate.backup", ".git-credentials",
        "service-account-prod.json", "service_account.json", ".aws/config", ".ssh/config", ".ssh/known_hosts",
        ".gnupg/trustdb.gpg", ".kube/config", ".docker/config.json", ".git/config", "\uff0eenv",
        ".e\u200bnv", ".env.",
        "mcp.json", ".mcp.json", ".cursor/mcp.json", ".vscode/mcp.json", ".claude.json", ".claude.json.bak",
        ".dev.vars", ".dev.vars.production", ".flaskenv", "#.env#", ".#.env", ".env~", ".pgpass.bak", ".pgpass.old.1",
        "credentials.tfrc.json", "auth.json", "secret.json", "secret.txt", "secrets.yaml", "token.json", "tokens.json",
        "Tokens.JSON", ".netrc~",
        "passwords.csv", "password.txt", ".vault_pass", "vault-password.txt", "api_keys.json", "rootkey.csv",
        ".codex/auth.json", ".mcp.json.swp", "mcp.json.before-kimi-mcp", ".m2/settings.xml"]  # fmt: skip
HARMLESS = [".env.example", ".env.sample", ".env.local.template", "id_rsa.pub", ".ssh/id_ed25519.pub", "environment.py",
            "keys.py", "credentials.py", "monkey", "config.json", "pemmican.txt", "tokens.py", "authors.json",
            "token_count.json", "tokenizer.json", "tokens.css", "auth.ts", "oauth.json", "secretary.json", "secret.py",
            "passwords.md", "mcp.json.example", ".env.example.bak", "mcp_server.json", "settings.json",
            "config.toml", "notes.bak", "#notes#", "vault_passage.txt", "src/config.yaml"]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", KEYS)
def test_a_key_or_password_file_is_refused_even_when_named(name: str, tmp_path: Path, way: str) -> None:
    path = write(tmp_path, name, b"TOKEN=1")
    message = refusal(tmp_path, name, way)
    assert "holds keys or passwords" in message
    assert "TOKEN" not in message
    path.unlink()
    assert refusal(tmp_path, name, way) == message, "not even whether it exists is shown"


@pytest.mark.parametrize("name", HARMLESS)
def test_a_name_that_only_resembles_one_is_read(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, b"TOKEN=")
    assert read(tmp_path, name) == b"TOKEN="


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", sorted({place for host in load_hosts().values() for system in host.places.values()
                                          for place in system}))  # fmt: skip
def test_the_settings_of_every_known_host_are_refused_wherever_they_lie(place: str, tmp_path: Path, way: str) -> None:
    for name in (place.split("/", 1)[1], place.split("/", 1)[1] + ".before-kimi-mcp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
        assert "holds keys or passwords" in refusal(tmp_path, name, way)


def test_a_root_within_a_key_folder_gives_nothing_away(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "notes").write_text("x")
    with pytest.raises(PathRefused, match="keys or passwords"):
        open_file(find_roots(str(tmp_path / ".ssh")).resolve("notes"))


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


BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n"
WHOLE = "-----BEGIN {0}PRIVATE KEY-----\n" + BODY * 3 + "-----END {0}PRIVATE KEY-----\n"
WITHIN = {
    "behind prose": "Our key, keep it safe:\n\n" + WHOLE.format(""),
    "far into a log": "a line of the log\n" * 60_000 + WHOLE.format("RSA "),
    "at the border of two pieces": "x" * (256 * 1024 - 20) + "\n" + WHOLE.format("OPENSSH "),
    "indented, as in YAML": "tls:\n  key: |\n" + "".join(f"    {line}\n" for line in WHOLE.format("EC ").splitlines()),
    "on one line, as in JSON": '{"key": "' + WHOLE.format("").replace("\n", "\\n") + '"}',
    "in source code": "KEY = (\n" + "".join(f'    "{line}\\n"\n' for line in WHOLE.format("").splitlines()) + ")\n",
    "encrypted, with its headers": "x\n"
    + WHOLE.format("RSA ").replace("-----\nM", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0AF1\n\nM", 1),
    "of age": "the key: AGE-SECRET-KEY-1" + "QL3Z7HJY54PW3HYWW5AYYFG7ZQGVC7W3J2ELW8ZMRJ2KG5SFN9AQ" + "0123\n",
}


@pytest.mark.parametrize("content", WITHIN.values(), ids=WITHIN)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_private_key_is_found_anywhere_in_a_text(content: str, encoding: str, tmp_path: Path) -> None:
    write(tmp_path, "notes.txt", content.encode(encoding))
    assert "holds keys or passwords" in refusal(tmp_path, "notes.txt")


def test_what_only_mentions_a_key_or_holds_a_certificate_is_read(tmp_path: Path) -> None:
    for content in (
        'HEADER = "-----BEGIN PRIVATE KEY-----"\n',
        "-----BEGIN CERTIFICATE-----\nMIIB\n",
        "# created: today\n",
        "The file looks like this:\n\n-----BEGIN PRIVATE KEY-----\nMIIEvQ…\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\n" + BODY * 3 + "-----END PUBLIC KEY-----\n",
    ):
        write(tmp_path, "notes.txt", content.encode())
        assert read(tmp_path, "notes.txt") == content.encode()
